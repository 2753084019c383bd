"""The healthy chest, frontal and lateral, as maps of attenuation.

An image is drawn the way it comes about: soft tissue and bone add to the attenuation along each ray, air in the
lungs takes away from it, and whatever fills the air (``Scene.dense``) gives it back. All maps are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from radpref.data.phantom.patients import Body, generator

Map = NDArray[Any]
"""A map of float32; NumPy's stubs take it for float64 as soon as a Python float comes in."""
Mask = NDArray[np.bool_]
TREES = 16
"""Number of drawn vessel trees; each lung of a patient takes one, warped to its shape."""


def ramp(a: Map) -> Map:
    """Clip to 0..1: an edge one unit wide."""
    return np.clip(a, 0.0, 1.0)


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the image: shift, tilt and turn, in half image widths (turn: -1 to 1)."""

    shift_x: float
    shift_y: float
    tilt: float
    turn: float
    zoom: float


@dataclass
class Lung:
    """One lung of a frontal image. ``a`` runs from the mediastinum (0) to the wall (1), ``b`` from apex to dome."""

    side: int
    """-1 for the patient's right (the image's left), 1 for the left."""
    d: Map
    """Distance from the midline, positive on this side."""
    wall: Map
    inner: Map
    dome: Map
    """y of the diaphragm below each pixel."""
    a: Map
    b: Map
    cavity: Map
    """Share of the pixel inside the half chest, 0 to 1, heart and mediastinum not taken out."""
    half: Map
    """1 on this side of the midline, else 0."""
    air: Map
    """Depth of air, 0 to about 1."""


@dataclass
class Scene:
    """The maps of an image in the making."""

    n: int
    x: Map
    y: Map
    edge: float
    """Steepness of an edge one pixel wide."""
    solid: Map
    """Attenuation of everything that is not lung."""
    ribs: Map
    """Attenuation of the ribs, which scatter veils where the air is gone."""
    lungs: dict[int, Lung]
    heart: Map
    mediastinum: Map
    vessels: Map
    dense: Map = field(init=False)
    """Share of the air that is filled, 0 to 1."""
    vessel_gain: float = 1.0

    def __post_init__(self) -> None:
        self.dense = np.zeros((self.n, self.n), np.float32)

    def fill(self, amount: Map) -> None:
        """Fill air: amounts multiply as independent layers do."""
        self.dense += (1.0 - self.dense) * amount

    def air(self) -> Map:
        total: Map = sum((lung.air for lung in self.lungs.values()), np.zeros((), np.float32))
        return total

    def attenuation(self) -> Map:
        """About 0 (beside the patient) to 1.4 (metal on bone)."""
        air = self.air() * (1.0 - self.dense)
        shown = self.ribs * (1.0 - 0.55 * self.dense)
        return self.solid + shown + air * (0.26 * self.vessel_gain * self.vessels - 0.62)


@lru_cache(maxsize=8)
def grid(n: int) -> tuple[Map, Map]:
    """Pixel centres: x as a row (1, n) and y as a column (n, 1), each from -1 to 1."""
    line = ((np.arange(n, dtype=np.float32) + 0.5) * (2.0 / n) - 1.0).astype(np.float32)
    return line[None, :], line[:, None]


@lru_cache(maxsize=8)
def clouds(n: int) -> Map:
    """Smooth periodic noise, (8, 2n, 2n), mean 0, deviation 1; a window anywhere in it is n by n pixels."""
    rng = generator(20, 7)
    base = 256
    bank = []
    for number in range(8):
        white = rng.standard_normal((base, base))
        smooth = ndimage.gaussian_filter(white, base / (14 + 3 * number), mode="wrap")
        fine = ndimage.gaussian_filter(white, base / 60, mode="wrap")
        mixed = smooth / smooth.std() + 0.45 * fine / fine.std()
        mixed /= mixed.std()
        image = Image.fromarray(np.tile(mixed.astype(np.float32), (3, 3)))
        third = image.resize((3 * n, 3 * n), Image.Resampling.BICUBIC)
        bank.append(np.asarray(third)[n // 2 : n // 2 + 2 * n, n // 2 : n // 2 + 2 * n])
    return np.stack(bank).astype(np.float32)


def cloud(n: int, dice: Sequence[float]) -> Map:
    """A window of ``clouds``, chosen by three uniform numbers."""
    row, col = int(dice[1] * n), int(dice[2] * n)
    return clouds(n)[int(dice[0] * 8) % 8, row : row + n, col : col + n]


@lru_cache(maxsize=4)
def trees(resolution: int) -> NDArray[np.float32]:
    """Vessel trees in lung coordinates, (TREES, r * r), 0 to 1: rows are ``b`` (apex to dome), columns ``a``.

    Branches leave the hilum at the inner edge, halve in calibre as they divide, and fade before the wall.
    """
    scale = 2
    size = resolution * scale
    bank = []
    for number in range(TREES):
        rng = generator(20, 11, number)
        image = Image.new("F", (size, size), 0.0)
        pen = ImageDraw.Draw(image)
        start = 8 + int(rng.integers(0, 3))
        stack = []
        for i in range(start):
            angle = np.pi * ((i + rng.uniform(0.2, 0.8)) / start - 0.5) * 1.02
            stack.append((0.0, 0.47 + rng.uniform(-0.06, 0.08), float(angle), 0.034, 0))
        while stack:
            a, b, angle, width, depth = stack.pop(0)
            length = rng.uniform(0.09, 0.16) * (1.0 if depth else 0.8)
            bend = rng.uniform(-0.18, 0.18)
            a2, b2 = a + length * np.cos(angle), b + 0.62 * length * np.sin(angle) * 1.25
            strength = 1.0 - 0.74 * min(np.hypot(a2, (b2 - 0.47) * 1.2), 1.0)
            pen.line(
                [(a * size, b * size), (a2 * size, b2 * size)],
                fill=float(strength),
                width=max(1, round(width * size)),
            )
            if depth < 7 and 0 <= a2 < 0.97 and 0 <= b2 <= 1.0:
                stack.append((a2, b2, angle + bend, width * 0.84, depth + 1))
                if rng.random() < 0.62:
                    turn = rng.uniform(0.35, 0.75) * (1 if rng.random() < 0.5 else -1)
                    stack.append((a2, b2, angle + turn, width * 0.62, depth + 1))
        smooth = image.resize((resolution, resolution), Image.Resampling.BOX)
        bank.append(ndimage.gaussian_filter(np.asarray(smooth, np.float32), resolution / 150).ravel())
    return np.stack(bank)


def tree(number: int, a: Map, b: Map, n: int) -> Map:
    resolution = 256 if n <= 256 else 512
    bank = trees(resolution)[number % TREES]
    if n <= 256:
        rows = (b * resolution).astype(np.int32)
        np.clip(rows, 0, resolution - 1, out=rows)
        cols = (a * resolution).astype(np.int32)
        np.clip(cols, 0, resolution - 1, out=cols)
        rows *= resolution
        rows += cols
        near: Map = bank.take(rows)
        return near
    at = np.stack([b * resolution - 0.5, a * resolution - 0.5])
    smooth: Map = ndimage.map_coordinates(bank.reshape(resolution, resolution), at, order=1, mode="nearest")
    return smooth


def frontal(
    body: Body,
    pose: Pose,
    n: int,
    *,
    raised: dict[int, float] | None = None,
    broken: dict[int, tuple[float, float, float]] | None = None,
    pushed: float = 0.0,
) -> Scene:
    """The healthy frontal chest of ``body``.

    ``raised`` lifts the diaphragm of a side (volume loss); ``broken`` puts a rib fracture at (a, rib, step) of a
    side; ``pushed`` moves heart and mediastinum.
    """
    raised = raised or {}
    broken = broken or {}
    across, down = grid(n)
    edge = n / 2.0 * 0.8
    y = (down - pose.shift_y) / pose.zoom
    x = (across - pose.shift_x + pose.tilt * down) / pose.zoom
    middle = x - (0.05 * pose.turn + pushed)  # heart, mediastinum and trachea move with the turn; the wall less
    w = body.width
    t = ramp((y - body.apex) / (body.base - body.apex))
    centre = 0.44 * w
    wall = centre + (w - centre) * np.sqrt(1.0 - (1.0 - t) ** 2.9) * (1.0 - 0.10 * t**6)
    inner = centre - (centre - 0.085) * np.sqrt(1.0 - (1.0 - t) ** 5.0)
    far = np.abs(x)

    # Soft tissue: neck, shoulders, trunk; thickness falls towards the sides like a chord.
    shoulder = 0.30 + 0.95 * np.sqrt(ramp((y + 1.04 - 0.5 * body.fat) / 0.42))
    trunk = w + 0.16 + body.fat + 0.5 * ramp(-(y + 0.30) / 0.30)
    outline = np.minimum(shoulder, trunk)
    inside = ramp((outline - far) * edge * 0.6)
    rest = far / (outline + 0.03)
    solid = inside * (0.46 + 0.42 * np.sqrt(np.maximum(1.0 - rest * rest, 0.0)) + 0.06 * ramp(y * 0.5 + 0.5))
    if body.breast:
        for side in (-1, 1):
            r = ((x * side - 0.40) / 0.33) ** 2 + ((y - 0.20) / 0.30) ** 2
            solid += body.breast * ramp((1.0 - r) * 2.5)

    # Heart and mediastinum replace lung.
    half = body.heart * w  # half the heart's width; a third of it lies to the right
    heart_x = middle - 0.30 * half
    reach_y = 0.80 * half + 0.07
    r = (heart_x / (1.02 * half)) ** 2 + ((y - body.heart_y - body.heart_tilt * heart_x) / reach_y) ** 2
    heart = ramp((1.0 - np.sqrt(r)) * edge * half * 0.55)
    upper = ramp((y + 0.95) / 0.35)
    med_edge = (body.mediastinum + 0.015 * (middle > 0).astype(np.float32)) * (0.62 + 0.38 * upper)
    med_edge = med_edge + 0.05 * ramp((y + 0.25) * 2.0)
    mediastinum = ramp((med_edge - np.abs(middle)) * edge * 0.7)
    knob = ((middle - body.mediastinum + 0.005) / body.knob) ** 2 + ((y + 0.34) / (1.25 * body.knob)) ** 2
    trunk_r = ((middle - 0.10) / 0.085) ** 2 + ((y + 0.13) / 0.11) ** 2
    mediastinum = np.maximum(mediastinum, ramp((1.0 - np.sqrt(knob)) * edge * body.knob * 0.8))
    mediastinum = np.maximum(mediastinum, ramp((1.0 - np.sqrt(trunk_r)) * edge * 0.05))
    covered = 1.0 - (1.0 - 0.94 * heart) * (1.0 - 0.97 * mediastinum)

    # Spine with vertebrae, trachea and main bronchi.
    spine = ramp((0.078 - np.abs(x)) * edge * 0.5)
    vertebra = np.cos((y + 0.06 * body.rib_phase) * (2 * np.pi / 0.135))
    solid += spine * (0.05 + 0.40 * (body.bone - 0.12) + 0.022 * vertebra)
    windpipe = ramp((0.040 - np.abs(middle - 0.008)) * edge * 0.6) * ramp((-0.20 - y) * 8.0)
    bronchi = ramp((0.022 - np.abs(np.abs(middle) - 0.55 * (y + 0.22))) * edge * 0.5)
    bronchi = bronchi * (ramp((y + 0.24) * 20.0) * ramp((-0.06 - y) * 20.0))
    solid -= inside * (0.13 * windpipe + 0.08 * bronchi)

    lungs: dict[int, Lung] = {}
    vessels = np.zeros((n, n), np.float32)
    ribs = np.zeros((n, n), np.float32)
    for side in (-1, 1):
        d = x * side
        dome_y = body.dome + (body.dome_gap if side > 0 else 0.0) - raised.get(side, 0.0)
        off = d - 0.46 * w
        outer, medial = np.maximum(off, 0.0), np.minimum(off, 0.0)
        drop = (body.base - 0.10 - dome_y) / (0.54 * w) ** 2 * outer * outer + 0.55 * medial * medial
        dome = dome_y + drop
        cavity = ramp((wall - d) * edge) * ramp((d - inner) * edge) * ramp((dome - y) * edge)
        span = 1.0 / (wall - inner + 1e-3)
        a = (d - inner) * span
        b = (y - body.apex) / (dome - body.apex)
        deep = ramp(a * (1.06 - a) * 4.4)
        air = cavity * (1.0 - covered) * (0.66 + 0.34 * np.sqrt(deep)) * (0.86 + 0.14 * ramp(b * 4.0))
        lungs[side] = Lung(side, d, wall, inner, dome, a, b, cavity, (d > 0).astype(np.float32), air)
        vessels += tree(body.vessels[0 if side < 0 else 1], a, b, n) * (air > 0)
        hilum_y = -0.03 if side < 0 else -0.08
        hilum = ((d - 0.15) / 0.075) ** 2 + ((y - hilum_y) / 0.13) ** 2
        vessels += 0.75 * np.exp(-1.4 * hilum) * (air > 0)

        # Ribs: the back half falls away from the spine, the front half runs down towards the breastbone.
        s = d * (1.0 / w)
        curve = body.rib_slope * (0.03 * s + 0.20 * s * s * s)
        phase = (y - curve) * (1.0 / body.spacing) + body.rib_phase
        ends: Map | None = None
        if side in broken:
            at, rib, step = broken[side]
            beyond = ramp((d - at) * edge) * ramp((at + 0.20 - d) * 20.0)
            near = ramp(1.6 - np.abs(phase - rib) * 1.6)
            shifted = step * beyond * near
            ends = ramp((0.016 - np.abs(d - at)) * edge + 0.5) * ramp((0.50 - np.abs(phase - rib)) * 6.0)
            phase = phase + shifted
        here = ramp((wall + 0.015 - d) * edge * 0.6) * ramp((d - 0.07) * edge)
        chest = here * ramp((y - body.apex + 0.03) * edge * 0.5) * (0.16 + 0.84 * ramp((dome + 0.06 - y) * 9.0))
        away = np.abs(phase - np.rint(phase))
        back = ramp((0.185 - away) * (body.spacing * edge)) * (0.72 + 1.6 * away)
        if ends is not None:  # the broken ends ride over each other
            back = np.maximum(back, 1.6 * ends)
        front_curve = 0.34 * (1.0 - s) * body.rib_slope
        front_phase = (y - front_curve) * (1.0 / (body.spacing * 1.05)) + 0.37 + body.rib_phase
        front_away = np.abs(front_phase - np.rint(front_phase))
        front = ramp((0.19 - front_away) * (body.spacing * edge)) * ramp((s - 0.42) * 4.0) * ramp((y + 0.42) * 8.0)
        ribs += body.bone * chest * (0.95 * back + 0.55 * front) * (1.0 - 0.62 * covered)
        # The wall seen edge-on, clavicle, and the shoulder blade's edge.
        solid += 0.05 * ramp(1.0 - np.abs(d - wall - 0.012) * 30.0) * ramp((dome + 0.10 - y) * 8.0) * t
        collar = body.clavicle - 0.24 * d + 0.06 * np.sin(6.5 * (d + 0.05 * side * pose.turn))
        clavicle = ramp((0.030 - np.abs(y - collar)) * edge * 0.8) * ramp((d - 0.05 - 0.03 * side * pose.turn) * edge)
        solid += inside * (0.95 * body.bone) * clavicle * ramp((0.88 * w + 0.12 - d) * edge * 0.5)
        blade = (
            ramp((d - (w - 0.02) - 0.30 * (y + 0.30)) * edge * 0.4) * ramp((y + 0.62) * 10.0) * ramp((0.12 - y) * 8.0)
        )
        solid += inside * 0.05 * blade

    # Below the diaphragm all is water, but for the gastric bubble.
    if body.bubble:
        left = lungs[1]
        top = left.dome + 0.035
        r = ((left.d - 0.36 * w - 0.05) / (0.10 + 0.08 * body.bubble)) ** 2
        bubble = (
            ramp((1.0 - r) * 2.0) * ramp((y - top) * edge * 0.6) * ramp((top + 0.05 + 0.09 * body.bubble - y) * 10.0)
        )
        solid -= (0.10 + 0.16 * body.bubble) * bubble * inside
    return Scene(n, x, y, edge, solid, ribs, lungs, heart, mediastinum, vessels)
