"""The k nearest rows of a gallery, exactly: products in blocks, coarse at first, and proved.

Every distance is a weighted sum over parts,

    D(i, j) = sum over cosine parts of w (1 - cos) + sum over sign parts of w Hamming,

and so a constant less one inner product, in which the query's side carries the weights, of either sign. A search goes
over the gallery in blocks and keeps, for every query, more candidates than are asked for; the distances of those
that may count are then computed exactly. Where all that was not kept lies further away than the k-th neighbour, by
more than the coarse products can err, a query is done; the others, mostly those with ties, are searched again in
float64, which is exact for the vectors of ``radpref.mining.vectors``. Where rows of the gallery repeat, all this is
done among the distinct ones (``radpref.mining.distinct``). Coarse are products of 8-bit integers: three of
them are as good as float32 and, on a CPU with VNNI, three times as fast. Memory holds a block, a tile of products,
the queries and what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from math import copysign, sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from radpref.errors import RadprefError
from radpref.mining.distinct import Distinct, distinct
from radpref.mining.rows import as_tensor

BLOCK = 1024
"""Rows of the gallery at a time: few, so that what is made of them stays in the cache and memory stays flat."""
TILE = 256
"""Queries at a time."""
SPARE = 14
"""Candidates kept beside the k: more of them prove more queries at the coarse step."""
_FOLD = 32
"""Columns that share one maximum when the largest are looked for."""
_FINER = 254
"""Steps of the second 8 bits in one of the first."""
_EXTRA = 4
"""Distinct rows beside the k, and members of each beside the k, for those that are excluded."""
_QUERIES = 4096
"""Queries at a time, when distinct rows are spread to their members."""
_PAIRS = 1 << 19
"""Coordinates of gathered candidates at a time, when their distances are computed."""


class SearchError(RadprefError, ValueError):
    """A search that cannot be made; the message says what to give instead."""


class Part(NamedTuple):
    """One kind of vector by which rows are compared.

    ``queries`` (Q, D) and ``gallery`` (N, D) are tensors, NumPy arrays, memory maps (of any float type) or
    ``mining.Rows``: rows as ``vectors.unit`` (``cosine``) or ``vectors.signs`` (``signs``, compared by mean Hamming
    distance) make them.
    """

    queries: Any
    gallery: Any
    weight: float = 1.0
    kind: Literal["cosine", "signs"] = "cosine"

    @property
    def factor(self) -> float:
        """Of the inner product, within the similarity."""
        return self.weight if self.kind == "cosine" else self.weight / (2 * self.queries.shape[1])

    @property
    def constant(self) -> float:
        """The distance of rows whose inner product is 0."""
        return self.weight if self.kind == "cosine" else self.weight / 2


Groups = tuple[Tensor, Tensor]
"""A number for each query (Q,) and for each row of the gallery (N,), int64; a query is not given rows of its own."""


class Neighbours(NamedTuple):
    """The nearest rows of the gallery, nearest first; equal distances in the order of the gallery."""

    row: Tensor
    """(Q, k) int64; -1 where a query has fewer than k."""
    distance: Tensor
    """(Q, k) float64; infinite where a query has fewer than k."""
    searched: dict[str, int]
    """How to the number of queries that it was needed for: ``distinct`` (the gallery's rows repeat), ``int8``,
    ``float64``; queries that the first of them prove do not come to the others."""


def search(
    parts: Sequence[Part],
    k: int,
    *,
    exclude: Sequence[Groups] = (),
    block: int = BLOCK,
    tile: int = TILE,
    spare: int = SPARE,
) -> Neighbours:
    """The ``k`` nearest of the gallery for every query.

    The result does not depend on ``block``, ``tile``, ``spare``, threads or the machine, for vectors on the grid of
    ``vectors.unit``; for others up to the rounding of float64.

    Raises:
        SearchError: no part with a weight other than 0, or parts of different numbers of rows or columns.
    """
    parts = _checked([part for part in parts if part.weight], k)
    queries = parts[0].queries.shape[0]
    index = torch.full((queries, k), -1)
    distance = torch.full((queries, k), torch.inf, dtype=torch.float64)
    left = torch.arange(queries)
    searched: dict[str, int] = {}
    alike = distinct([part.gallery for part in parts])
    if alike is not None:
        searched["distinct"] = queries
        index, distance, proved = _among_distinct(parts, alike, k, exclude, block, tile, spare)
        left = left[~proved]
    index[left], distance[left], more = _among_all(parts, left, k, exclude, block, tile, spare)
    return Neighbours(index, distance, searched | more)


def _among_all(
    parts: Sequence[Part], which: Tensor, k: int, exclude: Sequence[Groups], block: int, tile: int, spare: int
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Row and distance of the neighbours of some queries, each (which, k), and what they were searched by."""
    gallery = parts[0].gallery.shape[0]
    index = torch.full((len(which), k), -1)
    value = torch.full((len(which), k), -torch.inf, dtype=torch.float64)
    left = torch.arange(len(which))
    searched: dict[str, int] = {}
    for name, arithmetic in _ARITHMETICS.items():
        if not len(left):
            break
        searched[name] = len(left)
        keep = min(k + (0 if arithmetic is _Exact else spare), max(gallery, 1))
        found = _scan(arithmetic, parts, which[left], keep, exclude, block, tile)
        own_index, own_value, proved = _settled(parts, which[left], found, k)
        index[left[proved]], value[left[proved]] = own_index[proved], own_value[proved]
        left = left[~proved]
    return index, sum(part.constant for part in parts) - value, searched


def _among_distinct(
    parts: Sequence[Part], alike: Distinct, k: int, exclude: Sequence[Groups], block: int, tile: int, spare: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row and distance (Q, k) by a search among distinct rows, and for which queries (Q,) that is proved.

    Each of a query's nearest distinct rows stands for its members, which all lie at its distance. What is left of
    them without the excluded ones is the answer, where neither a row beyond the kept ones nor a member beyond the
    listed ones could come before the k-th.
    """
    same = all(part.queries is part.gallery for part in parts)
    asking = alike if same else distinct([part.queries for part in parts], always=True)
    assert asking is not None
    few = [
        part._replace(queries=as_tensor(part.queries, asking.first), gallery=as_tensor(part.gallery, alike.first))
        for part in parts
    ]
    keep = min(k + _EXTRA, len(alike.first))
    near, far, _ = _among_all(few, torch.arange(len(asking.first)), keep, (), block, tile, spare)
    members, counts = alike.members(k + _EXTRA)
    index, distance, proved = [], [], []
    for which in torch.split(torch.arange(len(asking.of)), _QUERIES):
        nearest, at = near[asking.of[which]], far[asking.of[which]]
        rows = members[nearest]
        valid = rows >= 0
        for of_query, of_row in exclude:
            valid &= of_query[which][:, None, None] != of_row[rows]
        here = torch.where(valid, at[:, :, None], torch.inf).flatten(1)
        order = rows.flatten(1).argsort(dim=1, stable=True)
        order = order.gather(1, here.gather(1, order).argsort(dim=1, stable=True))[:, :k]
        found, row = here.gather(1, order), rows.flatten(1).gather(1, order)
        last = found[:, -1:]
        beyond = torch.full_like(last, torch.inf) if keep == len(alike.first) else at[:, -1:]
        cut = (counts[nearest] > members.shape[1]) & (valid.sum(2) < k) & (at <= last)
        proved.append(((last < beyond) | beyond.isinf()).squeeze(1) & ~cut.any(1))
        index.append(row.masked_fill(found.isinf(), -1))
        distance.append(found)
    return torch.cat(index), torch.cat(distance), torch.cat(proved)


def _checked(parts: list[Part], k: int) -> list[Part]:
    if not parts or k < 1:
        raise SearchError(f"{len(parts)} parts have a weight other than 0 and k is {k}; a search needs one of each")
    for part in parts:
        shapes = (part.queries.shape, part.gallery.shape)
        rows = (parts[0].queries.shape[0], parts[0].gallery.shape[0])
        if shapes[0][1] != shapes[1][1] or (shapes[0][0], shapes[1][0]) != rows:
            raise SearchError(
                f"parts of a search have shapes {shapes} beside {rows} rows: all parts describe the same queries and "
                "the same gallery, in vectors of one length each"
            )
    return parts


# ---------------------------------------------------------------------------------------------- arithmetics


class _Operand(NamedTuple):
    """Rows as one side of the products."""

    values: Any
    scale: Tensor
    """(rows,) float32; the products of two sides are multiplied with the scales of both."""
    length: float
    """The longest row's."""
    error: float
    """The most that a row is off, as a length."""
    left: float
    """The longest leftover of the first 8 bits."""


class _Integers:
    """Rows as 8-bit integers, and what these leave over as 8-bit integers again; leftovers are not multiplied."""

    @staticmethod
    def operand(parts: Sequence[Part], rows: Sequence[Tensor], asking: bool) -> _Operand:
        wide = _scaled(parts, rows, asking)
        length, scale = _longest(wide), _scale(wide)
        high, left = _coded(wide, scale)
        low, rest = _coded(left, scale / _FINER)
        both = torch.cat([high, low] if asking else [low, high], dim=1)  # high low' + low high' is one product
        return _Operand((high, both), scale, length, _longest(rest), _longest(left))

    @staticmethod
    def product(left: _Operand, right: _Operand) -> Tensor:
        (high, both), (other_high, other_both) = left.values, right.values
        cross = _integer_product(both, other_both).float()
        return cross.div_(_FINER).add_(_integer_product(high, other_high).float()).mul_(right.scale)

    @staticmethod
    def slack(left: _Operand, right: _Operand) -> float:
        """|u g - u' g'| <= |u| |g - g'| + |u - u'| |g'|, the leftovers, and float32's rounding on the way."""
        lengths = left.length * right.length
        bound = left.length * right.error + left.error * (right.length + right.error)
        return 1.0001 * (bound + (left.left + left.error) * (right.left + right.error)) + 2e-6 * lengths


class _Exact:
    """Parts in float64, each multiplied alone and then added in their order, as ``_similarity`` does."""

    @staticmethod
    def operand(parts: Sequence[Part], rows: Sequence[Tensor], asking: bool) -> _Operand:
        values = [(part.factor, own.double()) for part, own in zip(parts, rows, strict=True)]
        return _Operand(values, torch.ones(len(rows[0])), 0.0, 0.0, 0.0)

    @staticmethod
    def product(left: _Operand, right: _Operand) -> Tensor:
        products = [f * (a @ b.T) for (f, a), (_, b) in zip(left.values, right.values, strict=True)]
        return _added(products)

    @staticmethod
    def slack(left: _Operand, right: _Operand) -> float:
        return 0.0


_ARITHMETICS: dict[str, Any] = {"int8": _Integers, "float64": _Exact}


def _scaled(parts: Sequence[Part], rows: Sequence[Tensor], asking: bool) -> Tensor:
    """The parts side by side, (rows, all D) float32, times the root of their factors, the queries' with the sign."""
    roots = [sqrt(abs(part.factor)) for part in parts]
    signs = [copysign(1.0, part.factor) if asking else 1.0 for part in parts]
    scaled = [own.float() * (root * sign) for own, root, sign in zip(rows, roots, signs, strict=True)]
    return torch.cat(scaled, dim=1) if len(scaled) > 1 else scaled[0]


def _scale(wide: Tensor) -> Tensor:
    """What maps each row onto -127 to 127."""
    return torch.maximum(wide.amax(1), -wide.amin(1)).clamp_(min=1e-30).div_(127)


def _coded(wide: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8 in steps of ``scale``, and what that leaves over."""
    rounded = (wide / scale[:, None]).round_()
    return rounded.to(torch.int8), torch.addcmul(wide, rounded, scale[:, None], value=-1)


def _longest(rows: Tensor) -> float:
    return float(rows.norm(dim=1).max()) if len(rows) else 0.0


def _integer_product(left: Tensor, right: Tensor) -> Tensor:
    """Exact products of int8 rows: (rows of left, rows of right) int32."""
    product: Tensor = torch._int_mm(left, right.T)
    return product


def _added(products: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, products)


def _similarity(parts: Sequence[Part], queries: Tensor, gallery: Tensor) -> Tensor:
    """Of pairs of rows, (pairs,) each: (pairs,) float64."""
    width = max(part.queries.shape[1] for part in parts)
    out = torch.empty(len(queries), dtype=torch.float64)
    for start in range(0, len(queries), step := max(1, _PAIRS // width)):
        some = slice(start, start + step)
        products = [
            part.factor
            * torch.linalg.vecdot(
                as_tensor(part.queries, queries[some]).double(), as_tensor(part.gallery, gallery[some]).double()
            )
            for part in parts
        ]
        out[some] = _added(products)
    return out


# ---------------------------------------------------------------------------------------------- scanning


class _Kept(NamedTuple):
    """The best of the gallery for every query by one arithmetic."""

    value: Tensor
    """(Q, keep): similarity as that arithmetic sees it; minus infinity where there was nothing left to keep."""
    row: Tensor
    """(Q, keep) int64."""
    slack: Tensor
    """(Q,): the most that any similarity errs by."""


def _scan(
    arithmetic: Any,
    parts: Sequence[Part],
    which: Tensor,
    keep: int,
    exclude: Sequence[Groups],
    block: int,
    tile: int,
) -> _Kept:
    best = _first_best if arithmetic is _Exact else _best
    tiles = torch.split(which, tile)
    asking = [arithmetic.operand(parts, [as_tensor(part.queries, own) for part in parts], True) for own in tiles]
    dtype = torch.float64 if arithmetic is _Exact else torch.float32
    kept = [(torch.empty(len(own), 0, dtype=dtype), torch.empty(len(own), 0, dtype=torch.int64)) for own in tiles]
    slack = [0.0] * len(tiles)
    gallery = parts[0].gallery.shape[0]
    for start in range(0, gallery, block):
        some = slice(start, min(start + block, gallery))
        given = arithmetic.operand(parts, [as_tensor(part.gallery, some) for part in parts], False)
        for number, own in enumerate(tiles):
            products = arithmetic.product(asking[number], given)
            for of_query, of_row in exclude:
                products.masked_fill_(of_query[own][:, None] == of_row[some][None], -torch.inf)
            values, columns = best(products, keep)
            values, columns = (
                torch.cat([kept[number][0], values], 1),
                torch.cat([kept[number][1], columns + start], 1),
            )
            if start:
                values, places = best(values, keep)
                columns = columns.gather(1, places)
            kept[number] = values, columns
            slack[number] = max(slack[number], arithmetic.slack(asking[number], given))
    value = torch.cat([values * own.scale[:, None] for (values, _), own in zip(kept, asking, strict=True)])
    sizes = torch.tensor([len(own) for own in tiles])
    return _Kept(value, torch.cat([index for _, index in kept]), torch.tensor(slack).repeat_interleave(sizes))


def _best(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The ``keep`` largest of each row, with their columns, in any order; of equal ones any.

    Among long rows the maxima of ``_FOLD`` columns each are compared first: what is among the largest lies in one
    of as many groups with the largest maxima.
    """
    rows, columns = scores.shape
    groups = columns // _FOLD
    if groups <= 2 * keep or columns % _FOLD:
        found = scores.topk(min(keep, columns), dim=1, sorted=False)
        return found.values, found.indices
    folded = scores.view(rows, _FOLD, groups)
    group = folded.amax(1).topk(keep, dim=1, sorted=False).indices
    inside = folded.gather(2, group[:, None].expand(-1, _FOLD, -1)).flatten(1)
    values, at = inside.topk(keep, dim=1, sorted=False)
    return values, at // keep * groups + group.gather(1, at % keep)


def _first_best(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The ``keep`` largest of each row, of equal ones the first, with their columns, in the order of the columns."""
    keep = min(keep, scores.shape[1])
    least = scores.topk(keep, dim=1).values[:, -1:]
    above, equal = scores > least, scores == least
    taken = above | (equal & (equal.cumsum(1) <= keep - above.sum(1, keepdim=True)))
    columns = taken.nonzero()[:, 1].view(len(scores), keep)
    return scores.gather(1, columns), columns


def _settled(parts: Sequence[Part], which: Tensor, kept: _Kept, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row (Q, k) and exact similarity (Q, k) of the nearest candidates, and for which queries (Q,) that is proved."""
    value, slack = kept.value.double(), kept.slack.double()[:, None]
    here = min(k, value.shape[1])
    if value.shape[1]:
        last = value.topk(here, dim=1).values[:, -1:]
        # What is not among the kept is no more similar than the least of them, give or take the slack.
        beyond = torch.where(value.isneginf(), -torch.inf, value + slack).amin(1)
        whole = value.shape[1] == parts[0].gallery.shape[0]
        open_ = (beyond >= last[:, 0]) & (kept.slack > 0) & ~beyond.isneginf() & (not whole)
        counts = (value + slack >= last - slack) & value.isfinite() & ~open_[:, None]
        query, place = counts.nonzero(as_tuple=True)
        exact = torch.full_like(value, -torch.inf)
        exact[query, place] = _similarity(parts, which[query], kept.row[query, place])
        index, order = kept.row.sort(dim=1)
        exact, order = exact.gather(1, order).sort(dim=1, descending=True, stable=True)
        index = index.gather(1, order)[:, :here].masked_fill(exact[:, :here].isinf(), -1)
        proved = ~open_ & ((beyond < exact[:, here - 1]) | beyond.isneginf() | (kept.slack == 0) | whole)
    else:
        exact, index, proved = value, kept.row, torch.ones(len(which), dtype=torch.bool)
    short = (0, k - here)
    return pad(index, short, value=-1), pad(exact[:, :here], short, value=-torch.inf), proved
