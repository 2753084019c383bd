"""Marks that point out one part of an image: an arrow, a star, a box, a contour (CheXPO's region questions).

Strokes, heads and halos are shares of the image's shorter side, so that a mark looks alike at 128 and at 3,000 pixels;
edges are anti-aliased. The colour is drawn among those that stand out from the grey values under the mark, and a halo
of the opposite lightness holds where it crosses both dark and bright parts.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from radpref.files import content_key
from radpref.images.masks import Mask
from radpref.images.read import image_hash, image_key
from radpref.records import ImageFile

Mark = Literal["arrow", "star", "box", "contour"]
MARKS: tuple[Mark, ...] = ("arrow", "star", "box", "contour")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (232, 40, 48),
    "green": (36, 200, 88),
    "blue": (48, 120, 255),
    "yellow": (250, 222, 50),
    "cyan": (60, 220, 235),
    "magenta": (240, 70, 220),
}
STANDS_OUT = 40.0
"""Least distance (CIE76) between a mark's colour and the greys under it; black and white are 100 apart."""
DRAWING = 1
"""Version of the drawing, part of a marked image's name: raise it with any change that changes a pixel."""

_STROKE, _MARGIN, _LENGTH, _HEAD, _STAR = 0.009, 0.02, 0.17, 0.05, 0.035  # shares of the shorter side
_LEAST_STROKE = 1.4  # pixels
_LAYER = 4096  # longest side of what a mark is drawn on, in four times its size, before it is made smaller
_SPECK = 0.05  # share of the largest part of a mask under which another one is none of its own
_ANGLES = 24

Layer = NDArray[np.float32]
"""(height, width), from 0 (nothing) to 1 (covered)."""


class Marked(NamedTuple):
    """A picture with a mark."""

    image: Image.Image
    mark: Mark
    colour: str
    """A key of ``COLOURS``."""

    @property
    def name(self) -> str:
        """``red arrow``."""
        return f"{self.colour} {self.mark}"


def draw_mark(image: Image.Image, mask: Mask, mark: Mark, *, seed: str = "") -> Marked:
    """The picture (RGB) with ``mark`` at the part that ``mask`` shows: bool, (height, width) of the picture.

    An arrow ends at the part's innermost point, a star stands on it (beside it, where it would hide the part), a box
    and a contour go around it at a small distance. ``seed`` chooses the arrow's direction and the colour among those
    that do.

    Raises ValueError for a mask of another size, or without a pixel.
    """
    if mask.shape != (image.height, image.width):
        raise ValueError(f"the mask is {mask.shape}, the picture {image.height, image.width}; give one of its size")
    if not mask.any():
        raise ValueError("the mask is empty; there is nothing to mark")
    chance = random.Random(seed)
    side = min(image.size)
    stroke = max(_STROKE * side, _LEAST_STROKE)
    halo = max(0.6 * stroke, 1.0)
    if mark == "contour":
        inner, outer = _contour(mask, max(0.75 * _MARGIN * side, stroke / 2 + halo + 0.5), stroke, halo)
    else:
        shape = {"arrow": _arrow, "star": _star, "box": _box}[mark](mask, side, chance)
        inner, outer = (_drawn(shape, image.size, stroke, grow) for grow in (0.0, halo))
    pixels = np.asarray(image.convert("RGB"), np.float32)
    colour = _colour(pixels[inner > 0.5], chance)
    edge = 0.0 if _lightness(COLOURS[colour]) > 50 else 255.0
    pixels = pixels + 0.75 * outer[..., None] * (edge - pixels)
    pixels = pixels + inner[..., None] * (np.array(COLOURS[colour], np.float32) - pixels)
    return Marked(Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)), mark, colour)


def marked_image(
    image: ImageFile, picture: Image.Image, mask: Mask, mark: Mark, folder: Path, *, seed: str = ""
) -> tuple[ImageFile, Marked]:
    """The image with a mark as a PNG in ``folder``, named by what decides its pixels, and what was drawn.

    ``image`` is ``read_image(image)``. A file that is there is kept. Masks and boxes stay with the image. Raises
    ImageError (the file cannot be hashed), ValueError (as ``draw_mark``).
    """
    marked = draw_mark(picture, mask, mark, seed=seed)
    key = content_key("mark", DRAWING, image_key(image), mark, seed, mask.shape, np.packbits(mask).tobytes().hex())
    path = folder.resolve() / f"{key}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        marked.image.save(beside, format="PNG", compress_level=1)
        beside.replace(path)
    made = image.model_copy(update={"path": str(path), "digest": image_hash(ImageFile(path=str(path)))})
    return made, marked


