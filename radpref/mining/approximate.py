"""Approximate search by faiss, an extra: for galleries of many millions, where exact products take too long."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch

from radpref.mining.rows import as_tensor
from radpref.mining.search import (
    BLOCK,
    Groups,
    Neighbours,
    Part,
    SearchError,
    _checked,
    _scaled,
    _similarity,
)

TRAINED = 64
"""Rows a list that the lists are learned from."""


def approximate(
    parts: Sequence[Part], k: int, *, exclude: Sequence[Groups] = (), probes: int = 64, spare: int = 90, seed: int = 0
) -> Neighbours:
    """Like ``search``, but only the ``probes`` lists nearest to a query are looked through.

    The gallery is cut into about 4 sqrt(N) lists (inverted file, Jegou et al., 2011) and held in float16: 2 bytes a
    coordinate. Distances of what is found are exact, and in their order; what is missed is missed. Excluded rows are
    taken out of the ``k + spare`` best that were found, so that a query may be left with fewer than ``k``.

    Raises:
        SearchError: faiss is not installed; or as ``search``.
    """
    try:
        import faiss
    except ImportError as error:
        raise SearchError(
            "mine.index is faiss, which is not installed: pip install 'radpref[retrieval]', or take mine.index exact."
        ) from error
    parts = _checked([part for part in parts if part.weight], k)
    queries, gallery = parts[0].queries.shape[0], parts[0].gallery.shape[0]
    lists = max(1, min(round(4 * sqrt(gallery)), gallery // 39))  # faiss wants 39 rows a list to learn from
    drawn = torch.randperm(gallery, generator=torch.Generator().manual_seed(seed))[: lists * TRAINED]
    sample = _scaled(parts, [as_tensor(part.gallery, drawn.sort().values) for part in parts], False)
    kind = faiss.ScalarQuantizer.QT_fp16
    coarse = faiss.IndexFlatIP(sample.shape[1])
    index = faiss.IndexIVFScalarQuantizer(coarse, sample.shape[1], lists, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(sample.numpy())
    for start in range(0, gallery, BLOCK):
        some = slice(start, min(start + BLOCK, gallery))
        index.add(_scaled(parts, [as_tensor(part.gallery, some) for part in parts], False).numpy())
    index.nprobe = probes
    everyone = torch.arange(queries)
    asking = _scaled(parts, [as_tensor(part.queries, everyone) for part in parts], True)
    row = torch.from_numpy(index.search(asking.numpy(), min(k + spare, gallery))[1])
    out = row < 0
    for of_query, of_row in exclude:
        out |= of_query[:, None] == of_row[row.clamp(min=0)]
    row = row.masked_fill(out, gallery).sort(dim=1).values  # in the order of the gallery, so that ties are
    value = torch.full(row.shape, -torch.inf, dtype=torch.float64)
    query, place = (row < gallery).nonzero(as_tuple=True)
    value[query, place] = _similarity(parts, query, row[query, place])
    value, order = value.sort(dim=1, descending=True, stable=True)
    row = row.gather(1, order).masked_fill(value.isinf(), -1)
    short = (0, max(0, k - row.shape[1]))
    value = torch.nn.functional.pad(value[:, :k], short, value=-torch.inf)
    distance = sum(part.constant for part in parts) - value
    return Neighbours(torch.nn.functional.pad(row[:, :k], short, value=-1), distance, {"faiss": queries})
