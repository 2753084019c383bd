"""Estimates and differences over several trainings *and* patients, from sums of counts by patient.

One training says nothing of the next: two with other seeds differ by more than an interval over patients allows for.
So the unit of every interval here is the training, and within it the patient:

- Where each seed has test patients of its own (another phantom world), the seeds' values are independent draws that
  hold the chance of training and of patients both, and Student's t over seeds covers them.
- Where all seeds are tested on the same patients, that part of the chance is shared and does not show between seeds;
  it is added from a bootstrap that draws patients once for all seeds, each part with its own Student's t.
- A variance between few seeds can be small by luck; it is never taken to be below what the patients alone bring.

The plain nested bootstrap (seeds with replacement, patients within) is too narrow at five seeds: it has no ``n - 1``
and no heavy tails. docs/comparing.md has the measured coverage of both; benchmarks/seeds_coverage.py measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from radpref.errors import RadprefError
from radpref.evaluation import resampling
from radpref.evaluation.definitions import definition
from radpref.evaluation.measure import Measured, summed_by_patient
from radpref.evaluation.metrics import Definition
from radpref.records import PatientCounts

Array = NDArray[np.float64]
_SMALLEST = 1e-12
"""The least p that is told."""
_JUDGES = ("green", "lc-green", "text")


@dataclass(frozen=True)
class PatientSums:
    """What one system of one run counts, summed over each patient's studies or questions."""

    test: str
    """What it was tested on, such as a digest of the questions: runs with the same one share their patients."""
    patients: tuple[str, ...]
    """Sorted."""
    columns: tuple[str, ...]
    """Of ``counts.py`` or ``vqa.py``."""
    values: Array
    """float64 ``(patients, columns)``."""


Seeds = Mapping[Hashable, PatientSums]
"""Seed, such as ``(run.seed, data.phantom.seed)``, to what the system counts in that run."""


class Estimate(NamedTuple):
    """A mean over seeds, or a difference paired by seed and patient, with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of the mean being 0, by the model of the interval."""
    seeds: int
    patients: int
    """Of all tests together; shared ones count once."""
    shared: bool
    """Whether several seeds were tested on the same patients."""
    between: float
    """Standard deviation of the values of single seeds, NaN of one; the chance of patients that differ is in it."""
    within: float
    """Standard error, of one seed's value, that its patients bring."""
    by_seed: tuple[float, ...]
    """In the order of the seeds."""

    @property
    def one_training(self) -> bool:
        """Whether the interval covers patients alone and says nothing of another training."""
        return self.seeds == 1

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class SeedsError(RadprefError, ValueError):
    """Runs that cannot be held against each other; the message says why."""


def over_seeds(metric: str, system: Seeds, *, resamples: int = 1000, seed: int = 17) -> Estimate | None:
    """A metric of one system: the mean over its seeds, each alike, with an interval over seeds and patients.

    One seed at a time is worked on; in memory stay ``resamples`` numbers of each. The same ``seed`` gives the same
    numbers. None where the metric is undefined for a seed, or there are fewer than two patients.

    Raises:
        KeyError: no metric is called so. SeedsError: the counts lack what it is made of, or there is no seed.
    """
    rule = definition(metric)
    return _estimate({key: (one, None) for key, one in system.items()}, rule, metric, resamples, seed)


def difference_over_seeds(
    metric: str, before: Seeds, after: Seeds, *, resamples: int = 1000, seed: int = 17
) -> Estimate | None:
    """``after - before`` of a metric, paired by seed and patient, over the seeds that both have.

    A judge's counts of a patient stand where it scored all that both systems said of this patient. Else as
    `over_seeds`.

    Raises:
        SeedsError: no seed in common, or a seed whose two runs were tested on different questions.
    """
    common = [key for key in before if key in after]
    if not common:
        raise SeedsError(f"no seed in common: {_told(before)} against {_told(after)}; train both with the same seeds")
    rule = definition(metric)
    return _estimate({key: (after[key], before[key]) for key in common}, rule, metric, resamples, seed)


def _told(system: Seeds) -> str:
    return "{" + ", ".join(map(str, system)) + "}"


# ------------------------------------------------------------------------------------------ from sums to draws


