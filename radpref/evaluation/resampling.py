"""Bootstrap, permutation and Holm's correction, over patients and from summed counts.

A patient is the unit: studies of one patient are drawn, and swapped, together. Everything follows from a
seed and the number of patients, so two systems measured on the same studies meet the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_HELD = 1 << 22
"""Draws in memory at a time."""
_TOLERANCE = 1e-12
"""Differences closer than this are ties: the order of a sum must not decide a test."""


def draws(patients: int, resamples: int, seed: int) -> Array:
    """How often each patient is drawn in each bootstrap resample: float64 ``(resamples, patients)``."""
    return next(_in_blocks(patients, resamples, seed, resamples))


def _in_blocks(patients: int, resamples: int, seed: int, most: int) -> Iterator[Array]:
    """The rows of ``draws``, so many at a time."""
    generator = np.random.default_rng([seed, patients, 0])
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        yield generator.multinomial(patients, np.full(patients, 1 / patients), size=rows).astype(np.float64)


@lru_cache(maxsize=4)
def _kept(patients: int, resamples: int, seed: int) -> Array:
    found = draws(patients, resamples, seed)
    found.setflags(write=False)
    return found


def resampled(values: Array, resamples: int, seed: int) -> Array:
    """The sums of ``values`` (patients, columns) over each resample of ``draws``, float64 ``(resamples, columns)``.

    Memory holds some million numbers of the draws, however many patients there are. Where they all find room, they are
    kept for the next call: a comparison asks for the same ones thousands of times.
    """
    patients = len(values)
    if patients * resamples <= _HELD:
        return _kept(patients, resamples, seed) @ values
    blocks = _in_blocks(patients, resamples, seed, max(1, _HELD // patients))
    return np.concatenate([drawn @ values for drawn in blocks])


def swaps(patients: int, resamples: int, seed: int) -> tuple[Array, bool]:
    """Which patients' answers change sides in each permutation, 0 or 1: float64 ``(rows, patients)``.

    Where ``2 ** patients`` is no more than ``resamples``, every permutation is listed once, the identity
    included, and the second value is True: the test is exact.
    """
    if 2**patients <= resamples:
        rows = np.arange(2**patients)[:, None] >> np.arange(patients)[None, :] & 1
        return rows.astype(np.float64), True
    generator = np.random.default_rng([seed, patients, 1])
    return generator.integers(0, 2, size=(resamples, patients)).astype(np.float64), False


def interval(values: Array, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of bootstrap values; undefined (NaN) resamples are left out; None if all are."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_p(observed: float, permuted: Array, exact: bool) -> float:
    """Two-sided p: the share of permutations at least as far from 0 as what was observed.

    Drawn permutations add the observed one to both counts, so that p is never 0 (Phipson and Smyth, 2010).
    A permutation in which the metric is undefined counts as extreme, which can only raise p.
    """
    extreme = int(np.sum(~(np.abs(permuted) < abs(observed) - _TOLERANCE)))
    return extreme / permuted.size if exact else (extreme + 1) / (permuted.size + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm, 1979)."""
    order = np.argsort(np.asarray(p, dtype=np.float64), kind="stable")
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted
