"""What must not be trained on: studies, patients and images that results are chosen by or measured on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from radpref.data.gate import ImageCheck
from radpref.records import Pair, Study


class HeldOut:
    """The studies of validation and test, with their patients and images.

    Args:
        studies: all studies; those of the train split are left out.
        decoded: the folder in which their images were checked when they were read.
        cache: where verdicts on the images of pairs are remembered.
    """

    def __init__(self, studies: Iterable[Study], decoded: Path, cache: Path) -> None:
        held = [study for study in studies if study.split != "train"]
        verdicts = ImageCheck(decoded)([image for study in held for image in study.images])
        self._check = ImageCheck(cache)
        self._pixels = {verdict.pixels for verdict in verdicts.values() if verdict.reason is None}
        self._patients = {study.patient for study in held}
        self._studies = {study.id for study in held}

    def reason(self, pair: Pair) -> str | None:
        """Why a pair must not be trained on; None when it may. Pixels tell an image that was saved anew."""
        if pair.question in self._studies:
            return "study held out: the pair is about a study of validation or test"
        if pair.patient in self._patients:
            return "patient held out: the pair is about a patient of validation or test"
        if any(verdict.pixels in self._pixels for verdict in self._check(pair.images).values()):
            return "image held out: the same picture is in validation or test"
        return None
