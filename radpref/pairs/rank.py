"""Ranked pairs: of a question's candidates, the best scored against the worst (CheXalign's pair builder)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from radpref.config import PairSection
from radpref.records import Completion, Judgement, Pair, Question

NO_CANDIDATE = "no candidate"
TOO_FEW_SCORED = "fewer than two scored candidates"
NONE_FINISHED = "no scored candidate is finished"
TIE = "tie"
MARGIN = "difference below the margin"
NO_REFERENCE = "no reference"
REFERENCE = "reference"
"""What stands for a candidate's id where the reference is chosen."""
IDENTICAL = "best and worst are the same text"
LIMIT = "beyond the limit"


Group = tuple[Question, Sequence[Completion], Sequence[Judgement]]
"""A question, its candidates, and what one judge says of them."""


def by_consensus(completions: Sequence[Completion], scores: Sequence[float]) -> list[Judgement]:
    """How well each candidate of a question agrees with the others (``judges.agreement``), as judgements to rank by."""
    return [
        Judgement(id=one.id, question=one.question, judge="consensus", score=score)
        for one, score in zip(completions, scores, strict=True)
    ]


def both(agreed: Iterable[Judgement], judged: Iterable[Judgement]) -> list[Judgement]:
    """The mean of two scores of each candidate; none, with the reason, where the judge has none."""
    said = {row.id: row for row in judged}
    return [_mean(row, said[row.id]) for row in agreed if row.id in said]


def _mean(one: Judgement, other: Judgement) -> Judgement:
    score = None if one.score is None or other.score is None else (one.score + other.score) / 2
    name = f"{other.judge} and {one.judge}"
    return one.model_copy(update={"judge": name, "score": score, "unscored": other.unscored})


class Ranking:
    """The pair builder, for questions that come one at a time.

    Only candidates with a score take part: an answer that could not be judged is neither good nor bad. Of equal
    scores the lower index wins on both sides. A candidate that was cut at ``max_new_tokens`` is never chosen
    (with ``section.drop_unfinished``) but may be rejected; ``provenance["rejected_finished"]`` then says
    ``no``, so that training does not put an end token after it. A question gives no pair where best minus worst
    is at most ``section.tie`` or below ``section.margin``, or where both are the same words. With
    ``section.chosen`` "reference" the reference itself is chosen, with no score, over the worst candidate.
    CheXalign, arXiv 2410.07025: tie 1e-8, no margin.

    Attributes:
        questions: how many have come; as many as there are pairs and questions that were dropped.
        dropped: reason to the number of questions without a pair.
        unscored: the judge's reason to the number of candidates that it could not judge; these are in no pair.
    """

    def __init__(self, section: PairSection) -> None:
        self._section = section
        self.questions = 0
        self.dropped: Counter[str] = Counter()
        self.unscored: Counter[str] = Counter()

    def pairs(self, groups: Iterable[Group]) -> Iterator[Pair]:
        """The best against the worst candidate of each question, in the order of the questions.

        Raises:
            ValueError: two judgements of one completion, or of one question by several judges.
        """
        made = 0
        for question, completions, judgements in groups:
            self.questions += 1
            scores = self._by_completion(judgements)
            own = sorted(completions, key=lambda completion: completion.index)
            self.unscored.update(reason for c in own if (reason := _why_unscored(scores.get(c.id))) is not None)
            found = _pair(question, own, scores, self._section)
            if not isinstance(found, Pair):
                self.dropped[found] += 1
            elif self._section.limit is not None and made >= self._section.limit:
                self.dropped[LIMIT] += 1
            else:
                made += 1
                yield found

    def _by_completion(self, judgements: Iterable[Judgement]) -> dict[str, Judgement]:
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
                f"the judgements of a question come from several judges ({', '.join(judges)}), whose scores cannot be "
                "compared; give those of one judge"
            )
        return by_id


