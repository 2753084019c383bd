"""The judge of questions: 1 where an answer gives the question's short answer, else 0 (``tasks.matches``)."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.judges.case import Case, clean, words
from radpref.records import Judgement
from radpref.tasks import matches

VERSION = "1"
"""Raised by hand with the rules of ``tasks.answers``."""


def short_answer(cases: Sequence[Case]) -> list[Judgement]:
    """1 or 0 for each case; unscored where the question has no short answer, or the candidate no words."""
    return [_judged(case) for case in cases]


def _judged(case: Case) -> Judgement:
    said = words(clean(case.candidate))
    reason = "the question has no short answer" if not case.answer else "" if said else "the candidate has no words"
    return Judgement(
        id=case.id,
        question=case.question,
        judge="answer",
        score=None if reason else float(matches(case.candidate, case.answer, case.closed)),
        unscored=reason or None,
        words=len(said),
        reference_words=len(words(clean(case.reference))),
    )
