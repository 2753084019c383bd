"""Small results of rooms, as they were when their version was last raised: whoever changes them raises the number.

A stage is outdated when the version of a room that it names has risen (``radpref.versions``). Each result below is
hashed with that number; where one changes, raise the room's number in ``radpref/versions.py`` and put the new
hash here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from radpref import losses
from radpref.config import AlignSection, CorruptSection, EditSection, PairSection, TaskSection
from radpref.data.phantom import draw
from radpref.evaluation import measure
from radpref.files import content_key
from radpref.findings import labels, read
from radpref.images import corrupt
from radpref.judges import FREE, JUDGES, Case
from radpref.mining import apportion, as_tensor, text_vectors
from radpref.pairs import EDITORS, case_of, edit, rank
from radpref.records import Completion, Judgement, Question, Study
from radpref.tasks import matches, report_question
from radpref.versions import ROOMS

REPORT = (
    "Small left pleural effusion, unchanged. No pneumothorax. Moderate cardiomegaly. 4 mm nodule in the right apex."
)
OTHER = "Large right pleural effusion. The heart is normal in size. No nodule."


def question() -> Question:
    return Question(id="q", study="q", patient="p", split="test", images=(), prompt="?", reference=REPORT)


def _findings() -> Any:
    return [[f.model_dump() for f in read(text)] for text in (REPORT, OTHER)], labels(REPORT)


def _judges() -> Any:
    case = Case("a", "q", REPORT, OTHER)
    return {name: JUDGES[name]()([case])[0].model_dump() for name in FREE}


def _images() -> Any:
    pixels = (np.arange(64 * 64) % 251).astype(np.uint8).reshape(64, 64)
    mask = np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    return {name: int(corrupt(pixels, mask, CorruptSection(operator=name), 3).astype(int).sum()) for name in
            ("noise", "mean", "whole-noise", "crop", "black")}  # fmt: skip


def _losses() -> Any:
    mask = torch.ones(1, 3, dtype=torch.bool)
    sides = [losses.Scored(torch.full((1, 3), a), torch.full((1, 3), -1.5), mask) for a in (-1.0, -2.0)]
    section = AlignSection(label_smoothing=0.1)
    return {
        name: round(float(one.loss(*sides, section, torch.zeros(1)).loss.mean()), 5)
        for name, one in losses.LOSSES.items()
        if not one.unpaired and not one.both_kl
    }


def _tasks() -> Any:
    study = Study(id="s", patient="p", images=(), findings=REPORT, indication="cough")
    right = [matches(text, "left lower lobe", False, "Where is it?") for text in ("In the left lower lobe.", "right")]
    asked = report_question(study, TaskSection(), 2)
    return [asked.prompt, right, matches("There is no effusion.", "no", True, "Is there an effusion?")]


def _pairs() -> Any:
    completions = [
        Completion(id=f"q/{n}", question="q", index=n, text=text, tokens=3, finished=True)
        for n, text in enumerate((REPORT, OTHER))
    ]
    judged = [
        Judgement(id=f"q/{n}", question="q", judge="green", score=score, words=3, reference_words=3)
        for n, score in enumerate((0.9, 0.1))
    ]
    ranked = rank([question()], completions, judged, PairSection()).pairs[0]
    edited = edit([case_of(question(), OTHER)], EDITORS["rule"](EditSection()), EditSection())[0]
    return ranked.model_dump(), edited.model_dump()


def _evaluation() -> Any:
    rows = measure("x", [question()], {"q": OTHER}, resamples=100).metrics
    return {row.name: None if row.value is None else round(row.value, 6) for row in rows}


def _mining() -> Any:
    return [
        round(float(as_tensor(text_vectors([REPORT, OTHER], 64), slice(None)).abs().sum()), 4),
        apportion([1.0, 2.0, 3.0], [5, 5, 5], 6),
    ]


def _data() -> Any:
    drawn = draw(7, seed=1, size=32)
    return [int(drawn.image.astype(int).sum()), drawn.report.findings]


RESULTS: dict[str, Callable[[], Any]] = {
    "data": _data,
    "evaluation": _evaluation,
    "findings": _findings,
    "images": _images,
    "judges": _judges,
    "losses": _losses,
    "mining": _mining,
    "pairs": _pairs,
    "tasks": _tasks,
}
WAS: dict[str, tuple[int, str]] = {
    "data": (3, "75c3e3f55e7f143a01117b0c"),
    "evaluation": (3, "2f5b7a9ae3a3d3667dbbec16"),
    "findings": (2, "6d2247e4ccd40a0c2ed9c176"),
    "images": (1, "84e65ee8289b9e49de390691"),
    "judges": (3, "e84f8c52bc9e3c36fe3a98a6"),
    "losses": (1, "d1accac6620afc80772945d9"),
    "mining": (1, "411ae627fa87f9b10999c17f"),
    "pairs": (1, "128fe77efedcd2eb141b48e6"),
    "tasks": (2, "68d64ed4b63d02dab84d51c3"),
}
"""Room to the version at which its result was this."""


@pytest.mark.parametrize("room", RESULTS)
def test_a_result_that_changes_raises_the_version(room: str) -> None:
    version, was = WAS[room]
    now = content_key(RESULTS[room]())
    assert (ROOMS[room], now) == (version, was), (
        f"results of {room} are others than at version {version}: raise its number in radpref/versions.py, and put "
        f"({ROOMS[room] + 1 if ROOMS[room] == version else ROOMS[room]}, {now!r}) here"
    )


def test_every_room_that_makes_results_has_a_version() -> None:
    from radpref.pipeline import commands

    named = {room for stage in commands().values() for room in stage.rooms}
    assert named <= ROOMS.keys()