def parts(mask: Mask) -> list[Mask]:
    """The separate parts of a mask, the largest first; specks (under a twentieth of the largest) are left out."""
    from scipy.ndimage import label

    labelled, count = label(mask, np.ones((3, 3)))
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    order = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number] >= _SPECK * sizes.max()]
    return [labelled == number + 1 for number in order]


def innermost(mask: Mask) -> tuple[float, float, float]:
    """(x, y) of the pixel farthest from the mask's edge, and that distance, in pixels. The mask has a pixel."""
    from scipy.ndimage import distance_transform_edt

    left, top, right, bottom = _bounds(mask)
    here = mask[top:bottom, left:right]
    depth = distance_transform_edt(np.pad(here, 1))[1:-1, 1:-1]
    # of several, the one nearest to the middle of the mask, so that a straight tube is marked halfway
    rows, cols = np.nonzero(depth >= 0.999 * depth.max())
    everywhere = np.nonzero(here)
    middle = np.hypot(rows - everywhere[0].mean(), cols - everywhere[1].mean())
    best = int(np.argmin(middle))
    return float(left + cols[best]) + 0.5, float(top + rows[best]) + 0.5, float(depth.max())


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the least rectangle that holds the mask, ends exclusive."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


# ---- shapes: closed polygons (filled) and lines (stroked), in pixels


class _Shape(NamedTuple):
    filled: Sequence[Sequence[tuple[float, float]]] = ()
    lines: Sequence[Sequence[tuple[float, float]]] = ()


def _arrow(mask: Mask, side: int, chance: random.Random) -> _Shape:
    x, y, depth = innermost(mask)
    length, head = _LENGTH * side, max(_HEAD * side, 5.0)
    gap = min(0.5 * depth, 0.02 * side)
    height, width = mask.shape
    fitting = []
    turn = chance.random()
    for number in range(_ANGLES):
        angle = 2 * math.pi * (number + turn) / _ANGLES
        dx, dy = math.cos(angle), math.sin(angle)
        tail = (x + dx * (gap + length), y + dy * (gap + length))
        edge = 0.02 * side
        if edge <= tail[0] <= width - edge and edge <= tail[1] <= height - edge:
            over = _share(mask, (x + dx * gap, y + dy * gap), tail)
            fitting.append((over, chance.random(), dx, dy))
    # the shaft hides as little as possible of what it points at
    least = min((over for over, *_ in fitting), default=0.0)
    good = [entry for entry in fitting if entry[0] <= least + 0.1]
    _, _, dx, dy = min(good, key=lambda entry: entry[1]) if good else (0.0, 0.0, *_inwards(x, y, width, height))
    tip = (x + dx * gap, y + dy * gap)
    neck = (tip[0] + dx * head, tip[1] + dy * head)
    wing = 0.45 * head
    barbs = [(neck[0] - dy * wing, neck[1] + dx * wing), (neck[0] + dy * wing, neck[1] - dx * wing)]
    tail = (tip[0] + dx * length, tip[1] + dy * length)
    inside = (tip[0] + dx * 0.8 * head, tip[1] + dy * 0.8 * head)
    return _Shape(filled=[[tip, barbs[0], barbs[1]]], lines=[[inside, tail]])


def _share(mask: Mask, start: tuple[float, float], end: tuple[float, float]) -> float:
    """The share of a line that lies in the mask."""
    steps = np.linspace(0, 1, 32)
    cols = (start[0] + steps * (end[0] - start[0])).astype(int).clip(0, mask.shape[1] - 1)
    rows = (start[1] + steps * (end[1] - start[1])).astype(int).clip(0, mask.shape[0] - 1)
    return float(mask[rows, cols].mean())


