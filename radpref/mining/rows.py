"""Rows of vectors that need no memory: those of distinct inputs in a file, and for every row which of them is its."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
BLOCK = 4096
"""Distinct inputs that are made into vectors at a time."""


class Rows:
    """Vectors (N, D), float32, in a file that goes with the object; rows that are alike stand there once.

    It is read as an array is, by a slice or by an array of row numbers, and holds 8 bytes a row.

    Args:
        vectors: the distinct vectors, in blocks (n, D).
        of: (N,) int64: which of them every row is; every vector is a row of its own if absent.
    """

    def __init__(self, vectors: Iterable[Tensor], of: NDArray[np.int64] | None = None) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed, and gone, with the object
        rows, width = 0, 1
        for block in vectors:
            rows, width = rows + len(block), block.shape[1]
            self._file.write(block.float().contiguous().numpy().tobytes())
        self._file.flush()
        self._of = np.arange(rows) if of is None else of
        self.shape = (len(self._of), width)

    def take(self, which: NDArray[np.int64]) -> Rows:
        """Some rows, in the same file."""
        taken = copy(self)
        taken._of = self._of[which]
        taken.shape = (len(which), self.shape[1])
        return taken

    def __getitem__(self, which: slice | Tensor | NDArray[np.int64]) -> NDArray[np.float32]:
        wanted, place = np.unique(self._of[np.asarray(which) if isinstance(which, Tensor) else which],
                                  return_inverse=True)  # fmt: skip
        read = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) != 1) + 1):
            if len(run):
                self._file.seek(int(wanted[run[0]]) * read.strides[0])
                self._file.readinto(read[run[0] : run[-1] + 1].data.cast("B"))
        return read[place]


Vectors: TypeAlias = Tensor | Rows
"""(N, D), float32: what questions are compared by."""


class DistinctTexts:
    """Texts in their order, each different one once, in a file that goes with the object."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed, and gone, with the object
        self._lengths, of, known = array("q"), array("q"), dict[bytes, int]()
        for text in texts:
            content = text.encode("utf-8", "surrogatepass")
            number = known.setdefault(blake2b(content, digest_size=12).digest(), len(known))
            if number == len(self._lengths):
                self._file.write(content)
                self._lengths.append(len(content))
            of.append(number)
        self.of: NDArray[np.int64] = np.array(of, dtype=np.int64)
        """(N,): which of them each text is."""
        self.times: NDArray[np.int64] = np.bincount(self.of, minlength=len(self._lengths))
        """How often each is there."""

    def __iter__(self) -> Iterator[str]:
        place = 0
        for length in self._lengths:
            self._file.seek(place)
            place += length
            yield self._file.read(length).decode("utf-8", "surrogatepass")

    def vectors(self, make: Callable[[list[str]], Tensor]) -> Rows:
        """The vectors (n, D) that ``make`` gives of n texts, for all of them."""
        return Rows(map(make, batched(self)), self.of)


def batched(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of ``BLOCK`` items, the last one shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, BLOCK)):
        yield some


def as_tensor(rows: Any, which: slice | Tensor) -> Tensor:
    """Some rows of a tensor, an array, a memory map or ``Rows``, as a tensor."""
    if isinstance(rows, Tensor):
        return rows[which]
    return torch.from_numpy(rows[which if isinstance(which, slice) else which.numpy()])
