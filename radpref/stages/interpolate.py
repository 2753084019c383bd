"""The interpolate stage: models on the way from the given one to each aligned one, to be tried on validation too.

Fine-tuning and alignment move a model towards what references and preferences say most often, and away from what it
could see. Somewhere on the line between it and the aligned one lies a model with most of both (WiSE-FT; Wortsman et
al., 2022, arXiv:2109.01903), at the price of a few answers on validation and of no training.
"""

from __future__ import annotations

from collections.abc import Iterator

from radpref.records import System, Systems
from radpref.runs.context import Context, section_of
from radpref.runs.stage import Outcome, Ranks, Stage
from radpref.stages.answers import last_of_each
from radpref.stages.identities import BASE, COMPUTES, DEVICE
from radpref.stages.ports import CHECKPOINTS, CONTROLS, INTERPOLATED
from radpref.stages.sft import base, write_between


def _interpolate(context: Context) -> Outcome:
    """Write a model for every share of the way to every last checkpoint and control."""
    shares, given = context.config.select.interpolate, base(context.config)
    folder, found = context.checkpoints("models", context.key()), list[System]()
    for system in _ends(context):
        for share in shares:
            name = f"{system.id}-share-{share:g}"
            write_between(context, given, section_of(system.weights), share, folder / name)
            found.append(system.model_copy(update={"id": name, "weights": context.weights(folder / name)}))
    line = f"{len(found)} models between the given and the trained ones"
    return Outcome(line, {"interpolated": Systems(rows=tuple(found))})


def _ends(context: Context) -> Iterator[System]:
    """The last checkpoint of each beta, and the controls."""
    yield from last_of_each(context.fact(CHECKPOINTS).rows)
    if context.has(CONTROLS):
        yield from context.fact(CONTROLS).rows


STAGE = Stage(
    name="interpolate",
    help="Write models on the way from the given one to the aligned ones.",
    work=Ranks(_interpolate),
    reads=(CHECKPOINTS,),
    may_read=(CONTROLS,),
    writes=(INTERPOLATED,),
    config=("select.interpolate", *COMPUTES),
    identities=(BASE, DEVICE),
    rooms=("models", "training"),
)