def _inwards(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """From a point towards the middle of the picture: where an arrow has room when nothing else fits."""
    dx, dy = width / 2 - x, height / 2 - y
    norm = math.hypot(dx, dy)
    return (dx / norm, dy / norm) if norm > 1 else (0.0, -1.0)


def _star(mask: Mask, side: int, chance: random.Random) -> _Shape:
    x, y, depth = innermost(mask)
    radius = max(_STAR * side, 5.0)
    if depth < 2 * radius:  # beside the part, on the side of the middle
        dx, dy = _inwards(x, y, mask.shape[1], mask.shape[0])
        away = depth + 1.2 * radius
        x, y = x + dx * away, y + dy * away
    points = []
    for number in range(10):
        angle = math.pi * number / 5 - math.pi / 2
        reach = radius if number % 2 == 0 else 0.45 * radius
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return _Shape(filled=[points])


def _box(mask: Mask, side: int, chance: random.Random) -> _Shape:
    bounds = _bounds(mask)
    margin, edge = _MARGIN * side, 0.005 * side + 1
    left, right = max(bounds[0] - margin, edge), min(bounds[2] + margin, mask.shape[1] - edge)
    top, bottom = max(bounds[1] - margin, edge), min(bounds[3] + margin, mask.shape[0] - edge)
    return _Shape(lines=[[(left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, top)]])


def _drawn(shape: _Shape, size: tuple[int, int], stroke: float, grow: float) -> Layer:
    """The shape on a layer of ``size``: lines ``stroke`` pixels wide, everything ``grow`` pixels larger all round."""
    xs, ys = zip(*(point for points in (*shape.filled, *shape.lines) for point in points), strict=True)
    reach = stroke + 2 * grow + 2
    left, top = (max(0, math.floor(min(values) - reach)) for values in (xs, ys))
    right, bottom = (min(most, math.ceil(max(values) + reach)) for values, most in zip((xs, ys), size, strict=True))
    scale = max(1, min(4, _LAYER // max(right - left, bottom - top)))
    patch = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
    pen = ImageDraw.Draw(patch)
    for polygon in shape.filled:
        corners = [((x - left) * scale, (y - top) * scale) for x, y in polygon]
        pen.polygon(corners, fill=255)
        if grow:
            pen.line([*corners, *corners[:2]], fill=255, width=max(1, round(2 * grow * scale)), joint="curve")
    for line in shape.lines:
        corners = [((x - left) * scale, (y - top) * scale) for x, y in line]
        pen.line(corners, fill=255, width=max(1, round((stroke + 2 * grow) * scale)), joint="curve")
    layer = np.zeros(size[::-1], np.float32)
    small = patch.resize((right - left, bottom - top), Image.Resampling.BOX)
    layer[top:bottom, left:right] = np.asarray(small, np.float32) / 255
    return layer


def _contour(mask: Mask, margin: float, stroke: float, halo: float) -> tuple[Layer, Layer]:
    """A smooth line around the mask, and the wider line behind it."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

    left, top, right, bottom = _bounds(mask)
    reach = math.ceil(2 * margin + stroke + 2 * halo + 2)
    window = slice(max(0, top - reach), bottom + reach), slice(max(0, left - reach), right + reach)
    away = distance_transform_edt(~binary_fill_holes(mask[window]))
    away = gaussian_filter(away, max(margin / 2, 1.0)) - margin
    layers = []
    for half in (stroke / 2, stroke / 2 + halo):
        layer = np.zeros(mask.shape, np.float32)
        layer[window] = np.clip(half + 0.5 - np.abs(away), 0, 1)
        layers.append(layer)
    return layers[0], layers[1]


# ---- colours


def _colour(under: NDArray[np.float32], chance: random.Random) -> str:
    """A colour that stands out from the pixels under the mark: any that does, else the one that does most."""
    greys = np.quantile(under.mean(-1), [0.1, 0.5, 0.9]) if len(under) else np.array([128.0])
    distance = {name: min(_distance(rgb, (float(grey),) * 3) for grey in greys) for name, rgb in COLOURS.items()}
    good = [name for name, apart in distance.items() if apart >= STANDS_OUT]
    return chance.choice(good) if good else max(distance, key=lambda name: distance[name])


def _distance(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    """CIE76 distance of two sRGB colours of 0 to 255."""
    return math.dist(_lab(first), _lab(second))


def _lightness(rgb: tuple[float, float, float]) -> float:
    return _lab(rgb)[0]


def _lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of an sRGB colour of 0 to 255."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
    r, g, b = linear
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
