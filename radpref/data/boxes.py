"""What sources of images with marked lesions share: boxes in any frame, names as in the lexicon, image files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from radpref.data.source import RowError
from radpref.records import Box


def box_of(left: float, top: float, right: float, bottom: float, frame: tuple[float, float]) -> Box:
    """Corners in pixels of a ``frame`` (width, height) as shares of it; what hangs over its edge is cut off.

    The image's file may have any other size: shares are the same in it. Raises RowError (no number, no area, outside
    of the frame).
    """
    width, height = frame
    if not all(map(math.isfinite, (left, top, right, bottom, width, height))) or width <= 0 or height <= 0:
        raise RowError("box broken: a corner or the frame is no number")
    if left < -0.01 * width or top < -0.01 * height or right > 1.01 * width or bottom > 1.01 * height:
        raise RowError("box outside of the image: it was drawn in a larger frame than the one that is given")
    corners = ((left, width), (top, height), (right, width), (bottom, height))
    sides = [min(max(value / size, 0.0), 1.0) for value, size in corners]
    if sides[0] >= sides[2] or sides[1] >= sides[3]:
        raise RowError("box empty: its right or lower side does not lie behind its left or upper one")
    return Box(left=sides[0], top=sides[1], right=sides[2], bottom=sides[3])


def number(value: Any) -> float:
    """A cell as a number; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def names_of(labels: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """The lexicon's names of a source's labels, each once; one that ``names`` lacks stays itself, in lower case.

    Raises RowError for a label without a letter.
    """
    labels = list(labels)
    if not all(any(letter.isalpha() for letter in label) for label in labels):
        raise RowError("label empty: the finding has no name")
    return list(dict.fromkeys(names.get(label, label.lower().replace("_", " ")) for label in labels))


def sentences(findings: Iterable[str]) -> str:
    """A reference text for a source that has labels and no reports: ``Pleural effusion. Nodule.``"""
    text = " ".join(f"{name[0].upper()}{name[1:]}." for name in findings)
    return text or "No finding."
