"""Whether mining finds hard questions: hit rates against random ones, and what becomes of rare findings.

Intervals of 95 % are bootstrap over patients: of the questions that ask, where neighbours are looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from radpref.evaluation.resampling import interval, resampled
from radpref.records import Record

Array = NDArray[np.float64]


class Rate(Record):
    """A share with its interval."""

    name: str
    rate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Questions that were looked at, repeats included."""
    patients: int = 0


def rate(
    name: str, hits: Sequence[float], patients: Sequence[Hashable], sizes: Sequence[float] | None = None, *,
    resamples: int = 1000, seed: int = 0,
) -> Rate:  # fmt: skip
    """``sum(hits) / sum(sizes)`` with its interval.

    Args:
        hits: of each row, how many (or what expected number) of its ``sizes`` questions are hard.
        sizes: how many there are; 1 each where absent.
    """
    if not len(hits):
        return Rate(name=name, rate=None)
    sums = _by_patient(hits, patients, sizes)
    spread = interval(_ratio(resampled(sums, resamples, seed)))
    top, whole = sums.sum(0)
    low, high = spread or (None, None)
    return Rate(
        name=name,
        rate=float(top / whole) if whole else None,
        low=low,
        high=high,
        n=round(whole),
        patients=len(sums),
    )


def difference(
    name: str, hits: Sequence[float], other: Sequence[float], patients: Sequence[Hashable], sizes: Sequence[float], *,
    resamples: int = 1000, seed: int = 0,
) -> Rate:  # fmt: skip
    """The difference of two rates over the same rows, paired: both meet the same resamples."""
    return rate(
        name, [a - b for a, b in zip(hits, other, strict=True)], patients, sizes, resamples=resamples, seed=seed
    )


def random_rates(
    correct: Sequence[bool | None], excluded: Sequence[Sequence[Hashable]], queries: Sequence[int]
) -> list[float]:
    """For each query the share of wrong answers among all that it could have been given at random.

    That is the expectation of a random draw, without a draw's noise. Left out are answers that could not be scored,
    the query itself, and rows that share any of its groups.

    Args:
        correct: of each row of the gallery.
        excluded: for each kind of group, each row's group.
        queries: row numbers.
    """
    scored = np.array([value is not None for value in correct])
    wrong = np.array([value is False for value in correct])
    codes = [np.unique(np.asarray(groups), return_inverse=True)[1] for groups in excluded]
    rates = []
    cache: dict[tuple[int, ...], float] = {}
    for query in queries:
        key = tuple(int(code[query]) for code in codes) or (-1 - query,)
        if key not in cache:
            out = np.zeros(len(scored), dtype=bool)
            out[query] = not codes
            for code in codes:
                out |= code == code[query]
            left = scored & ~out
            cache[key] = float(wrong[left].mean()) if left.any() else float("nan")
        rates.append(cache[key])
    return rates


class Retrieval(Record):
    """How often the neighbours of hard questions are hard."""

    retrieved: Rate
    random: Rate
    gain: Rate
    """Retrieved less random, paired by query."""
    at: tuple[float | None, ...] = ()
    """Hit rate among the nearest 1, 2, ... k."""


def retrieval_hits(
    correct: Sequence[bool | None],
    patients: Sequence[Hashable],
    excluded: Sequence[Sequence[Hashable]],
    queries: Sequence[int],
    neighbours: Sequence[Sequence[int]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Retrieval:
    """Hit rate (CheXPO's retrieval metric): the share of scored neighbours whose answers are wrong.

    Args:
        neighbours: of each query, row numbers, nearest first; -1 for none.
    """
    judged = [[correct[j] for j in row if j >= 0 and correct[j] is not None] for row in neighbours]
    hits = [float(sum(value is False for value in row)) for row in judged]
    sizes = [float(len(row)) for row in judged]
    chance = random_rates(correct, excluded, queries)
    expected = [0.0 if np.isnan(share) else share * size for share, size in zip(chance, sizes, strict=True)]
    units = [patients[query] for query in queries]
    k = max((len(row) for row in neighbours), default=0)
    at = []
    for first in range(1, k + 1):
        values = [correct[j] is False for row in neighbours for j in row[:first] if j >= 0 and correct[j] is not None]
        at.append(float(np.mean(values)) if values else None)
    more = {"resamples": resamples, "seed": seed}
    return Retrieval(
        retrieved=rate("neighbours of hard questions", hits, units, sizes, **more),
        random=rate("random", expected, units, sizes, **more),
        gain=difference("neighbours less random", hits, expected, units, sizes, **more),
        at=tuple(at),
    )


def tail_names(findings: Sequence[str], share: float) -> tuple[str, ...]:
    """The rarest findings that together hold at most ``share`` of the questions, in alphabetical order.

    Questions without a finding ("") count as questions and are no tail; of equally rare findings the first by name
    comes first.
    """
    counts = Counter(findings)
    left, names = share * len(findings), []
    for count, name in sorted((count, name) for name, count in counts.items() if name):
        if count > left:
            break
        left -= count
        names.append(name)
    return tuple(sorted(names))


def tail_shares(
    sets: Mapping[str, Sequence[int]], findings: Sequence[str], patients: Sequence[Hashable], tail: Sequence[str], *,
    resamples: int = 1000, seed: int = 0,
) -> list[Rate]:  # fmt: skip
    """The share of each set of questions (row numbers) whose finding is in the tail."""
    rare = set(tail)
    return [
        rate(
            name,
            [float(findings[i] in rare) for i in rows],
            [patients[i] for i in rows],
            resamples=resamples,
            seed=seed,
        )
        for name, rows in sets.items()
    ]


def _by_patient(hits: Sequence[float], patients: Sequence[Hashable], sizes: Sequence[float] | Array | None) -> Array:
    """Sums of hits and sizes, (patients, 2)."""
    names, unit = np.unique(np.asarray(patients), return_inverse=True)
    sizes = np.ones(len(unit)) if sizes is None else sizes
    return np.stack(
        [np.bincount(unit, np.asarray(values, dtype=np.float64), len(names)) for values in (hits, sizes)], 1
    )


def _ratio(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Array = sums[:, 0] / sums[:, 1]
    return result
