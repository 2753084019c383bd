"""Pictures that are nearly the same: saved again as JPEG, brighter, smaller, or without a narrow border.

First two perceptual hashes of 256 bits each (imagehash: the signs of the DCT's low frequencies, and of the differences
between neighbours), which cost nothing to compare; then, for the few pairs that are near by both, the pictures
themselves: the middle of one is looked for in the other. Chest radiographs of different patients are alike enough that
a hash alone would find thousands of pairs among millions. The thresholds were set on pictures of Open-i and drawn
patients; docs/data/near-duplicates.md has the figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
WORDS = 2 * SIDE * SIDE // 64
"""A hash's length in words of 64 bits: the first half is of frequencies, the second of differences."""
FREQUENCIES = 58
DIFFERENCES = 40
"""Most bits of each half in which two hashes that are near differ."""
LIKENESS = 0.975
"""Least correlation of the middle of one picture with its place in the other."""
_THUMB = 96
_MIDDLE = 0.08
_COVERS = (1.0, 0.98, 0.96)
"""Shares of the other picture's side that the one may cover."""


def near_hash(picture: Image.Image) -> str:
    """128 hexadecimal digits: two hashes of 256 bits."""
    import imagehash

    small = picture.resize((256, 256), Image.Resampling.BOX, reducing_gap=2).convert("L")
    return f"{imagehash.phash(small, SIDE)}{imagehash.dhash(small, SIDE)}"


def words_of_hash(hashes: list[str]) -> NDArray[np.uint64]:
    """Hashes as rows of ``WORDS`` words."""
    return np.frombuffer(b"".join(map(bytes.fromhex, hashes)), np.uint64).reshape(-1, WORDS)


def near(one: NDArray[np.uint64], many: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of ``many`` hashes, (n, ``WORDS``), are near the hash ``one``, (``WORDS``,): bool, (n,)."""
    half = WORDS // 2
    close = np.bitwise_count(many[:, :half] ^ one[:half]).sum(1, dtype=np.uint16) <= FREQUENCIES
    places = np.flatnonzero(close)
    apart = np.bitwise_count(many[places, half:] ^ one[half:]).sum(1, dtype=np.uint16)
    close[places[apart > DIFFERENCES]] = False
    found: NDArray[np.bool_] = close
    return found


def nearly_same(one: Image.Image, other: Image.Image) -> bool:
    """Whether the middle of one picture is found in the other, at any of a few scales."""
    from skimage.feature import match_template

    thumbs = [np.asarray(_thumb(picture), np.float32) for picture in (one, other)]
    for part, whole in (thumbs, thumbs[::-1]):
        for cover in _COVERS:
            side = round(cover * _THUMB)
            scaled = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR))
            edge = round(_MIDDLE * side)
            middle = scaled[edge : side - edge, edge : side - edge]
            if middle.std() > 0 and match_template(whole, middle).max() >= LIKENESS:
                return True
    return False


def _thumb(picture: Image.Image) -> Image.Image:
    return picture.convert("L").resize((_THUMB, _THUMB), Image.Resampling.LANCZOS, reducing_gap=3)
