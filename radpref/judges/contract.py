"""What a judge is: an object with a name, a version, a check, and judgements for cases.

A package brings its own judge with the entry point group ``radpref.judges``: the name is the judge's, the value a
`Maker`. Nothing else is asked of it; `PairJudge` makes one out of a comparison of two texts, and `LengthControlled`
any judge's length-controlled form.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from radpref.config import JudgeSection
from radpref.judges.case import Case, Verdict, clean, words
from radpref.records import Judgement

log = logging.getLogger(__name__)


@runtime_checkable
class Judge(Protocol):
    """Judges candidates against references. Deterministic, or kept by ``version`` and texts as if it were."""

    @property
    def name(self) -> str:
        """As in ``JUDGES`` and in every judgement."""
        ...

    @property
    def version(self) -> str:
        """What its answers depend on besides the texts: rules, words, weights, a model and its question.

        It belongs to the judge: two judges have different versions whatever they are made of. Kept judgements are
        good as long as it stays.
        """
        ...

    @property
    def free(self) -> bool:
        """Whether it judges any report from the texts alone at next to no cost."""
        ...

    def check(self, section: JudgeSection) -> None:
        """Whether it could begin now. Raises JudgeError: what is absent and what to do."""
        ...

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        """A judgement each, in the order of the cases. A case that cannot be judged is unscored, with the reason."""
        ...


class Maker(Protocol):
    """Makes a judge; raises JudgeError where the section lacks what it needs. It opens no connection."""

    def __call__(self, section: JudgeSection = ...) -> Judge: ...


Compare = Callable[[str, str], Verdict]
"""(reference, candidate), both cleaned and not empty, to a verdict."""

Texts = tuple[str, str, str]
"""(reference, candidate, question): the question is empty for a report."""

CompareAll = Callable[[Sequence[Texts]], Sequence[Verdict]]
"""Many pairs, all different, to one verdict each in their order."""


def _ready(section: JudgeSection) -> None:
    """Needs nothing."""


@dataclass(frozen=True)
class PairJudge:
    """A judge out of a comparison of many pairs of texts, with the question in view where one was asked.

    Equal pairs of texts are compared once per call. A case is unscored, with the reason, where a text has no words: an
    empty answer is a failure of the model, not a report; an empty reference tells nothing.
    """

    name: str
    version: str
    compare_all: CompareAll
    cleaned: Callable[[str], str] = clean
    """What is done to both texts first, at equal length, so that spans still hold."""
    free: bool = False
    ready: Callable[[JudgeSection], None] = _ready

    def check(self, section: JudgeSection) -> None:
        self.ready(section)

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        asked = [_texts(case) for case in cases]
        pairs = dict.fromkeys(asked)
        texts = {text: self.cleaned(text) for text in dict.fromkeys(text for pair in pairs for text in pair[:2])}
        lengths = {text: len(words(cleaned)) for text, cleaned in texts.items()}
        known = {pair: _refusal(lengths[pair[0]], lengths[pair[1]]) for pair in pairs}
        left = [pair for pair, verdict in known.items() if verdict is None]
        verdicts = self.compare_all([(texts[told], texts[said], question) for told, said, question in left])
        known.update(zip(left, verdicts, strict=True))
        judgements = []
        with _without_collector():
            for case, pair in zip(cases, asked, strict=True):
                found = known[pair]
                assert found is not None
                judgements.append(
                    Judgement(
                        id=case.id,
                        question=case.question,
                        judge=self.name,
                        score=found.score,
                        unscored=found.unscored,
                        matched=found.matched,
                        errors=found.errors,
                        earned=found.earned,
                        words=lengths[case.candidate],
                        reference_words=lengths[case.reference],
                    )
                )
        return judgements


def _texts(case: Case) -> Texts:
    """What tells one pair from another: what was asked only where a short answer is wanted."""
    return case.reference, case.candidate, case.prompt if case.answer else ""


def judge_by(
    name: str,
    compare: Compare,
    *,
    version: str = "1",
    cleaned: Callable[[str], str] = clean,
    free: bool = False,
) -> PairJudge:
    """A judge out of a comparison of two texts. A comparison that raises costs one case, which is then unscored."""

    def compare_all(pairs: Sequence[Texts]) -> list[Verdict]:
        with _without_collector():
            return [_guarded(name, compare, reference, candidate) for reference, candidate, _ in pairs]

    return PairJudge(name, f"{name}-{version}", compare_all, cleaned, free)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Verdicts are made by the ten thousand and hold no cycles: the collector would only walk the heap, for a third
    of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _refusal(reference_words: int, candidate_words: int) -> Verdict | None:
    """The verdict on a pair that is not compared, else None."""
    if not reference_words:
        return Verdict(None, "the reference has no words")
    return None if candidate_words else Verdict(None, "the candidate has no words")


def _guarded(name: str, compare: Compare, reference: str, candidate: str) -> Verdict:
    try:
        return compare(reference, candidate)
    except Exception as error:  # a judge's fault must cost one case, not the run
        log.warning("judge %s failed on one case: %s", name, type(error).__name__)
        return Verdict(None, f"the judge failed: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class LengthControlled:
    """``score / max(words(candidate) / words(reference), 1)``: LC-GREEN when the judge is GREEN (CheXalign).

    The judge's name gets ``lc-`` before it. A candidate shorter than its reference keeps its score.
    """

    judge: Judge

    @property
    def name(self) -> str:
        return f"lc-{self.judge.name}"

    @property
    def version(self) -> str:
        return f"lc-{self.judge.version}"

    @property
    def free(self) -> bool:
        return self.judge.free

    def check(self, section: JudgeSection) -> None:
        self.judge.check(section)

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        return [length_controlled(judgement) for judgement in self.judge(cases)]


def length_controlled(judgement: Judgement) -> Judgement:
    """The judgement in its length-controlled form; what is unscored stays so."""
    score = judgement.score
    if score is not None:
        score /= max(judgement.words / judgement.reference_words, 1)
    return judgement.model_copy(update={"score": score, "judge": f"lc-{judgement.judge}"})
