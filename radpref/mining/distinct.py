"""Rows that are the same, found once: questions and rationales from templates repeat by the hundred.

Neighbours are searched among distinct rows alone, and every one found stands for all that are like it. That is exact,
saves the square of how often rows repeat, and takes away the ties that a search could not prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from radpref.mining.rows import as_tensor

_BLOCK = 512
"""Rows at a time."""
_PROBE = 4096
"""Rows that are looked at first where there are many: repetition shows among them already."""
_WORTH = 1.25
"""How often a row has to repeat, in the mean, for the search among distinct rows to pay."""
_HELD = 1 << 28
"""Most coordinates of distinct rows that are held in memory (1 GiB in float32)."""


class Distinct(NamedTuple):
    """The distinct ones of some rows."""

    first: Tensor
    """(U,) int64: the first row of each, in the order of the rows."""
    of: Tensor
    """(N,) int64: which of them every row is."""

    def members(self, most: int) -> tuple[Tensor, Tensor]:
        """The first ``most`` rows of each, (U, most) int64 with -1 for none, and how many each has (U,)."""
        counts = torch.bincount(self.of, minlength=len(self.first))
        order = self.of.argsort(stable=True)
        place = (counts.cumsum(0) - counts)[:, None] + torch.arange(most)
        there = torch.arange(most) < counts[:, None]
        return torch.where(there, order[place.clamp(max=len(order) - 1)], -1), counts


def distinct(parts: Sequence[Any], *, always: bool = False) -> Distinct | None:
    """The distinct rows of parts (N, D), which are the same where all parts are; None where they hardly repeat,
    or are too many to be held in memory beside the gallery.

    ``always`` returns them however many there are. Rows are told apart by a hash of their bits, and every row is
    then compared with the one that it is taken for.
    """
    rows = parts[0].shape[0]
    if not always and rows > 8 * _PROBE:
        probe = torch.randint(rows, (_PROBE,), generator=torch.Generator().manual_seed(0))
        probe = torch.from_numpy(np.unique(probe.numpy()))
        seen = len(np.unique(_hashed([as_tensor(part, probe) for part in parts]).numpy()))
        # of U rows alike in number, n draws meet about n(n - 1) / 2U twice
        if (len(probe) - seen) * 2 * rows < _WORTH * len(probe) * (len(probe) - 1):
            return None
    hashes = torch.empty(rows, dtype=torch.int64)  # filled in place: pieces to be put together would pin their blocks
    for some in _blocks(rows):
        hashes[some] = _hashed([as_tensor(part, some) for part in parts])
    _, at, like = np.unique(hashes.numpy(), return_index=True, return_inverse=True)
    first, inverse = torch.from_numpy(at), torch.from_numpy(like)
    order = first.argsort()
    found = Distinct(first[order], order.argsort()[inverse])
    if not always and (len(first) * _WORTH > rows or len(first) * sum(part.shape[1] for part in parts) > _HELD):
        return None
    for some in _blocks(rows):
        twin = found.first[found.of[some]]
        if not all(torch.equal(as_tensor(part, some), as_tensor(part, twin)) for part in parts):
            return Distinct(torch.arange(rows), torch.arange(rows)) if always else None  # a collision of hashes
    return found


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]


def _hashed(parts: Sequence[Tensor]) -> Tensor:
    """A hash of each row's bits, (rows,) int64: a sum of products with odd numbers, modulo 2^64."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(parts[0]), dtype=torch.int64)
    for part in parts:
        bits = part.float().contiguous().view(torch.int32) if part.dtype != torch.float64 else part.view(torch.int64)
        odd = torch.randint(-(1 << 62), 1 << 62, (part.shape[1],), generator=generator) * 2 + 1
        total += (bits.long() * odd).sum(1)
    return total
