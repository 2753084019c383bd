"""What sources of images with marked lesions share: boxes in any frame, names as in the lexicon, image files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from radpref.data.source import RowError
from radpref.findings import CHEXPERT, lexicon
from radpref.findings.labelled import members
from radpref.records import Box, Finding, ImageFile, Side

_ZONED = frozenset({"Lung Lesion", "Lung Opacity", "Consolidation", "Pneumonia", "Atelectasis"})
"""Classes of what lies in a zone of the lung. Effusions, pneumothoraces and fractures have a side alone."""
_ZONES = ((0.36, "upper zone"), (0.58, "mid zone"), (1.0, "lower zone"))
"""Zones by where a box's centre lies in a frontal image, from its top."""
_MIDDLE = 0.12
"""Share of the image's width beside its middle that a box must reach over on both sides to be on both."""


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


def marked_of(image: ImageFile) -> tuple[Finding, ...]:
    """What the boxes of an image tell of side and zone; of a lateral image nothing.

    The image's left is the patient's right. A side is told of what has one, a zone of what lies in the lung.
    """
    if image.view == "lateral":
        return ()
    found = (_marked(name, box) for name, boxes in image.boxes.items() if members(name) for box in boxes)
    return tuple(dict.fromkeys(found))


def _marked(name: str, box: Box) -> Finding:
    if name in lexicon().midline or CHEXPERT[name] == "Support Devices":
        return Finding(name=name)
    both = box.left < 0.5 - _MIDDLE and box.right > 0.5 + _MIDDLE
    side: Side = "bilateral" if both else "right" if box.left + box.right < 1 else "left"
    centre = (box.top + box.bottom) / 2
    zone = next(zone for end, zone in _ZONES if centre <= end) if CHEXPERT[name] in _ZONED and not both else None
    return Finding(name=name, side=side, place=zone)


def sentences(findings: Iterable[str]) -> str:
    """A reference text for a source that has labels and no reports: ``Pleural effusion. Nodule.``"""
    text = " ".join(f"{name[0].upper()}{name[1:]}." for name in findings)
    return text or "No finding."
