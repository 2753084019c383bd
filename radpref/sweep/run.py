"""The runs of a grid: every cell for every seed, from a copy of what all cells share, each resumable by itself."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import pairwise
from math import gcd
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from radpref.collector import process_is_ours
from radpref.comparing import read_finished
from radpref.errors import RadprefError
from radpref.files import content_key, disk_errors, read_json
from radpref.outside import enough_memory
from radpref.pipeline import road_of, run_all, run_stage_alone
from radpref.rooms import evaluation
from radpref.runs.context import Left
from radpref.runs.folder import Run
from radpref.stages.ports import AFTER, CHOICE, MINED, PAIRS
from radpref.sweep.grid import Cell, Grid, SweepError, best, settings, shown, trials

if TYPE_CHECKING:
    from radpref.evaluation import PatientSums

T = TypeVar("T")

SHARED = "shared"
"""The folder, in a seed's, of the stages that all cells share."""
_ANOTHERS = (
    *("align*", "control*", "grpo*", "round-*", "evaluate", "report", "metrics.json", "report.html"),
    *("*.part", ".lock"),
)
"""What a copy leaves behind: the models and numbers of another cell, which no cell goes on from."""


class CellRun(NamedTuple):
    """What a cell came to for a seed."""

    seed: int
    cell: str
    trial: str
    folder: Path
    """The run of the trial that was chosen."""
    tried: Mapping[str, float | None]
    """Trial to its score on the seed's validation studies, where there are several and they are chosen there."""
    rows: Mapping[str, Mapping[str, float]]
    """Row of the table to metric to value."""
    trivial: Mapping[str, Mapping[str, float]]
    """Trivial answer to metric to value, on the cell's test set."""
    sums: Mapping[str, PatientSums]
    """Row of the table, or trivial answer, to what it counts by patient."""


class Failed(NamedTuple):
    """A cell, or one of its trials, that came to no end for a seed; the others go on without it."""

    seed: int
    cell: str
    trial: str
    folder: Path
    why: str


class Tuned(NamedTuple):
    """The trials of a cell on the seed that all trials are chosen on."""

    cell: str
    tried: Mapping[str, float | None]
    """Trial to its score on that seed's validation studies."""


class Done(NamedTuple):
    """What a chain of cells came to."""

    cells: Sequence[CellRun] = ()
    tuned: Sequence[Tuned] = ()
    failed: Sequence[Failed] = ()


def run_seeds(grid: Grid, folder: Path, seeds: Sequence[int], jobs: int = 1) -> Iterator[Done]:
    """Every cell of every seed, chain by chain as they are done, ``jobs`` at a time, each in a process of its own.

    The trials on ``grid.tuned_on`` come first.
    """
    picked: dict[str, str] = {}
    if grid.tuned_on is not None:
        several = Grid.model_copy(grid, update={"cells": {name: c for name, c in grid.cells.items() if c.trials}})
        for done in _chains(_tuned, several, folder, [grid.tuned_on], jobs, {}):
            picked |= {one.cell: best(one.tried) for one in done.tuned}
            yield done
    yield from _chains(_measured, grid, folder, seeds, jobs, picked)


class _Chain(NamedTuple):
    """Cells of a seed, one after the other: what is computed of the systems that they share is taken over."""

    grid: Grid
    folder: Path
    seed: int
    cells: tuple[str, ...]
    picked: Mapping[str, str]
    """Cell to its trial, where that has been chosen elsewhere."""

    @property
    def own(self) -> Path:
        return self.folder / f"seed-{self.seed}"


def _chains(
    work: Callable[[_Chain], T], grid: Grid, folder: Path, seeds: Sequence[int], jobs: int, picked: Mapping[str, str]
) -> Iterator[T]:  # fmt: skip
    """What ``work`` makes of every seed's cells, as it is done."""
    if not grid.cells:
        return
    whole = [_Chain(grid, folder, seed, tuple(grid.cells), picked) for seed in seeds]
    chains = [_Chain(grid, folder, seed, names, picked) for seed, names in divided(list(grid.cells), seeds, jobs)]
    if jobs == 1:
        for chain in chains:
            _share(chain)
            yield work(chain)
        return
    count = min(jobs, len(chains))
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_the_sweep) as pool:
        list(pool.map(_share, whole))
        for done in as_completed([pool.submit(work, chain) for chain in chains]):
            yield done.result()


