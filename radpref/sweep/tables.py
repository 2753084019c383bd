"""The tables of a comparison: means over seeds, differences paired by seed, effects of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from radpref.runs.rows import batched
from radpref.sweep.grid import Grid

WIDEST = 6
"""Most metrics in one table of ``results.md``."""


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval; infinitely wide for a single value."""
    from scipy.stats import t

    mean, n = fmean(values), len(values)
    half = float(t.ppf(0.975, n - 1)) * stdev(values) / n**0.5 if n > 1 else float("inf")
    return Estimate(mean, mean - half, mean + half, n)


def tabled(grid: Grid, found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """``values``, ``means``, ``differences`` and ``effects`` of what was ``found``: row to seed to metric to value."""
    values = {
        row: {metric: {s: v[metric] for s, v in by_seed.items() if metric in v} for metric in grid.metrics}
        for row, by_seed in found.items()
    }
    table = {row: {m: estimate(list(v.values())) for m, v in ms.items() if v} for row, ms in values.items()}
    differences = {
        f"{row} - {base}": {
            m: estimate([v[s] - values[base][m][s] for s in v if s in values[base][m]])
            for m, v in ms.items()
            if set(v) & set(values[base][m])
        }
        for base in grid.against
        if base in values
        for row, ms in values.items()
        if row != base
    }
    factors = dict.fromkeys(factor for cell in grid.cells.values() for factor in cell.levels)
    effects = {}
    for factor in factors:
        sides = {
            on: [row for row, cell in grid.cells.items() if cell.levels.get(factor) is on and row in values]
            for on in (True, False)
        }
        effects[factor] = {
            m: estimate(contrast)
            for m in grid.metrics
            if (
                contrast := _contrast([values[row][m] for row in sides[True]], [values[row][m] for row in sides[False]])
            )
        }
    return {"values": values, "means": table, "differences": differences, "effects": effects}


def _contrast(on: Sequence[Mapping[int, float]], off: Sequence[Mapping[int, float]]) -> list[float]:
    """For each seed that all cells have, the mean of the cells with a factor minus that of those without."""
    if not on or not off:
        return []
    seeds = set.intersection(*(set(values) for values in (*on, *off)))
    return [fmean(v[s] for v in on) - fmean(v[s] for v in off) for s in sorted(seeds)]


def markdown(grid: Grid, results: Mapping[str, Any]) -> str:
    """The tables: means, differences, effects."""
    parts = []
    titles = (("means", "Means over seeds"), ("differences", "Differences, paired by seed"), ("effects", "Effects"))
    for name, title in titles:
        rows = results[name]
        if not rows:
            continue
        moved = [m for m in grid.metrics if name == "means" or any(_moves(v.get(m)) for v in rows.values())]
        for metrics in batched(moved, WIDEST):
            heads = [grid.metrics[metric] for metric in metrics]
            lines = [f"| {title.lower()} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
            for row, values in rows.items():
                cells = [_shown(values.get(metric), signed=name != "means") for metric in metrics]
                if any(cells):
                    lines.append(f"| {row} | " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
    seeds = {e.n for rows in results["means"].values() for e in rows.values()}
    parts.append(f"Seeds: {', '.join(map(str, sorted(seeds)))}; 95 % intervals of Student's t over seeds.")
    return "\n\n".join(parts) + "\n"


def _moves(value: Estimate | None) -> bool:
    """Whether a difference is other than 0 in any seed: what all cells share has nothing to compare."""
    return value is not None and (value.mean != 0 or (value.n > 1 and value.low != value.high))


def _shown(value: Estimate | None, *, signed: bool) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    if value.n == 1:
        return f"{value.mean:{sign}.3f}"
    return f"{value.mean:{sign}.3f} ({value.low:{sign}.3f} to {value.high:{sign}.3f})"
