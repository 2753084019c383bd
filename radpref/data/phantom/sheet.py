"""A contact sheet: images side by side, what is on them outlined and named."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from radpref.data.phantom.image import Phantom
from radpref.data.phantom.patients import NAMES
from radpref.records import Finding, Study

Colour = tuple[int, int, int]
_GROUND: Colour = (16, 16, 16)


def _colour(number: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


COLOURS: dict[str, Colour] = {name: _colour(number) for number, name in enumerate(NAMES)}


class _Line(NamedTuple):
    text: str
    colour: Colour


def contact_sheet(
    items: Sequence[Study | Phantom],
    columns: int = 6,
    *,
    tile: int = 256,
    outlines: bool = True,
    reports: bool = False,
) -> Image.Image:
    """One RGB image with a tile of ``tile`` pixels for the first image of each item and a caption below it.

    Masks are outlined in the colour of their caption; studies written without masks have captions only. ``reports``
    puts the report below, and of a phantom what its habits made of the truth.
    ValueError for no items or fewer than one column.
    """
    if not items or columns < 1:
        raise ValueError(f"a contact sheet needs items and columns; got {len(items)} items, {columns} columns")
    line = max(10, tile // 18)
    font = ImageFont.load_default(line - 1)
    captions = [[*_caption(item), *(_report(item, font, tile - 8) if reports else ())] for item in items]
    deep = max(2, *(len(lines) for lines in captions)) * (line + 1) + 4
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    sheet = Image.new("RGB", (columns * tile, rows * (tile + deep)), _GROUND)
    for number, (item, lines) in enumerate(zip(items, captions, strict=True)):
        left, top = number % columns * tile, number // columns * (tile + deep)
        image, masks = _image(item)
        picture = image.convert("RGB").resize((tile, tile), Image.Resampling.BILINEAR)
        for name, mask in masks.items() if outlines else ():
            wide = mask.resize((tile, tile), Image.Resampling.NEAREST)
            border = ImageChops.subtract(wide, wide.filter(ImageFilter.MinFilter(3)))
            picture.paste(COLOURS.get(name, (255, 255, 255)), (0, 0), border)
        sheet.paste(picture, (left, top))
        strip = Image.new("RGB", (tile - 2, deep), _GROUND)  # of its own, so that a long caption ends at the tile
        pen = ImageDraw.Draw(strip)
        for row, (text, colour) in enumerate(lines):
            pen.text((3, 1 + row * (line + 1)), text, fill=colour, font=font)
        sheet.paste(strip, (left, top + tile))
    return sheet


def _caption(item: Study | Phantom) -> Iterator[_Line]:
    """The name of an item, and what is there."""
    yield _Line(f"p{item.index} {item.visit}" if isinstance(item, Phantom) else item.id, (150, 150, 150))
    for finding in item.truth or ():
        yield _Line(_words(finding), COLOURS.get(finding.name, (255, 255, 255)))


def _report(item: Study | Phantom, font: Any, width: int) -> Iterator[_Line]:
    """What was written, in lines of at most ``width`` pixels, and the habits that made it."""
    text, habits = (item.report.findings, item.report.habits) if isinstance(item, Phantom) else (item.findings, ())
    for paragraph in text.splitlines():
        yield from (_Line(part, (225, 225, 225)) for part in _wrapped(paragraph, font, width))
    for habit in habits:
        yield from (_Line(part, (255, 120, 90)) for part in _wrapped(habit, font, width))


def _wrapped(text: str, font: Any, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        line = longer
    if line:
        yield line


def _image(item: Study | Phantom) -> tuple[Image.Image, dict[str, Image.Image]]:
    if isinstance(item, Phantom):
        masks = {name: Image.fromarray(mask.astype(np.uint8) * np.uint8(255)) for name, mask in item.masks.items()}
        return Image.fromarray(item.image), masks
    image = item.images[0]
    with Image.open(image.path) as picture:
        grey = picture.convert("L")
    masks = {}
    for name, path in image.masks.items():
        with Image.open(path) as picture:
            masks[name] = picture.convert("L")
    return grey, masks


def _words(finding: Finding) -> str:
    change = "same" if finding.change == "unchanged" else finding.change
    parts = (change and f"{change}:", finding.severity, finding.side, finding.place, finding.name)
    return " ".join(part for part in parts if part)
