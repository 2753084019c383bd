"""How many of each stratum: a budget shared by weights, within what each stratum has."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

MODES = {"proportional": 1.0, "pool": 1.0, "uniform": 0.0}
"""Quota to the power of the counts; ``tempered`` takes a power of its own, ``pool`` counts all questions."""


def tempered(counts: Sequence[int], power: float) -> list[float]:
    """Weights ``p ** power`` of strata with shares ``p`` of all counts.

    Power 1 is proportional, 0 uniform; between them rare strata gain. A stratum without counts has weight 0, save at
    power 0. (Tempering is known from multilingual training; CheXPO-v2 shares proportionally.)
    """
    total = sum(counts)
    if power == 0:
        return [1.0] * len(counts)
    return [(count / total) ** power if count else 0.0 for count in counts]


def apportion(weights: Sequence[float], capacities: Sequence[int], total: int) -> list[int]:
    """Whole numbers, one a stratum, as near to ``weights`` as capacities let them be.

    Largest remainders (Hamilton): of what is to be shared each stratum first gets the whole part of its share, then
    the largest fractions one each, of equal ones the first. A stratum whose share exceeds its capacity gets its
    capacity, and the rest is shared anew among the others. Strata of weight 0 get what no other can take, evenly.
    The sum is ``min(total, sum(capacities))``.

    Raises:
        ValueError: a negative or infinite weight, a negative capacity or total, or lists of different lengths.
    """
    if len(weights) != len(capacities):
        raise ValueError(f"{len(weights)} weights for {len(capacities)} capacities; each stratum has one of both")
    if total < 0 or any(c < 0 for c in capacities) or any(not 0 <= w < float("inf") for w in weights):
        raise ValueError("weights must be finite, and weights, capacities and the total at least 0")
    given = [0] * len(weights)
    for group in ([i for i, w in enumerate(weights) if w > 0], [i for i, w in enumerate(weights) if w == 0]):
        left = total - sum(given)
        exact = {i: Fraction(weights[i]) or Fraction(1) for i in group}
        while group:
            whole = sum(exact[i] for i in group)
            full = [i for i in group if exact[i] * left >= capacities[i] * whole]
            if not full:
                break
            for i in full:  # those whose share is at or above what they have; the sum of these never exceeds `left`
                given[i] = capacities[i]
            left -= sum(capacities[i] for i in full)
            group = [i for i in group if i not in set(full)]
        if not group:
            continue
        shares = {i: exact[i] * left / whole for i in group}
        for i in group:
            given[i] = int(shares[i])
        rest = left - sum(given[i] for i in group)
        for i in sorted(group, key=lambda i: (given[i] - shares[i], i))[:rest]:
            given[i] += 1
    return given
