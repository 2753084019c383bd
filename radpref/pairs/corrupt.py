"""The other image of a pair: its images with the lesion that its words are about taken out (FiRe-MPO, visual term).

Where the lesion is, providers say, in the order that the recipe names; the first that finds it counts. How the pair
came to its images is written into its provenance:

- ``corruption``: the operator, ``none`` without a visual term.
- ``corruption_path``: ``mask``, ``box``, ``segmenter``, ``evidence`` (who found the lesion), ``whole`` or ``none``.
- ``corruption_why``: for ``whole`` and ``none``, each provider's reason.
- ``corruption_area``: share of the altered images' pixels that are altered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from radpref.config import CorruptSection, RecipeError
from radpref.files import content_key
from radpref.findings import lexicon
from radpref.images import (
    ImageError,
    Located,
    corrupt,
    grown,
    image_hash,
    image_key,
    marked,
    own_mask,
    read_image,
    save,
    seed_of,
    strength_of,
)
from radpref.images.corruption import WHOLE
from radpref.images.masks import Mask
from radpref.records import ImageFile, Pair, Quarantined

VERSION = 1
"""Part of every image's name: raise it with any change of an operator."""
STAGE = "corrupt"
NAMED = ("edited", "findings", "finding")
"""Keys of a pair's provenance that may hold the findings its differing words name, between commas or semicolons."""
NO_PROMPT = "no lesion prompt: the words that differ name no finding"
KEYS = ("corruption", "corruption_path", "corruption_why", "corruption_area")

Locate = Callable[[Pair, Sequence[Image.Image]], list[Located]]
"""A provider: (pair, its images as read) -> where it sees the lesion on each image."""


def check_corrupt(section: CorruptSection) -> None:
    """What can be known of the section before any work. Raises RecipeError."""
    if "segmenter" in section.masks and section.segmenter is None:
        raise RecipeError(
            "`corrupt.masks` names the segmenter, but `corrupt.segmenter` is not set; give the folder of a SAM 3 "
            "checkpoint or its name on the hub, or leave segmenter out of corrupt.masks."
        )


def corrupt_content(pair: Pair) -> list[object]:
    """What a pair's images and masks follow from, wherever the files lie."""
    return [pair.model_dump(exclude={"images", "corrupted"}), [_marks(image) for image in pair.images]]


def _marks(image: ImageFile) -> list[object]:
    def hashed(path: str) -> str:
        try:
            return image_hash(ImageFile(path=path))
        except ImageError:
            return ""

    boxes = {name: [box.model_dump() for box in drawn] for name, drawn in image.boxes.items()}
    return [image_key(image), {name: hashed(path) for name, path in image.masks.items()}, boxes]


class Corrupted(NamedTuple):
    """A pair with its corrupted images, and the masks that could not be used."""

    pair: Pair
    broken: list[Quarantined]


def names_of(pair: Pair) -> tuple[str, ...] | None:
    """The findings that the pair's differing words name; None where its provenance does not say."""
    given = next((pair.provenance[key] for key in NAMED if key in pair.provenance), None)
    if given is None:
        return None
    return tuple(dict.fromkeys(name.strip() for name in re.split(r"[,;]", given) if name.strip()))


def kindred(name: str, image: ImageFile) -> tuple[str, ...]:
    """The image's own marks of a finding: of its very name, else of those that may stand for it (lexicon: kin, general
    names and their particulars), so that a pneumonia finds the mask of a consolidation."""
    there = marked(image)
    if name in there:
        return (name,)
    words = lexicon()
    close = {other for group in words.kin if name in group for other in group} | words.general.get(name, frozenset())
    return tuple(other for other in there if other in close or name in words.general.get(other, frozenset()))


def own(pair: Pair, pictures: Sequence[Image.Image]) -> list[Located]:
    """What came with the data: the masks and boxes of the findings that the pair's words name, or all of them."""
    names = names_of(pair)
    if names == ():
        return [Located(None, "mask", NO_PROMPT)] * len(pictures)
    return [
        own_mask(
            image,
            picture.size,
            None if names is None else dict.fromkeys(mark for name in names for mark in kindred(name, image)),
        )
        for image, picture in zip(pair.images, pictures, strict=True)
    ]


def by_prompt(segment: Callable[[Image.Image, Sequence[str]], Mask | None]) -> Locate:
    """A text-promptable segmenter as a provider; it is prompted with the names of the findings."""

    def locate(pair: Pair, pictures: Sequence[Image.Image]) -> list[Located]:
        names = names_of(pair)
        if not names:
            return [Located(None, "segmenter", NO_PROMPT)] * len(pictures)
        found = [segment(picture, names) for picture in pictures]
        return [Located(mask, "segmenter", "" if mask is not None else "no detection") for mask in found]

    return locate


