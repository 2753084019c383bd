"""Whether a confidence means what it says: expected calibration error, Brier score, reliability bins."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from radpref.evaluation.resampling import interval, resampled
from radpref.records import Record

Array = NDArray[np.float64]


class Bin(Record):
    """One bar of a reliability plot."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean confidence of the answers in it."""
    accuracy: float
    """Share of them that are right."""


class Calibration(Record):
    """How far confidence and accuracy are apart, with bootstrap intervals of 95 % over patients."""

    n: int
    patients: int
    accuracy: float
    confidence: float
    """Mean."""
    ece_width: float
    """Expected calibration error over bins of equal width (Guo et al., 2017)."""
    ece_width_interval: tuple[float, float] | None
    ece_mass: float
    """The same over bins of equal numbers of answers (Nixon et al., 2019), which leaves no bin nearly empty."""
    ece_mass_interval: tuple[float, float] | None
    brier: float
    brier_interval: tuple[float, float] | None
    bins_width: tuple[Bin, ...] = Field(default=())
    bins_mass: tuple[Bin, ...] = Field(default=())


def calibration(
    confidences: Sequence[float],
    correct: Sequence[bool],
    patients: Sequence[Hashable],
    *,
    bins: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> Calibration | None:
    """Calibration of answers; None for no answers.

    ECE = sum over bins of n_b / n |accuracy_b - confidence_b|; Brier = mean (confidence - correct)^2. The bins stay
    where they are in all resamples. ECE is biased upwards where bins hold few answers: its interval is one of
    spread and need not hold 0 even for a calibrated model.

    Args:
        confidences: in [0, 1].
        correct: whether each answer is right.
        patients: the unit of resampling.
        bins: number of bins, of both kinds; equal confidences share a bin of equal mass, so that it may be one fewer.
    """
    if not len(confidences):
        return None
    p, y = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    names, unit = np.unique(np.asarray(patients), return_inverse=True)
    width = np.linspace(0, 1, bins + 1)
    mass = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)))
    found: dict[str, Any] = {}
    for kind, edges in (("width", width), ("mass", mass if len(mass) > 1 else np.array([mass[0], mass[0]]))):
        place = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, len(edges) - 2)
        sums = _sums(place, unit, p, y, len(edges) - 1, len(names))
        found[f"ece_{kind}"] = float(_ece(sums.sum(0)[None])[0])
        spread = _ece(resampled(sums.reshape(len(names), -1), resamples, seed).reshape(-1, *sums.shape[1:]))
        found[f"ece_{kind}_interval"] = interval(spread)
        found[f"bins_{kind}"] = tuple(_bins(edges, sums.sum(0)))
    parts = [np.bincount(unit, values, len(names)) for values in ((p - y) ** 2, np.ones_like(p))]
    squares = np.stack(parts, 1).astype(np.float64)
    drawn = resampled(squares, resamples, seed)
    return Calibration(
        n=len(p),
        patients=len(names),
        accuracy=float(y.mean()),
        confidence=float(p.mean()),
        brier=float(np.mean((p - y) ** 2)),
        brier_interval=interval(drawn[:, 0] / drawn[:, 1]),
        **found,
    )


def _sums(place: NDArray[np.int64], unit: NDArray[np.int64], p: Array, y: Array, bins: int, units: int) -> Array:
    """Count, sum of confidences and number right: (patients, bins, 3)."""
    flat = unit * bins + place
    parts = [np.bincount(flat, value, units * bins) for value in (np.ones_like(p), p, y)]
    return np.stack(parts, -1).reshape(units, bins, 3).astype(np.float64)


def _ece(sums: Array) -> Array:
    """From sums (resamples, bins, 3): n_b |acc_b - conf_b| = |right_b - confidence sum_b|."""
    result: Array = np.abs(sums[..., 2] - sums[..., 1]).sum(-1) / sums[..., 0].sum(-1)
    return result


def _bins(edges: Array, sums: Array) -> list[Bin]:
    return [
        Bin(low=float(low), high=float(high), n=int(n), confidence=float(p / n), accuracy=float(y / n))
        for low, high, (n, p, y) in zip(edges[:-1], edges[1:], sums, strict=True)
        if n
    ]
