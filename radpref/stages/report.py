"""The report stage: everything of a run on one page."""

from __future__ import annotations

from typing import Any

from radpref import config
from radpref.config import ReportSection
from radpref.files import content_key, write_atomically
from radpref.records import Comparison, Completion, Judgement, Metric, Pair, Quarantined, Question
from radpref.run.folder import Run
from radpref.stages.common import AFTER, BEFORE, CONTROL, outcome, pairs_from
from radpref.stages.evaluate import MAIN

TITLES = {
    "chexalign": "CheXalign",
    "chexpo": "CheXPO",
    "firempo": "FiRe-MPO",
    "grpo": "GRPO",
    "pairs": "Pairs made elsewhere",
}


def report(run: Run, limit: int | None = None) -> str:
    """Write report.html from the tables."""
    from radpref.report import render

    if limit is not None:
        section = run.recipe.report.model_copy(update={"studies": limit, "pairs": limit})
    else:
        section = run.recipe.report
    html = render(_report_data(run, section))
    write_atomically(run.path("report.html"), html)
    run.finish("report", content_key(html))
    return f"{run.path('report.html')}, {len(html) / 1e6:.1f} MB"


def _report_data(run: Run, section: ReportSection) -> Any:
    """Everything that stands in the report, read from the run folder."""
    from radpref.evaluation import BASELINES, VQA_BASELINES, LabelScore
    from radpref.findings import read
    from radpref.mining import Summary
    from radpref.report import (
        Choice,
        PairStatistics,
        PairView,
        ReportData,
        Setting,
        SplitCount,
        StudyView,
        TrainingLog,
    )
    from radpref.training import history

    recipe = run.recipe
    questions = {question.id: question for question in run.rows("studies", "questions", Question)}
    details = run.read_json("evaluate", "details.json")
    trained = outcome(run) or {}
    chosen, tried, before = trained["chosen"], trained["tried"], trained["before"]

    studies_of_split: dict[str, list[Question]] = {}
    for question in questions.values():
        studies_of_split.setdefault(question.split, []).append(question)
    counts = [
        SplitCount(split, len({q.patient for q in rows}), len(rows), sum(len(q.images) for q in rows))
        for split, rows in studies_of_split.items()
    ]

    texts = {
        name: {row.question: row.text for row in run.rows("evaluate", f"answers-{name}", Completion)}
        for name in (BEFORE, AFTER)
    }
    judged = {
        name: {
            row.question: row
            for row in run.rows("evaluate", f"judgements-{name}", Judgement)
            if row.judge == ("green" if recipe.task.kind == "report" else "answer")
        }
        for name in (BEFORE, AFTER)
    }
    views = [
        StudyView(
            question=question,
            before=texts[BEFORE].get(question.id, ""),
            after=texts[AFTER].get(question.id, ""),
            before_judgement=judged[BEFORE].get(question.id),
            after_judgement=judged[AFTER].get(question.id),
            reference_findings=read(question.reference),
            before_findings=read(texts[BEFORE].get(question.id, "")),
            after_findings=read(texts[AFTER].get(question.id, "")),
        )
        for question in studies_of_split["test"][: section.studies]
    ]

    pairs = run.rows(pairs_from(run), "pairs", Pair)
    statistics = run.read_json("pair", "statistics.json") or {"dropped": {}, "unscored": {}}
    logs = [("sft", run.path("sft", "training"))]
    logs += [
        (f"align, beta {one['beta']:g}", run.path("align", f"beta-{one['beta']:g}"))
        for one in (run.done("align") or {"runs": []})["runs"]
    ]
    logs.append(("grpo", run.path("grpo", "training")))
    quarantined = [
        row
        for path in sorted(run.folder.glob("*/*quarantined.jsonl"))
        for row in run.rows(path.parent.name, path.stem, Quarantined)
    ]
    mined = run.read_json("mine", "summary.json")
    helps = config.helps()
    about_run = run.read_json("run.json")
    return ReportData(
        title=f"{TITLES[recipe.method]} on {recipe.data.source}",
        source=recipe.data.source,
        run=run.folder.name,
        created=about_run["written"],
        command="radpref " + " ".join(about_run["command"]),
        before=BEFORE,
        after=AFTER,
        control=CONTROL,
        baselines=(*BASELINES, *VQA_BASELINES),
        main=MAIN[recipe.task.kind][0],
        metrics=run.rows("evaluate", "metrics", Metric),
        comparisons=run.rows("evaluate", "comparisons", Comparison),
        labels={name: [LabelScore(**label) for label in one["labels"]] for name, one in details.items()},
        errors={name: one["errors"] for name, one in details.items()},
        unscored={name: one["unscored"] for name, one in details.items()},
        recipe=[
            Setting(key, str(value), run.loaded.provenance.get(key, "default"), helps[key])
            for key, value in config.flatten(recipe.model_dump())
        ],
        facts={
            "versions": about_run["versions"],
            "machine": about_run["machine"],
            "seconds": {stage: f"{seconds:.1f}" for stage, seconds in run.seconds().items()},
        },
        counts=counts,
        quarantined=quarantined,
        training=[TrainingLog(name, history(folder)) for name, folder in logs if folder.exists()],
        mining=Summary.model_validate(mined) if mined else None,
        candidates=run.rows("judge", "judgements", Judgement),
        statistics=PairStatistics(
            questions=len(studies_of_split["train"]),
            candidates=len(run.rows("sample", "completions", Completion)),
            pairs=len(pairs),
            dropped=statistics["dropped"],
            unscored=statistics["unscored"],
        ),
        scored_pairs=pairs,
        selection=[
            Choice("sft, before alignment", 0.0, before),
            *(Choice(row["name"], row["beta"], row["scores"], row["name"] == chosen["name"]) for row in tried),
        ],
        selected_by=recipe.select.by,
        studies=views,
        pairs=[PairView(row, _reference(questions.get(row.question))) for row in pairs[: section.pairs]],
        notes=list(dict.fromkeys(event["text"] for event in run.events() if event["event"] == "note")),
    )


def _reference(question: Question | None) -> str:
    """The question's reference; pairs that were made elsewhere have none."""
    return question.reference if question else ""
