"""The ground stage: does each system look at the lesion, and does its answer depend on it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from radpref.records import Grounded, Posed, Question
from radpref.rooms import grounding, images
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage
from radpref.runs.table import Merged
from radpref.stages.answers import measured_systems, posing
from radpref.stages.identities import BASE, COMPUTES, DEVICE, READER
from radpref.stages.ports import CHOICE, GROUNDED, ROUNDS, TEST, TUNED

BATCH = 8
"""Questions between two writes of the table."""


def _masked(context: Context) -> list[Question]:
    """The held-out questions whose images have masks, as many as are asked for."""
    found = (question for question in context.read(TEST) if any(images.marked(image) for image in question.images))
    return [question for question, _ in zip(found, range(context.config.ground.studies), strict=False)]


def _grounded(batch: Sequence[Posed], context: Context) -> Iterator[list[Grounded]]:
    """Attention and the causal test on the words of the references, the same for every system."""
    recipe, section = context.config, context.config.ground
    everyone = context.once("masked", lambda: _masked(context))
    for _, group in groupby(batch, key=lambda one: one.system.id):
        some = list(group)
        for one in some:
            yield [
                grounding.ground_question(
                    context.load(one.system.weights),
                    one.question,
                    system=one.system.id,
                    among=everyone,
                    attention=section.attention,
                    placements=section.placements,
                    batch=recipe.evaluate.batch,
                ).model_copy(update={"id": one.id})
            ]


def _close(context: Context, merged: Merged) -> Outcome:
    lost = sum(len(row.lost) for row in context.own(GROUNDED))
    if not merged.items:
        return Outcome("no held-out study has a lesion mask: nothing to measure on", counts={"studies": 0})
    systems = len(measured_systems(context))
    studies = merged.items // systems
    return Outcome(
        f"{studies} studies with masks, {systems} systems; {lost} lesions could not be measured",
        counts={"studies": studies},
    )


_POSING = posing(measured_systems, _masked, GROUNDED)
STAGE = Stage(
    name="ground",
    help="Measure whether the models look at the lesions and depend on them.",
    work=replace(
        _POSING,
        make=_grounded,
        content=lambda one: [*_POSING.content(one), one.question.reference],
        batch=lambda recipe: BATCH,
        alone=lambda recipe: False,  # no server shows what a model looks at
        whose=None,  # what a lesion's removal does is held against other questions' images
        close=_close,
    ),
    reads=(TEST, TUNED, CHOICE),
    may_read=(ROUNDS,),
    writes=(GROUNDED,),
    config=("ground", "evaluate.batch", *COMPUTES),
    identities=(BASE, DEVICE, READER),
    rooms=("grounding", "models", "images"),
)
