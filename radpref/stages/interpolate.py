"""The interpolate stage: models on the way from the given one to each aligned one, to be tried on validation too.

Fine-tuning and alignment move a model towards what references and preferences say most often, and away from what it
could see. Somewhere on the line between it and the aligned one lies a model with most of both (WiSE-FT; Wortsman et
al., 2022, arXiv:2109.01903), at the price of a few answers on validation and of no training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from radpref.records import System, Systems, Weights
from radpref.rooms import models, training
from radpref.runs.context import Context, section_of
from radpref.runs.stage import Outcome, Ranks, Stage
from radpref.stages.identities import BASE, COMPUTES, DEVICE
from radpref.stages.ports import CHECKPOINTS, CONTROLS, INTERPOLATED
from radpref.stages.sft import base


def _interpolate(context: Context) -> Outcome:
    """Write a model for every share of the way to every last checkpoint and control."""
    shares, given = context.config.select.interpolate, base(context.config)
    folder, found = context.checkpoints("models", context.key()), list[System]()
    for system in _ends(context):
        for share in shares:
            name = f"{system.id}-share-{share:g}"
            _write(context, given, system.weights, share, folder / name)
            found.append(system.model_copy(update={"id": name, "weights": context.weights(folder / name)}))
    line = f"{len(found)} models between the given and the trained ones"
    return Outcome(line, {"interpolated": Systems(rows=tuple(found))})


def _ends(context: Context) -> Iterator[System]:
    """The last checkpoint of each beta, and the controls."""
    yield from {row.beta: row for row in context.fact(CHECKPOINTS).rows}.values()
    if context.has(CONTROLS):
        yield from context.fact(CONTROLS).rows


def _write(context: Context, given: Weights, trained: Weights, share: float, path: Path) -> None:
    if not context.processes.first or path.exists():
        return
    start = models.merged(models.in_full(context.fresh(given)))
    training.interpolate(start, section_of(trained), share, path, context.config.run)


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