def _estimate(
    rows: Mapping[Hashable, tuple[PatientSums, PatientSums | None]],
    rule: Definition,
    metric: str,
    resamples: int,
    seed: int,
) -> Estimate | None:
    if not rows:
        raise SeedsError(f"there is no run to take {metric} from")
    tests: dict[str, int] = {}
    values, drawn = np.empty(len(rows)), np.empty((len(rows), resamples))
    for at, (key, (one, other)) in enumerate(rows.items()):
        sides = (one,) if other is None else _aligned(key, one, other)
        missing = [name for side in sides for name in _missing(rule, side.columns)]
        if missing:
            raise SeedsError(f"the counts by patient lack {missing[0]!r}, which {metric} is made of")
        if len(one.patients) < 2:
            return None
        # the same generator for all: runs with the same patients meet the same resamples, whatever they say
        several = np.concatenate([side.values for side in sides], axis=1)
        stacked = np.vstack([several.sum(0)[None], resampling.resampled(several, resamples, seed)])
        parts = np.split(stacked, len(sides), axis=1)
        found = [_valued(rule, side.columns, part) for side, part in zip(sides, parts, strict=True)]
        told = found[0] if len(found) == 1 else found[0] - found[1]
        if not np.isfinite(told[0]):
            return None
        values[at], drawn[at] = told[0], told[1:]
        tests.setdefault(one.test, len(one.patients))
    groups = {name: number for number, name in enumerate(tests)}
    places = np.array([groups[one.test] for one, _ in rows.values()])
    return pooled(values, drawn, places, tuple(tests.values()))


def pooled(values: Array, drawn: Array, tests: NDArray[np.int_], patients: tuple[int, ...]) -> Estimate:
    """The mean of some seeds' values with its interval and p.

    Args:
        values: ``(seeds,)``, finite.
        drawn: ``(seeds, resamples)``, each seed's value on resampled patients; of seeds with the same test, on the
            same resamples. NaN where undefined.
        tests: ``(seeds,)``, from 0: seeds with the same number share their test patients.
        patients: how many each test has.
    """
    seeds, units = len(values), len(patients)
    # the mean of each test's seeds: units that are independent of each other
    weights = np.array([tests == unit for unit in range(units)], dtype=np.float64)
    weights /= weights.sum(1, keepdims=True)
    means = weights @ values
    within = np.nanvar(drawn, axis=1, ddof=1).mean()
    by_patients = np.nanvar(weights @ drawn, axis=1, ddof=1)
    least = float(by_patients.mean()) / units
    few = float(min(patients) - 1)
    mean = float(means.mean())
    if units > 1:
        parts = [Part(max(float(np.var(means, ddof=1)) / units, least), units - 1)]
    elif seeds > 1:
        # the bootstrap of the mean holds what patients share over seeds and 1/seeds of what they do not, which is
        # between the seeds already
        shared = max(0.0, (seeds * least - float(within)) / (seeds - 1))
        parts = [Part(float(np.var(values, ddof=1)) / seeds, seeds - 1), Part(shared, few)]
    else:
        parts = []
    low, high, p = _student(mean, parts, Part(least, few))
    return Estimate(
        mean,
        low,
        high,
        p,
        seeds=seeds,
        patients=sum(patients),
        shared=units < seeds,
        between=float(np.std(values, ddof=1)) if seeds > 1 else float("nan"),
        within=float(np.sqrt(within)),
        by_seed=tuple(float(value) for value in values),
    )


class Part(NamedTuple):
    """A part of the variance of a mean, and the degrees of freedom that it was estimated with."""

    variance: float
    df: float


def _student(mean: float, parts: Sequence[Part], least: Part) -> tuple[float, float, float]:
    """Limits and p: each part with its own Student's t, squares added, and never less than ``least`` alone.

    Adding squared half-widths (MOVER; Zou and Donner, 2008) covers where a part has one or two degrees of freedom and
    Satterthwaite's approximation does not: with two seeds that agree by luck, it would take the rest for all.
    """
    from scipy.optimize import brentq
    from scipy.stats import t

    def half(p: float) -> float:
        whole = sum(float(t.isf(p / 2, part.df)) ** 2 * part.variance for part in parts)
        return float(np.sqrt(max(whole, float(t.isf(p / 2, least.df)) ** 2 * least.variance)))

    if half(0.05) == 0.0:  # the same to the last digit everywhere: no less than a sign test of as many patients
        return mean, mean, 1.0 if mean == 0.0 else max(_SMALLEST, 2.0**-least.df)
    far = half(_SMALLEST) < abs(mean)
    p = _SMALLEST if far else float(brentq(lambda one: half(one) - abs(mean), _SMALLEST, 1.0, xtol=1e-15))
    return mean - half(0.05), mean + half(0.05), p


