"""Take the lesion out of an image: the other image of FiRe-MPO's visual term and of mDPO's conditional one.

The published setting (FiRe-MPO) is Gaussian noise of 45 on 0..255 inside the lesion, and of 12 over the whole image
where no lesion is known; mDPO (Wang et al., EMNLP 2024) crops. The others are for comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref.config import CorruptSection
from radpref.images.masks import Mask
from radpref.plugins import Extended

Values = NDArray[np.float64]
"""(height, width, channels), 0 the least and 1 the greatest value of the image's range."""

Operator = Callable[[Values, Mask, CorruptSection, np.random.Generator], Values]
"""(values, mask, section, generator) -> values; what comes back outside the mask is not used."""

STRENGTH = {
    "noise": 45 / 255,
    "blur": 0.05,
    "inpaint": 1.0,
    "mean": 1.0,
    "whole-noise": 12 / 255,
    "crop": 0.2,
    "black": 1.0,
}
"""What ``corrupt.strength`` is where the recipe sets none; 1 for an operator that another package adds."""
WHOLE = frozenset({"whole-noise", "crop", "black"})
"""Operators that need no mask: they change the whole image."""
COARSE = 96
"""Longest side, in blocks, of the picture that inpainting solves its equation on."""


def seed_of(question: str, digest: str) -> int:
    """64 bits that follow from a question's id and an image's digest alone, in any order and process."""
    return int.from_bytes(hashlib.blake2b(f"{question}\0{digest}".encode(), digest_size=8).digest(), "big")


def strength_of(section: CorruptSection) -> float:
    """The strength that the operator works with."""
    return STRENGTH.get(section.operator, 1.0) if section.strength is None else section.strength


def corrupt(pixels: NDArray[Any], mask: Mask | None, section: CorruptSection, seed: int) -> NDArray[Any]:
    """The image with its lesion, or the whole of it, corrupted; same shape and dtype, same pixels outside the mask.

    The range that strength is a share of is 0..255 for uint8 and the image's own least to greatest value for any other
    dtype, as in ``read_image``; nothing leaves it. Channels get the same noise: a grey image stays grey.

    Args:
        pixels: (height, width) or (height, width, channels), any real dtype.
        mask: (height, width), not read by the operators of ``WHOLE``, which may be given None.
        section: ``operator``, ``strength`` and ``grain``.
        seed: ``seed_of``; operators without chance do not read it.

    Raises:
        ValueError: no mask for an operator that needs one, or a mask of another size.
    """
    if section.operator in WHOLE:
        mask = np.ones(pixels.shape[:2], np.bool_)
    if mask is None or mask.shape != pixels.shape[:2]:
        given = "no mask" if mask is None else f"a mask of {mask.shape}"
        raise ValueError(f"corrupt.operator {section.operator} needs a mask of {pixels.shape[:2]}, but got {given}")
    low, high = (0.0, 255.0) if pixels.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))
    span = high - low or 1.0
    values = (pixels.astype(np.float64).reshape(*pixels.shape[:2], -1) - low) / span
    changed = OPERATORS[section.operator](values, mask, section, np.random.default_rng(seed))
    result = (np.clip(changed, 0, 1) * span + low).reshape(pixels.shape)
    if np.issubdtype(pixels.dtype, np.integer):
        result = result.round()
    inside = mask if pixels.ndim == 2 else mask[..., None]
    return np.where(inside, result.astype(pixels.dtype), pixels)


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """(height, width, 3) as a picture; grey, mode L, where the channels are equal."""
    grey = (pixels == pixels[..., :1]).all()
    return Image.fromarray(pixels[..., 0] if grey else pixels)


