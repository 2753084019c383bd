"""The judge of questions: 1 where an answer gives the question's short answer, else 0 (``tasks.matches``)."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.config import JudgeSection
from radpref.findings import lexicon
from radpref.judges.case import Case, clean, words
from radpref.judges.contract import Judge
from radpref.records import Judgement
from radpref.tasks import matches

VERSION = "2"
"""Raised by hand with the rules of ``tasks.answers``."""


class ShortAnswer:
    """1 or 0 for each case; unscored where the question has no short answer, or the candidate no words."""

    name = "answer"
    free = False
    """It judges no reports."""

    @property
    def version(self) -> str:
        return f"answer-{VERSION}-{lexicon().digest}"

    def check(self, section: JudgeSection) -> None:
        """It needs nothing."""

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        return [_judged(case) for case in cases]


def _judged(case: Case) -> Judgement:
    said = words(clean(case.candidate))
    reason = "the question has no short answer" if not case.answer else "" if said else "the candidate has no words"
    return Judgement(
        id=case.id,
        question=case.question,
        judge="answer",
        score=None if reason else float(matches(case.candidate, case.answer, case.closed, case.prompt)),
        unscored=reason or None,
        words=len(said),
        reference_words=len(words(clean(case.reference))),
    )


short_answer: Judge = ShortAnswer()
"""The judge of questions."""
