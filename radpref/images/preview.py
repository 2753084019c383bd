"""Small pictures for people: thumbnails, contact sheets with lesion masks, data URIs for the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from radpref.images.masks import Mask, marked, own_mask
from radpref.images.read import read_image
from radpref.images.values import ImageError
from radpref.records import ImageFile

COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
"""Okabe and Ito (2008): told apart with any colour vision."""
_LINE = 12
_GAP = 4


def thumbnail(image: ImageFile, side: int = 256, *, masks: bool = False) -> Image.Image:
    """The image, RGB, at most ``side`` pixels high and wide, aspect kept; with its masks and boxes tinted on request.

    They take ``COLOURS`` in the order of ``marked(image)``; a mask that cannot be used is left out. Raises ImageError.
    """
    picture = read_image(image)
    if masks:
        for number, name in enumerate(marked(image)):
            mask = own_mask(image, picture.size, [name]).mask
            picture = picture if mask is None else tinted(picture, mask, _colour(number))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def contact_sheet(
    cells: Sequence[tuple[ImageFile, str]], *, side: int = 192, columns: int = 6, masks: bool = False
) -> Image.Image:
    """Images in rows of ``columns``, each with a caption of up to three lines; RGB.

    An image that cannot be read stands as a grey cell with the reason. The names of masks are written in their colours.
    """
    rows = -(-len(cells) // columns)
    step = side + _GAP
    height = step + 3 * _LINE
    sheet = Image.new("RGB", (columns * step + _GAP, max(rows, 1) * height + _GAP), "black")
    draw = ImageDraw.Draw(sheet)
    for number, (image, caption) in enumerate(cells):
        left, top = _GAP + (number % columns) * step, _GAP + (number // columns) * height
        try:
            picture = thumbnail(image, side, masks=masks)
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        except ImageError as error:
            draw.rectangle((left, top, left + side, top + side), fill=(60, 60, 60))
            caption = f"{caption}\n{error.reason}"
        if masks:
            for line, name in enumerate(marked(image)):
                draw.text((left + 2, top + 1 + line * _LINE), name, fill=_colour(line))
        for line, text in enumerate(caption.splitlines()[:3]):
            draw.text((left, top + side + line * _LINE), _fit(draw, text, side), fill="white")
    return sheet


def tinted(picture: Image.Image, mask: Mask, colour: tuple[int, int, int] = COLOURS[0]) -> Image.Image:
    """The picture, RGB, with the mask's inside tinted and its edge drawn; ``mask`` has the picture's size."""
    pixels = np.asarray(picture.convert("RGB"), np.float32).copy()
    pixels[mask] = 0.75 * pixels[mask] + 0.25 * np.array(colour, np.float32)
    width = max(1, min(picture.size) // 150)
    pixels[mask & ~_eroded(mask, width)] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def picture_table(rows: Sequence[Sequence[tuple[Image.Image, str]]], side: int = 256) -> Image.Image:
    """Rows of pictures, each brought to ``side`` pixels on its longer side, with up to two lines of caption; RGB."""
    columns = max(map(len, rows))
    step, height = side + _GAP, side + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, len(rows) * height + _GAP), "black")
    draw = ImageDraw.Draw(sheet)
    for row, cells in enumerate(rows):
        for column, (picture, caption) in enumerate(cells):
            left, top = _GAP + column * step, _GAP + row * height
            small = picture.convert("RGB")
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            if max(small.size) < side:  # a small image is shown larger
                scale = side / max(small.size)
                small = small.resize((round(small.width * scale), round(small.height * scale)))
            sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
            for line, text in enumerate(caption.splitlines()[:2]):
                draw.text((left, top + side + line * _LINE), _fit(draw, text, side), fill="white")
    return sheet


def data_uri(image: Image.Image, quality: int = 80) -> str:
    """The picture as a JPEG data URI, to stand in a page without a file beside it."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _eroded(mask: Mask, width: int) -> Mask:
    from scipy.ndimage import binary_erosion

    inner: Mask = binary_erosion(mask, iterations=width, border_value=1)
    return inner


def _colour(number: int) -> tuple[int, int, int]:
    return COLOURS[number % len(COLOURS)]


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text
