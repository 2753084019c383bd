"""One command for a comparison over settings and seeds: a grid of cells, each run as often as there are seeds.

A grid (``recipes/grids/*.yaml``) names a recipe, what all its runs have in common, and cells that differ in a few
keys, in their recipe, or in what they try. For each seed another world is drawn and another training; the stages that
all cells share are run once, and each cell goes on from a copy. What comes out are means over seeds with Student's t
intervals, differences that are paired by seed, and, where cells have levels of factors, each factor's effect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radpref import __version__
from radpref.files import write_atomically
from radpref.sweep.grid import Cell, Grid, SweepError, load_grid
from radpref.sweep.run import CellRun, Failed, run_seeds
from radpref.sweep.tables import Estimate, estimate, markdown, means_of, tabled

if TYPE_CHECKING:
    from radpref.evaluation import PatientSums

__all__ = [
    "Cell",
    "Estimate",
    "Grid",
    "SweepError",
    "estimate",
    "load_grid",
    "markdown",
    "sweep",
]


def sweep(grid: Grid, folder: Path, seeds: Sequence[int], jobs: int = 1) -> dict[str, Any]:
    """Run every cell for every seed, going on where it was stopped, and write ``results.json`` and ``results.md``.

    A cell that fails costs its own row alone: ``failed`` says of which seed and why, and the same call tries it again.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    sums: dict[str, dict[int, PatientSums]] = {}
    done: list[CellRun] = []
    tuned: dict[str, dict[str, float | None]] = {}
    failed: list[Failed] = []

    def written() -> dict[str, Any]:
        results: dict[str, Any] = {
            **tabled(grid, found, sums), "trivial": _trivial(grid, done), "tuned": tuned,
            "trials": _trials(done), "chosen": _chosen(done),
            "failed": [{**one._asdict(), "folder": one.folder.name} for one in failed],
            "grid": grid.model_dump(mode="json"), "version": __version__,
        }  # fmt: skip
        write_atomically(folder / "results.json", json.dumps(results, indent=1) + "\n")
        write_atomically(folder / "results.md", markdown(grid, results))
        return results

    latest: dict[str, Any] | None = None
    for part in run_seeds(grid, folder, seeds, jobs):
        done += part.cells
        failed += part.failed
        tuned |= {one.cell: dict(one.tried) for one in part.tuned}
        for one in part.cells:
            for row, values in one.rows.items():
                found.setdefault(row, {})[one.seed] = dict(values)
                sums.setdefault(row, {})[one.seed] = one.sums[row]
        latest = written() if part.cells else None
    return latest or written()


def _trivial(grid: Grid, done: Sequence[CellRun]) -> dict[str, dict[str, Estimate]]:
    """What trivial answers reach: of each seed as its first cell measured them, in the order of the grid."""
    order = list(grid.cells)
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    sums: dict[str, dict[int, PatientSums]] = {}
    for one in sorted(done, key=lambda one: order.index(one.cell)):
        for row, values in one.trivial.items():
            if one.seed not in found.setdefault(row, {}):
                found[row][one.seed] = values
                sums.setdefault(row, {})[one.seed] = one.sums[row]
    return means_of(grid, found, sums)


def _trials(done: Sequence[CellRun]) -> dict[str, dict[int, dict[str, float | None]]]:
    """Cell to seed to what its trials scored on validation."""
    found: dict[str, dict[int, dict[str, float | None]]] = {}
    for one in done:
        if one.tried:
            found.setdefault(one.cell, {})[one.seed] = dict(one.tried)
    return found


def _chosen(done: Sequence[CellRun]) -> dict[str, dict[int, str]]:
    """Cell to seed to the trial that was measured."""
    found: dict[str, dict[int, str]] = {}
    for one in done:
        found.setdefault(one.cell, {})[one.seed] = one.trial
    return found
