"""How the items of a step are divided among processes, so that a step is the same for whoever takes part.

A recipe's ``batch`` counts the items of a batch over all processes. The batches of an epoch follow from the seed and
the list of items alone; each process takes its share of every batch, and shares differ by one item at most. A process
that a short last batch leaves without an item goes along with one that counts nothing, because all must meet in the
backward pass. A training can be resumed by another number of processes: a batch has the same number everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

SHARE = "share"
"""Name in a batch of what a mean over this process's items counts in the mean over all processes."""


class Place(NamedTuple):
    """An item of a batch, as one process meets it."""

    item: int
    counts: bool
    share: float
    """What a mean over this process's items counts in the mean over all processes, against that of a full batch: a
    short last batch counts by its items."""


def processes() -> tuple[int, int]:
    """(this process, all of them), of those that torch.distributed has brought together."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there else (0, 1)


def shares(batch: Sequence[int], full: int, rank: int, world: int) -> list[Place]:
    """The share of one process in a batch of items, ``full`` of which make a whole one; never empty."""
    first, last = rank * len(batch) // world, (rank + 1) * len(batch) // world
    own = batch[first:last]
    if not own:
        return [Place(batch[0], False, 0.0)]
    return [Place(item, True, len(own) * world / full) for item in own]


class Shuffled:
    """The items of an epoch in random order, which follows from seed and epoch alone."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called at each epoch's start."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return iter(torch.randperm(self._count, generator=random).tolist())


class Batches(Sampler[list[Place]]):
    """The batches of an epoch, of each the share of this process.

    Args:
        order: the items of an epoch in their order, with ``set_epoch``.
        batch: items of a batch, over all processes.
        drop_last: leave a short last batch out.
    """

    def __init__(self, order: Any, batch: int, *, drop_last: bool = False) -> None:
        self._order, self._batch, self._drop_last = order, batch, drop_last

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at each epoch's start."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        count = len(self._order)
        return count // self._batch if self._drop_last else -(-count // self._batch)

    def __iter__(self) -> Iterator[list[Place]]:
        rank, world = processes()
        batch: list[int] = []
        for item in self._order:
            batch.append(item)
            if len(batch) == self._batch:
                yield shares(batch, self._batch, rank, world)
                batch = []
        if batch and not self._drop_last:
            yield shares(batch, self._batch, rank, world)


class _Places(Dataset[tuple[Any, Place]]):
    """The items of a list, by their places."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Place) -> tuple[Any, Place]:
        return self._items[place.item], place


class Ahead:
    """A data loader whose next batch is made in a thread of its own while the one before is trained on.

    To whoever asks for its data set, sampler or number of batches it is the loader itself. An error in making a batch
    is raised where that batch is asked for. The rest of an epoch that is resumed comes from a loader that accelerate
    makes of this one, batch by batch.

    What makes a batch (tokenizer, image processor, caches) belongs to the thread while a training runs: a tokenizer may
    not encode in two threads at once. The main thread may save them and decode.
    """

    def __init__(self, batches: Any) -> None:
        self._loader = batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        place = torch.accelerator.current_device_index() if torch.accelerator.is_available() else None
        with ThreadPoolExecutor(1, initializer=_on, initargs=(place,)) as pool:
            batches = iter(self._loader)
            coming = pool.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = pool.submit(next, batches, None)
                yield batch


def _on(device: int | None) -> None:
    """Let this thread pin memory for the device that the process trains on."""
    if device is not None:
        torch.accelerator.set_device_index(device)


def loader(
    items: Sequence[Any],
    batches: Batches,
    collate: Callable[[list[Any], list[bool]], dict[str, Any]],
    args: Any,
) -> Ahead:
    """The data loader of one process, which divides nothing any more.

    ``collate`` is given items and, of each, whether it counts; ``SHARE`` is put beside what it returns.
    """

    def gather(found: Iterable[tuple[Any, Place]]) -> dict[str, Any]:
        rows = list(found)
        batch = collate([item for item, _ in rows], [place.counts for _, place in rows])
        return {**batch, SHARE: rows[0][1].share}

    made: Any = DataLoader(
        _Places(items), batch_sampler=batches, collate_fn=gather, pin_memory=args.dataloader_pin_memory
    )
    made.set_epoch = batches.set_epoch  # the Trainer asks the loader
    return Ahead(made)


def part(batch: int) -> int:
    """The largest share that a process has in a batch: what the Trainer calls the batch of a device."""
    return max(1, -(-batch // processes()[1]))
