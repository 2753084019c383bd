"""Measure a system's answers, and compare two systems on the same studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from radpref.config import JudgeSection
from radpref.config.schema import NormalsRule
from radpref.evaluation import counts, resampling
from radpref.evaluation.definitions import definition as definition_of
from radpref.evaluation.metrics import HEADLINE, METRICS, Definition, Sums, f1, ratio
from radpref.findings import CLASSES_14, labels, read
from radpref.judges import JUDGES, Case, length_controlled
from radpref.records import Comparison, Judgement, Metric, Question

Array = NDArray[np.float64]
Judgements = Mapping[str, Mapping[str, Judgement]]
"""Judge name, then question id, to a judgement already made."""

_JUDGED = ("green", "text")


@dataclass(frozen=True)
class Measured:
    """A system's metrics, with the per-study counts that they, and any comparison, follow from."""

    system: str
    metrics: list[Metric]
    questions: tuple[str, ...]
    """Question ids, sorted: the rows of ``values``."""
    patients: tuple[str, ...]
    """The patient of each row."""
    columns: tuple[str, ...]
    values: Array
    """float64 ``(studies, columns)``: the counts of ``counts.py``."""
    judgements: dict[str, dict[str, Judgement]] = field(default_factory=dict)
    """Judge name, then question id: ``green``, ``lc-green``, ``text``."""

    def value(self, name: str) -> float | None:
        """The metric's value; None where it is undefined. ``KeyError`` names an unknown metric."""
        return self._by_name[name].value

    @cached_property
    def _by_name(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self.metrics}

    def unscored(self, judge: str = "green") -> dict[str, int]:
        """Reason to number of answers that ``judge`` could not score."""
        reasons = Counter(j.unscored for j in self.judgements.get(judge, {}).values() if j.unscored is not None)
        return dict(reasons.most_common())


@dataclass(frozen=True)
class LabelScore:
    """One CheXpert class of one system."""

    name: str
    positives: int
    """Positive references."""
    precision: float | None
    recall: float | None
    f1: float | None


def measure(
    system: str,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 17,
    judgements: Judgements | None = None,
    normals: NormalsRule = "weigh",
) -> Measured:
    """All metrics of ``METRICS`` for one system, each with a 95 % percentile bootstrap interval over patients.

    ``answers`` maps question ids to texts; an empty text is a valid answer. ``judgements`` holds what the
    judges ``green`` and ``text`` have already said of these answers, by judge and question; what it lacks is
    judged here, with ``normals`` as in the recipe's ``judge.normals``. A metric that needs what is not there (the
    truth, a scored answer) has the value None, and an interval needs two patients.

    Raises ``ValueError`` where a question has no answer or an id stands twice: dropping it would flatter the system.
    """
    questions = answered(system, questions, answers)
    judged = _judge(questions, answers, judgements or {}, JudgeSection(normals=normals))
    rows = [_study_counts(question, answers[question.id], judged) for question in questions]
    columns = tuple(sorted({column for row in rows for column in row} | _all_columns()))
    values = np.array([[row.get(column, 0.0) for column in columns] for row in rows]).reshape(len(rows), len(columns))
    patients = tuple(question.patient for question in questions)
    metrics = metrics_of(system, patients, columns, values, METRICS, resamples, seed)
    return Measured(system, metrics, tuple(q.id for q in questions), patients, columns, values, judged)