def divided(cells: Sequence[str], seeds: Sequence[int], jobs: int) -> list[tuple[int, tuple[str, ...]]]:
    """Seeds with cells to run one after the other; the last seeds, which would leave processes idle, in parts."""
    rest = len(seeds) % jobs
    parts = min(jobs // gcd(jobs, rest), len(cells)) if rest else 1
    cut = [round(at * len(cells) / parts) for at in range(parts + 1)]
    whole = [(seed, tuple(cells)) for seed in seeds[: len(seeds) - rest]]
    return whole + [(seed, tuple(cells[a:b])) for seed in seeds[len(seeds) - rest :] for a, b in pairwise(cut)]


def _end_with_the_sweep() -> None:
    """Let a process of a sweep end where the sweep itself is killed, and not hold its runs for hours.

    A terminal interrupts all processes at once: the sweep tells of it, and its processes end without a word.
    """
    process_is_ours()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    sweep = parent_process()
    assert sweep is not None

    def watch() -> None:
        wait([sweep.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _share(chain: _Chain) -> None:
    """The stages that all cells of a seed share."""
    run_until(Run(chain.own / SHARED, settings(chain.grid, Cell(), chain.seed)), chain.grid.share)


def _places(chain: _Chain) -> dict[str, dict[str, Path]]:
    """Cell to trial to its run folder."""
    of = {name: trials(chain.grid.cells[name]) for name in chain.cells}
    return {
        name: {one: chain.own / file_name(f"{name}, {one}" if len(asked) > 1 else name) for one in asked}
        for name, asked in of.items()
    }


def _tuned(chain: _Chain) -> Done:
    """Every cell with its trials' scores on the validation studies."""
    found, failed, source = list[Tuned](), list[Failed](), chain.own / SHARED
    for name, places in _places(chain).items():
        tried, broken, source = _all_tried(chain, name, source, places)
        found.append(Tuned(name, tried))
        failed += broken
    return Done(tuned=found, failed=failed)


def _measured(chain: _Chain) -> Done:
    """Every cell, run to its end; a cell whose settings have changed since is run again, as far as they matter."""
    found, failed, source = list[CellRun](), list[Failed](), chain.own / SHARED
    for name, places in _places(chain).items():
        tried, broken = dict[str, float | None](), list[Failed]()
        before = source
        if name not in chain.picked and len(places) > 1:
            tried, broken, before = _all_tried(chain, name, source, places)
            failed += broken
        if len(broken) == len(places):
            continue
        trial = chain.picked.get(name) or best(tried or dict.fromkeys(places))
        try:
            found.append(_measure(chain, name, trial, before, places[trial], tried))
        except RadprefError as error:
            failed.append(Failed(chain.seed, name, trial, places[trial], str(error)))
        else:
            source = places[trial]
    return Done(found, failed=failed)


def _measure(
    chain: _Chain, name: str, trial: str, source: Path, place: Path, tried: Mapping[str, float | None]
) -> CellRun:
    """What the run of a trial comes to, from its beginning to its report."""
    with _told(name, place):
        run = _run_of(chain, name, trial, source, place)
        run_all(run, redo=True)
        rows = _rows(run, name, chain.grid.cells[name])
        finished = read_finished(place)
        known = set(evaluation.tables.BASELINES) - set(rows)
        trivial = {system: system for system in _systems(run) if system in known}
        sums = {row: finished.sums(system) for system, row in {**trivial, **rows}.items()}
        return CellRun(chain.seed, name, trial, place, tried, _read(run, rows), _read(run, trivial), sums)


def _all_tried(
    chain: _Chain, name: str, source: Path, places: Mapping[str, Path]
) -> tuple[dict[str, float | None], list[Failed], Path]:
    """Each trial's score, those that failed, and a folder to go on from.

    Each begins as a copy of the one before, and takes over what its settings leave alone.
    """
    tried, failed = dict[str, float | None](), list[Failed]()
    for trial, place in places.items():
        try:
            with _told(name, place):
                tried[trial] = _tried(chain, name, trial, source, place)
        except RadprefError as error:
            tried[trial] = None
            failed.append(Failed(chain.seed, name, trial, place, str(error)))
        else:
            source = place
    return tried, failed, source


@contextmanager
def _told(name: str, place: Path) -> Iterator[None]:
    """Tell what a machine lacks, memory or a disk to write to, as an error of the cell that lacks it."""
    with enough_memory(f"cell {name}", "the size of batches and images"), disk_errors(place):
        yield


def _tried(chain: _Chain, name: str, trial: str, source: Path, place: Path) -> float | None:
    """The score on the validation studies of the checkpoint that a trial selects."""
    run = _run_of(chain, name, trial, source, place)
    run_until(run, "select")
    choice = Left(run, road_of(run.recipe)).fact(CHOICE)
    assert choice is not None
    return choice.chosen.scores[choice.by]


def _run_of(chain: _Chain, name: str, trial: str, source: Path, place: Path) -> Run:
    """The run of a trial of a cell, which begins as a copy of ``source``."""
    cell = chain.grid.cells[name]
    copy(source, place)
    return Run(place, settings(chain.grid, cell, chain.seed, trials(cell)[trial]))


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
    shutil.copytree(source, half, copy_function=put, ignore=shutil.ignore_patterns(*_ANOTHERS))
    half.rename(target)


def _rows(run: Run, name: str, cell: Cell) -> dict[str, str]:
    """System to row of the table, of every way to answer of the systems that the cell shows.

    Raises SweepError for a system that the run has not measured.
    """
    systems, called = _systems(run), shown(name, cell)
    for system in called:
        if system not in systems:
            raise SweepError(
                f"cell {name} shows `{system}`, which its run has not measured; there are {', '.join(systems)}"
            )
    parts = {system: system.partition(",") for system in systems}
    return {system: f"{called[of]}{comma}{way}" for system, (of, comma, way) in parts.items() if of in called}


def _systems(run: Run) -> list[str]:
    """All that a run has measured, in its order."""
    return list(dict.fromkeys(row["system"] for row in read_json(run.path("metrics.json"))["metrics"]))


def _read(run: Run, rows: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Values by row of the table; the aligned model's with what it was made from."""
    metrics = read_json(run.path("metrics.json"))["metrics"]
    found = {
        row: {m["name"]: m["value"] for m in metrics if m["system"] == system and m["value"] is not None}
        for system, row in rows.items()
    }
    if AFTER in rows:
        found[rows[AFTER]] |= _made(run)
    return found


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
