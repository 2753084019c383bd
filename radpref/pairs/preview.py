"""A sheet of clean, mask and corrupted images side by side: what the visual term is given, for the eye."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from radpref.config import CorruptSection
from radpref.images import ImageError, picture_table, read_image, tinted
from radpref.images.corruption import WHOLE, strength_of
from radpref.pairs.corrupt import Locate, corrupt_pair, find_lesion, names_of
from radpref.records import ImageFile, Pair, Study

Cell = tuple[Image.Image, str]


def as_pair(study: Study) -> Pair:
    """A study whose every lesion is to be corrupted, as a pair without words."""
    return Pair(
        id=study.id,
        question=study.id,
        patient=study.patient,
        images=study.images,
        prompt="",
        chosen="",
        rejected="",
    )


def made_sheet(
    pairs: Iterable[Pair],
    sections: Sequence[CorruptSection],
    folder: Path,
    providers: Mapping[str, Locate],
    *,
    side: int = 256,
) -> Image.Image:
    """One row a pair: its image, where the lesion is, and a corrupted image for each of ``sections``; RGB.

    Of several images, the first with a lesion is shown. A pair whose image cannot be read has its reason for a caption.
    """
    rows = [_made(pair, sections, folder, providers) for pair in pairs]
    return picture_table(rows, side)


def kept_sheet(pairs: Iterable[Pair], *, side: int = 256) -> Image.Image:
    """The same of pairs that were corrupted by a run; the second picture shows where the image was changed."""
    return picture_table([_kept(pair) for pair in pairs], side)


def _made(pair: Pair, sections: Sequence[CorruptSection], folder: Path, providers: Mapping[str, Locate]) -> list[Cell]:
    try:
        pictures = [read_image(image) for image in pair.images]
        lesion = find_lesion(pair, pictures, sections[0], providers)
        number = next((n for n, mask in enumerate(lesion.masks) if mask is not None), 0)
        mask = lesion.masks[number]
        shown = pictures[number] if mask is None else tinted(pictures[number], mask)
        told = f"{lesion.by} {mask.mean():.1%}" if mask is not None else "; ".join(lesion.why)
        cells = [(pictures[number], f"{pair.id}\n{_names(pair, pair.images[number])}"), (shown, told)]
        for section in sections:
            made = corrupt_pair(pair, section, folder, providers).pair
            cells.append(_corrupted(made, number, section))
    except ImageError as error:
        return [_nothing(f"{pair.id}\n{error.reason}")]
    return cells


def _corrupted(pair: Pair, number: int, section: CorruptSection) -> Cell:
    path, operator = pair.provenance["corruption_path"], pair.provenance["corruption"]
    if not pair.corrupted:
        return _nothing(f"{section.operator}\nno visual term")
    strength = section.fallback_strength if operator != section.operator else strength_of(section)
    fallback = "fallback: " if path == "whole" and section.operator not in WHOLE else ""
    return read_image(pair.corrupted[number]), f"{fallback}{operator} {strength:.3g}"


def _kept(pair: Pair) -> list[Cell]:
    try:
        if not pair.corrupted:
            clean = read_image(pair.images[0])
            return [(clean, pair.id), _nothing(pair.provenance.get("corruption_why", "")), _nothing("no visual term")]
        changed = [a.path != b.path for a, b in zip(pair.images, pair.corrupted, strict=True)]
        number = changed.index(True)
        clean, other = read_image(pair.images[number]), read_image(pair.corrupted[number])
    except ImageError as error:
        return [_nothing(f"{pair.id}\n{error.reason}")]
    where = (np.asarray(clean) != np.asarray(other)).any(-1)
    told = " ".join(pair.provenance.get(key, "") for key in ("corruption_path", "corruption_area"))
    names = _names(pair, pair.images[number])
    return [(clean, f"{pair.id}\n{names}"), (tinted(clean, where), told), (other, pair.provenance["corruption"])]


def _names(pair: Pair, image: ImageFile) -> str:
    names = names_of(pair)
    return ", ".join((*image.masks, *image.boxes) if names is None else names)


def _nothing(caption: str) -> Cell:
    return Image.new("RGB", (64, 64), (60, 60, 60)), caption
