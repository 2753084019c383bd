"""What stands of grounding in a table of results: the causal test, and attention against the masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from radpref.grounding.measure import compare_effects, drop_metrics, look_metrics
from radpref.records import Comparison, Grounded, Metric

_CAUSAL = ("effect_words", "won_words", "drop_words", "control_words")
_LOOKED = {"ratio_mean": "attention_ratio", "hit_mean": "attention_hit"}


def tabled(rows: Sequence[Grounded], after: str, *, resamples: int, seed: int) -> tuple[list[Metric], list[Comparison]]:
    """Metrics of every system, and the effect of ``after`` against that of each other one; nothing without rows."""
    drops = {name: [d for row in rows if row.system == name for d in row.drops] for name in _systems(rows)}
    metrics = look_metrics([look for row in rows for look in row.looks], resamples=resamples, seed=seed)
    metrics += drop_metrics([drop for some in drops.values() for drop in some], resamples=resamples, seed=seed)
    compared = [compare_effects(drops[name], drops[after], resamples=resamples) for name in drops if name != after]
    return list(_headline(metrics, list(drops))), [row for row in compared if row]


def _systems(rows: Sequence[Grounded]) -> list[str]:
    return list(dict.fromkeys(row.system for row in rows))


def _headline(metrics: Sequence[Metric], systems: Sequence[str]) -> Iterator[Metric]:
    """The causal test, and attention relative to that for a general question."""
    yield from (row for row in metrics if row.system in systems and row.name in _CAUSAL)
    for system in systems:
        for row in metrics:
            if row.system == f"{system}: relative" and row.name in _LOOKED:
                name = _LOOKED[row.name]
                yield row.model_copy(update={"id": f"{system}/{name}", "system": system, "name": name})
