"""The tables of a comparison: means over seeds, differences paired by seed, effects of factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from radpref.rooms import evaluation
from radpref.runs.rows import batched
from radpref.sweep.grid import Grid, best, way_of

if TYPE_CHECKING:
    from radpref.evaluation import PatientSums, Seeds

WIDEST = 6
"""Most metrics in one table of ``results.md``."""


Found = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Row of the table to seed to metric to value."""
Sums = Mapping[str, Mapping[int, "PatientSums"]]
"""Row of the table to seed to what the system counts by patient."""


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval: over seeds and patients (``evaluation.over_seeds``) where the metric is
    made of counts by patient, else Student's t over seeds."""

    mean: float
    low: float
    high: float
    n: int
    p: float | None = None
    """Of a difference over seeds and patients: two-sided."""
    p_holm: float | None = None
    """After Holm's correction over all differences of the same metric."""


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval; infinitely wide for a single value."""
    from scipy.stats import t

    mean, n = fmean(values), len(values)
    half = float(t.ppf(0.975, n - 1)) * stdev(values) / n**0.5 if n > 1 else float("inf")
    return Estimate(mean, mean - half, mean + half, n)


def tabled(grid: Grid, found: Found, sums: Sums | None = None) -> dict[str, Any]:
    """``values``, ``means``, ``differences``, ``effects`` and ``claims`` of what was ``found``."""
    counted = {} if sums is None else sums
    values = _values(grid, found)

    def difference(metric: str, row: str, base: str) -> Estimate | None:
        one, other = (values.get(name, {}).get(metric, {}) for name in (row, base))
        if not set(one) & set(other):
            return None
        return _difference(metric, one, other, counted.get(row, {}), counted.get(base, {}))

    # what is drawn is held against what is drawn
    pairs = [(row, f"{base}{way_of(row)}") for base in grid.against for row in values]
    differences = _corrected({
        f"{row} - {base}": {m: one for m in grid.metrics if (one := difference(m, row, base)) is not None}
        for row, base in pairs
        if base in values and row != base
    })  # fmt: skip
    claims = {name: difference(claim.metric, claim.row, claim.other) for name, claim in grid.claims.items()}
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
    means = means_of(grid, found, counted)
    return {"values": values, "means": means, "differences": differences, "effects": effects, "claims": claims}


def means_of(grid: Grid, found: Found, sums: Sums) -> dict[str, dict[str, Estimate]]:
    """Row to metric to its mean over seeds, where any seed has it."""
    return {
        row: {metric: _mean(metric, of, sums.get(row, {})) for metric, of in ms.items() if of}
        for row, ms in _values(grid, found).items()
    }


def _values(grid: Grid, found: Found) -> dict[str, dict[str, dict[int, float]]]:
    """Row to metric of the grid to seed to value."""
    return {
        row: {metric: {s: v[metric] for s, v in by_seed.items() if metric in v} for metric in grid.metrics}
        for row, by_seed in found.items()
    }


def _mean(metric: str, values: Mapping[int, float], sums: Mapping[int, PatientSums]) -> Estimate:
    """Over seeds and patients, where the seeds have sums that the metric is made of."""
    if set(values) <= set(sums) and evaluation.is_counted(metric, [sums[seed].columns for seed in values]):
        found = evaluation.over_seeds(metric, {seed: sums[seed] for seed in values})
        if found is not None:
            return Estimate(found.value, found.low, found.high, found.seeds)
    return estimate(list(values.values()))


def _difference(
    metric: str,
    values: Mapping[int, float],
    base: Mapping[int, float],
    sums: Mapping[int, PatientSums],
    sums_of_base: Mapping[int, PatientSums],
) -> Estimate:
    seeds = [seed for seed in values if seed in base]
    both = [one[seed] for seed in seeds for one in (sums, sums_of_base) if seed in one]
    if len(both) == 2 * len(seeds) and evaluation.is_counted(metric, [one.columns for one in both]):
        before: Seeds = {seed: sums_of_base[seed] for seed in seeds}
        after: Seeds = {seed: sums[seed] for seed in seeds}
        found = evaluation.difference_over_seeds(metric, before, after)
        if found is not None:
            return Estimate(found.value, found.low, found.high, found.seeds, found.p)
    return estimate([values[seed] - base[seed] for seed in seeds])


def _corrected(differences: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    """With Holm's correction over all differences of a metric that have a p."""
    made = {row: dict(ms) for row, ms in differences.items()}
    for metric in dict.fromkeys(metric for ms in made.values() for metric in ms):
        rows = [(row, p) for row, ms in made.items() if metric in ms and (p := ms[metric].p) is not None]
        for (row, _), p_holm in zip(rows, evaluation.holm([p for _, p in rows]), strict=True):
            made[row][metric] = made[row][metric]._replace(p_holm=p_holm)
    return made


