"""The evaluate stage: every system on the held-out patients."""

from __future__ import annotations

from radpref.recipe import ModelSection
from radpref.records import Comparison, Judgement, Metric
from radpref.runfolder import Run
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
from radpref.store import content_key


def evaluate(run: Run, limit: int | None = None) -> str:
    """Measure base, sft, aligned, the control and the trivial baselines on the held-out patients."""
    from radpref import evaluation

    recipe = run.recipe
    questions = questions_of(run, "test")[:limit]
    systems = systems_of(run)
    length = recipe.sample.max_new_tokens
    prints = [fingerprint for _, fingerprint in systems.values()]
    key = content_key("evaluate", recipe.evaluate, length, recipe.run.seed, prints, questions_key(questions))
    if not run.begin("evaluate", key):
        return "up to date"
    answers = {
        name: greedy(run, "evaluate", name.replace(" ", "-"), model, fingerprint, questions, recipe.evaluate.batch)
        for name, (model, fingerprint) in systems.items()
    }
    answers |= evaluation.baselines(questions_of(run, "train"), questions, recipe.run.seed)
    resamples, seed = recipe.evaluate.resamples, recipe.run.seed
    measured = {
        name: evaluation.measure(name, questions, texts, resamples=resamples, seed=seed)
        for name, texts in answers.items()
    }
    others = [BEFORE, *(name for name in measured if name not in (BEFORE, AFTER))]
    comparisons = [
        row
        for name in others
        for row in evaluation.compare(measured[name], measured[AFTER], resamples=resamples, seed=seed)
    ]
    metrics = [row for one in measured.values() for row in one.metrics]
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
    before, after = measured[BEFORE].value("green_mean"), measured[AFTER].value("green_mean")
    return f"{len(questions)} studies; green {shown(before)} before, {shown(after)} after"


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