def compare(
    before: Measured,
    after: Measured,
    *,
    metrics: Sequence[str] = HEADLINE,
    resamples: int = 1000,
    seed: int = 17,
) -> list[Comparison]:
    """Paired difference ``after - before`` of each metric, with a bootstrap interval and a permutation test.

    Both resample patients: the bootstrap draws them, the two-sided test swaps the two systems' answers of a
    patient. A judge's metrics rest on the studies that it scored for both. ``p_holm`` corrects over the rows
    returned. A metric that is undefined for either system has no row, and with fewer than two patients there
    is nothing to test and the list is empty.

    Raises ``ValueError`` where the two were not measured on the same questions, ``KeyError`` for an unknown metric.
    """
    if before.questions != after.questions:
        raise ValueError(
            f"{before.system!r} and {after.system!r} were not measured on the same questions "
            f"({len(before.questions)} and {len(after.questions)}); a paired test needs the same ones"
        )
    definitions = {name: definition_of(name) for name in metrics}
    patients = len(set(before.patients))
    if patients < 2:
        return []
    first, second = _paired(before, after)
    old, new = _by_patient(before.patients, first), _by_patient(after.patients, second)
    drawn = resampling.draws(patients, resamples, seed)
    swap, exact = resampling.swaps(patients, resamples, seed)
    moved = swap @ (new - old)
    columns = before.columns
    found: list[tuple[str, float, tuple[float, float], float, int]] = []
    for name, definition in definitions.items():
        apart = _difference(definition, columns, old.sum(0), new.sum(0))
        difference = float(apart)
        limits = resampling.interval(_difference(definition, columns, drawn @ old, drawn @ new))
        if not np.isfinite(difference) or limits is None:
            continue
        permuted = _difference(definition, columns, old.sum(0) + moved, new.sum(0) - moved)
        p = resampling.permutation_p(difference, permuted, exact)
        n = int(_sums(columns, old.sum(0))[definition.count])
        found.append((name, difference, limits, p, n))
    adjusted = resampling.holm([p for *_, p, _ in found])
    return [
        Comparison(
            id=f"{name}:{after.system}-{before.system}",
            name=name,
            before=before.system,
            after=after.system,
            difference=difference,
            low=low,
            high=high,
            p=p,
            p_holm=corrected,
            n=n,
            seed=seed,
        )
        for (name, difference, (low, high), p, n), corrected in zip(found, adjusted, strict=True)
    ]


def error_totals(measured: Measured) -> dict[str, int]:
    """Significant errors by GREEN kind, summed over the scored answers."""
    sums = _sums(measured.columns, measured.values.sum(0))
    return {kind: int(sums[f"green:{kind}"]) for kind in counts.ERROR_KINDS}


def by_label(measured: Measured, rule: str = "uncertain-positive") -> list[LabelScore]:
    """Precision, recall and F1 of each of the 14 CheXpert classes."""
    sums = _sums(measured.columns, measured.values.sum(0))
    scores = []
    for name in CLASSES_14:
        tp, fp, fn = (sums[f"label:{rule}:{name}:{part}"] for part in ("tp", "fp", "fn"))
        scores.append(
            LabelScore(
                name, int(tp + fn), _number(ratio(tp, tp + fp)), _number(ratio(tp, tp + fn)), _number(f1(tp, fp, fn))
            )
        )
    return scores


def answered(system: str, questions: Sequence[Question], answers: Mapping[str, str]) -> list[Question]:
    """The questions by id, each with an answer.

    Raises ``ValueError`` where a question has no answer or an id stands twice: dropping it would flatter the system.
    """
    questions = sorted(questions, key=lambda question: question.id)
    if len({question.id for question in questions}) < len(questions):
        twice = [name for name, times in Counter(q.id for q in questions).items() if times > 1]
        raise ValueError(f"{len(twice)} question ids stand twice, {twice[0]!r} among them; give each question once")
    missing = [question.id for question in questions if question.id not in answers]
    if missing:
        raise ValueError(
            f"{system!r} has no answer for {len(missing)} of {len(questions)} questions, {missing[0]!r} among "
            "them; answer them (an empty text will do) or leave the questions out for every system"
        )
    return questions


def _judge(
    questions: Sequence[Question], answers: Mapping[str, str], known: Judgements, section: JudgeSection
) -> dict[str, dict[str, Judgement]]:
    cases = {q.id: Case(id=q.id, question=q.id, reference=q.reference, candidate=answers[q.id]) for q in questions}
    judged: dict[str, dict[str, Judgement]] = {}
    for name in _JUDGED:
        done = {key: row for key, row in known.get(name, {}).items() if key in cases}
        left = [case for key, case in cases.items() if key not in done]
        if left:
            done |= {case.id: row for case, row in zip(left, JUDGES[name](section)(left), strict=True)}
        judged[name] = {key: done[key] for key in cases}
    green = judged["green"]
    # The length control of the judges, around judgements that are already there.
    controlled = [length_controlled(judgement) for judgement in green.values()]
    judged["lc-green"] = dict(zip(cases, controlled, strict=True))
    return judged