def save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG, without loss, beside its place and move it there: a file with the final name is whole."""
    import io

    from radpref.files import write_atomically

    buffer = io.BytesIO()
    picture(pixels).save(buffer, "PNG", compress_level=4)
    write_atomically(path, buffer.getvalue())


def _noise(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    """Grains are drawn for the whole image, so that a place has the same noise under any mask."""
    cell = max(1, round(section.grain * min(mask.shape)))
    coarse = rng.standard_normal([-(-side // cell) for side in mask.shape])
    noise = coarse.repeat(cell, 0).repeat(cell, 1)[: mask.shape[0], : mask.shape[1]]
    return values + strength_of(section) * noise[..., None]


def _blur(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    from skimage.filters import gaussian

    blurred: Values = gaussian(values, strength_of(section) * min(mask.shape), mode="nearest", channel_axis=-1)
    return blurred


def _mean(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    around = values if mask.all() else values[~mask]
    return _mixed(values, around.reshape(-1, values.shape[-1]).mean(0), strength_of(section))


def _inpaint(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    """The membrane that is stretched over the hole from its border, with the image's grain.

    It is solved on blocks of pixels, at most ``COARSE`` a side: a surface that smooth shows no difference.
    """
    from skimage.filters import gaussian
    from skimage.transform import downscale_local_mean, resize

    if mask.all():
        return _mean(values, mask, section, rng)
    block = -(-max(mask.shape) // COARSE)
    known = downscale_local_mean((~mask).astype(float), (block, block))[..., None]
    sums = downscale_local_mean(values * ~mask[..., None], (block, block, 1))
    means = np.divide(sums, known, out=np.zeros_like(sums), where=known > 0)
    solved = _membrane(means, known[..., 0] < known.max() / 2)
    padded = (np.array(solved.shape[:2]) * block).tolist()
    smooth = resize(solved, (*padded, values.shape[-1]), order=1, mode="edge")[: mask.shape[0], : mask.shape[1]]
    fine = np.abs(values - gaussian(values, 1, mode="nearest", channel_axis=-1))[~mask]
    grain = 1.4826 * np.median(fine)  # the sd of noise, whatever edges the image has
    return _mixed(values, smooth + grain * rng.standard_normal(mask.shape)[..., None], strength_of(section))


def _membrane(values: Values, holes: Mask) -> Values:
    """Laplace's equation in the holes, the values around them as its border (Perez et al., SIGGRAPH 2003, eq. 1).

    No value in a hole is beyond those around it; a biharmonic surface, which also goes on with their slope, swings
    far out on the ribs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    if not holes.any():
        return values
    number = np.full(holes.shape, -1)
    number[holes] = np.arange(holes.sum())
    places = np.argwhere(holes)
    neighbours = np.zeros(len(places))
    border = np.zeros((len(places), values.shape[-1]))
    rows, cols = [np.arange(len(places))], [np.arange(len(places))]
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = places + step
        within: Mask = np.all((beside >= 0) & (beside < holes.shape), axis=1)
        neighbours += within
        at = np.where(within[:, None], beside, 0)
        unknown = within & holes[at[:, 0], at[:, 1]]
        given = within & ~unknown
        border[given] += values[at[given, 0], at[given, 1]]
        rows.append(np.flatnonzero(unknown))
        cols.append(number[at[unknown, 0], at[unknown, 1]])
    weights = np.concatenate([neighbours, -np.ones(sum(map(len, rows[1:])))])
    equation = coo_array((weights, (np.concatenate(rows), np.concatenate(cols)))).tocsr()
    result = values.copy()
    result[holes] = spsolve(equation, border).reshape(border.shape)
    return result


def _crop(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    from skimage.transform import resize

    height, width = mask.shape
    rows, cols = (max(1, round(side * strength_of(section) ** 0.5)) for side in (height, width))
    top, left = rng.integers(height - rows + 1), rng.integers(width - cols + 1)
    window: Values = resize(values[top : top + rows, left : left + cols], values.shape, order=1, mode="edge")
    return window


def _black(values: Values, mask: Mask, section: CorruptSection, rng: np.random.Generator) -> Values:
    return _mixed(values, np.zeros(1), strength_of(section))


def _mixed(values: Values, other: Values, share: float) -> Values:
    return (1 - share) * values + share * other


_OURS: dict[str, Operator] = {
    "noise": _noise,
    "blur": _blur,
    "inpaint": _inpaint,
    "mean": _mean,
    "whole-noise": _noise,
    "crop": _crop,
    "black": _black,
}
OPERATORS: Mapping[str, Operator] = Extended("corruptions", _OURS)
"""Name to an operator; other packages add to it (``radpref.plugins``)."""
