"""A grid: what a comparison over settings and seeds runs, as its file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from radpref import config
from radpref.errors import RadprefError
from radpref.outside import is_there, parse_yaml, read_text, reason_of
from radpref.pipeline import road_of
from radpref.runs.runner import check
from radpref.stages.ports import AFTER

WHOLE = "whole"
"""The name of a cell's only trial, where it lists none."""


class SweepError(RadprefError, ValueError):
    """A grid that cannot be run; the message says why and what to do."""


class Cell(BaseModel):
    """One setting of the grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str | None = None
    """Another recipe than the grid's; it takes over what the grid sets, and all that the shared stages depend on."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys to values, on top of the grid's own; ``align.objective`` comes before the others."""
    trials: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name to further keys: each is aligned, and the best by ``select.by`` on validation studies is measured."""
    levels: dict[str, bool] = Field(default_factory=dict)
    """Factor to whether it is on."""
    systems: tuple[str, ...] | dict[str, str] = (AFTER,)
    """Which systems of the cell's results stand in the table, or what each is called there; else the aligned one is
    called by the cell's name, the others by their own. A system that also answers in other ways has a row for each
    (``NAME, drawn``)."""


class Claim(BaseModel):
    """A statement about two rows of the table that other seeds can confirm or refute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    row: str
    above: str | None = None
    """The row that ``row`` is greater than by more than ``by``, with the whole 95 % interval of the difference."""
    below: str | None = None
    """The row that it is less than, in the same way."""
    near: str | None = None
    """The row that it differs from by less than ``by``, either way, with the whole interval."""
    by: float = 0.0
    """Below 0: ``row`` may be worse, but by less than this."""

    @model_validator(mode="after")
    def _one_other(self) -> Claim:
        if sum(other is not None for other in (self.above, self.below, self.near)) != 1:
            raise ValueError(f"a claim on {self.row} names one other row, under `above`, `below` or `near`")
        if self.near is not None and self.by <= 0:
            raise ValueError(f"a claim that {self.row} is near {self.near} says within what, as `by: 0.05`")
        return self

    @property
    def other(self) -> str:
        """The row that ``row`` is held against."""
        return self.above or self.below or self.near or ""

    @property
    def asked(self) -> str:
        """Where the difference of ``row`` and ``other`` is to lie."""
        if self.near is not None:
            return f"within {self.by:g}"
        return f"above {self.by:g}" if self.above is not None else f"below {-self.by:g}"

    def holds(self, low: float, high: float) -> bool:
        """Whether a 95 % interval of ``row - other`` lies where the claim says."""
        if self.near is not None:
            return -self.by < low and high < self.by
        return low > self.by if self.above is not None else high < -self.by


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
    claims: dict[str, Claim] = Field(default_factory=dict)
    """What the comparison is to show, in words, to what has to be measured for it: said before it is run."""
    seed_key: str | None = "data.phantom.seed"
    """A second key that takes the seed's number, so that another seed is another world; null leaves it."""
    tuned_on: int | None = None
    """The seed on whose validation studies trials are chosen, for all seeds alike; null: for each on its own."""


def load_grid(name: str, more: Mapping[str, Any] | None = None) -> Grid:
    """A shipped grid by name, or one from a YAML file, with ``more`` dotted keys on top of what it sets for all cells.

    Raises:
        SweepError: it cannot be read, or a cell could not begin, as of a key that does not exist.
    """
    folder = resources.files("radpref") / "recipes" / "grids"
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    path = Path(name)
    if name in known:
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    elif is_there(path) and path.is_file():
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
    for claim, said in grid.claims.items():
        _check_claim(f"grid {name}, claim `{claim}`", grid, said)
    grid = grid.model_copy(update={"set": {**grid.set, **(more or {})}})
    try:
        _check(name, grid)
    except config.RecipeError as error:
        raise SweepError(f"grid {name}: {error}") from error
    return grid


def _check(name: str, grid: Grid) -> None:
    """Whether every trial of every cell could begin, as far as that is known before any work.

    Raises RecipeError for a wrong key, SweepError for a stage that is not there and for settings that do not fit.
    """
    for title, cell in {"what all share": Cell(), **grid.cells}.items():
        for trial, more in trials(cell).items():
            recipe = settings(grid, cell, 0, more).recipe
            road = road_of(recipe)
            names = [stage.name for stage in road]
            if grid.share not in names:
                raise SweepError(f"grid {name} shares stages up to `{grid.share}`, but they are {', '.join(names)}")
            try:
                check(road, recipe)
            except RadprefError as error:
                where = title if trial == WHOLE else f"{title}, {trial}"
                raise SweepError(f"grid {name}, {where}: {error}") from error


def _check_claim(where: str, grid: Grid, claim: Claim) -> None:
    rows = [row for name, cell in grid.cells.items() for row in shown(name, cell).values()]
    for what, given, known in (
        ("metric", claim.metric, list(grid.metrics)),
        ("row", _row_of(claim.row), rows),
        ("row", _row_of(claim.other), rows),
    ):
        if given not in known:
            raise SweepError(
                f"{where}: there is no {what} `{given}`{config.nearest(given, known) or '.'} "
                f"There are: {'; '.join(known)}."
            )


def _row_of(row: str) -> str:
    return row.removesuffix(way_of(row))


def way_of(row: str) -> str:
    """How a row's answers were made, as its name ends; empty of greedy ones."""
    found = re.search(r", (drawn|consensus of \d+)$", row)
    return found[0] if found else ""


def shown(name: str, cell: Cell) -> dict[str, str]:
    """System to row of the table, of a cell of this name."""
    if isinstance(cell.systems, dict):
        return cell.systems
    return {system: name if system == AFTER else system for system in cell.systems}


def trials(cell: Cell) -> Mapping[str, Mapping[str, Any]]:
    """The settings that are tried of a cell, by name; a single one, without a change, where it lists none."""
    return cell.trials or {WHOLE: {}}


def best(tried: Mapping[str, float | None]) -> str:
    """The trial with the highest score; of equal ones the first. None is a trial without a score, or that failed."""
    return max(tried, key=lambda trial: -1.0 if (score := tried[trial]) is None else score)


def settings(grid: Grid, cell: Cell, seed: int, trial: Mapping[str, Any] | None = None) -> config.Loaded:
    """The recipe of a cell, or of one of its trials, for a seed."""
    keys = {**_shared(grid, cell), **grid.set, **cell.set, **(trial or {}), "run.seed": 17 + seed}
    if grid.seed_key:
        keys[grid.seed_key] = seed
    loaded = config.load(cell.recipe or grid.recipe)
    for name in ("align.objective",):  # sets other keys, which may be set apart from it
        if name in keys:
            loaded = config.override(loaded, {name: keys.pop(name)}, "the grid")
    return config.override(loaded, keys, "the grid")


def _shared(grid: Grid, cell: Cell) -> dict[str, Any]:
    """For a cell with a recipe of its own, the grid's values of the keys that the shared stages depend on."""
    if cell.recipe is None:
        return {}
    recipe = settings(grid, Cell(), 0).recipe
    road = road_of(recipe)
    shared = road[: [stage.name for stage in road].index(grid.share) + 1]
    return {key: value for stage in shared for key, value in config.declared_values(recipe, stage.readable).items()}
