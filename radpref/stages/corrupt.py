"""The corrupt stage: the other image of every pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from radpref.config import CorruptSection, Recipe, RecipeError
from radpref.records import ImageFile, Pair, Quarantined
from radpref.rooms import grounding, images, models, pairs
from radpref.runs.context import Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.table import Merged
from radpref.stages.identities import COMPUTES, DEVICE
from radpref.stages.ports import MODEL, PAIRS

if TYPE_CHECKING:
    from radpref.models import Vlm
    from radpref.pairs.corrupt import Locate

BATCH = 32
"""Pairs between two writes of the table."""


def _corrupted(batch: Sequence[Pair], context: Context) -> Iterator[list[Pair | Quarantined] | Quarantined]:
    section = context.config.corrupt
    providers = providers_of(section, context.config.run.device, lambda: context.load(context.fact(MODEL)))
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


def _content(pair: Pair) -> list[object]:
    """What a pair's images and masks follow from, wherever the files lie."""
    return [pair.model_dump(exclude={"images", "corrupted"}), [_marks(image) for image in pair.images]]


def _marks(image: ImageFile) -> list[object]:
    def hashed(path: str) -> str:
        try:
            return images.image_hash(ImageFile(path=path))
        except images.ImageError:
            return ""

    boxes = {name: [box.model_dump() for box in drawn] for name, drawn in image.boxes.items()}
    return [images.image_key(image), {name: hashed(path) for name, path in image.masks.items()}, boxes]


def check_corrupt(section: CorruptSection) -> None:
    """What can be known of the section before any work. Raises RecipeError."""
    if "segmenter" in section.masks and section.segmenter is None:
        raise RecipeError(
            "`corrupt.masks` names the segmenter, but `corrupt.segmenter` is not set; give the folder of a SAM 3 "
            "checkpoint or its name on the hub, or leave segmenter out of corrupt.masks."
        )


def providers_of(section: CorruptSection, device: str, model: Callable[[], Vlm] | None = None) -> dict[str, Locate]:
    """The providers that ``section.masks`` may name; a model is loaded when it is first asked.

    ``device`` as in the recipe's run section; ``model`` gives the model whose evidence may be asked for.
    """

    @cache
    def segmenter() -> models.Segmenter:
        return models.load_segmenter(
            str(section.segmenter), score=section.segmenter_score, device=models.pick_device(device)
        )

    def segment(picture: Image.Image, names: Sequence[str]) -> images.Mask | None:
        return models.segment(segmenter(), picture, names)

    def evidence(pair: Pair, pictures: Sequence[Image.Image]) -> list[images.Located]:
        assert model is not None
        return grounding.locate(model(), pair, pictures, section.quantile)

    found: dict[str, Locate] = {"own": pairs.own, "segmenter": pairs.by_prompt(segment)}
    return found if model is None else {**found, "evidence": evidence}


def _check(recipe: Recipe) -> None:
    check_corrupt(recipe.corrupt)


STAGE = Stage(
    name="corrupt",
    help="Take the lesions out of the images of the pairs.",
    work=Rows(
        make=_corrupted,
        item=Pair,
        items=lambda context: iter(context.read(PAIRS)),
        total=lambda context: len(context.read(PAIRS)),
        into=PAIRS,
        content=_content,
        batch=lambda recipe: BATCH,
        close=_close,
        unit="pairs",
        again=lambda pair: any(not Path(image.path).exists() for image in pair.corrupted),
    ),
    reads=(PAIRS, MODEL),
    writes=(PAIRS,),
    config=("corrupt", *COMPUTES),
    identities=(DEVICE,),
    rooms=("images", "pairs", "grounding"),
    check=_check,
    outside=True,  # masks lie where the data lie
    command="corrupt pairs",
)
