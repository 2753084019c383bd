"""One command for a comparison over settings and seeds: a grid of cells, each run as often as there are seeds.

A grid (``recipes/grids/*.yaml``) names a recipe, what all its runs have in common, and cells that differ in a few
keys. For each seed another world is drawn and another training; the stages that all cells share are run once, and
each cell goes on from a copy. What comes out are means over seeds with Student's t intervals, differences that are
paired by seed, and, where cells have levels of factors, each factor's effect.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from radpref import config
from radpref.errors import RadprefError
from radpref.files import content_key, read_json, write_atomically
from radpref.outside import parse_yaml, read_text, reason_of
from radpref.pipeline import road_of, run_all, run_stage_alone
from radpref.runs.context import Left
from radpref.runs.folder import Run
from radpref.runs.rows import batched
from radpref.stages.ports import AFTER, MINED, PAIRS

SHARED = "shared"
"""The folder, in a seed's, of the stages that all cells share."""
WIDEST = 6
"""Most metrics in one table of ``results.md``."""


class SweepError(RadprefError, ValueError):
    """A grid that cannot be run; the message says why and what to do."""


class Cell(BaseModel):
    """One setting of the grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys to values, on top of the grid's own; ``align.objective`` comes before the others."""
    levels: dict[str, bool] = Field(default_factory=dict)
    """Factor to whether it is on."""
    systems: tuple[str, ...] = (AFTER,)
    """Which systems of the cell's results stand in the table; the others appear under their own names."""


class Grid(BaseModel):
    """A comparison."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    share: str
    """The last stage that all cells have in common."""
    set: dict[str, Any] = Field(default_factory=dict)
    cells: dict[str, Cell]
    against: tuple[str, ...] = ()
    """Rows of the table that the others are held against."""
    metrics: dict[str, str]
    """Metric's name to its heading."""
    seed_key: str | None = "data.phantom.seed"
    """A second key that takes the seed's number, so that another seed is another world; null leaves it."""


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    n: int


def load_grid(name: str) -> Grid:
    """A shipped grid by name, or one from a YAML file. Raises SweepError."""
    folder = resources.files("radpref") / "recipes" / "grids"
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    path = Path(name)
    if name in known:
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    elif path.is_file():
        text = read_text(path, SweepError)
    else:
        raise SweepError(
            f"there is no grid `{name}`{config.nearest(name, known) or '.'} There are: {', '.join(known)}."
        )
    try:
        grid = Grid.model_validate(parse_yaml(text, name, SweepError))
    except ValidationError as error:
        raise SweepError(
            f"grid {name} cannot be read: {reason_of(error)}. Mend it; the shipped ones show how."
        ) from error
    for what, given in (("cells", grid.cells), ("metrics", grid.metrics)):
        if not given:
            raise SweepError(f"grid {name} has no {what}: there is nothing to compare. Name some under `{what}`.")
    try:
        for cell in grid.cells.values():
            _loaded(grid, cell, 0)  # a wrong key fails before any work
        road = [stage.name for stage in road_of(_loaded(grid, Cell(), 0).recipe)]
    except config.RecipeError as error:
        raise SweepError(f"grid {name}: {error}") from error
    if grid.share not in road:
        raise SweepError(f"grid {name} shares stages up to `{grid.share}`, but they are {', '.join(road)}")
    return grid


def sweep(grid: Grid, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Run every cell for every seed, going on where it was stopped, and write ``results.json`` and ``results.md``.

    A cell whose settings have changed since is run again, as far as they matter.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for seed in seeds:
        shared = folder / f"seed-{seed}" / SHARED
        run = Run(shared, _loaded(grid, Cell(), seed))
        for stage in road_of(run.recipe):
            run_stage_alone(run, stage.name, redo=True)
            if stage.name == grid.share:
                break
        source = shared
        for name, cell in grid.cells.items():
            place = folder / f"seed-{seed}" / _file_name(name)
            _copy(source, place)
            this = Run(place, _loaded(grid, cell, seed))
            run_all(this, redo=True)
            source = place  # what was computed of the systems that cells share is keyed, and taken over
            for row, values in _read(this, name, cell).items():
                found.setdefault(row, {})[seed] = values
        write_atomically(folder / "results.json", json.dumps(_results(grid, found), indent=1) + "\n")
    results = _results(grid, found)
    write_atomically(folder / "results.md", markdown(grid, results))
    return results


def _loaded(grid: Grid, cell: Cell, seed: int) -> config.Loaded:
    keys = {**grid.set, **cell.set, "run.seed": 17 + seed, **({grid.seed_key: seed} if grid.seed_key else {})}
    loaded = config.load(grid.recipe)
    for name in ("align.objective",):  # sets other keys, which may be set apart from it
        if name in keys:
            loaded = config.override(loaded, {name: keys.pop(name)}, "the grid")
    return config.override(loaded, keys, "the grid")


def _file_name(name: str) -> str:
    """A folder's name for a cell: legible, and another one for every other name."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    return plain if plain == name and plain not in ("", SHARED) else f"{plain}-{content_key(name)[:6]}"


def _copy(source: Path, target: Path) -> None:
    """A run folder as a new one; images, which nothing writes to, are linked."""

    def put(one: str, other: str) -> None:
        if one.endswith(".png"):
            os.link(one, other)
        else:
            shutil.copy2(one, other)

    if target.exists():  # torn: its last stages may be there, and go on
        return
    half = target.with_name(f"{target.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=put, ignore=shutil.ignore_patterns(".lock"))
    half.rename(target)


def _read(run: Run, name: str, cell: Cell) -> dict[str, dict[str, float]]:
    """Values by row of the table: the cell itself, and the other systems that it shows."""
    metrics = read_json(run.path("metrics.json"))["metrics"]
    rows: dict[str, dict[str, float]] = {}
    for system in cell.systems:
        row = name if system == AFTER else system
        rows[row] = {m["name"]: m["value"] for m in metrics if m["system"] == system and m["value"] is not None}
        if system == AFTER:
            rows[row] |= _made(run)
    return rows


def _made(run: Run) -> dict[str, float]:
    """What an aligned model was made from: ``pairs``, and of a run that mines its hit rates and shares of the tail.

    ``mined_wrong_X`` is the share of wrong answers in X: ``random`` (the pool), ``unsure``, ``confident``,
    ``taken``, ``neighbours`` (of hard questions) and ``random_for_hard`` (drawn for the same hard questions).
    ``mined_tail_X`` is the share of the rarest findings in ``pool``, ``hard``, ``with_neighbours``,
    ``without_quotas`` and ``taken``.
    """
    left = Left(run, road_of(run.recipe))
    found: dict[str, float | None] = {"pairs": left.counts(PAIRS).get("pairs")}
    if summary := left.counts(MINED).get("summary"):
        found |= {f"mined_wrong_{one['name']}": one["rate"] for one in summary["found"]}
        found |= {f"mined_tail_{one['name']}": one["rate"] for one in summary["tail_shares"]}
        if retrieval := summary["retrieval"]:
            found["mined_wrong_neighbours"] = retrieval["retrieved"]["rate"]
            found["mined_wrong_random_for_hard"] = retrieval["random"]["rate"]
    return {name.replace(" ", "_"): value for name, value in found.items() if value is not None}


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval; infinitely wide for a single value."""
    from scipy.stats import t

    mean, n = fmean(values), len(values)
    half = float(t.ppf(0.975, n - 1)) * stdev(values) / n**0.5 if n > 1 else float("inf")
    return Estimate(mean, mean - half, mean + half, n)


def _results(grid: Grid, found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
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
