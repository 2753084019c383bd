"""Mining: which questions are worth a pair, and why each of them was taken (CheXPO)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from radpref.config import MineSection
from radpref.mining.approximate import approximate
from radpref.mining.calibration import Calibration, calibration
from radpref.mining.confidence import CELLS, Moved, cells, sensitivity
from radpref.mining.hits import Rate, Retrieval, rate, retrieval_hits, tail_names, tail_shares
from radpref.mining.quotas import MODES, apportion, tempered
from radpref.mining.rows import Rows, Vectors
from radpref.mining.search import Neighbours, Part, search
from radpref.mining.vectors import findings_of, names_of
from radpref.records import Cell, MinedQuestion, Question, Record
from radpref.tasks import normalise, polarity

T = TypeVar("T", bound=Hashable)
STRATA = ("task", "kind", "finding", "answer")
Key = tuple[str, str, str, str]
"""A stratum: task, kind, finding, answer."""


class Stratum(Record):
    """One stratum before and after its quota."""

    task: str
    kind: str
    finding: str
    answer: str = ""
    """Of closed questions, where strata are told apart by it."""
    pool: int
    hard: int
    candidates: int
    """Hard questions and neighbours."""
    taken: int


class Summary(Record):
    """What mining found, in numbers."""

    questions: int
    scored: int
    unscored: int
    """Questions whose answer has no verdict or no confidence."""
    cells: dict[str, int]
    quantile: float
    cuts: dict[str, float]
    """Confidence below which an answer is unsure, by group of answers that are compared."""
    moved: tuple[Moved, ...]
    hard: int
    neighbours: int
    """Neighbours of hard questions that are not hard themselves."""
    budget: int
    taken: int
    calibration: Calibration | None
    found: tuple[Rate, ...]
    """Share of wrong answers: in the pool (random), among the unsure, among the confident, in what was taken."""
    retrieval: Retrieval | None
    tail: tuple[str, ...]
    """Findings that are called rare."""
    tail_shares: tuple[Rate, ...]
    """Their share of the pool, of the hard questions, with neighbours, and of what is taken without and with
    quotas."""
    strata: tuple[Stratum, ...]
    searched: dict[str, int]


class Mined(NamedTuple):
    """What to make pairs of."""

    rows: list[MinedQuestion]
    """In the order of the questions."""
    summary: Summary


class Near(NamedTuple):
    """Why a question is a neighbour."""

    of: int
    distance: float
    rank: int


class Asked(NamedTuple):
    """What mining remembers of a question."""

    id: str
    study: int
    """A hash, as of the prompt: whether two are the same is all that is asked."""
    patient: str
    prompt: int
    task: str
    kind: str
    finding: str
    """What the question counts for: what it is about, else the first finding in truth or texts, else ""."""
    answer: str
    """Of closed questions, in its plain form."""
    names: frozenset[str]
    """Of findings that are not absent, from truth or texts."""


def remembered(questions: Iterable[Question]) -> list[Asked]:
    """What mining needs of each question; words that come again are held once."""
    kept: dict[Any, Any] = {}

    def once(value: T) -> T:
        found: T = kept.setdefault(value, value)
        return found

    rows = []
    for question in questions:
        findings = findings_of(question)
        named = question.about or findings
        present = [finding.name for finding in named if finding.presence != "absent"]
        rows.append(
            Asked(
                id=question.id,
                study=hash(question.study),
                patient=once(question.patient),
                prompt=hash(question.prompt),
                task=once(question.task),
                kind=once(question.kind),
                finding=once((present or [finding.name for finding in named] or [""])[0]),
                answer=once((polarity(question.answer) or normalise(question.answer)) if question.closed else ""),
                names=once(names_of(findings)),
            )
        )
    return rows


def mine(
    questions: Sequence[Asked],
    correct: Mapping[str, bool],
    confidences: Mapping[str, float],
    vectors: Mapping[str, Vectors],
    section: MineSection,
    *,
    seed: int,
    resamples: int = 1000,
) -> Mined:
    """Hard questions by correctness and confidence, their neighbours, and quotas over both.

    1. An answer is unsure below a quantile of all confidences; with its correctness this makes four cells
       (``confidence.cells``). The questions in ``section.cells`` are hard.
    2. The ``section.k`` nearest questions of each hard one join them (``search``); they need not be hard.
    3. The budget is shared among the strata by their hard questions, or by all of them (``quotas``). Over all
       strata, hard questions and neighbours have their shares of it (``section.neighbours``): hard ones in the order
       of ``section.cells``, of wrong answers the most confident first and of right ones the least; neighbours by
       their distance; ties by a hash of seed and id.

    With ``section.select`` ``random`` as many questions are drawn at random instead, to compare with; all else is
    reported alike.

    Args:
        questions: the pool (`remembered`); ids are unique.
        correct: question id to whether the answer is right; without one a question is never hard.
        confidences: question id to the answer's confidence in [0, 1].
        vectors: ``question``, ``rationale``, ``image``: unit vectors, ``finding``: signs, each (questions, D);
            needed are those whose weight is not 0.
    """
    ids = [question.id for question in questions]
    place = {id: number for number, id in enumerate(ids)}
    groups = None if section.within == "all" else {q.id: getattr(q, section.within) for q in questions}
    cell_of, cuts = cells(correct, {id: confidences[id] for id in ids if id in confidences}, section.quantile, groups)
    hard = sorted(
        (id for id, name in cell_of.items() if name in section.cells),
        key=lambda id: _preference(id, cell_of[id], confidences[id], section, seed),
    )
    asking = [place[id] for id in hard[: section.queries]]
    found = neighbours(questions, asking, vectors, section)
    near = _nearest(asking, found, {place[id] for id in hard})
    findings = [question.finding for question in questions]
    strata = [_stratum(question, section) for question in questions]
    budget = _budget(section.budget, len(questions))
    rows_of_hard = [place[id] for id in hard]
    ordered = sorted(near, key=lambda i: (near[i].distance, _drawn(seed, ids[i])))
    before = _in_turns(rows_of_hard, ordered, int(section.neighbours * budget), budget)
    taken = before if section.quota == "none" else _shared(rows_of_hard, ordered, strata, section, budget)
    if section.select == "random":
        taken = sorted(range(len(ids)), key=lambda i: _drawn(seed, ids[i]))[: len(taken)]
    quotas = Counter(strata[i] for i in taken)
    reasons = near if section.select == "hard" else {}
    rows = [
        MinedQuestion(
            id=ids[i],
            cell=cell_of.get(ids[i]),
            correct=correct.get(ids[i]),
            confidence=confidences.get(ids[i]),
            of=ids[reasons[i].of] if i in reasons else None,
            distance=round(reasons[i].distance, 6) + 0.0 if i in reasons else None,
            rank=reasons[i].rank if i in reasons else None,
            stratum=strata[i],
            quota=quotas[strata[i]],
        )
        for i in sorted(taken)
    ]

    order = {name: number for number, name in enumerate(sorted({question.patient for question in questions}))}
    patients = [order[question.patient] for question in questions]
    known = [id for id in ids if id in cell_of]
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed}
    sets = {
        "pool": list(range(len(ids))),
        "hard": rows_of_hard,
        "with neighbours": [*rows_of_hard, *ordered],
        "without quotas": before,
        "taken": sorted(taken),
    }
    tail = tail_names(findings, section.tail)
    counts = {name: Counter(strata[i] for i in chosen) for name, chosen in sets.items()}

    def wrong(name: str, chosen: Iterable[str]) -> Rate:
        kept = [id for id in chosen if id in correct]
        return rate(name, [not correct[id] for id in kept], [patients[place[id]] for id in kept], **drawn)

    retrieval = None
    if found.row.numel():
        verdicts = [correct.get(id) for id in ids]
        groups_of = _excluded(questions, section)
        retrieval = retrieval_hits(verdicts, patients, groups_of, asking, found.row.tolist(), **drawn)
    summary = Summary(
        questions=len(ids),
        scored=len(known),
        unscored=len(ids) - len(known),
        cells={name: list(cell_of.values()).count(name) for name in CELLS},
        quantile=section.quantile,
        cuts=cuts,
        moved=tuple(
            sensitivity(correct, {id: confidences[id] for id in known}, section.quantile, section.cells, groups)
        ),
        hard=len(hard),
        neighbours=len(near),
        budget=budget,
        taken=len(rows),
        calibration=calibration(
            [confidences[id] for id in known],
            [correct[id] for id in known],
            [patients[place[id]] for id in known],
            **drawn,
        ),
        found=(
            wrong("random", ids),
            wrong("unsure", [id for id in known if cell_of[id].endswith("unsure")]),
            wrong("confident", [id for id in known if cell_of[id].endswith("confident")]),
            wrong("taken", [row.id for row in rows]),
        ),
        retrieval=retrieval,
        tail=tail,
        tail_shares=tuple(tail_shares(sets, findings, patients, tail, **drawn)),
        strata=tuple(
            Stratum(
                task=key[0],
                kind=key[1],
                finding=key[2],
                answer=key[3],
                pool=counts["pool"][key],
                hard=counts["hard"][key],
                candidates=counts["with neighbours"][key],
                taken=counts["taken"][key],
            )
            for key in sorted(counts["pool"])
        ),
        searched=found.searched,
    )
    return Mined(rows, summary)


WEIGHTS = ("question", "rationale", "image", "finding")
"""What questions may be compared by, each with its weight in the recipe."""


def neighbours(
    questions: Sequence[Asked], asking: Sequence[int], vectors: Mapping[str, Vectors], section: MineSection
) -> Neighbours:
    """The ``section.k`` nearest questions of those in the rows ``asking``, never themselves.

    Raises:
        SearchError: neighbours are asked for, and no weight is other than 0.
    """
    if not section.k or not asking:
        shape = (len(asking), 0)
        return Neighbours(torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.float64), {})
    rows = torch.tensor(asking)
    parts = [
        Part(_taken(vectors[name], rows), vectors[name], weight, "signs" if name == "finding" else "cosine")
        for name in WEIGHTS
        if (weight := getattr(section, name))
    ]
    groups = [_numbered(column) for column in _excluded(questions, section)] or [torch.arange(len(questions))]
    find = approximate if section.index == "faiss" else search
    return find(parts, section.k, exclude=[(group[rows], group) for group in groups])


def _taken(vectors: Vectors, rows: Tensor) -> Vectors:
    return vectors.take(rows.numpy()) if isinstance(vectors, Rows) else vectors[rows]


def _excluded(questions: Sequence[Asked], section: MineSection) -> list[list[Hashable]]:
    return [[getattr(question, name) for question in questions] for name in section.exclude]


def _numbered(column: Sequence[Hashable]) -> Tensor:
    number = {value: i for i, value in enumerate(dict.fromkeys(column))}
    return torch.tensor([number[value] for value in column])


def _nearest(asking: Sequence[int], found: Neighbours, hard: set[int]) -> dict[int, Near]:
    """Every neighbour that is not hard itself, with the hard question that it is nearest to (of equals the first)."""
    near: dict[int, Near] = {}
    for query, row, distances in zip(asking, found.row.tolist(), found.distance.tolist(), strict=True):
        for rank, (other, distance) in enumerate(zip(row, distances, strict=True), 1):
            if other >= 0 and other not in hard and (other not in near or distance < near[other].distance):
                near[other] = Near(query, distance, rank)
    return near


def _drawn(seed: int, id: str) -> bytes:
    """A number that orders ids at random, the same on every machine."""
    return hashlib.blake2b(f"{seed}\0{id}".encode(), digest_size=8).digest()


def _preference(id: str, cell: Cell, confidence: float, section: MineSection, seed: int) -> tuple[int, float, bytes]:
    sure = -confidence if cell.startswith("wrong") else confidence
    return section.cells.index(cell), sure, _drawn(seed, id)


def _budget(budget: float, questions: int) -> int:
    """Up to 1 a share of all questions (at least one question), above that a number."""
    return max(1, round(budget * questions)) if budget <= 1 else round(budget)


def _stratum(question: Asked, section: MineSection) -> Key:
    task, kind, name, answer = (getattr(question, part) if part in section.strata else "" for part in STRATA)
    return task, kind, name, answer


def _shared(
    hard: Sequence[int], ordered: Sequence[int], strata: Sequence[Key], section: MineSection, budget: int
) -> list[int]:
    """Hard questions and neighbours, both in their order of preference, by the quotas of their strata."""
    own: dict[Key, tuple[list[int], list[int]]] = {
        key: ([], []) for key in sorted({strata[i] for i in (*hard, *ordered)})
    }
    for side, rows in enumerate((hard, ordered)):
        for i in rows:
            own[strata[i]][side].append(i)
    power = MODES.get(section.quota, section.temper)
    pool = Counter(strata)
    counts = [pool[key] if section.quota == "pool" else len(of_key[0]) for key, of_key in own.items()]
    quotas = apportion(
        tempered(counts, power),
        [len(of_key[0]) + len(of_key[1]) for of_key in own.values()],
        budget,
    )
    taken: list[int] = []
    given = 0
    for of_key, quota in zip(own.values(), quotas, strict=True):
        # of a sum so far: rounded by themselves, quotas of one would never take a neighbour
        of_second = int(section.neighbours * (given + quota)) - int(section.neighbours * given)
        taken += _in_turns(of_key[0], of_key[1], of_second, quota)
        given += quota
    return taken


def _in_turns(first: Sequence[int], second: Sequence[int], of_second: int, total: int) -> list[int]:
    """The beginnings of two lists, ``total`` items of both, ``of_second`` of them of the second.

    What one list cannot give comes from the other.
    """
    from_second = min(len(second), max(of_second, total - len(first)))
    return [*first[: total - from_second], *second[:from_second]]
