"""Timing in turn: each repetition takes a step of either kind, and the ratio is the median over repetitions."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from radpref import config
from radpref.bench.shapes import SHAPES, build, pairs
from radpref.bench.steps import Stepper, encodings, ours, ours_sft, published_firempo, trl, trl_sft
from radpref.config import AlignSection, LoraSection, ModelSection, RunSection, SftSection
from radpref.errors import RadprefError
from radpref.models import Vlm, load
from radpref.records import Pair

Progress = Callable[[str], object]


class BenchError(RadprefError, ValueError):
    """A benchmark that cannot be run."""


@dataclass(frozen=True)
class Row:
    """One comparison; times in seconds."""

    shape: str
    objective: str
    phase: str
    """``steady``: forward, loss and backward on a ready batch; ``first_epoch``, ``three_epochs``: all from raw pairs
    to the trained adapter, encoding images, references and caches included."""
    other: str
    """``trl`` or ``published``."""
    ours_s: float
    other_s: float
    ratio: float
    """Median over repetitions of the other's time over ours, taken in turn."""
    repetitions: int
    peak_memory_ratio: float | None = None
    """Ours over the other's: peak resident memory of a process that takes one step (on a GPU, allocated memory)."""
    ours_peak_mb: float | None = None
    other_peak_mb: float | None = None
    loss_diff: float | None = None
    grad_rel_diff: float | None = None
    ours_tokens_s: float | None = None
    """Tokens a second through the language model: ours sends each token once."""
    other_tokens_s: float | None = None
    ours_encodings: int | None = None
    """Images through the tower in a step."""
    other_encodings: int | None = None
    of_machine: float | None = None
    """Arithmetic on unique tokens a second over this machine's measured matrix-product speed."""
    overhead: float | None = None
    """Share of an epoch's time that our trainer spends outside the model's forward and backward passes."""
    note: str = ""


class Setting(NamedTuple):
    """What is compared."""

    shape: str
    """A name of ``SHAPES``, or the path of a model."""
    objective: str
    """``dpo`` and ``sft`` against TRL, ``firempo`` against its published way."""
    batch: int
    """Pairs a step; of ``sft``, questions."""
    pairs: int
    repetitions: int
    threads: int
    device: str
    precision: str
    rank: int
    """Of the LoRA; 0 trains language model and projector in full, which is compared of ``sft`` alone."""
    checkpointing: bool
    pixels: int = 512
    """Side of the images of a model that is given by its path."""


def section_of(setting: Setting) -> AlignSection | SftSection:
    """The settings of both sides."""
    if setting.objective == "sft":
        return SftSection(
            lora=LoraSection(rank=setting.rank, alpha=2 * setting.rank or 1),
            batch=setting.batch,
            warmup=0.0,
            gradient_checkpointing=setting.checkpointing,
        )
    values = config.objectives()[setting.objective]
    lora = LoraSection(rank=setting.rank, alpha=2 * setting.rank)
    return AlignSection.model_validate(
        {
            **values,
            "objective": setting.objective,
            "batch": setting.batch,
            "lora": lora,
            "warmup": 0.0,
            "gradient_checkpointing": setting.checkpointing,
        }
    )


def bench(setting: Setting, *, phases: Sequence[str], memory: bool = True, tell: Progress = print) -> list[Row]:
    """Compare on one shape and objective; a row a phase, the steady state first.

    Raises BenchError for a shape, objective or number of pairs that cannot be measured.
    """
    sides = _sides(setting)
    if setting.pairs < setting.batch:
        raise BenchError(f"--pairs {setting.pairs} is less than --batch {setting.batch}: there is no whole step")
    rows = []
    with tempfile.TemporaryDirectory() as name, _threads(setting.threads):
        folder = Path(name)
        data = _data(setting, folder)
        section = section_of(setting)
        tell(f"{setting.shape}, {setting.objective}: one step of {setting.batch}, {setting.repetitions} times")
        mine, other = (make(_model(setting, folder), data, section, folder) for make in sides)
        rows.append(_steady(setting, mine, other))
        if memory:
            tell("peak memory, each in a process of its own")
            rows[0] = _with_memory(setting, rows[0])
        for phase, count in (("first_epoch", 1), ("three_epochs", 3)):
            if phase in phases:
                tell(f"{phase}: {count} passes over {setting.pairs} pairs from raw pairs")
                rows.append(_epochs(setting, phase, count, mine, other))
    return rows


Maker = Callable[[Vlm, Sequence[Pair], Any, Path], Stepper]
_SIDES: dict[str, tuple[Maker, Maker]] = {
    "dpo": (ours, trl),
    "firempo": (ours, published_firempo),
    "sft": (ours_sft, trl_sft),
}
"""Our way and the other's, by objective."""


def _sides(setting: Setting) -> tuple[Maker, Maker]:
    """How both take a step. Raises BenchError where there is nothing to compare."""
    if setting.objective not in _SIDES:
        raise BenchError(
            f"--objective {setting.objective}: there is nothing to compare it with; dpo and sft are timed against "
            "TRL's trainers and firempo against the published way"
        )
    if not setting.rank and setting.objective != "sft":
        raise BenchError(f"--rank 0 trains in full, which is compared of sft alone; give {setting.objective} a rank")
    return _SIDES[setting.objective]


