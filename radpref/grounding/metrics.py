"""Pure measures: attention against a mask, reward on clinical words, pass@k.

Maps and masks are grids (rows, cols); a mask holds the share of each cell that the lesion covers (``to_grid``), so
that a sum over the grid equals the sum over the image's pixels. A measure that is undefined is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
FLOOR = 1e-8
"""Least attention of a cell: keeps the logarithm and the quotient defined where a layer gives a cell nothing."""


def relative(question: NDArray[np.floating], general: NDArray[np.floating]) -> Map | None:
    """Attention for a question over attention for a general prompt, cell by cell; same shape, at least 0.

    What every prompt looks at (the image's border, sinks) cancels. None where the layer gives the image nothing under
    either prompt. Zhang et al., *MLLMs Know Where to Look*, ICLR 2025.
    """
    if not (question.sum() > 0 and general.sum() > 0):
        return None
    quotient: Map = question.astype(np.float64) / np.maximum(general.astype(np.float64), FLOOR)
    return quotient


def attention_ratio(attention: Map, mask: Map) -> float | None:
    """AR = sum(A M) / (sum(A) / cells * sum(M)): mean attention in the mask over that anywhere; 1 is chance.

    Liu et al., *How Do Medical MLLMs Fail?*, ICLR 2026 (VGMED), where N^2 is the number of cells and ||M||_0 that of
    cells in the mask. None for an empty mask or attention.
    """
    if not (attention.sum() > 0 and mask.sum() > 0):
        return None
    return float((attention * mask).sum() * attention.size / (attention.sum() * mask.sum()))


def kl(attention: Map, mask: Map) -> float | None:
    """KL(M^ || A^) in nats, both normalised to sum to 1, A floored at ``FLOOR`` of its sum; 0 is a perfect match.

    It does not punish much attention outside a mask for its own sake, but every covered cell that has little.
    """
    if not (attention.sum() > 0 and mask.sum() > 0):
        return None
    m, a = mask / mask.sum(), np.maximum(attention / attention.sum(), FLOOR)
    return float(np.sum(m[m > 0] * np.log(m[m > 0] / (a / a.sum())[m > 0])))


def js(attention: Map, mask: Map) -> float | None:
    """Jensen-Shannon divergence of M^ and A^ in nats, 0 to ln 2."""
    if not (attention.sum() > 0 and mask.sum() > 0):
        return None
    m, a = mask / mask.sum(), attention / attention.sum()
    middle = (m + a) / 2
    parts = (np.sum(x[x > 0] * np.log(x[x > 0] / middle[x > 0])) for x in (m, a))
    return float(min(max(sum(parts) / 2, 0.0), math.log(2)))


def pointing(attention: Map, mask: Map, tolerance: int = 0) -> float | None:
    """The pointing game (Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016): 1 for a hit.

    A hit is the cell of greatest attention that touches the mask, or lies within ``tolerance`` cells (along either
    axis, diagonals too) of one that does. Of several greatest cells the share that hits: even attention scores what
    pointing at random would.
    """
    if not (attention.sum() > 0 and mask.sum() > 0):
        return None
    near = np.zeros(mask.shape, np.bool_)
    for row, col in np.argwhere(mask > 0):
        near[max(row - tolerance, 0) : row + tolerance + 1, max(col - tolerance, 0) : col + tolerance + 1] = True
    return float(near[attention == attention.max()].mean())


def uniform(rows: int, cols: int) -> Map:
    """The trivial map: every place alike."""
    return np.ones((rows, cols))


def centre(rows: int, cols: int) -> Map:
    """A round blob in the middle, standard deviation a fifth of each side: where most of a chest is."""
    y = (np.arange(rows) + 0.5) / rows - 0.5
    x = (np.arange(cols) + 0.5) / cols - 0.5
    blob: Map = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * 0.2**2))
    return blob


def reward_share(rewards: NDArray[np.floating], spans: NDArray[np.bool_], top: float | None = None) -> float | None:
    """How much of an answer's reward its clinical words carry, 0 to 1; both arrays (tokens,).

    Rewards are beta (log pi - log reference) a token, of either sign: what counts is their size. With ``top`` (0 to
    1), the share of the clinical tokens among the ``ceil(top * tokens)`` of greatest reward (signed, as published:
    FiRe-MPO): ties at the border share it. Chance is ``spans.mean()``. None without tokens, or without any reward.
    """
    if rewards.shape != spans.shape or rewards.ndim != 1:
        raise ValueError(f"rewards {rewards.shape} and spans {spans.shape} must be one number a token each")
    if top is not None and not 0 < top <= 1:
        raise ValueError(f"top is {top}, but is a share of the tokens, above 0 and at most 1")
    if not rewards.size:
        return None
    if top is None:
        size = np.abs(rewards.astype(np.float64))
        return float(size[spans].sum() / size.sum()) if size.sum() > 0 else None
    count = math.ceil(top * rewards.size)
    border = np.sort(rewards)[::-1][count - 1]
    above, tied = rewards > border, rewards == border
    return float((spans[above].sum() + (count - above.sum()) * spans[tied].mean()) / count)


def pass_at(n: int, right: int, k: int) -> float:
    """Chance that at least one of ``k`` samples is right, from ``right`` among ``n``: 1 - C(n - c, k) / C(n, k).

    Unbiased (Chen et al., *Evaluating Large Language Models Trained on Code*, 2021, eq. 1); 1 - (1 - c/n)^k is not.
    Raises ValueError unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} of {right} right among {n} samples: k must be 1 to n, and right 0 to n")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def over_layers(values: Sequence[float | None]) -> float | None:
    """The mean over the layers in which a measure is defined; None where it is in none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
