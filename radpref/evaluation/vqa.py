"""Measure answers to questions: right or not by named rules, by task and kind, with intervals over patients.

An accuracy alone says little: beside it stand what the most frequent answer reaches, whether a question and its
negation are answered alike, and what is left of the accuracy without the right image (``tasks.controls``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from radpref.evaluation.counts import Counts
from radpref.evaluation.measure import Measured, answered, metrics_of
from radpref.evaluation.vqa_metrics import CONTROLS, names_of, vqa_definition
from radpref.judges import Case, short_answer
from radpref.records import Judgement, Question
from radpref.tasks import BLANK, NEGATED, SWAPPED, matches, polarity, tokens

Answers = Mapping[str, str]

_ASKED_LIKE = {"false premise": "location"}
"""A kind whose questions read like another's: a baseline that told them apart would know the answer."""

VQA_BASELINES = ("most frequent answer", "most frequent answer to the question")


def measure_questions(
    system: str,
    questions: Sequence[Question],
    answers: Answers,
    *,
    controls: Sequence[Question] = (),
    resamples: int = 1000,
    seed: int = 17,
) -> Measured:
    """All metrics of questions for one system, each with a 95 % percentile bootstrap interval over patients.

    ``answers`` maps question ids to texts, of ``questions`` and of ``controls``: their altered twins (negated,
    swapped, blank), told by their ids. An empty text is a wrong answer. A metric of twins that were not asked has the
    value None.

    Raises ValueError where a question has no answer or an id stands twice.
    """
    questions = answered(system, [*questions, *controls], answers)
    twins = {question.id: question for question in questions if question.id.endswith((NEGATED, SWAPPED, BLANK))}
    asked = [question for question in questions if question.id not in twins]
    rows = [_question_counts(question, answers, twins) for question in asked]
    columns = tuple(sorted({column for row in rows for column in row} | set(_nothing())))
    values = np.array([[row.get(column, 0.0) for column in columns] for row in rows]).reshape(len(rows), len(columns))
    patients = tuple(question.patient for question in asked)
    groups = dict.fromkeys(group for question in asked for group in _groups(question) if "=" in group)
    definitions = {name: vqa_definition(name) for name in names_of(sorted(groups, key=_order))}
    metrics = metrics_of(system, patients, columns, values, definitions, resamples, seed)
    judged = {question.id: _judgement(question, answers[question.id]) for question in asked}
    ids = tuple(question.id for question in asked)
    return Measured(system, metrics, ids, patients, columns, values, {"answer": judged})


def question_baselines(train: Iterable[Question], test: Sequence[Question]) -> dict[str, dict[str, str]]:
    """What answers that see no image reach: the most frequent one in train of each kind, and of each question's words.

    ``most frequent answer``: of the same task, kind and form (closed or open); of a kind that train lacks, of the
    form. ``most frequent answer to the question``: of the same question, where train asks it; else as above. Ties go
    to the first by alphabet. Empty where there are no training questions.
    """

    def usual(key: int) -> dict[Hashable, str]:
        times: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
        for question in train:
            times[_keys(question)[key]][question.answer.strip().lower()] += 1
        return {known: min(counted, key=lambda text: (-counted[text], text)) for known, counted in times.items()}

    tables = [usual(key) for key in range(3)]
    if not tables[2]:
        return {}
    anything = min(tables[2].values())

    def answer(question: Question, first: int) -> str:
        keys = _keys(question)
        return next((tables[key][keys[key]] for key in range(first, 3) if keys[key] in tables[key]), anything)

    return {
        name: {question.id: answer(question, first) for question in test}
        for name, first in zip(VQA_BASELINES, (1, 0), strict=True)
    }


def _judgement(question: Question, said: str) -> Judgement:
    return short_answer([Case.of(question, said)])[0]


def _keys(question: Question) -> tuple[Hashable, Hashable, Hashable]:
    """From the most to the least specific: its words, its kind, its form."""
    words = " ".join(question.prompt.lower().split())
    kind = _ASKED_LIKE.get(question.kind, question.kind)
    return words, (question.task, kind, question.closed), question.closed


def _groups(question: Question) -> list[str]:
    groups = ["all", "closed" if question.closed else "open", f"task={question.task}"]
    if question.kind:
        groups += [f"kind={question.kind}", f"of={question.task}/{question.kind}"]
    return groups


def _order(group: str) -> tuple[int, str]:
    return ("task", "kind", "of").index(group.split("=")[0]), group


def _question_counts(question: Question, answers: Answers, twins: Mapping[str, Question]) -> Counts:
    said = answers[question.id]
    right = float(matches(said, question.answer, question.closed, question.prompt))
    row: Counts = {"words": float(len(said.split())), "empty": float(not said.strip())}
    for group in _groups(question):
        row[f"{group}:n"], row[f"{group}:right"] = 1.0, right
    if not question.closed:
        row["open:recall"] = _recall(said, question.answer)
    wanted = polarity(question.answer) if question.closed else None
    if wanted:
        row[f"{wanted}:n"], row[f"{wanted}:right"] = 1.0, right
        row |= {"polar:n": 1.0, "polar:yes": float(polarity(said) == "yes"), "polar:none": float(not polarity(said))}
    negated = twins.get(question.id + NEGATED)
    if negated is not None:
        other = answers[negated.id]
        first, second = polarity(said), polarity(other)
        row["negated:n"] = 1.0
        row["negated:consistent"] = float(first is not None and second is not None and first != second)
        row["negated:both"] = right * float(matches(other, negated.answer, negated.closed, negated.prompt))
    for control, ending in zip(CONTROLS, (SWAPPED, BLANK), strict=True):
        twin = twins.get(question.id + ending)
        if twin is not None:
            row[f"{control}:n"], row[f"{control}:kept"] = 1.0, right
            row[f"{control}:right"] = float(matches(answers[twin.id], twin.answer, twin.closed, twin.prompt))
    return row


def _recall(answer: str, reference: str) -> float:
    """The share of the reference's words that the answer has, each as often as it stands there."""
    wanted, given = Counter(tokens(reference)), Counter(tokens(answer))
    return sum((wanted & given).values()) / max(sum(wanted.values()), 1)


def _nothing() -> Counts:
    """Every column that a definition reads, so that a table without open questions or twins still has it, at zero."""
    row: Counts = dict.fromkeys(("words", "empty", "open:recall"), 0.0)
    for group in ("all", "closed", "open", "yes", "no", *CONTROLS):
        row |= {f"{group}:n": 0.0, f"{group}:right": 0.0, f"{group}:kept": 0.0}
    row |= dict.fromkeys(("polar:n", "polar:yes", "polar:none"), 0.0)
    return row | dict.fromkeys(("negated:n", "negated:consistent", "negated:both"), 0.0)
