"""The lateral film."""
from __future__ import annotations
import numpy as np
from radpref.data.phantom.anatomy import Map, Mask
from radpref.data.phantom.patients import Body, Lesion


def draw(body: Body, found: tuple[Lesion, ...], size: int, u: list[float]) -> tuple[Map, dict[str, Mask]]:
    return np.zeros((size, size), np.float32), {}