def _model(setting: Setting, folder: Path) -> Vlm:
    path = Path(setting.shape)
    if setting.shape in SHAPES:
        path = folder / "model"
        if not path.exists():
            build(SHAPES[setting.shape], path)
    elif not path.is_dir():
        raise BenchError(f"--shape {setting.shape} is none of {', '.join(SHAPES)}, and no folder of a model either")
    run = RunSection.model_validate({"device": setting.device, "precision": setting.precision})
    return load(ModelSection(path=str(path)), run)


def _data(setting: Setting, folder: Path) -> list[Pair]:
    pixels = SHAPES[setting.shape].pixels if setting.shape in SHAPES else setting.pixels
    return pairs(setting.pairs, pixels, folder / "images")


def _steady(setting: Setting, mine: Stepper, other: Stepper) -> Row:
    found = []
    for stepper in (mine, other):  # each once before the clock runs, for the comparison of what comes out
        stepper.model.zero_grad()
        loss = float(stepper.step())
        found.append((loss, _gradients(stepper.model)))
    (our_loss, our_gradient), (their_loss, their_gradient) = found
    difference = float((our_gradient - their_gradient).norm() / their_gradient.norm())
    times = [(_seconds(mine), _seconds(other)) for _ in range(setting.repetitions)]
    ours_s, other_s = (statistics.median(column) for column in zip(*times, strict=True))
    with FlopCounterMode(display=False) as counter:
        mine.step()
    mine.model.zero_grad()
    return Row(
        shape=setting.shape,
        objective=setting.objective,
        phase="steady",
        other=other.name,
        ours_s=ours_s,
        other_s=other_s,
        ratio=statistics.median(b / a for a, b in times),
        repetitions=setting.repetitions,
        loss_diff=abs(our_loss - their_loss),
        grad_rel_diff=difference,
        ours_tokens_s=mine.tokens / ours_s,
        other_tokens_s=other.tokens / other_s,
        ours_encodings=encodings(mine.model, mine.step),
        other_encodings=encodings(other.model, other.step),
        of_machine=counter.get_total_flops() / ours_s / _speed(mine.model),
        note=mine.note,
    )


def _gradients(model: Any) -> Tensor:
    found = [p.grad.flatten().float() for p in model.parameters() if p.requires_grad and p.grad is not None]
    model.zero_grad()
    return torch.cat(found)


def _seconds(stepper: Stepper) -> float:
    device = next(stepper.model.parameters()).device
    _wait(device)
    start = time.perf_counter()
    stepper.step()
    _wait(device)
    seconds = time.perf_counter() - start
    stepper.model.zero_grad()
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _speed(model: Any) -> float:
    """Floating-point operations a second of a large matrix product, in the precision of the forward passes."""
    device = next(model.parameters()).device
    size = 4096 if device.type == "cuda" else 1024
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    times = []
    for _ in range(8):
        _wait(device)
        start = time.perf_counter()
        left @ right
        _wait(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times[2:])


def _epochs(setting: Setting, phase: str, count: int, mine: Stepper, other: Stepper) -> Row:
    """Whole trainings. Once each: they are long, and their steps are many."""
    gc.collect()
    start = time.perf_counter()
    with _inside() as inside:
        mine.epoch(count)
    ours_s = time.perf_counter() - start
    training = inside[-1]
    start = time.perf_counter()
    other.epoch(count)
    other_s = time.perf_counter() - start
    return Row(
        shape=setting.shape,
        objective=setting.objective,
        phase=phase,
        other=other.name,
        ours_s=ours_s,
        other_s=other_s,
        ratio=other_s / ours_s,
        repetitions=1,
        overhead=training,
        note=other.note,
    )


@contextmanager
def _inside() -> Iterator[list[float]]:
    """Adds the share of our trainers' time outside the model's forward and backward passes."""
    from accelerate import Accelerator
    from transformers import Trainer

    from radpref.training import scoring

    spent = {"model": 0.0}
    shares: list[float] = []
    train, backward, read = Trainer.train, Accelerator.backward, scoring._read_in_model

    def clocked(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = work(*arguments, **named)
            spent["model"] += time.perf_counter() - start
            return result

        return call

    def whole(*arguments: Any, **named: Any) -> Any:
        start, spent["model"] = time.perf_counter(), 0.0
        result = train(*arguments, **named)
        shares.append(1 - spent["model"] / (time.perf_counter() - start))
        return result

    Trainer.train, Accelerator.backward, scoring._read_in_model = whole, clocked(backward), clocked(read)
    try:
        yield shares
    finally:
        Trainer.train, Accelerator.backward, scoring._read_in_model = train, backward, read


def _with_memory(setting: Setting, row: Row) -> Row:
    mine, other = (_peak(setting, side) for side in (0, 1))
    return replace(row, peak_memory_ratio=mine / other, ours_peak_mb=mine, other_peak_mb=other)


def _peak(setting: Setting, side: int) -> float:
    """Peak memory in MB of a fresh process that takes one step; side 0 is ours, 1 the other's."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_one_step, (setting, side))


def _one_step(setting: Setting, side: int) -> float:
    _forget_peak()
    with tempfile.TemporaryDirectory() as place, _threads(setting.threads):
        folder = Path(place)
        stepper = _sides(setting)[side](_model(setting, folder), _data(setting, folder), section_of(setting), folder)
        device = next(stepper.model.parameters()).device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        stepper.step()
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 2**20
    return _peak_resident()


def _forget_peak() -> None:
    """A process inherits the peak of the one that it was started from, unless Linux is told to forget it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_resident() -> float:
    """MB."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="ascii")).group(1)) / 2**10  # type: ignore[union-attr]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
