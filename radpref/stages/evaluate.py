"""The evaluate stage: every system on the held-out patients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from radpref import plugins
from radpref.records import Comparison, Judgement, Metric, Question
from radpref.rooms import evaluation, grounding
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage, Whole
from radpref.stages import ports
from radpref.stages.answers import texts_of
from radpref.stages.identities import ADDED_METRICS, FREE_JUDGES, READER
from radpref.stages.ports import AFTER, ALL_TRAIN, GROUNDED, PREDICTED, STUDIES, STYLED, TEST, TUNED, TWINS
from radpref.stages.select import shown

if TYPE_CHECKING:
    from radpref.evaluation import Measured

MAIN = {"report": ("green_mean", "green", "studies"), "questions": ("vqa_accuracy_all", "accuracy", "questions")}
"""Of each kind of task: the main metric, what it is called on the terminal, and what it is measured on."""


def _evaluate(context: Context) -> Outcome:
    """Measure models before and after alignment, the control and the trivial baselines on the held-out patients."""
    kind, resamples, seed = context.config.task.kind, context.config.evaluate.resamples, context.config.run.seed
    questions, twins = list(context.read(TEST))[: context.limit], list(context.read(TWINS))
    systems = dict.fromkeys(row.system for row in context.read(PREDICTED))
    said = {name: texts_of(context.read(PREDICTED), [*questions, *twins], name) for name in systems}
    measured = evaluation.measure_all(
        kind,
        said,
        context.read(ALL_TRAIN),
        questions,
        twins,
        resamples=resamples,
        seed=seed,
        normals=context.config.judge.normals,
    )
    start = ports.before(context.fact(TUNED))
    heading = evaluation.headline(row.name for row in measured[AFTER].metrics)
    comparisons = [
        row
        for before, after in compared(list(measured), start)
        for row in evaluation.compare(
            measured[before], measured[after], metrics=heading, resamples=resamples, seed=seed
        )
    ]
    seen, changed = grounding.tabled(list(context.read(GROUNDED)), AFTER, resamples=resamples, seed=seed)
    worded, reworded = _styled(context, questions, start)
    metrics = [
        *(row for one in measured.values() for row in one.metrics), *_added(context, said, questions), *seen, *worded
    ]  # fmt: skip
    comparisons += [*changed, *reworded]
    context.write(ports.METRICS, metrics)
    context.write(ports.COMPARISONS, comparisons)
    columns = {one.columns: evaluation.counted(evaluation.kept(row.name for row in one.metrics), one.columns)
               for one in measured.values()}  # fmt: skip
    context.write(
        ports.BY_PATIENT,
        (row for one in measured.values() for row in evaluation.by_patient(one, columns[one.columns])),
    )
    context.write(ports.TEST_JUDGEMENTS, _judgements(measured))
    counts = context.counts(STUDIES).get("studies", {})
    content = evaluation.metrics_json(metrics, comparisons, limited=context.limit is not None, counts=counts)
    context.publish("metrics.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    main, title, what = MAIN[kind]
    before, after = measured[start].value(main), measured[AFTER].value(main)
    told = {name: evaluation.details(one) for name, one in measured.items()} if kind == "report" else {}
    return Outcome(
        f"{len(questions)} {what}; {title} {shown(before)} before, {shown(after)} after",
        counts={
            "systems": list(measured),
            "columns": list(dict.fromkeys(name for some in columns.values() for name in some)),
            "details": told,
        },
        finished=context.limit is None,
    )


def compared(systems: Sequence[str], start: str) -> list[tuple[str, str]]:
    """Which systems are held against which: all against the aligned one, and each way to answer against its like.

    Example:
        >>> compared(["sft", "aligned", "sft, drawn", "aligned, drawn", "normal"], "sft")
        [('sft', 'aligned'), ('normal', 'aligned'), ('sft, drawn', 'aligned, drawn')]
    """
    likes = [(name, AFTER + name.removeprefix(start)) for name in systems if f"{name}, ".startswith(f"{start}, ")]
    alike = [(name, after) for name, after in likes if after in systems]
    paired = {name for both in alike for name in both}
    others = [(name, AFTER) for name in systems if name not in paired]
    return [alike[0], *others, *alike[1:]]


def _added(context: Context, said: Mapping[str, Mapping[str, str]], questions: Sequence[Question]) -> Iterator[Metric]:
    """Metrics that other packages add, of every system: means over the questions, with intervals over patients."""
    resamples, seed = context.config.evaluate.resamples, context.config.run.seed
    for system, texts in said.items():
        for name in plugins.found("metrics"):
            values = plugins.load("metrics", name)(questions, [texts[question.id] for question in questions])
            rows = [grounding.Value(q.patient, value) for q, value in zip(questions, values, strict=True)]
            yield grounding.mean_metric(system, name, rows, resamples=resamples, seed=seed)


def _styled(context: Context, questions: Sequence[Question], start: str) -> tuple[list[Metric], list[Comparison]]:
    """Nats a token of each system's answers under the model before alignment, and by how much they differ."""
    resamples, seed, name = context.config.evaluate.resamples, context.config.run.seed, evaluation.STYLE
    patients = {question.id: question.patient for question in questions}
    rows = [row for row in context.read(STYLED) if row.question in patients]
    found = {
        system: {row.question: row.nats / row.tokens for row in rows if row.system == system}
        for system in dict.fromkeys(row.system for row in rows)
    }
    metrics = [
        grounding.mean_metric(
            system, name, [grounding.Value(patients[key], value) for key, value in own.items()],
            resamples=resamples, seed=seed,
        )
        for system, own in found.items()
    ]  # fmt: skip
    pairs = compared(list(found), start) if found else []
    tests = [
        grounding.paired_mean(
            name, (before, found[before]), (after, found[after]), patients, resamples=resamples, seed=seed
        )
        for before, after in pairs
    ]
    return metrics, [row for row in tests if row]


def _judgements(measured: Mapping[str, Measured]) -> Iterator[Judgement]:
    """What judges say of the answers of each system; ids tell system, judge and question."""
    for name, one in measured.items():
        for judged in one.judgements.values():
            for row in judged.values():
                yield row.model_copy(update={"id": f"{name}:{row.judge}:{row.id}"})


STAGE = Stage(
    name="evaluate",
    help="Measure every system on the held-out patients.",
    work=Whole(_evaluate),
    reads=(ALL_TRAIN, TEST, TWINS, PREDICTED, TUNED),
    may_read=(STUDIES, GROUNDED, STYLED),
    writes=(ports.METRICS, ports.COMPARISONS, ports.BY_PATIENT, ports.TEST_JUDGEMENTS),
    config=("task.kind", "evaluate.resamples", "run.seed"),
    identities=(READER, FREE_JUDGES, ADDED_METRICS),
    rooms=("evaluation", "judges", "findings", "grounding"),
)
