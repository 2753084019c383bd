"""What a judge is asked and how it is run: cases, cleaning, refusals, and one answer for equal texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from radpref.errors import RadprefError
from radpref.records import Finding, Judgement, ReportError

_BLANKED = re.compile(r"\[[^\[\]]*\]|\*\*")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_REMOVED = re.compile(r"(?i)x{2,}")

log = logging.getLogger(__name__)


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

CompareAll = Callable[[Sequence[tuple[str, str]]], Sequence[Verdict]]
"""The same for many pairs, all different, with one verdict each in their order."""


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

    def compare_all(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [_guarded(name, compare, *pair) for pair in pairs]

    return judge_all(name, compare_all)


def judge_all(name: str, compare_all: CompareAll) -> Judge:
    """`judge_by` for a comparison that takes all pairs at once: a server asked in parallel, another process."""

    def judge(cases: Sequence[Case]) -> list[Judgement]:
        known = {pair: _refusal(*pair) for pair in dict.fromkeys((case.reference, case.candidate) for case in cases)}
        left = [pair for pair, (verdict, *_) in known.items() if verdict is None]
        verdicts = compare_all([(clean(reference), clean(candidate)) for reference, candidate in left])
        for pair, verdict in zip(left, verdicts, strict=True):
            known[pair] = (verdict, *known[pair][1:])
        judgements = []
        for case in cases:
            found, candidate_words, reference_words = known[case.reference, case.candidate]
            assert found is not None
            judgements.append(
                Judgement(
                    id=case.id,
                    question=case.question,
                    judge=name,
                    score=found.score,
                    unscored=found.unscored,
                    matched=found.matched,
                    errors=found.errors,
                    words=candidate_words,
                    reference_words=reference_words,
                )
            )
        return judgements

    return judge


def _refusal(reference: str, candidate: str) -> tuple[Verdict | None, int, int]:
    """The verdict on a pair that is not compared, else None; and the words of candidate and reference."""
    lengths = len(words(clean(candidate))), len(words(clean(reference)))
    if not lengths[1]:
        return Verdict(None, "the reference has no words"), *lengths
    if not lengths[0]:
        return Verdict(None, "the candidate has no words"), *lengths
    return None, *lengths


def _guarded(name: str, compare: Compare, reference: str, candidate: str) -> Verdict:
    try:
        return compare(reference, candidate)
    except Exception as error:  # a judge's fault must cost one case, not the run
        log.warning("judge %s failed on one case: %s", name, type(error).__name__)
        return Verdict(None, f"the judge failed: {type(error).__name__}: {error}")


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
