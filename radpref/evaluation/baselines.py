"""Answers that look at no image: what any system has to beat before its numbers mean anything.

Each is a dictionary of question id to text. A template of a normal chest reaches a respectable BLEU and no
finding at all; a report of another patient, or one that states what is common, reaches more than one would
think. They stand in every table.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from radpref.evaluation.counts import claimed
from radpref.findings import read
from radpref.records import Question

Answers = dict[str, str]

NORMAL_REPORT = (
    "The heart is normal in size. The mediastinum is unremarkable. The lungs are clear. "
    "There is no focal consolidation. There is no pleural effusion or pneumothorax. "
    "The bony structures are intact."
)
"""The constant normal report."""

BASELINES = (
    "constant normal report",
    "most frequent report",
    "most frequent findings",
    "shuffled reference",
    "nearest length",
)
"""The names of all baselines."""

_SOLITARY = {"cardiomegaly", "edema", "scoliosis", "emphysema", "pneumonia"}
"""Findings that take no article."""


def baselines(train: Iterable[Question], test: Sequence[Question], seed: int) -> dict[str, Answers]:
    """Trivial answers to the test questions, by name of the baseline.

    - ``constant normal report``: one fixed text of a normal chest.
    - ``most frequent report``: the training reference that occurs most often (case and spaces aside); of
      several, the one of the most usual length.
    - ``most frequent findings``: one text that states the findings that a constant should state, namely
      those that maximise the micro F1 over the training references, and denies what most of them deny.
    - ``shuffled reference``: the reference of another patient's test study.
    - ``nearest length``: the training reference whose length is nearest to the test reference's. It is told
      the right length, which no system is, and nothing else.

    A baseline that needs training references, or a second patient, is left out where there is none. ``train`` is gone
    through more than once, as a stream; of a reference some numbers are kept, and no text.
    """
    references = _References(train)
    made = (
        _constant(test, NORMAL_REPORT),
        _constant(test, most_frequent_report(references)),
        _constant(test, most_frequent_findings(references)),
        _shuffled(test, seed),
        _nearest_length(references, test, seed),
    )
    return {name: answers for name, answers in zip(BASELINES, made, strict=True) if answers is not None}


@dataclass(frozen=True)
class _References:
    """The references of questions, as often as they are asked for."""

    questions: Iterable[Question]

    def __iter__(self) -> Iterator[str]:
        return (question.reference for question in self.questions if question.reference)


def most_frequent_report(references: Iterable[str]) -> str | None:
    """The most frequent text, as first written; None where there is no text. It goes through them twice."""
    hashes, lengths = array("q"), array("q")
    for key in map(_plain, references):
        if key:
            hashes.append(_hashed(key))
            lengths.append(len(key.split()))
    if not hashes:
        return None
    texts, times = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    top, usual = set(texts[times == times.max()].tolist()), float(np.median(np.frombuffer(lengths, dtype=np.int64)))
    best: tuple[float, str, str] | None = None
    for reference in references:
        key = _plain(reference)
        if key and _hashed(key) in top:
            found = (abs(len(key.split()) - usual), key, reference)
            best = found if best is None or found[:2] < best[:2] else best
    assert best is not None
    return best[2]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hashed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little", signed=True)


def most_frequent_findings(references: Iterable[str]) -> str | None:
    """The constant report with the best name-level micro F1 on ``references``; None where there are none.

    Of the findings sorted by frequency, stating the first k gives 2 sum(c_1..c_k) / (k n + sum(c)); the best k
    is taken. Side, place and severity are each finding's most frequent ones.
    """
    reports = 0
    times: Counter[str] = Counter()
    denied_times: Counter[str] = Counter()
    looks: defaultdict[str, tuple[Counter[str | None], ...]] = defaultdict(lambda: (Counter(), Counter(), Counter()))
    for report in map(read, references):
        reports += 1
        stated_here = claimed(report)
        times.update(stated_here)
        denied_times.update({finding.name for finding in report if finding.presence == "absent"} - stated_here)
        for finding in report:
            if finding.presence != "absent":
                for seen, value in zip(
                    looks[finding.name], (finding.severity, finding.side, finding.place), strict=True
                ):
                    seen[value] += 1
    if not reports:
        return None
    ranked = sorted(times, key=lambda name: (-times[name], name))
    hits = np.cumsum([times[name] for name in ranked])
    f1 = 2 * hits / (reports * np.arange(1, len(ranked) + 1) + hits[-1]) if ranked else np.zeros(0)
    stated = ranked[: int(np.argmax(f1)) + 1] if ranked else []
    denied = [
        name
        for name, count in sorted(denied_times.items(), key=lambda item: (-item[1], item[0]))
        if count > reports / 2 and name not in stated
    ]
    sentences = [_statement(name, *(seen.most_common(1)[0][0] for seen in looks[name])) for name in stated]
    sentences += [f"There is no {name}." for name in denied]
    return " ".join(sentences) or NORMAL_REPORT


def _statement(name: str, severity: str | None, side: str | None, place: str | None) -> str:
    """``There is a mild left pleural effusion.``: the finding with its most usual qualities."""
    words = " ".join(word for word in (severity, side, name) if word)
    where = f" in the {place}" if place else ""
    article = "" if name in _SOLITARY or side == "bilateral" else "an " if words[0] in "aeiou" else "a "
    return f"There is {article}{words}{where}."


def _constant(test: Sequence[Question], text: str | None) -> Answers | None:
    return None if text is None else {question.id: text for question in test}


def _shuffled(test: Sequence[Question], seed: int) -> Answers | None:
    """Patients in a random order, then everyone takes the reference that stands one largest patient further on.

    Nobody gets a reference of their own as long as no patient holds more than half of the studies.
    """
    sizes = Counter(question.patient for question in test)
    if len(sizes) < 2:
        return None
    generator = np.random.default_rng(seed)
    patients = [sorted(sizes)[index] for index in generator.permutation(len(sizes))]
    place = {patient: index for index, patient in enumerate(patients)}
    ordered = sorted(test, key=lambda question: (place[question.patient], question.id))
    shift = max(sizes.values())
    return {q.id: ordered[(index + shift) % len(ordered)].reference for index, q in enumerate(ordered)}


def _nearest_length(references: Iterable[str], test: Sequence[Question], seed: int) -> Answers | None:
    counted = array("q", (len(text.split()) for text in references))
    if not counted:
        return None
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(counted))  # ties go to any, not to the first by id
    lengths = np.frombuffer(counted, dtype=np.int64)[order]
    wanted = {q.id: int(order[np.argmin(np.abs(lengths - len(q.reference.split())))]) for q in test}
    rows = set(wanted.values())
    texts = {row: text for row, text in enumerate(references) if row in rows}
    return {id: texts[row] for id, row in wanted.items()}
