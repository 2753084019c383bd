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

    A few values far from all others (a burned-in marker, a hot or dead pixel) do not set the range: where the least or
    greatest lies further from the bulk than the bulk is wide, the range ends a quarter of that width beyond it.
    ``values``: any real dtype, any shape; ``ignore``: same shape, True where a value is no picture (padding);
    those, and values that are not finite, become 0 and do not count in the range. A constant picture becomes 0.
    Memory beside the result is that of a strip.
    """
    flat = values.reshape(-1)
    left_out = None if ignore is None else ignore.reshape(-1)
    low, high = _range(flat, left_out)
    out = np.zeros(flat.shape, np.uint8)
    if low == high:
        return out.reshape(values.shape)
    for start in range(0, flat.size, STRIP):
        part = flat[start : start + STRIP]
        part = part.astype(np.float32 if part.dtype.itemsize <= 2 else np.float64)
        counted = _counted(part, left_out, start)
        scaled = (np.clip(np.where(counted, part, low), low, high) - low) / (high - low) * 255.0
        out[start : start + STRIP] = scaled.round().astype(np.uint8)
    return out.reshape(values.shape)


STRIP = 1 << 20
"""Pixels that are computed at a time."""
_SAMPLE = 1 << 20
"""Most values that the bulk of a picture is judged by."""
_TAILS = (0.001, 0.005, 0.02)
"""Shares of a picture that a marker may cover, the least first."""


def _counted(part: NDArray[Any], ignore: NDArray[np.bool_] | None, start: int) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(part)
    return finite if ignore is None else finite & ~ignore[start : start + part.size]


def _range(flat: NDArray[Any], ignore: NDArray[np.bool_] | None) -> tuple[float, float]:
    """The values that become black and white."""
    low, high = np.inf, -np.inf
    sample = []
    step = max(1, flat.size // _SAMPLE)
    for start in range(0, flat.size, STRIP):
        part = flat[start : start + STRIP]
        counted = _counted(part, ignore, start)
        if counted.any():
            low, high = min(low, float(part[counted].min())), max(high, float(part[counted].max()))
            sample.append(part[::step][counted[::step]])
    bulk = np.concatenate(sample).astype(np.float64) if sample else np.zeros(0)
    if low >= high or bulk.size < _LEAST:
        return (low, high) if low < high else (0.0, 0.0)
    return -_end(-bulk, -high, -low), _end(bulk, low, high)


_LEAST = 1000
"""Fewest values that have a bulk."""


def _end(bulk: NDArray[np.float64], low: float, high: float) -> float:
    """Where the upper end of the range lies: at ``high``, or nearer where few values reach so far."""
    for share in _TAILS:
        bottom, top = np.quantile(bulk, (max(_TAILS), 1 - share))
        width = float(top - bottom)
        if width > 0 and high - top > width:
            return float(top + width / 4)
    return high