def by_patient(measured: Measured, columns: Iterable[str]) -> Iterator[PatientCounts]:
    """A row a patient, sorted, with the sums of those columns that the system has counted."""
    names, values = summed_by_patient(measured.patients, measured.values)
    kept = [(at, name) for name in columns if (at := _place(measured.columns, name)) is not None]
    for patient, row in zip(names, values, strict=True):
        told = {name: float(row[at]) for at, name in kept if row[at] != 0.0}
        yield PatientCounts(id=f"{measured.system}:{patient}", system=measured.system, patient=patient, counts=told)


def sums_of(rows: Iterable[PatientCounts], columns: Sequence[str], test: str) -> PatientSums:
    """The sums of one system, out of its rows of a table; ``test`` as in `PatientSums`."""
    places = {name: at for at, name in enumerate(columns)}
    patients: list[str] = []
    flat = array("d")
    for row in rows:
        own = array("d", bytes(8 * len(places)))
        for name, value in row.counts.items():
            own[places[name]] = value
        patients.append(row.patient)
        flat.extend(own)
    values = np.frombuffer(flat, dtype=np.float64) if flat else np.empty(0)
    values = values.reshape(len(patients), len(places))
    order = sorted(range(len(patients)), key=patients.__getitem__)
    return PatientSums(test, tuple(patients[at] for at in order), tuple(columns), values[order])


def counted(names: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Those of ``columns`` that metrics of these names are made of, in order; metrics of no counts have none."""
    wanted: set[str] = set()
    for name in names:
        try:
            wanted.update(columns_of(definition(name), tuple(columns)))
        except NotImplementedError:
            continue
    return tuple(column for column in columns if column in wanted)


def is_counted(metric: str, columns: Iterable[tuple[str, ...]]) -> bool:
    """Whether each of some systems' ``columns`` have what a metric is made of."""
    try:
        rule = definition(metric)
        return all(name in own for own in columns for name in columns_of(rule, own))
    except (KeyError, NotImplementedError):  # no metric of texts
        return False


def _place(columns: Sequence[str], name: str) -> int | None:
    return columns.index(name) if name in columns else None


class _Read(dict[str, Array]):
    """Sums that note which of them are asked for."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__(dict.fromkeys(columns, np.zeros(())))
        self.asked: dict[str, None] = {}

    def __getitem__(self, name: str) -> Array:
        self.asked[name] = None
        return self.get(name, np.zeros(()))


def columns_of(rule: Definition, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The counts that a metric is made of; those of kinds of question are found among ``columns``.

    Raises:
        NotImplementedError: it is not made of counts (grounding, style, another package's).
    """
    noted = _Read(columns)
    rule.value(noted)
    return tuple(dict.fromkeys((*noted.asked, rule.count)))


def _missing(rule: Definition, columns: tuple[str, ...]) -> list[str]:
    try:
        return [name for name in columns_of(rule, columns) if name not in columns]
    except NotImplementedError as error:
        raise SeedsError(
            f"{rule.title!r} is measured by a model or another package, not summed from counts of texts, so that it "
            "has no interval over seeds and patients; name one of metrics that are"
        ) from error


def _valued(rule: Definition, columns: tuple[str, ...], table: Array) -> Array:
    """The metric of each row of sums; NaN where a row counts nothing."""
    return rule.value({name: table[:, at] for at, name in enumerate(columns)})


def _aligned(key: Hashable, one: PatientSums, other: PatientSums) -> tuple[PatientSums, PatientSums]:
    """Both with a judge's counts at zero where it did not score all of a patient's answers by both."""
    if one.test != other.test or one.patients != other.patients:
        raise SeedsError(
            f"seed {key} was tested on other questions by the one ({len(one.patients)} patients) than by the other "
            f"({len(other.patients)}); a difference is paired by patient, so measure both on the same"
        )
    values = [side.values.copy() for side in (one, other)]
    for judge in _JUDGES:
        counted = [f"{judge}:n", f"{judge}:asked"]
        if not all(name in side.columns for side in (one, other) for name in counted):
            continue
        n = [
            tuple(table[:, side.columns.index(name)] for name in counted)
            for side, table in zip((one, other), values, strict=True)
        ]
        torn = np.any([scored != asked for scored, asked in n], axis=0)
        for side, table in zip((one, other), values, strict=True):
            own = [at for at, name in enumerate(side.columns) if name.startswith(f"{judge}:") and name != counted[1]]
            table[np.ix_(torn, own)] = 0.0
    return tuple(
        PatientSums(side.test, side.patients, side.columns, table)
        for side, table in zip((one, other), values, strict=True)
    )  # type: ignore[return-value]
