"""The evaluate stage: every system on the held-out patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radpref.config import ModelSection
from radpref.files import content_key
from radpref.records import Comparison, Judgement, Metric, Question
from radpref.run.folder import Run
from radpref.stages.answers import greedy
from radpref.stages.common import (
    AFTER,
    BEFORE,
    CONTROL,
    fine_tuned,
    located,
    outcome,
    print_of,
    questions_key,
    questions_of,
    shown,
)

if TYPE_CHECKING:
    from radpref.evaluation import Measured

MAIN = {"report": ("green_mean", "green", "studies"), "questions": ("vqa_accuracy_all", "accuracy", "questions")}
"""Of each kind of task: the main metric, what it is called on the terminal, and what it is measured on."""


def evaluate(run: Run, limit: int | None = None) -> str:
    """Measure base, sft, aligned, the control and the trivial baselines on the held-out patients."""
    from radpref import evaluation

    recipe = run.recipe
    questions = questions_of(run, "test")[:limit]
    systems = systems_of(run)
    length = recipe.sample.max_new_tokens
    prints = [fingerprint for _, fingerprint in systems.values()]
    grounded = (run.done("ground") or {}).get("key")
    key = content_key("evaluate", recipe.evaluate, length, recipe.run.seed, prints, questions_key(questions), grounded)
    if not run.begin("evaluate", key):
        return "up to date"
    altered = controls_of(run, questions)
    asked = [*questions, *altered]
    answers = {
        name: greedy(run, "evaluate", name.replace(" ", "-"), model, fingerprint, asked, recipe.evaluate.batch)
        for name, (model, fingerprint) in systems.items()
    }
    measured = _measured(run, questions, altered, answers)
    resamples, seed = recipe.evaluate.resamples, recipe.run.seed
    others = [BEFORE, *(name for name in measured if name not in (BEFORE, AFTER))]
    heading = evaluation.headline(row.name for row in measured[AFTER].metrics)
    comparisons = [
        row
        for name in others
        for row in evaluation.compare(measured[name], measured[AFTER], metrics=heading, resamples=resamples, seed=seed)
    ]
    metrics = [row for one in measured.values() for row in one.metrics]
    if run.done("ground"):
        metrics += run.rows("ground", "headline", Metric)
        comparisons += run.rows("ground", "comparisons", Comparison)
    run.table("evaluate", "metrics", Metric).write(metrics)
    run.table("evaluate", "comparisons", Comparison).write(comparisons)
    for name in systems:
        rows = [row for judged in measured[name].judgements.values() for row in judged.values()]
        rows = [row.model_copy(update={"id": f"{row.judge}:{row.id}"}) for row in rows]
        run.table("evaluate", f"judgements-{name.replace(' ', '-')}", Judgement).write(rows)
    run.write_json(
        {
            name: {
                "errors": evaluation.error_totals(one),
                "unscored": one.unscored(),
                "labels": [vars(label) for label in evaluation.by_label(one)],
            }
            for name, one in measured.items()
            if recipe.task.kind == "report"
        },
        "evaluate",
        "details.json",
    )
    run.write_json(
        evaluation.metrics_json(
            metrics, comparisons, limited=limit is not None, counts=(run.done("studies") or {})["counts"]
        ),
        "metrics.json",
    )
    if limit is None:
        run.finish("evaluate", key, systems=list(measured), metrics="./metrics.json")
    main, title, what = MAIN[recipe.task.kind]
    before, after = measured[BEFORE].value(main), measured[AFTER].value(main)
    return f"{len(questions)} {what}; {title} {shown(before)} before, {shown(after)} after"


def controls_of(run: Run, questions: Sequence[Question]) -> list[Question]:
    """The altered twins of the questions that the recipe asks for; none of reports."""
    from radpref import tasks

    wanted = run.recipe.evaluate.controls if run.recipe.task.kind == "questions" else ()
    twins: list[Question] = []
    if "negated" in wanted:
        twins += [twin for question in questions if (twin := tasks.negated(question)) is not None]
    if "swapped" in wanted:
        twins += tasks.swapped(questions, run.recipe.run.seed)
    if "blank" in wanted:
        twins += tasks.blanked(questions, run.path("evaluate", "blank"))
    return twins


def _measured(
    run: Run, questions: Sequence[Question], altered: Sequence[Question], answers: dict[str, dict[str, str]]
) -> dict[str, Measured]:
    """Every system and trivial baseline, measured as reports or as answers to questions."""
    from radpref import evaluation

    train, seed, resamples = questions_of(run, "train"), run.recipe.run.seed, run.recipe.evaluate.resamples
    if run.recipe.task.kind == "report":
        texts = answers | evaluation.baselines(train, questions, seed)
        return {
            name: evaluation.measure(name, questions, said, resamples=resamples, seed=seed)
            for name, said in texts.items()
        }
    measured = {
        name: evaluation.measure_questions(name, questions, said, controls=altered, resamples=resamples, seed=seed)
        for name, said in answers.items()
    }
    trivial = evaluation.question_baselines(train, questions)
    return measured | {
        name: evaluation.measure_questions(name, questions, said, resamples=resamples, seed=seed)
        for name, said in trivial.items()
    }


def systems_of(run: Run) -> dict[str, tuple[ModelSection, str]]:
    """The models that are measured, by name, with their fingerprints: base, sft, aligned, the control."""
    start, fingerprint = fine_tuned(run)
    systems: dict[str, tuple[ModelSection, str]] = {}
    if run.recipe.sft.enabled:
        systems["base"] = (run.recipe.model, print_of(run.recipe.model))
    systems[BEFORE] = (start, fingerprint)
    chosen = (outcome(run) or {})["chosen"]
    systems[AFTER] = (located(run, chosen["model"]), chosen["fingerprint"])
    if other := (run.done("control") or {}).get("chosen"):
        model = located(run, other["model"])
        systems[CONTROL] = (model, print_of(model))
    return systems
