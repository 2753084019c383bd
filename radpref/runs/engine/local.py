"""One process, or several that were started together by torchrun or accelerate launch.

Which of them a process is stands in the environment (``RANK``, ``WORLD_SIZE``). They meet through torch.distributed,
set up by accelerate: it picks the device and the backend. What is waited for here goes through a group of its own on
the CPU, without a time limit, because a whole stage of the first process may take hours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from radpref.errors import RadprefError
from radpref.records import Record
from radpref.rooms import models
from radpref.runs.rows import Batch, made_in_time
from radpref.runs.stage import Outcome, Ranks, Rows, Stage
from radpref.runs.table import Made

if TYPE_CHECKING:
    from radpref.runs.context import Context

T = TypeVar("T")

PATIENCE = timedelta(days=30)


class LostProcessError(RadprefError):
    """Another of the processes that were started together has stopped; its own message says why."""


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises when a peer is gone
        raise LostProcessError(
            "another process of this run has stopped; its own message says why. The same command goes on."
        ) from error


@dataclass(frozen=True)
class Processes:
    """This process among those that were started together."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes what belongs to the run as a whole."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether the batch of this number is this process's."""
        return number % self.world == self.rank

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            with _together():
                self._distributed.barrier(group=self._group)

    def share(self, value: T) -> T:
        """The first process's value, on all."""
        if self.world == 1:
            return value
        box = [value]
        with _together():
            self._distributed.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all, on all."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with _together():
            self._distributed.all_gather_object(found, value, group=self._group)
        return found

    @cached_property
    def _distributed(self) -> Any:
        from torch import distributed

        return distributed

    @cached_property
    def _group(self) -> Any:
        return self._distributed.new_group(backend="gloo", timeout=PATIENCE)


class Engine(Protocol):
    """Who does the work of a stage."""

    @property
    def processes(self) -> Processes:
        """This process among those that were started together."""

    def rows(
        self, stage: Stage, work: Rows[Record], context: Context, missing: Iterable[Batch]
    ) -> Iterator[list[Made]]:
        """What is made of this process's share of the missing batches, as it comes."""

    def together(self, stage: Stage, work: Ranks, context: Context) -> Outcome:
        """Have all processes enter a training."""


@dataclass(frozen=True)
class Local:
    """This process, or those that were started together."""

    processes: Processes = Processes()

    def rows(
        self, stage: Stage, work: Rows[Record], context: Context, missing: Iterable[Batch]
    ) -> Iterator[list[Made]]:
        """Every batch that is this process's."""
        for batch in missing:
            if self.processes.mine(batch.number):
                yield from made_in_time(work, context, batch)

    def together(self, stage: Stage, work: Ranks, context: Context) -> Outcome:
        """They are all here already."""
        return work.work(context)


def started(device: str = "auto") -> Processes:
    """This process among those of the environment, met with the others where there are any.

    Args:
        device: the recipe's ``run.device``; ``cpu`` keeps processes off GPUs that are there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    from accelerate import PartialState

    cpu = models.pick_device(device).type == "cpu"
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    processes = Processes(state.process_index, state.num_processes)
    processes.wait()  # makes the group while all are here
    return processes
