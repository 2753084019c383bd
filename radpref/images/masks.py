"""Where the lesion is: masks and boxes that came with an image, as one mask of the picture's own size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radpref.images.read import read_mask
from radpref.images.values import ImageError
from radpref.records import Box, ImageFile

Mask = NDArray[np.bool_]
"""(height, width), True on the lesion."""
Source = Literal["mask", "box", "segmenter", "evidence"]


class Located(NamedTuple):
    """Where somebody sees the lesion on one image, or why nowhere."""

    mask: Mask | None
    by: Source
    why: str = ""
    """The reason why there is no mask; empty where there is one."""
    broken: tuple[str, ...] = ()
    """Reasons of the mask files that could not be used."""


def draw_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """Boxes as a mask of a picture of ``size`` (width, height): every pixel that a box touches is True."""
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    for box in boxes:
        left, right = int(box.left * width), int(np.ceil(box.right * width))
        top, bottom = int(box.top * height), int(np.ceil(box.bottom * height))
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask


def grown(mask: Mask, share: float) -> Mask:
    """The mask widened on all sides by ``share`` of the picture's shorter side, in a round shape."""
    from scipy.ndimage import distance_transform_edt

    if share == 0 or not mask.any():
        return mask
    wider: Mask = distance_transform_edt(~mask) <= share * min(mask.shape)
    return wider


def marked(image: ImageFile) -> tuple[str, ...]:
    """Names of the findings that a mask or box of the image shows, masks first."""
    return tuple(dict.fromkeys((*image.masks, *image.boxes)))


def own_mask(image: ImageFile, size: tuple[int, int], names: Iterable[str] | None = None) -> Located:
    """The union of what the image's own masks and boxes say of ``names`` (None: of all findings).

    ``size`` is the (width, height) of the picture (``read_image(image).size``). Of a finding with both, its mask
    counts. A mask file that cannot be used is left out and its reason kept; the rest still counts.
    """
    wanted = marked(image) if names is None else tuple(name for name in names if name in marked(image))
    if not wanted:
        why = "image without mask or box" if not marked(image) else "no mask or box of these findings"
        return Located(None, "mask", why)
    whole = np.zeros(size[::-1], np.bool_)
    broken: list[str] = []
    by: Source = "box"
    drawn = False
    for name in wanted:
        if name not in image.masks:
            whole |= draw_boxes(image.boxes[name], size)
            drawn = True
            continue
        try:
            whole |= read_mask(image, name, size)
            by, drawn = "mask", True
        except ImageError as error:
            broken.append(f"mask of {name}: {error.reason}")
    return Located(whole if drawn else None, by, "" if drawn else "mask not usable", tuple(broken))
