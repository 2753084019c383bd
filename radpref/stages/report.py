"""The report stage: everything of a run on one page."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING

from radpref.config import Recipe
from radpref.rooms import evaluation, mining, report, training
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage, Whole
from radpref.stages import ports
from radpref.stages.answers import texts_of
from radpref.stages.evaluate import MAIN
from radpref.stages.identities import READER

if TYPE_CHECKING:
    from radpref.report import ReportData

SHOWN = 5000
"""Candidates and pairs whose scores are drawn; of more, the first so many, and the page says so."""


def _report(context: Context) -> Outcome:
    """Write report.html from the tables."""
    html = report.render(_data(context))
    path = context.publish("report.html", html)
    return Outcome(f"{path}, {len(html) / 1e6:.1f} MB", finished=context.limit is None)


_OF_JUDGE = {"green": "green_mean", "lc-green": "lc-green_mean", "text": "text_mean", "answer": "vqa_accuracy_all"}
"""Judge to the metric of its mean score on the test studies."""
_TRUTH, _REFERENCE = (f"finding_f1_micro_{source}_uncertain-positive" for source in ("truth", "reference"))


def _measures(recipe: Recipe, tested: Collection[str]) -> tuple[str, str, list[str]]:
    """What the verdict stands on: the metric that the run was selected by, one that it was not, and what to say of it.

    The second is F1 against the truth, where it is known; else GREEN, where no judge of its kind was asked; else F1
    against the references' findings. Questions have one measure, and none beside it.
    """
    by = recipe.select.by
    main = _OF_JUDGE.get(by, MAIN[recipe.task.kind][0])
    told = [] if by in _OF_JUDGE else [f"The judge that selected, {by}, was not asked about the test studies; the "
                                       "verdict is about another measure."]  # fmt: skip
    if recipe.task.kind != "report":
        return main, "", told
    green = any("green" in name for name in (by, recipe.judge.name, main))
    names = [_TRUTH, *([] if green else ["green_mean"]), _REFERENCE]
    return main, next((name for name in names if name in tested), ""), told


def _data(context: Context) -> ReportData:
    """Everything that stands in the report."""
    recipe, about, choice = context.config, context.about(), context.fact(ports.CHOICE)
    made, details = context.counts(ports.PAIRS), context.counts(ports.METRICS).get("details", {})
    mined = context.counts(ports.MINED).get("summary")
    sampled = recipe.method == "chexalign"  # elsewhere completions are greedy answers
    most = (recipe.report.studies, recipe.report.pairs) if context.limit is None else (context.limit, context.limit)
    questions, pairs = list(islice(context.read(ports.TEST), most[0])), list(islice(context.read(ports.PAIRS), most[1]))
    systems, splits = (choice.before.id, ports.AFTER), (ports.TRAIN, ports.VALIDATION, ports.TEST)
    before, after = (texts_of(context.read(ports.PREDICTED), questions, name) for name in systems)
    judged = context.read(ports.TEST_JUDGEMENTS)
    main, untouched, unmeasured = _measures(recipe, {row.name for row in context.read(ports.COMPARISONS)})
    judge = "green" if recipe.task.kind == "report" else "answer"
    return report.ReportData(
        title=f"{report.TITLES[recipe.method]} on {recipe.data.source}",
        source=recipe.data.source,
        run=str(about["name"]),
        created=str(about["written"]),
        command="radpref " + " ".join(about["command"]),
        before=choice.before.id,
        after=ports.AFTER,
        control=ports.CONTROL,
        baselines=(*evaluation.BASELINES, *evaluation.VQA_BASELINES),
        main=main,
        untouched=untouched,
        metrics=list(context.read(ports.METRICS)),
        comparisons=list(context.read(ports.COMPARISONS)),
        labels={name: [evaluation.LabelScore(**row) for row in one["labels"]] for name, one in details.items()},
        errors={name: one["errors"] for name, one in details.items()},
        unscored={name: one["unscored"] for name, one in details.items()},
        recipe=report.settings(recipe, about["provenance"]),
        facts={"versions": about["versions"], "machine": about["machine"], "seconds": about["seconds"]},
        counts=[report.split_count(port.name, context.read(port)) for port in splits],
        quarantined=list(context.quarantined()),
        training=[report.TrainingLog(name, training.history(folder)) for name, folder in context.trainings()],
        headroom=context.fact(ports.HEADROOM) if context.has(ports.HEADROOM) else None,
        mining=mining.Summary.model_validate(mined) if mined else None,
        candidates=list(islice(context.read(ports.JUDGEMENTS), SHOWN)) if sampled else [],
        statistics=report.PairStatistics(
            questions=len(context.read(ports.TRAIN)),
            candidates=len(context.read(ports.COMPLETIONS)) if sampled else 0,
            pairs=len(context.read(ports.PAIRS)),
            dropped=made.get("dropped", {}),
            unscored=made.get("unscored", {}),
        ),
        scored_pairs=list(islice(context.read(ports.PAIRS), SHOWN)),
        selection=report.choices(choice.tried, choice.chosen, choice.before),
        selected_by=choice.by,
        studies=list(report.study_views(questions, (before, after), judged, systems, judge)),
        pairs=report.pair_views(pairs, context.read(ports.TRAIN)),
        notes=[*about["notes"], *unmeasured],
    )


STAGE = Stage(
    name="report",
    help="Write report.html.",
    work=Whole(_report),
    reads=(ports.TEST, ports.METRICS, ports.COMPARISONS, ports.PREDICTED, ports.TEST_JUDGEMENTS, ports.CHOICE),
    may_read=(
        ports.TRAIN,
        ports.VALIDATION,
        ports.COMPLETIONS,
        ports.JUDGEMENTS,
        ports.PAIRS,
        ports.MINED,
        ports.HEADROOM,
    ),
    config=("*",),
    identities=(READER,),
    rooms=("report", "findings"),
)
