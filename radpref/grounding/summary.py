"""Means with intervals, and paired tests of means, over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from radpref.evaluation.resampling import interval, permutation_p, resampled, swaps
from radpref.records import Comparison, Metric

Array = NDArray[np.float64]


class Value(NamedTuple):
    """One number of one patient; None where it is undefined, which is left out and lowers n."""

    patient: str
    value: float | None


def mean_metric(
    system: str, name: str, values: Sequence[Value], *, resamples: int = 1000, seed: int = 17, unit: str = "patient"
) -> Metric:
    """The mean of the defined values, each alike, with a 95 % bootstrap interval over patients; n counts values.

    None without a defined value; no interval with fewer than two patients.
    """
    table = _by_patient(values)
    value = float(table[:, 0].sum() / table[:, 1].sum()) if len(table) else None
    limits = interval(_means(resampled(table, resamples, seed))) if len(table) > 1 else None
    low, high = limits or (None, None)
    n = int(table[:, 1].sum()) if len(table) else 0
    return Metric(
        id=f"{system}/{name}", system=system, name=name, value=value, low=low, high=high, n=n, unit=unit, seed=seed
    )


def paired_mean(
    name: str,
    before: tuple[str, Mapping[str, float]],
    after: tuple[str, Mapping[str, float]],
    patients: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 17,
) -> Comparison | None:
    """Mean of ``after - before`` over the ids that both have, with a bootstrap interval and a sign-flip test.

    ``before`` and ``after`` are (system, id to value); ``patients`` maps ids to patients, which are drawn and flipped
    as wholes. None with fewer than two patients.
    """
    shared = sorted(before[1].keys() & after[1].keys())
    table = _by_patient([Value(patients[key], after[1][key] - before[1][key]) for key in shared])
    if len(table) < 2:
        return None
    n = table[:, 1].sum()
    difference = float(table[:, 0].sum() / n)
    limits = interval(_means(resampled(table, resamples, seed)))
    assert limits is not None  # every resample holds a value
    flips, exact = swaps(len(table), resamples, seed)
    p = permutation_p(difference, ((1 - 2 * flips) @ table[:, 0]) / n, exact)
    return Comparison(
        id=f"{name}:{after[0]}-{before[0]}",
        name=name,
        before=before[0],
        after=after[0],
        difference=difference,
        low=limits[0],
        high=limits[1],
        p=p,
        n=int(n),
        seed=seed,
    )


def _by_patient(values: Sequence[Value]) -> Array:
    """(patients with a defined value, 2): sum and count."""
    sums: dict[str, list[float]] = {}
    for patient, value in sorted((v.patient, v.value) for v in values if v.value is not None):
        entry = sums.setdefault(patient, [0.0, 0.0])
        entry[0] += value
        entry[1] += 1
    return np.array(list(sums.values()), np.float64).reshape(-1, 2)


def _means(sums: Array) -> Array:
    means: Array = sums[:, 0] / sums[:, 1]
    return means
