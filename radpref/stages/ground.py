"""The ground stage: does each system look at the lesion, and does its answer depend on it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radpref.files import content_key
from radpref.records import Comparison, Metric, Quarantined
from radpref.run.folder import Run, progress
from radpref.stages.common import AFTER, load, questions_key, questions_of, reasons
from radpref.stages.evaluate import systems_of

if TYPE_CHECKING:
    from radpref.grounding import Drop


def ground(run: Run, limit: int | None = None) -> str:
    """Attention against masks and the causal test, for every system, on the held-out studies that have masks.

    The words are those of the references, the same for every system. ``limit`` takes so many studies and stops.
    """
    from radpref.grounding import Drop, Look, compare_effects, measure_grounding
    from radpref.images import marked

    recipe = run.recipe
    section = recipe.ground
    masked = [question for question in questions_of(run, "test") if any(marked(image) for image in question.images)]
    questions = masked[: section.studies][:limit]
    systems = systems_of(run)
    key = content_key(
        "ground", section, recipe.evaluate.resamples, recipe.run.seed, questions_key(questions),
        {name: fingerprint for name, (_, fingerprint) in systems.items()},
    )  # fmt: skip
    if not run.begin("ground", key):
        return "up to date"
    if not questions:
        for name in ("metrics", "headline"):
            run.table("ground", name, Metric).write([])
        for name in ("tests", "comparisons"):
            run.table("ground", name, Comparison).write([])
        run.finish("ground", key, studies=0)
        return "no held-out study has a lesion mask: nothing to measure on"
    metrics: list[Metric] = []
    tests: list[Comparison] = []
    lost: list[Quarantined] = []
    dropped: dict[str, Sequence[Drop]] = {}
    looks, drops = run.table("ground", "looks", Look), run.table("ground", "drops", Drop)
    for name, (model, fingerprint) in systems.items():
        row_key = content_key("ground", section, recipe.run.seed, questions_key(questions), name, fingerprint)
        known = [row for table in (looks, drops) for row in table if table.get(row.id, row_key)]
        bar = progress(total=None, unit="rows", what=f"ground {name}")

        def keep(row: Look | Drop, row_key: str = row_key, advance: object = bar.update) -> None:
            (looks if isinstance(row, Look) else drops).append([(row_key, row)])  # type: ignore[list-item]
            assert callable(advance)
            advance(1)

        found = measure_grounding(
            load(run, model),
            questions,
            system=name,
            attention=section.attention,
            placements=section.placements,
            batch=recipe.evaluate.batch,
            resamples=recipe.evaluate.resamples,
            seed=recipe.run.seed,
            known=known,
            keep=keep,
        )
        bar.close()
        metrics += found.metrics
        tests += found.tests
        lost += found.quarantined
        dropped[name] = found.drops
    run.table("ground", "metrics", Metric).write(metrics)
    run.table("ground", "tests", Comparison).write(tests)
    run.table("ground", "headline", Metric).write(_headline(metrics, list(systems)))
    others = [name for name in systems if name != AFTER]
    compared = [compare_effects(dropped[name], dropped[AFTER], resamples=recipe.evaluate.resamples) for name in others]
    run.table("ground", "comparisons", Comparison).write(row for row in compared if row)
    run.table("ground", "quarantined", Quarantined).write({row.id: row for row in lost}.values())
    if limit is None:
        run.finish("ground", key, studies=len(questions))
    return f"{len(questions)} studies with masks, {len(systems)} systems; {len(lost)} quarantined{reasons(lost)}"


def _headline(metrics: Sequence[Metric], systems: Sequence[str]) -> list[Metric]:
    """What stands in the table of results: the causal test, and attention relative to that for a general question."""
    causal = ("effect_words", "won_words", "drop_words", "control_words")
    looked = {"ratio_mean": "attention_ratio", "hit_mean": "attention_hit"}
    rows = [row for row in metrics if row.system in systems and row.name in causal]
    for system in systems:
        for row in metrics:
            if row.system == f"{system}: relative" and row.name in looked:
                name = looked[row.name]
                rows.append(row.model_copy(update={"id": f"{system}/{name}", "system": system, "name": name}))
    return rows
