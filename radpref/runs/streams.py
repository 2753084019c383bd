"""Tables that are read side by side: questions, and what was made of each of them, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from typing import TypeVar

from radpref.config import SampleSection
from radpref.records import Candidate, Completion, Judgement, Question

Row = TypeVar("Row", Completion, Judgement)


def asked(questions: Iterable[Question], section: SampleSection) -> Iterator[Question]:
    """The training questions that are answered and aligned on: all, those with a reference, or those without; of the
    first ``section.most`` studies, whose questions stand together."""
    which = section.studies
    some = (question for question in questions if which == "all" or bool(question.reference) == (which == "reported"))
    if section.most is None:
        return some
    return chain.from_iterable(own for _, own in islice(groupby(some, key=lambda row: row.study), section.most))


def grouped(questions: Iterable[Question], rows: Iterable[Row]) -> Iterator[tuple[Question, list[Row]]]:
    """Every question with its rows, which come in the order of the questions; a question may have none."""
    coming = groupby(rows, key=lambda row: row.question)
    ahead = next(coming, None)
    for question in questions:
        own: list[Row] = []
        if ahead is not None and ahead[0] == question.id:
            own, ahead = list(ahead[1]), next(coming, None)
        yield question, own


def candidates(questions: Iterable[Question], completions: Iterable[Completion]) -> Iterator[Candidate]:
    """Every answer with its question."""
    for question, own in grouped(questions, completions):
        for row in own:
            yield Candidate(id=row.id, question=question, completion=row)


def with_answers(questions: Iterable[Question], completions: Iterable[Completion]) -> Iterator[Candidate]:
    """Every question with the model's first answer, or without one where it gave none."""
    for question, own in grouped(questions, completions):
        yield Candidate(id=question.id, question=question, completion=own[0] if own else None)