def _study_counts(question: Question, answer: str, judged: Judgements) -> counts.Counts:
    said, reference = read(answer), read(question.reference)
    row = counts.text_counts(answer, question.reference)
    row |= counts.finding_counts(said, reference, "reference")
    if question.truth is not None:
        row |= counts.finding_counts(said, question.truth, "truth")
    row |= counts.labelled_counts(said, question.labels)
    row |= counts.label_counts(labels(said), labels(reference))
    for name, rows in judged.items():
        row |= counts.judge_counts(rows[question.id], name)
    return row


def _all_columns() -> set[str]:
    """Every column there can be, so that a table without a truth or a scored answer still has them, at zero."""
    nothing = Judgement(id="", question="", judge="", score=0.0)
    row = counts.text_counts("", "") | counts.label_counts({}, {})
    for source in counts.SOURCES:
        row |= counts.finding_counts((), (), source)
    for name in ("green", "lc-green", "text"):
        row |= counts.judge_counts(nothing, name)
    return set(row)


def metrics_of(
    system: str,
    patients: Sequence[str],
    columns: Sequence[str],
    values: Array,
    definitions: Mapping[str, Definition],
    resamples: int,
    seed: int,
) -> list[Metric]:
    """Metrics with intervals, from counts (``values``: float64 ``(rows, columns)``, row i of ``patients[i]``)."""
    grouped = _by_patient(patients, values)
    total = _sums(columns, grouped.sum(0))
    enough = len(grouped) >= 2
    drawn = _sums(columns, resampling.resampled(grouped, resamples, seed)) if enough else None
    rows = []
    for name, definition in definitions.items():
        value = _number(definition.value(total))
        limits = resampling.interval(definition.value(drawn)) if drawn is not None and value is not None else None
        low, high = limits or (None, None)
        rows.append(
            Metric(
                id=f"{system}/{name}",
                system=system,
                name=name,
                value=value,
                low=low,
                high=high,
                n=int(total[definition.count]),
                unit="patient",
                seed=seed,
            )
        )
    return rows


def _paired(before: Measured, after: Measured) -> tuple[Array, Array]:
    """Both tables of counts, with a judge's columns at zero where it did not score both answers."""
    if before.columns != after.columns:
        raise ValueError(
            f"{before.system!r} and {after.system!r} were measured by different versions; measure both again"
        )
    first, second = before.values.copy(), after.values.copy()
    columns = np.array(before.columns)
    for judge in ("green", "lc-green", "text"):
        if f"{judge}:n" not in before.columns:
            continue  # a table of questions
        n = before.columns.index(f"{judge}:n")
        unscored = first[:, n] * second[:, n] == 0
        mine = np.char.startswith(columns, f"{judge}:") & (columns != f"{judge}:asked")
        for table in (first, second):
            table[np.ix_(unscored, mine)] = 0.0
    return first, second


def _by_patient(patients: Sequence[str], values: Array) -> Array:
    return summed_by_patient(patients, values)[1]


def summed_by_patient(patients: Sequence[str], values: Array) -> tuple[list[str], Array]:
    """The patients, sorted, and the sums over each one's studies: float64 ``(patients, columns)``."""
    names = sorted(set(patients))
    index = {name: row for row, name in enumerate(names)}
    grouped = np.zeros((len(names), values.shape[1]))
    np.add.at(grouped, np.array([index[patient] for patient in patients], dtype=np.intp), values)
    return names, grouped


def _sums(columns: Sequence[str], table: Array) -> Sums:
    return {column: table[..., index] for index, column in enumerate(columns)}


def _difference(definition: Definition, columns: Sequence[str], old: Array, new: Array) -> Array:
    return definition.value(_sums(columns, new)) - definition.value(_sums(columns, old))


def _number(value: Array) -> float | None:
    return float(value) if np.isfinite(value) else None
