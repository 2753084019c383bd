"""The evaluate stage: every system on the held-out patients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from radpref.records import Comparison, Grounded, Judgement, Metric, Question
from radpref.rooms import evaluation, grounding
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage, Whole
from radpref.stages.answers import texts_of
from radpref.stages.identities import FREE_JUDGES, READER
from radpref.stages.ports import (
    AFTER,
    BEFORE,
    COMPARISONS,
    GROUNDED,
    METRICS,
    PREDICTED,
    STUDIES,
    TEST,
    TEST_JUDGEMENTS,
    TRAIN,
    TWINS,
)
from radpref.stages.select import shown

if TYPE_CHECKING:
    from radpref.evaluation import Measured

MAIN = {"report": ("green_mean", "green", "studies"), "questions": ("vqa_accuracy_all", "accuracy", "questions")}
"""Of each kind of task: the main metric, what it is called on the terminal, and what it is measured on."""


def _evaluate(context: Context) -> Outcome:
    """Measure base, sft, aligned, the control and the trivial baselines on the held-out patients."""
    recipe = context.config
    questions = list(context.read(TEST))[: context.limit]
    measured = _measured(context, questions)
    resamples, seed = recipe.evaluate.resamples, recipe.run.seed
    others = [BEFORE, *(name for name in measured if name not in (BEFORE, AFTER))]
    heading = evaluation.headline(row.name for row in measured[AFTER].metrics)
    comparisons = [
        row
        for name in others
        for row in evaluation.compare(measured[name], measured[AFTER], metrics=heading, resamples=resamples, seed=seed)
    ]
    metrics = [row for one in measured.values() for row in one.metrics]
    seen, changed = _grounding(context)
    metrics += seen
    comparisons += changed
    context.write(METRICS, metrics)
    context.write(COMPARISONS, comparisons)
    context.write(TEST_JUDGEMENTS, _judgements(measured))
    counts = context.counts(STUDIES).get("studies", {})
    content = evaluation.metrics_json(metrics, comparisons, limited=context.limit is not None, counts=counts)
    context.publish("metrics.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    main, title, what = MAIN[recipe.task.kind]
    before, after = measured[BEFORE].value(main), measured[AFTER].value(main)
    return Outcome(
        f"{len(questions)} {what}; {title} {shown(before)} before, {shown(after)} after",
        counts={"systems": list(measured), "details": _details(measured) if recipe.task.kind == "report" else {}},
        finished=context.limit is None,
    )


def _measured(context: Context, questions: Sequence[Question]) -> dict[str, Measured]:
    """Every system and trivial baseline, measured as reports or as answers to questions."""
    recipe = context.config
    names = list(dict.fromkeys(row.system for row in context.read(PREDICTED)))
    twins = list(context.read(TWINS))
    asked = [*questions, *twins]
    said = {name: texts_of(iter(context.read(PREDICTED)), asked, name) for name in names}
    train, seed, resamples = context.read(TRAIN), recipe.run.seed, recipe.evaluate.resamples
    if recipe.task.kind == "report":
        own = {name: {question.id: texts[question.id] for question in questions} for name, texts in said.items()}
        texts = own | evaluation.baselines(train, questions, seed)
        return {
            name: evaluation.measure(name, questions, answers, resamples=resamples, seed=seed)
            for name, answers in texts.items()
        }
    measured = {
        name: evaluation.measure_questions(name, questions, texts, controls=twins, resamples=resamples, seed=seed)
        for name, texts in said.items()
    }
    return measured | {
        name: evaluation.measure_questions(name, questions, answers, resamples=resamples, seed=seed)
        for name, answers in evaluation.question_baselines(train, questions).items()
    }


def _judgements(measured: Mapping[str, Measured]) -> Iterator[Judgement]:
    """What judges say of the answers of each system; ids tell system, judge and question."""
    for name, one in measured.items():
        for judged in one.judgements.values():
            for row in judged.values():
                yield row.model_copy(update={"id": f"{name}:{row.judge}:{row.id}"})


def _details(measured: Mapping[str, Measured]) -> dict[str, object]:
    return {
        name: {
            "errors": evaluation.error_totals(one),
            "unscored": one.unscored(),
            "labels": [vars(label) for label in evaluation.by_label(one)],
        }
        for name, one in measured.items()
    }


# ------------------------------------------------------------------------------------------ grounding


def _grounding(context: Context) -> tuple[list[Metric], list[Comparison]]:
    """What stands in the table of results of grounding: the causal test, and attention against the masks."""
    rows: list[Grounded] = list(context.read(GROUNDED))
    if not rows:
        return [], []
    drawn = {"resamples": context.config.evaluate.resamples, "seed": context.config.run.seed}
    drops = {name: [drop for row in rows if row.system == name for drop in row.drops] for name in _systems(rows)}
    metrics = grounding.look_metrics([look for row in rows for look in row.looks], **drawn)
    metrics += grounding.drop_metrics([drop for some in drops.values() for drop in some], **drawn)
    compared = [
        grounding.compare_effects(drops[name], drops[AFTER], resamples=drawn["resamples"])
        for name in drops
        if name != AFTER
    ]
    return _headline(metrics, list(drops)), [row for row in compared if row]


def _systems(rows: Sequence[Grounded]) -> list[str]:
    return list(dict.fromkeys(row.system for row in rows))


def _headline(metrics: Sequence[Metric], systems: Sequence[str]) -> list[Metric]:
    """The causal test, and attention relative to that for a general question."""
    causal = ("effect_words", "won_words", "drop_words", "control_words")
    looked = {"ratio_mean": "attention_ratio", "hit_mean": "attention_hit"}
    rows = [row for row in metrics if row.system in systems and row.name in causal]
    for system in systems:
        for row in metrics:
            if row.system == f"{system}: relative" and row.name in looked:
                name = looked[row.name]
                rows.append(row.model_copy(update={"id": f"{system}/{name}", "system": system, "name": name}))
    return rows


STAGE = Stage(
    name="evaluate",
    help="Measure every system on the held-out patients.",
    work=Whole(_evaluate),
    reads=(TRAIN, TEST, TWINS, PREDICTED),
    may_read=(STUDIES, GROUNDED),
    writes=(METRICS, COMPARISONS, TEST_JUDGEMENTS),
    config=("task.kind", "evaluate.resamples", "run.seed"),
    identities=(READER, FREE_JUDGES),
    rooms=("evaluation", "judges", "findings", "grounding"),
)
