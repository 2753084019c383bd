"""The report stage: everything of a run on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from radpref.config import flatten, helps
from radpref.records import Judgement, Question, System
from radpref.rooms import evaluation, findings, mining, report, training
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage, TableOf, Whole
from radpref.stages.answers import texts_of
from radpref.stages.evaluate import MAIN
from radpref.stages.identities import READER
from radpref.stages.ports import (
    AFTER,
    BEFORE,
    CHOICE,
    COMPARISONS,
    COMPLETIONS,
    CONTROL,
    JUDGEMENTS,
    METRICS,
    MINED,
    PAIRS,
    PREDICTED,
    TEST,
    TEST_JUDGEMENTS,
    TRAIN,
    VALIDATION,
)

if TYPE_CHECKING:
    from radpref.report import PairView, ReportData, SplitCount, StudyView

TITLES = {
    "chexalign": "CheXalign",
    "chexpo": "CheXPO",
    "firempo": "FiRe-MPO",
    "grpo": "GRPO",
    "pairs": "Pairs made elsewhere",
}
SHOWN = 5000
"""Candidates and pairs whose scores are drawn; of more, the first so many, and the page says so."""


def _report(context: Context) -> Outcome:
    """Write report.html from the tables."""
    html = report.render(_data(context))
    path = context.publish("report.html", html)
    return Outcome(f"{path}, {len(html) / 1e6:.1f} MB", finished=context.limit is None)


def _data(context: Context) -> ReportData:
    """Everything that stands in the report."""
    recipe, about, choice = context.config, context.about(), context.fact(CHOICE)
    most = (recipe.report.studies, recipe.report.pairs) if context.limit is None else (context.limit, context.limit)
    made, details = context.counts(PAIRS), context.counts(METRICS).get("details", {})
    mined = context.counts(MINED).get("summary")
    sampled = recipe.method == "chexalign"  # elsewhere completions are greedy answers
    texts = helps()
    return report.ReportData(
        title=f"{TITLES[recipe.method]} on {recipe.data.source}",
        source=recipe.data.source,
        run=str(about["name"]),
        created=str(about["written"]),
        command="radpref " + " ".join(about["command"]),
        before=BEFORE,
        after=AFTER,
        control=CONTROL,
        baselines=(*evaluation.BASELINES, *evaluation.VQA_BASELINES),
        main=MAIN[recipe.task.kind][0],
        metrics=list(context.read(METRICS)),
        comparisons=list(context.read(COMPARISONS)),
        labels={name: [evaluation.LabelScore(**row) for row in one["labels"]] for name, one in details.items()},
        errors={name: one["errors"] for name, one in details.items()},
        unscored={name: one["unscored"] for name, one in details.items()},
        recipe=[
            report.Setting(key, str(value), about["provenance"].get(key, "default"), texts.get(key, ""))
            for key, value in flatten(recipe.model_dump())
        ],
        facts={"versions": about["versions"], "machine": about["machine"], "seconds": about["seconds"]},
        counts=[_counted(context, split, port) for split, port in _SPLITS],
        quarantined=list(context.quarantined()),
        training=[report.TrainingLog(name, training.history(folder)) for name, folder in context.trainings()],
        mining=mining.Summary.model_validate(mined) if mined else None,
        candidates=list(islice(context.read(JUDGEMENTS), SHOWN)) if sampled else [],
        statistics=report.PairStatistics(
            questions=len(context.read(TRAIN)),
            candidates=len(context.read(COMPLETIONS)) if sampled else 0,
            pairs=len(context.read(PAIRS)),
            dropped=made.get("dropped", {}),
            unscored=made.get("unscored", {}),
        ),
        scored_pairs=list(islice(context.read(PAIRS), SHOWN)),
        selection=[_choice(row, row.id == choice.chosen.id) for row in (choice.before, *choice.tried)],
        selected_by=choice.by,
        studies=list(_studies(context, most[0])),
        pairs=list(_pairs(context, most[1])),
        notes=about["notes"],
    )


_SPLITS = (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))


def _counted(context: Context, split: str, port: TableOf[Question]) -> SplitCount:
    patients: set[int] = set()
    questions = images = 0
    for question in context.read(port):
        patients.add(hash(question.patient))
        questions, images = questions + 1, images + len(question.images)
    return report.SplitCount(split, len(patients), questions, images)


def _choice(system: System, chosen: bool) -> report.Choice:
    name = "sft, before alignment" if system.id == BEFORE else system.id
    return report.Choice(name, system.beta or 0.0, system.scores, chosen)


def _studies(context: Context, most: int) -> Iterator[StudyView]:
    """The first held-out studies, with what both models wrote and what the judge found."""
    questions = list(islice(context.read(TEST), most))
    judge = "green" if context.config.task.kind == "report" else "answer"
    said = {name: texts_of(iter(context.read(PREDICTED)), questions, name) for name in (BEFORE, AFTER)}
    judged: dict[str, dict[str, Judgement]] = {BEFORE: {}, AFTER: {}}
    for row in context.read(TEST_JUDGEMENTS):
        name, _, rest = row.id.partition(":")
        if name in judged and rest.startswith(f"{judge}:"):
            judged[name][row.question] = row
    for question in questions:
        before, after = said[BEFORE][question.id], said[AFTER][question.id]
        yield report.StudyView(
            question=question,
            before=before,
            after=after,
            before_judgement=judged[BEFORE].get(question.id),
            after_judgement=judged[AFTER].get(question.id),
            reference_findings=findings.read(question.reference),
            before_findings=findings.read(before),
            after_findings=findings.read(after),
        )


def _pairs(context: Context, most: int) -> Iterator[PairView]:
    """The first pairs, each with its question's reference; pairs that were made elsewhere have none."""
    pairs = list(islice(context.read(PAIRS), most))
    wanted = Counter(pair.question for pair in pairs)
    references: dict[str, Question] = {q.id: q for q in context.read(TRAIN) if q.id in wanted}
    for pair in pairs:
        question = references.get(pair.question)
        yield report.PairView(pair, question.reference if question else "")


STAGE = Stage(
    name="report",
    help="Write report.html.",
    work=Whole(_report),
    reads=(TEST, METRICS, COMPARISONS, PREDICTED, TEST_JUDGEMENTS, CHOICE),
    may_read=(TRAIN, VALIDATION, COMPLETIONS, JUDGEMENTS, PAIRS, MINED),
    config=("*",),
    identities=(READER,),
    rooms=("report", "findings"),
)
