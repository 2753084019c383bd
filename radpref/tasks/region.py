"""Region questions (CheXPO): about the part of an image that a mark points out, drawn from its masks and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from radpref.images import ImageError, read_image
from radpref.images.marks import MARKS, Mark, marked_image, parts
from radpref.images.masks import Mask, marked, own_mask
from radpref.records import Finding, ImageFile, Side, Study
from radpref.tasks.known import Known, askable
from radpref.tasks.made import Made, Pen, draw_names
from radpref.tasks.wording import bare, is_many, noun

MOST_SHARED = 0.3
"""A part of which more than this share also shows another finding is not asked about: the answer would be two."""
_AT = {"arrow": "where the {} points", "star": "at the {}", "box": "in the {}", "contour": "inside the {}"}


def region(
    study: Study, known: Known, common: Mapping[str, int], *, seed: int, folder: Path, marks: Sequence[Mark] = MARKS
) -> list[Made]:
    """All questions about marked parts of the study's frontal images; the marked images are written into ``folder``.

    Each finding with a mask or box is marked once, in one of its parts. Where the source tells all there is, a part
    without a finding is marked as well: the place on the other side that mirrors one. A mask that cannot be read is
    left out.
    """
    made: list[Made] = []
    for number, image in enumerate(study.images):
        if image.view == "lateral" or not marked(image):
            continue
        pen = Pen(seed, f"{study.id}#{number}", "region")
        try:
            picture = read_image(image)
        except ImageError:
            continue
        masks = _masks(image, picture.size)
        for name, mask in masks.items():
            finding = known.present.get(name)
            if finding is not None:
                made += _finding(pen, image, picture, finding, mask, masks, common, folder, marks)
        if known.whole and masks:
            made += _nothing(pen, image, picture, masks, folder, marks)
    return made


def _masks(image: ImageFile, size: tuple[int, int]) -> dict[str, Mask]:
    located = {name: own_mask(image, size, [name]).mask for name in marked(image)}
    return {name: mask for name, mask in located.items() if mask is not None and mask.any()}


def _finding(
    pen: Pen,
    image: ImageFile,
    picture: Image.Image,
    finding: Finding,
    mask: Mask,
    masks: Mapping[str, Mask],
    common: Mapping[str, int],
    folder: Path,
    marks: Sequence[Mark],
) -> Iterator[Made]:
    name = finding.name
    chance = pen.chance("mark", name)
    others = np.zeros_like(mask)
    for other, shown in masks.items():
        if other != name:
            others |= shown
    alone = [part for part in parts(mask) if part[others].sum() <= MOST_SHARED * part.sum()]
    if not alone:
        return
    part = chance.choice(alone)
    fitting = [mark for mark in marks if mark != "contour" or name in image.masks] or ["box"]
    mark = chance.choice(fitting)
    aim = part & ~others if mark in ("arrow", "star") else part  # a point that shows this finding and no other
    image, drawn = marked_image(image, picture, aim, mark, folder, seed=str(chance.random()))
    here = _AT[drawn.mark].format(drawn.name)
    one = _seen_here(finding, part)
    images = (image,)
    verb = "are" if is_many(one) else "is"
    told = [f"The {drawn.name} marks {noun(one)}.", f"What it marks {verb} {noun(one)}."]
    yield pen.ask(
        images, f"type-{name}", "type",
        [f"What does the {drawn.name} mark?", f"Which abnormality lies {here}?", f"What is seen {here}?"],
        name, told, closed=False, about=[one],
    )  # fmt: skip
    yield _presence(pen, images, name, here, "yes", [f"Yes, {text[0].lower()}{text[1:]}" for text in told], one)
    wrong = {other: count for other, count in common.items() if askable(other) and other not in (name, *masks)}
    for other in draw_names(wrong, 1, pen.chance("wrong", name)):
        rationales = [f"No, {text[0].lower()}{text[1:]}" for text in told]
        yield _presence(pen, images, other, here, "no", rationales, one)
    if one.side in ("left", "right"):
        yield pen.ask(
            images, f"side-{name}", "location", [f"On which side of the patient is what the {drawn.name} marks?"],
            str(one.side),
            [f"The {name} is on the {one.side}.", f"On the {one.side}: the {drawn.name} marks {noun(one)}."],
            closed=True, about=[one],
        )  # fmt: skip
    if one.severity:
        yield pen.ask(
            images, f"severity-{name}", "severity",
            [f"Is what the {drawn.name} marks mild, moderate or severe?"],
            one.severity, [f"The {name} is {one.severity}.", f"The {drawn.name} marks {noun(one)}."],
            closed=True, about=[one],
        )  # fmt: skip


def _presence(
    pen: Pen, images: Sequence[ImageFile], name: str, here: str, answer: str, rationales: Sequence[str], one: Finding
) -> Made:
    something = bare(Finding(name=name))
    questions = [f"Is there {something} {here}?", f"Does the image show {something} {here}?"]
    return pen.ask(
        images, f"presence-{one.name}-{name}", "presence", questions, answer, rationales, closed=True, about=[one]
    )


def _nothing(
    pen: Pen, image: ImageFile, picture: Image.Image, masks: Mapping[str, Mask], folder: Path, marks: Sequence[Mark]
) -> Iterator[Made]:
    """A question about the mirrored place of a finding, where nothing is."""
    everything = np.logical_or.reduce(list(masks.values()))
    chance = pen.chance("nothing")
    free = [
        mirrored
        for mask in masks.values()
        for part in parts(mask)
        if not (mirrored := np.fliplr(part))[everything].any()
    ]
    fitting = [mark for mark in marks if mark != "contour"]
    if not free or not fitting:
        return
    image, drawn = marked_image(
        image, picture, chance.choice(free), chance.choice(fitting), folder, seed=str(chance.random())
    )
    here = _AT[drawn.mark].format(drawn.name)
    yield pen.ask(
        (image,), "nothing", "abnormality", [f"Is there anything abnormal {here}?", f"Is there a finding {here}?"],
        "no", [f"No, nothing abnormal is seen {here}.", f"No, there is no abnormality {here}."], closed=True,
    )  # fmt: skip


def _seen_here(finding: Finding, part: Mask) -> Finding:
    """The finding as far as the part shows it: of both sides, the one that the part lies on.

    The patient's right is on the left of a frontal image.
    """
    if finding.side not in ("bilateral", None):
        return finding
    cols = np.nonzero(part.any(0))[0]
    width = part.shape[1]
    side: Side | None = "right" if cols.max() < width / 2 else "left" if cols.min() >= width / 2 else None
    if side is None:
        return finding
    if finding.side is None and finding.place is None and finding.name in _MIDLINE:
        return finding
    return finding.model_copy(update={"side": side})


_MIDLINE = frozenset({"cardiomegaly", "enlarged mediastinum", "endotracheal tube", "enteric tube", "edema"})
"""Findings without a side."""
