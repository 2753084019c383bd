"""Frontal or lateral, by the words that tables and DICOM headers say it with."""

from __future__ import annotations

import re

from radpref.records import View

_FRONTAL = {
    "pa", "ap", "frontal", "front", "postero-anterior", "antero-posterior", "posteroanterior", "anteroposterior",
    "portable", "supine", "erect", "dx", "antero", "postero", "apical", "lordotic",
}  # fmt: skip
_LATERAL = {"lateral", "lat", "l", "ll", "rl", "llat", "rlat", "side", "latero"}


def view_of(said: str) -> View:
    """The view that a cell names: ``PA``, ``AP SUPINE``, ``Antero-posterior``, ``LL``, ``view1_frontal``.

    A cell that names both, or neither, is unknown.
    """
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)?", said.lower()))
    frontal, lateral = bool(words & _FRONTAL), bool(words & _LATERAL)
    if frontal == lateral:
        return "unknown"
    return "frontal" if frontal else "lateral"
