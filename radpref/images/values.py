"""Grey values of any depth to 8 bits, and the limits and the error that all readers share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from radpref.errors import RadprefError

MIN_SIDE = 8
"""Least height and width of an image in pixels; a smaller one shows nothing and is refused."""
MAX_PIXELS = 80_000_000
"""Most pixels of an image (a full 43 x 35 cm detector at 0.05 mm has 60 million); more is taken for a bomb."""


class ImageError(RadprefError, ValueError):
    """An image that cannot be used. The message names the cause and the remedy, never the file or the patient."""

    @property
    def reason(self) -> str:
        return str(self)


def check_size(width: int, height: int) -> None:
    """Refuse an image by its header, before any pixel is decoded. Raises ImageError."""
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"image too large: {width} x {height} pixels, at most {MAX_PIXELS:,} in all; scale it down, "
            "or take it out if it is not an image"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"image too small: {width} x {height} pixels, at least {MIN_SIDE} a side; give the original image"
        )


def to_8_bit(values: NDArray[Any], *, ignore: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Grey values of any range to 0..255: the least becomes 0, the greatest 255, linear between.

    ``values``: any real dtype, any shape; ``ignore``: same shape, True where a value is no picture (padding);
    those, and values that are not finite, become 0 and do not count in the range. A constant picture becomes 0.
    """
    values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    counted = np.isfinite(values) if ignore is None else np.isfinite(values) & ~ignore
    low, high = (float(values[counted].min()), float(values[counted].max())) if counted.any() else (0.0, 0.0)
    if low == high:
        return np.zeros(values.shape, np.uint8)
    scaled = (np.where(counted, values, low) - low) / (high - low) * 255.0
    return scaled.round().astype(np.uint8)
