"""What the makers of questions share: a question with its images, chances that follow from names, choice of words."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from radpref.records import Asked, Finding, ImageFile, QuestionTask

T = TypeVar("T")


class Made(NamedTuple):
    """A question that was made, and the images that it is asked about."""

    asked: Asked
    images: tuple[ImageFile, ...]


class Pen:
    """Writes the questions of one study: ids out of what is asked, and words drawn by seed and id alone.

    A question's words stay the same whatever other questions are made.
    """

    def __init__(self, seed: int, study: str, task: QuestionTask) -> None:
        self._seed, self._study, self._task = seed, study, task

    def chance(self, *words: str) -> Random:
        """A source of chance that depends on the seed, the study and ``words`` alone."""
        return Random(":".join((str(self._seed), self._study, self._task, *words)))

    def ask(
        self,
        images: Sequence[ImageFile],
        key: str,
        kind: str,
        questions: Sequence[str],
        answer: str,
        rationales: Sequence[str],
        *,
        closed: bool,
        about: Sequence[Finding] = (),
    ) -> Made:
        """A question: one of ``questions``, one of ``rationales``. ``key`` is unique in the study and task."""
        chance = self.chance(key)
        asked = Asked(
            id=f"{self._task}-{key.replace(' ', '_')}",
            question=chance.choice(list(questions)),
            answer=answer,
            rationale=chance.choice(list(rationales)),
            task=self._task,
            kind=kind,
            closed=closed,
            about=tuple(about),
        )
        return Made(asked, tuple(images))


def draw_names(weights: dict[str, int], count: int, chance: Random) -> list[str]:
    """``count`` different names, one drawn as often as it is common (one more than its count)."""
    left = dict(weights)
    names: list[str] = []
    while left and len(names) < count:
        name = chance.choices(list(left), [number + 1 for number in left.values()])[0]
        names.append(name)
        del left[name]
    return names
