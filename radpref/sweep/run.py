"""The runs of a grid: every cell for every seed, from a copy of what all cells share, each resumable by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from radpref.config import Loaded
from radpref.files import content_key, read_json
from radpref.pipeline import road_of, run_all, run_stage_alone
from radpref.runs.context import Left
from radpref.runs.folder import Run
from radpref.stages.ports import AFTER, CHOICE, MINED, PAIRS
from radpref.sweep.grid import Cell, Grid, settings, trials

SHARED = "shared"
"""The folder, in a seed's, of the stages that all cells share."""
_TRAINED = ("align*", "control*", "grpo*", "round-*", "*.part", ".lock")
"""What a copy leaves behind: the models of another cell, which no cell goes on from."""


class CellRun(NamedTuple):
    """What a cell came to for a seed."""

    seed: int
    cell: str
    folder: Path
    """The run of the trial that was chosen."""
    tried: Mapping[str, float | None]
    """Trial to its score on the validation studies, where there are several."""
    rows: Mapping[str, Mapping[str, float]]
    """Row of the table to metric to value."""


def run_seeds(grid: Grid, folder: Path, seeds: Sequence[int], jobs: int = 1) -> Iterator[CellRun]:
    """Every cell of every seed as it is done; with several ``jobs`` so many seeds at a time, each in a process."""
    if jobs == 1 or len(seeds) == 1:
        for seed in seeds:
            yield from run_seed(grid, folder, seed)
        return
    with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_whole_seed, grid, folder, seed) for seed in seeds]):
            yield from done.result()


def _whole_seed(grid: Grid, folder: Path, seed: int) -> list[CellRun]:
    return list(run_seed(grid, folder, seed))


def run_seed(grid: Grid, folder: Path, seed: int) -> Iterator[CellRun]:
    """Every cell of a seed; a cell whose settings have changed since is run again, as far as they matter."""
    own = folder / f"seed-{seed}"
    source = own / SHARED
    run_until(Run(source, settings(grid, Cell(), seed)), grid.share)
    for name, cell in grid.cells.items():
        done = _run_cell(grid, own, source, seed, name, cell)
        source = done.folder  # what was computed of the systems that cells share is keyed, and taken over
        yield done


def _run_cell(grid: Grid, own: Path, source: Path, seed: int, name: str, cell: Cell) -> CellRun:
    asked = {trial: settings(grid, cell, seed, keys) for trial, keys in trials(cell).items()}
    places = {trial: own / file_name(name if len(asked) == 1 else f"{name}, {trial}") for trial in asked}
    tried: dict[str, float | None] = {}
    if len(asked) > 1:
        for trial, loaded in asked.items():
            tried[trial] = _tried(source, places[trial], loaded)
            source = places[trial]
    chosen = max(asked, key=lambda trial: -1.0 if tried.get(trial) is None else tried[trial] or 0.0)
    copy(source, places[chosen])
    run = Run(places[chosen], asked[chosen])
    run_all(run, redo=True)
    return CellRun(seed, name, places[chosen], tried, _read(run, name, cell))


def _tried(source: Path, place: Path, loaded: Loaded) -> float | None:
    """The score on the validation studies of the checkpoint that a trial selects."""
    copy(source, place)
    run = Run(place, loaded)
    run_until(run, "select")
    choice = Left(run, road_of(run.recipe)).fact(CHOICE)
    assert choice is not None
    return choice.chosen.scores[choice.by]


def run_until(run: Run, last: str) -> None:
    """The stages of a run's method up to one of them; what is up to date is left alone."""
    names = [stage.name for stage in road_of(run.recipe)]
    ends = [name for name in names if name == last or name.startswith(f"{last}-")]  # of the last round
    for name in names[: names.index(ends[-1]) + 1]:
        run_stage_alone(run, name, redo=True)


def file_name(name: str) -> str:
    """A folder's name for a cell: legible, and another one for every other name."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    return plain if plain == name and plain not in ("", SHARED) else f"{plain}-{content_key(name)[:6]}"


def copy(source: Path, target: Path) -> None:
    """A run folder as a new one, without its aligned models; images and weights are linked: nothing writes to them."""

    def put(one: str, other: str) -> None:
        if one.endswith((".png", ".safetensors")):
            os.link(one, other)
        else:
            shutil.copy2(one, other)

    if target.exists():  # torn: its last stages may be there, and go on
        return
    half = target.with_name(f"{target.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=put, ignore=shutil.ignore_patterns(*_TRAINED))
    half.rename(target)


def _read(run: Run, name: str, cell: Cell) -> dict[str, dict[str, float]]:
    """Values by row of the table: the cell itself, and the other systems that it shows."""
    metrics = read_json(run.path("metrics.json"))["metrics"]
    rows: dict[str, dict[str, float]] = {}
    for system in dict.fromkeys(row["system"] for row in metrics):
        if system.split(",")[0] in cell.systems:
            row = system.replace(AFTER, name, 1) if system.startswith(AFTER) else system
            rows[row] = {m["name"]: m["value"] for m in metrics if m["system"] == system and m["value"] is not None}
        if system == AFTER and AFTER in cell.systems:
            rows[name] |= _made(run)
    return rows


def _made(run: Run) -> dict[str, float]:
    """What an aligned model was made from: ``pairs``, and of a run that mines its hit rates and shares of the tail.

    ``mined_wrong_X`` is the share of wrong answers in X: ``random`` (the pool), ``unsure``, ``confident``,
    ``taken``, ``neighbours`` (of hard questions) and ``random_for_hard`` (drawn for the same hard questions).
    ``mined_tail_X`` is the share of the rarest findings in ``pool``, ``hard``, ``with_neighbours``,
    ``without_quotas`` and ``taken``.
    """
    left = Left(run, road_of(run.recipe))
    found: dict[str, float | None] = {"pairs": left.counts(PAIRS).get("pairs"), "seconds": sum(run.seconds().values())}
    if summary := left.counts(MINED).get("summary"):
        found |= {f"mined_wrong_{one['name']}": one["rate"] for one in summary["found"]}
        found |= {f"mined_tail_{one['name']}": one["rate"] for one in summary["tail_shares"]}
        if retrieval := summary["retrieval"]:
            found["mined_wrong_neighbours"] = retrieval["retrieved"]["rate"]
            found["mined_wrong_random_for_hard"] = retrieval["random"]["rate"]
    return {name.replace(" ", "_"): value for name, value in found.items() if value is not None}
