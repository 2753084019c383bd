"""The corrupt stage: the other image of every pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from radpref.config import Recipe, RecipeError
from radpref.records import Pair, Quarantined
from radpref.rooms import grounding, images, pairs
from radpref.runs.context import Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.table import Merged
from radpref.stages.identities import COMPUTES, DEVICE
from radpref.stages.ports import MODEL, PAIRS

BATCH = 32
"""Pairs between two writes of the table."""


def _check(recipe: Recipe) -> None:
    """Whether the objective's visual term could have any corrupted image, as far as the recipe tells."""
    section = recipe.corrupt
    pairs.check_corrupt(section)
    unmarked = recipe.data.source == "phantom" and not recipe.data.phantom.masks
    lesions_only = section.operator not in images.WHOLE and section.fallback == "none"
    if recipe.align.visual.weight and unmarked and lesions_only and section.masks == ("own",):
        raise RecipeError(
            f"align.visual.weight is {recipe.align.visual.weight:g}, but the phantoms are written without the masks of "
            "their lesions, so that no image could be corrupted. Set data.phantom.masks true, or corrupt.masks "
            "[evidence], or corrupt.fallback whole; or leave the term out with align.visual.weight 0."
        )


def _corrupted(batch: Sequence[Pair], context: Context) -> Iterator[list[Pair | Quarantined] | Quarantined]:
    section = context.config.corrupt
    providers = grounding.providers_of(section, context.config.run.device, lambda: context.load(context.fact(MODEL)))
    for pair in batch:
        try:
            made = pairs.corrupt_pair(pair, section, context.folder / "images", providers)
        except images.ImageError as error:
            yield Quarantined(id=pair.id, stage="corrupt", reason=error.reason)
        else:
            yield [made.pair, *made.broken]


def _close(context: Context, merged: Merged) -> Outcome:
    paths: Counter[str] = Counter()
    why: Counter[str] = Counter()
    broken = [row for row in merged.refused if "#" in row.id]
    used: set[str] = set()
    for row in context.own(PAIRS):
        paths[row.provenance["corruption_path"]] += 1
        why[row.provenance.get("corruption_why", "")] += 1
        used |= {Path(image.path).name for image in row.corrupted}
    if not merged.rows:
        raise RunError(f"no pair is left to corrupt, of {merged.items}.")
    for path in (context.folder / "images").glob("*.png"):
        if path.name not in used:  # of other settings
            path.unlink()
    told = ", ".join(f"{path} {count / merged.rows:.1%}" for path, count in paths.most_common())
    return Outcome(
        f"{merged.rows} pairs, {context.config.corrupt.operator}: {told}",
        counts={"pairs": merged.rows, "paths": dict(paths), "why": dict(why), "masks_quarantined": len(broken)},
    )


def _lost(row: Pair | Quarantined) -> bool:
    """Whether a corrupted image of a pair is gone."""
    return isinstance(row, Pair) and any(not Path(image.path).exists() for image in row.corrupted)


STAGE = Stage(
    name="corrupt",
    help="Take the lesions out of the images of the pairs.",
    work=Rows(
        make=_corrupted,
        item=Pair,
        items=lambda context: iter(context.read(PAIRS)),
        total=lambda context: len(context.read(PAIRS)),
        into=PAIRS,
        content=lambda pair: pairs.corrupt_content(pair),
        batch=lambda recipe: BATCH,
        close=_close,
        unit="pairs",
        again=_lost,
    ),
    reads=(PAIRS, MODEL),
    writes=(PAIRS,),
    config=("corrupt", *COMPUTES),
    identities=(DEVICE,),
    rooms=("images", "pairs", "grounding"),
    check=_check,
    checked=("align.visual.weight", "data.source", "data.phantom.masks"),
    outside=True,  # masks lie where the data lie
    command="corrupt pairs",
)