class Ranked(NamedTuple):
    """Pairs, and what became of the rest: ``len(pairs) + sum(dropped.values())`` is the number of questions."""

    pairs: list[Pair]
    """In the order of the questions; at most one a question."""
    dropped: dict[str, int]
    unscored: dict[str, int]


def rank(
    questions: Iterable[Question],
    completions: Iterable[Completion],
    judgements: Iterable[Judgement],
    section: PairSection,
) -> Ranked:
    """`Ranking` over rows in any order, all at once; rows about other questions are ignored. Raises ValueError."""
    candidates: dict[str, list[Completion]] = defaultdict(list)
    said: dict[str, list[Judgement]] = defaultdict(list)
    of = {}
    for completion in completions:
        candidates[completion.question].append(completion)
        of[completion.id] = completion.question
    for judgement in judgements:
        said[of.get(judgement.id, judgement.question)].append(judgement)
    ranking = Ranking(section)
    pairs = list(ranking.pairs((question, candidates[question.id], said[question.id]) for question in questions))
    return Ranked(pairs, dict(ranking.dropped), dict(ranking.unscored))


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
    if section.chosen == "reference" and usable:
        return _under_reference(question, min(usable, key=lambda item: item[1]), judgements)
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
    return _of(question, _side(best, high), _side(worst, low), judgements[best.id].judge)


def _under_reference(
    question: Question, worst: tuple[Completion, float], judgements: Mapping[str, Judgement]
) -> Pair | str:
    """The reference over the worst candidate, or the reason why there is no such pair."""
    reference = question.answer or question.reference
    if not reference:
        return NO_REFERENCE
    if reference.split() == worst[0].text.split():
        return IDENTICAL
    chosen = _Side(REFERENCE, REFERENCE, reference, None, True)
    return _of(question, chosen, _side(*worst), judgements[worst[0].id].judge)


class _Side(NamedTuple):
    """One side of a pair: a candidate, or the reference."""

    at: str
    """Of a candidate its number among those of its question."""
    id: str
    text: str
    score: float | None
    finished: bool


def _side(one: Completion, score: float) -> _Side:
    return _Side(str(one.index), one.id, one.text, score, one.finished)


def _of(question: Question, chosen: _Side, rejected: _Side, judge: str) -> Pair:
    return Pair(
        id=f"{question.id}/{chosen.at}-{rejected.at}",
        question=question.id,
        patient=question.patient,
        images=question.images,
        prompt=question.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        provenance={
            "judge": judge,
            "chosen": chosen.id,
            "rejected": rejected.id,
            "chosen_finished": "yes" if chosen.finished else "no",
            "rejected_finished": "yes" if rejected.finished else "no",
        },
    )


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


def statistics(pairs: Iterable[Pair]) -> dict[str, float]:
    """Means over the pairs: words and scores of both sides, and how often the chosen side is the longer one.

    A share of longer chosen sides far from one half, or a ratio of words far from 1, says that the preference
    can be read off the length. Empty for no pairs; scores only of pairs that have both.
    """
    sums: Counter[str] = Counter()
    for pair in pairs:
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        sums.update(
            pairs=1,
            chosen_words=chosen,
            rejected_words=rejected,
            chosen_longer=chosen > rejected,
            rejected_longer=chosen < rejected,
        )
        if pair.chosen_score is not None and pair.rejected_score is not None:
            sums["scored"] += 1
            sums["chosen_score"] += pair.chosen_score  # type: ignore[assignment]
            sums["rejected_score"] += pair.rejected_score  # type: ignore[assignment]
    if not sums["pairs"]:
        return {}
    stats = {
        name: sums[name] / sums["pairs"]
        for name in ("chosen_words", "rejected_words", "chosen_longer", "rejected_longer")
    }
    stats = {"pairs": float(sums["pairs"]), **stats}
    if n := sums["scored"]:
        stats |= {name: sums[name] / n for name in ("chosen_score", "rejected_score")}
        stats["score_difference"] = stats["chosen_score"] - stats["rejected_score"]
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