def _contrast(on: Sequence[Mapping[int, float]], off: Sequence[Mapping[int, float]]) -> list[float]:
    """For each seed that all cells have, the mean of the cells with a factor minus that of those without."""
    if not on or not off:
        return []
    seeds = set.intersection(*(set(values) for values in (*on, *off)))
    return [fmean(v[s] for v in on) - fmean(v[s] for v in off) for s in sorted(seeds)]


def markdown(grid: Grid, results: Mapping[str, Any]) -> str:
    """The tables: claims, means, differences, effects, trials."""
    parts = [_claims(grid, results["claims"])] if grid.claims else []
    titles = (("means", "Means over seeds"), ("differences", "Differences, paired by seed"), ("effects", "Effects"))
    for name, title in titles:
        rows = results[name]
        if name == "means":  # what looks at no image, beside what does
            rows = {**rows, **{f"*{row}*": values for row, values in results.get("trivial", {}).items()}}
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
    if tuned := results.get("tuned"):
        parts.append(_tuned(grid, tuned))
    for one in results.get("failed", ()):
        parts.append(f"**Missing**: {one['cell']}, {one['trial']}, seed {one['seed']}: {one['why']}")
    seeds = {e.n for rows in results["means"].values() for e in rows.values()}
    parts.append(
        f"Seeds: {', '.join(map(str, sorted(seeds)))}. 95 % intervals over seeds and patients for what is counted by "
        "patient, else of Student's t over seeds. **Bold**: p below .05 after Holm's correction over all differences "
        "of the metric."
    )
    return "\n\n".join(parts) + "\n"


def _claims(grid: Grid, measured: Mapping[str, Estimate | None]) -> str:
    """The table of what was to be shown: each claim, what was measured for it, and whether it holds."""
    lines = ["| claim | measured | difference | holds |", "|---|---|---|---|"]
    for words, claim in grid.claims.items():
        found = measured.get(words)
        wanted = f", wanted {claim.asked}" if claim.by else ""
        verdict = "not measured" if found is None else "yes" if claim.holds(found.low, found.high) else "**no**"
        what = f"{grid.metrics[claim.metric]}, {claim.row} less {claim.other}{wanted}"
        lines.append(f"| {words} | {what} | {_shown(found, signed=True)} | {verdict} |")
    return "\n".join(lines)


def _tuned(grid: Grid, tuned: Mapping[str, Mapping[str, float | None]]) -> str:
    """The table of trials: what each scored where they were chosen, the one that was taken in bold."""
    lines = [f"| tuned on seed {grid.tuned_on} | its trials on validation |", "|---|---|"]
    for cell, tried in tuned.items():
        taken = best(tried)
        told = {trial: f"{trial} {'failed' if score is None else f'{score:.3f}'}" for trial, score in tried.items()}
        lines.append(f"| {cell} | {'; '.join(f'**{t}**' if trial == taken else t for trial, t in told.items())} |")
    return "\n".join(lines)


def _moves(value: Estimate | None) -> bool:
    """Whether a difference is other than 0 in any seed: what all cells share has nothing to compare."""
    return value is not None and (value.mean != 0 or (value.n > 1 and value.low != value.high))


def _shown(value: Estimate | None, *, signed: bool) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    told = f"{value.mean:{sign}.3f}"
    if math.isfinite(value.low):
        told += f" ({value.low:{sign}.3f} to {value.high:{sign}.3f})"
    return f"**{told}**" if value.p_holm is not None and value.p_holm < 0.05 else told
