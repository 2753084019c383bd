"""What a judge is asked and how it is run: cases, cleaning, refusals, and one answer for equal texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from radpref.records import Finding, Judgement, ReportError

_BLANKED = re.compile(r"\[[^\[\]]*\]|\*\*")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_REMOVED = re.compile(r"(?i)x{2,}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One candidate report to be judged against its reference."""

    id: str
    """The completion's id."""
    question: str
    """The question's id."""
    reference: str
    candidate: str


@dataclass(frozen=True)
class Verdict:
    """What a judge finds about one pair of texts: a score from 0 to 1, or the reason why there is none."""

    score: float | None
    unscored: str | None = None
    matched: tuple[Finding, ...] = ()
    errors: tuple[ReportError, ...] = ()


Judge = Callable[[Sequence[Case]], list[Judgement]]
"""Judgements in the order of the cases, one each."""

Compare = Callable[[str, str], Verdict]
"""(reference, candidate), both cleaned and not empty, to a verdict."""


def clean(text: str) -> str:
    """Text in square brackets and ``**`` blanked (CheXalign's cleaning), at equal length, so that spans still hold.

    White space and case are left as they are: no judge here depends on them.
    """
    return _BLANKED.sub(lambda match: " " * len(match[0]), text)


def words(text: str) -> list[str]:
    """The words of a text; punctuation is none, and neither is what a publisher removed (``XXXX``, ``___``)."""
    return [word for word in _WORD.findall(text) if not _REMOVED.fullmatch(word)]


def judge_by(name: str, compare: Compare) -> Judge:
    """A judge out of a comparison of two texts.

    Equal pairs of texts are compared once per call. A case is unscored, with the reason, where a text has no words
    (an empty answer is a failure of the model, not a report; an empty reference tells nothing), and where the
    comparison raises: one bad case never ends a run.
    """

    def judge(cases: Sequence[Case]) -> list[Judgement]:
        known: dict[tuple[str, str], tuple[Verdict, int, int]] = {}
        judgements = []
        for case in cases:
            pair = (case.reference, case.candidate)
            if pair not in known:
                known[pair] = _verdict(name, compare, *pair)
            verdict, candidate_words, reference_words = known[pair]
            judgements.append(
                Judgement(
                    id=case.id,
                    question=case.question,
                    judge=name,
                    score=verdict.score,
                    unscored=verdict.unscored,
                    matched=verdict.matched,
                    errors=verdict.errors,
                    words=candidate_words,
                    reference_words=reference_words,
                )
            )
        return judgements

    return judge


def _verdict(name: str, compare: Compare, reference: str, candidate: str) -> tuple[Verdict, int, int]:
    reference, candidate = clean(reference), clean(candidate)
    lengths = len(words(candidate)), len(words(reference))
    if not lengths[1]:
        return Verdict(None, "the reference has no words"), *lengths
    if not lengths[0]:
        return Verdict(None, "the candidate has no words"), *lengths
    try:
        return compare(reference, candidate), *lengths
    except Exception as error:  # a judge's fault must cost one case, not the run
        log.warning("judge %s failed on one case: %s", name, type(error).__name__)
        return Verdict(None, f"the judge failed: {type(error).__name__}: {error}"), *lengths


def length_controlled(judge: Judge) -> Judge:
    """``score / max(words(candidate) / words(reference), 1)``: LC-GREEN when the judge is GREEN (CheXalign).

    The judge's name gets ``lc-`` before it. A candidate shorter than its reference keeps its score.
    """

    def judge_with_length(cases: Sequence[Case]) -> list[Judgement]:
        return [_controlled(judgement) for judgement in judge(cases)]

    return judge_with_length


def _controlled(judgement: Judgement) -> Judgement:
    score = judgement.score
    if score is not None:
        score /= max(judgement.words / judgement.reference_words, 1)
    return judgement.model_copy(update={"score": score, "judge": f"lc-{judgement.judge}"})