class Lesion(NamedTuple):
    """Where the lesion of a pair is, on each image."""

    masks: list[Mask | None]
    """None on an image that does not show it."""
    by: str
    """Who found it; empty where nobody did."""
    why: tuple[str, ...]
    """Each provider's reason where nobody did."""
    broken: list[Quarantined]


def find_lesion(
    pair: Pair, pictures: Sequence[Image.Image], section: CorruptSection, providers: Mapping[str, Locate]
) -> Lesion:
    """Ask ``section.masks`` in their order until one finds the lesion on any image.

    Masks are widened by ``section.grow``; an empty one, and one over more than ``section.most`` of its image, is none.
    """
    broken: list[Quarantined] = []
    reasons: dict[str, None] = {}
    for name in section.masks:
        located = providers[name](pair, pictures)
        broken += [
            Quarantined(id=f"{pair.id}#image-{number}-{place}", stage=STAGE, reason=reason)
            for number, one in enumerate(located, start=1)
            for place, reason in enumerate(one.broken, start=1)
        ]
        checked = [_usable(one, section) for one in located]
        by = next((one.by for one, (mask, _) in zip(located, checked, strict=True) if mask is not None), None)
        if by is not None:
            return Lesion([mask for mask, _ in checked], by, (), broken)
        reasons.update((f"{name}: {why}", None) for _, why in checked)
    return Lesion([None] * len(pictures), "", tuple(reasons), broken)


def corrupt_pair(pair: Pair, section: CorruptSection, folder: Path, providers: Mapping[str, Locate]) -> Corrupted:
    """The pair with ``corrupted`` images, PNG files in ``folder`` named by the key of all that decides their pixels.

    Of several images, those with a mask are altered and the others stay the files that they are. An image that is there
    already is not made again. Where nobody finds a lesion: ``section.fallback``. Operators of the whole image ask
    nobody. What the pair was given by an earlier call is replaced.

    Args:
        pair: with images that can be read.
        section: the recipe's ``corrupt``.
        folder: absolute; made where it is absent.
        providers: a provider for each name in ``section.masks``.

    Raises:
        ImageError: an image cannot be read.
        StoreError: an image cannot be written.
    """
    pictures = [read_image(image) for image in pair.images]
    lesion = Lesion([None] * len(pictures), "", (), [])
    if section.operator not in WHOLE:
        lesion = find_lesion(pair, pictures, section, providers)
        if not lesion.by and section.fallback == "none":
            return Corrupted(_noted(pair, (), "none", "none", lesion.why, 0.0), lesion.broken)
        if not lesion.by:
            section = section.model_copy(update={"operator": "whole-noise", "strength": section.fallback_strength})
    images: list[ImageFile] = []
    altered = total = 0
    for image, picture, mask in zip(pair.images, pictures, lesion.masks, strict=True):
        if lesion.by and mask is None:
            images.append(image)
            continue
        images.append(_image(pair.question, image, picture, mask, section, folder))
        total += picture.width * picture.height
        altered += picture.width * picture.height if mask is None else int(mask.sum())
    path = lesion.by or "whole"
    return Corrupted(_noted(pair, tuple(images), section.operator, path, lesion.why, altered / total), lesion.broken)


def _usable(located: Located, section: CorruptSection) -> tuple[Mask | None, str]:
    """The mask to corrupt in, or the reason why there is none."""
    if located.mask is None:
        return None, located.why
    if not located.mask.any():
        return None, "mask empty"
    mask = grown(located.mask, section.grow)
    if mask.mean() > section.most:
        return None, f"mask covers more than {section.most:g} of the image"
    return mask, ""


def _image(
    question: str, image: ImageFile, picture: Image.Image, mask: Mask | None, section: CorruptSection, folder: Path
) -> ImageFile:
    seed = seed_of(question, image.digest or image_hash(image))
    where = "" if mask is None else np.packbits(mask).tobytes().hex()
    name = content_key(VERSION, image_key(image), section.operator, strength_of(section), section.grain, seed, where)
    path = folder / f"{name}.png"
    if not path.exists():
        save(corrupt(np.asarray(picture), mask, section, seed), path)
    made = ImageFile(path=str(path), view=image.view)
    return made.model_copy(update={"digest": image_hash(made)})


def _noted(
    pair: Pair, images: tuple[ImageFile, ...], operator: str, path: str, why: Sequence[str], area: float
) -> Pair:
    kept = {key: value for key, value in pair.provenance.items() if key not in KEYS}
    notes = {"corruption": operator, "corruption_path": path, "corruption_area": f"{area:.4f}"}
    if why:
        notes["corruption_why"] = "; ".join(why)
    return pair.model_copy(update={"corrupted": images, "provenance": kept | notes})
