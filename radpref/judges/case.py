"""What a judge is asked, and what it finds about one pair of texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from radpref.errors import RadprefError
from radpref.records import Finding, Question, ReportError

_BLANKED = re.compile(r"\[[^\[\]]*\]|\*\*")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_REMOVED = re.compile(r"(?i)x{2,}")


class JudgeError(RadprefError):
    """A judge that cannot work; the message says why and what to do."""


@dataclass(frozen=True)
class Case:
    """One candidate report to be judged against its reference."""

    id: str
    """The completion's id."""
    question: str
    """The question's id."""
    reference: str
    candidate: str
    answer: str = ""
    """The question's short answer; empty for a report."""
    closed: bool = False
    prompt: str = ""
    """What was asked; empty where that is not known."""
    labels: tuple[Finding, ...] = ()
    """What labels say of the study (`Question.labels`)."""

    @classmethod
    def of(cls, question: Question, candidate: str, id: str | None = None) -> Case:
        """The case of a question that was answered with ``candidate``; its id is the question's where none is given."""
        return cls(
            id=id or question.id,
            question=question.id,
            reference=question.reference,
            candidate=candidate,
            answer=question.answer,
            closed=question.closed,
            prompt=question.prompt,
            labels=question.labels,
        )


@dataclass(frozen=True)
class Verdict:
    """What a judge finds about one pair of texts: a score from 0 to 1, or the reason why there is none."""

    score: float | None
    unscored: str | None = None
    matched: tuple[Finding, ...] = ()
    errors: tuple[ReportError, ...] = ()
    earned: tuple[float, ...] = ()
    """What each of ``matched`` counts; empty where each counts 1."""


def clean(text: str) -> str:
    """Text in square brackets and ``**`` blanked (CheXalign's cleaning), at equal length, so that spans still hold.

    White space and case are left as they are: no judge here depends on them.
    """
    return _BLANKED.sub(lambda match: " " * len(match[0]), text)


def words(text: str) -> list[str]:
    """The words of a text; punctuation is none, and neither is what a publisher removed (``XXXX``, ``___``)."""
    found: list[str] = _WORD.findall(text)
    if _REMOVED.search(text):  # rare, and costly to ask of every word
        return [word for word in found if not _REMOVED.fullmatch(word)]
    return found
