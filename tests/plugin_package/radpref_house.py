"""What a hospital's own package may add to radpref: a judge, a source, an objective, a corruption and a metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from radpref.config import AlignSection, CorruptSection, DataSection, JudgeSection, Section
from radpref.data import Found
from radpref.data.phantom import studies
from radpref.data.source import Source
from radpref.judges import Case
from radpref.losses import PreferenceLoss, Ranking, Scored, hinge
from radpref.records import Judgement, Question, Study


@dataclass(frozen=True)
class House:
    """Likes reports that name the side."""

    name: str = "house"
    version: str = "house-1"
    free: bool = True

    def check(self, section: JudgeSection) -> None:
        """Needs nothing."""

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        return [
            Judgement(
                id=case.id,
                question=case.question,
                judge=self.name,
                score=min(1.0, 0.1 * len({"left", "right", *case.candidate.lower().split()})),
                words=len(case.candidate.split()),
                reference_words=len(case.reference.split()),
            )
            for case in cases
        ]


def house(section: JudgeSection | None = None) -> House:
    """Makes the judge."""
    return House()


class Ward(Section):
    """The source's own options."""

    beds: int = Field(6, ge=3, description="patients of each split")


def _find(section: DataSection, options: Ward, cache: Path, seed: int) -> Found:
    def found() -> Iterator[Study]:
        beds = options.beds
        world = section.phantom.model_copy(update={"prior_share": 0.0})
        yield from studies(world, train=4 * beds, validation=beds, test=beds, folder=cache / "ward")

    return Found(found(), split=True)


WARD: Source[Ward] = Source("ward", "the beds of one ward", _find, Ward, frozenset())


def _hinge(chosen: Scored, rejected: Scored, section: AlignSection, kl: Tensor | None) -> PreferenceLoss:
    return hinge(chosen, rejected, beta=2 * section.beta)


HINGE = Ranking(_hinge)


def stripes(
    values: NDArray[np.float64], mask: NDArray[np.bool_], section: CorruptSection, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Black stripes."""
    striped = values.copy()
    striped[::2] = 0.0
    return striped


def words(questions: Sequence[Question], answers: Sequence[str]) -> list[float | None]:
    """How many words each answer has."""
    return [float(len(answer.split())) for answer in answers]
