"""Ranked pairs: of a question's candidates, the best scored against the worst (CheXalign's pair builder)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from radpref.config import PairSection
from radpref.records import Completion, Judgement, Pair, Question

NO_CANDIDATE = "no candidate"
TOO_FEW_SCORED = "fewer than two scored candidates"
NONE_FINISHED = "no scored candidate is finished"
TIE = "tie"
MARGIN = "difference below the margin"
IDENTICAL = "best and worst are the same text"
LIMIT = "beyond the limit"


class Ranked(NamedTuple):
    """Pairs, and what became of the rest: ``len(pairs) + sum(dropped.values())`` is the number of questions."""

    pairs: list[Pair]
    """Sorted by id; at most one a question."""
    dropped: dict[str, int]
    """Reason to the number of questions without a pair."""
    unscored: dict[str, int]
    """The judge's reason to the number of candidates that it could not judge; these are in no pair."""


def rank(
    questions: Sequence[Question],
    completions: Iterable[Completion],
    judgements: Iterable[Judgement],
    section: PairSection,
) -> Ranked:
    """Pair the best with the worst candidate of each question.

    Only candidates with a score take part: an answer that could not be judged is neither good nor bad. Of equal
    scores the lower index wins on both sides. A candidate that was cut at ``max_new_tokens`` is never chosen
    (with ``section.drop_unfinished``) but may be rejected; ``provenance["rejected_finished"]`` then says
    ``no``, so that training does not put an end token after it. A question gives no pair where best minus worst
    is at most ``section.tie`` or below ``section.margin``, or where both are the same words.

    Rows about other questions are ignored. CheXalign, arXiv 2410.07025: tie 1e-8, no margin.

    Raises:
        ValueError: two judgements of one completion, or judgements by several judges.
    """
    scores = _by_completion(judgements)
    candidates: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        candidates[completion.question].append(completion)

    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    unscored: Counter[str] = Counter()
    for question in questions:
        own = sorted(candidates[question.id], key=lambda completion: completion.index)
        unscored.update(reason for c in own if (reason := _why_unscored(scores.get(c.id))) is not None)
        found = _pair(question, own, scores, section)
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            dropped[found] += 1
    pairs.sort(key=lambda pair: pair.id)
    if section.limit is not None and len(pairs) > section.limit:
        dropped[LIMIT] += len(pairs) - section.limit
        pairs = pairs[: section.limit]
    return Ranked(pairs, dict(dropped), dict(unscored))


def _pair(
    question: Question,
    candidates: Sequence[Completion],
    judgements: Mapping[str, Judgement],
    section: PairSection,
) -> Pair | str:
    """The question's pair, or the reason why there is none."""
    if not candidates:
        return NO_CANDIDATE
    scored = {c.index: _score(judgements.get(c.id)) for c in candidates}
    usable = [(c, s) for c in candidates if (s := scored[c.index]) is not None]
    if len(usable) < 2:
        return TOO_FEW_SCORED
    eligible = [(c, s) for c, s in usable if c.finished or not section.drop_unfinished]
    if not eligible:
        return NONE_FINISHED
    # max and min return the first of equals, and the candidates stand in the order of their index
    best, high = max(eligible, key=lambda item: item[1])
    worst, low = min(usable, key=lambda item: item[1])
    if high - low <= section.tie:
        return TIE
    if high - low < section.margin:
        return MARGIN
    if best.text.split() == worst.text.split():
        return IDENTICAL
    return Pair(
        id=f"{question.id}/{best.index}-{worst.index}",
        question=question.id,
        patient=question.patient,
        images=question.images,
        prompt=question.prompt,
        chosen=best.text,
        rejected=worst.text,
        chosen_score=high,
        rejected_score=low,
        provenance={
            "judge": judgements[best.id].judge,
            "chosen": best.id,
            "rejected": worst.id,
            "chosen_finished": "yes" if best.finished else "no",
            "rejected_finished": "yes" if worst.finished else "no",
        },
    )


def _by_completion(judgements: Iterable[Judgement]) -> dict[str, Judgement]:
    by_id: dict[str, Judgement] = {}
    for judgement in judgements:
        if judgement.id in by_id:
            raise ValueError(
                f"completion {judgement.id} is judged twice (by {by_id[judgement.id].judge} and "
                f"{judgement.judge}); give the judgements of one judge, one a completion"
            )
        by_id[judgement.id] = judgement
    judges = sorted({judgement.judge for judgement in by_id.values()})
    if len(judges) > 1:
        raise ValueError(
            f"the judgements come from several judges ({', '.join(judges)}), whose scores cannot be compared; "
            "give those of one judge"
        )
    return by_id


def _score(judgement: Judgement | None) -> float | None:
    """The score where there is a usable one; a score that is not finite ranks nothing."""
    if judgement is None or judgement.score is None or not math.isfinite(judgement.score):
        return None
    return judgement.score


def _why_unscored(judgement: Judgement | None) -> str | None:
    if judgement is None:
        return "no judgement"
    if _score(judgement) is not None:
        return None
    return judgement.unscored or "no finite score"


def statistics(pairs: Sequence[Pair]) -> dict[str, float]:
    """Means over the pairs: words and scores of both sides, and how often the chosen side is the longer one.

    A share of longer chosen sides far from one half, or a ratio of words far from 1, says that the preference
    can be read off the length. Empty for no pairs; scores only of pairs that have both.
    """
    if not pairs:
        return {}
    words = [(len(pair.chosen.split()), len(pair.rejected.split())) for pair in pairs]
    stats = {
        "pairs": float(len(pairs)),
        "chosen_words": fmean(chosen for chosen, _ in words),
        "rejected_words": fmean(rejected for _, rejected in words),
        "chosen_longer": fmean(chosen > rejected for chosen, rejected in words),
        "rejected_longer": fmean(chosen < rejected for chosen, rejected in words),
    }
    scores = [
        (pair.chosen_score, pair.rejected_score)
        for pair in pairs
        if pair.chosen_score is not None and pair.rejected_score is not None
    ]
    if scores:
        stats["chosen_score"] = fmean(chosen for chosen, _ in scores)
        stats["rejected_score"] = fmean(rejected for _, rejected in scores)
        stats["score_difference"] = fmean(chosen - rejected for chosen, rejected in scores)
    return stats


class Unpaired(NamedTuple):
    """One answer with a verdict: what KTO learns from."""

    id: str
    """``{pair}/chosen`` or ``{pair}/rejected``."""
    pair: Pair
    desirable: bool

    @property
    def text(self) -> str:
        """The answer."""
        return self.pair.chosen if self.desirable else self.pair.rejected


def unpair(pairs: Iterable[Pair]) -> list[Unpaired]:
    """Both sides of every pair as rows of their own: the chosen one desirable, the rejected one not.

    The order is pair by pair, the chosen side first.
    """
    return [
        Unpaired(f"{pair.id}/{'chosen' if desirable else 'rejected'}", pair, desirable)
        for pair in pairs
        for desirable in (True, False)
    ]
