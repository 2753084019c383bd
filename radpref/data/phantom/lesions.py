"""Findings in the lungs, the pleura and the heart, drawn into a scene; each returns where it is.

A lesion's severity changes its size and its contrast; its ``dice`` fix shape and position, so that the same
lesion keeps its place between two visits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from radpref.data.phantom.anatomy import Lung, Map, Mask, Scene, cloud, ramp
from radpref.data.phantom.patients import Body, Lesion

_ZONE = {"upper zone": (0.24, 0.36), "mid zone": (0.46, 0.60), "lower zone": (0.70, 0.82)}
"""Range of ``b`` (0 apex, 1 dome) in which the centre of a lesion lies."""


def reshape(
    body: Body, lesions: Iterable[Lesion]
) -> tuple[Body, dict[int, float], dict[int, tuple[float, float, float]], float]:
    """What findings do to the anatomy itself: the body, raised domes, broken ribs, the push on the mediastinum."""
    raised: dict[int, float] = {}
    broken: dict[int, tuple[float, float, float]] = {}
    pushed = 0.0
    for lesion in lesions:
        u, grade = lesion.dice, lesion.grade
        if lesion.name == "cardiomegaly":
            low, high = ((0.575, 0.615), (0.635, 0.685), (0.70, 0.745))[grade]
            body = replace(body, heart=low + (high - low) * u[0])
        elif lesion.name == "enlarged mediastinum":
            low, high = ((0.195, 0.215), (0.23, 0.26), (0.275, 0.33))[grade]
            body = replace(body, mediastinum=low + (high - low) * u[0])
        elif lesion.name == "atelectasis":
            for side in lesion.sides:
                raised[side] = (0.02, 0.05, 0.09)[grade]
        elif lesion.name == "pleural effusion" and lesion.side != "bilateral" and grade == 2:
            pushed = -0.05 * lesion.sides[0]
        elif lesion.name == "pneumothorax" and grade == 2:
            pushed = -0.04 * lesion.sides[0]
        elif lesion.name == "rib fracture":
            rib = -2 + int(u[0] * 5)
            step = (0.42 + 0.10 * u[2]) * (1 if u[3] < 0.5 else -1)
            broken[lesion.sides[0]] = ((0.50 + 0.26 * u[1]) * body.width, float(rib), step)
    return body, raised, broken, pushed


def effusion(scene: Scene, lesion: Lesion) -> Mask:
    """Fluid that fills the angle, hides the dome, and climbs the wall (the meniscus)."""
    mask = np.zeros((scene.n, scene.n), np.bool_)
    for side in lesion.sides:
        lung = scene.lungs[side]
        u = lesion.dice[0 if side < 0 else 1]
        low, high = ((0.26, 0.35), (0.50, 0.64), (0.80, 1.02))[lesion.grade]
        height = low + (high - low) * u
        floor = float(lung.dome.max(where=(lung.cavity > 0.5), initial=-1.0))
        rise = (0.16, 0.15, 0.13)[lesion.grade]
        ahead = np.maximum(lung.wall - lung.d, 0.0)
        top = floor - height + rise * (1.0 - np.exp(ahead * (-1.0 / 0.10)))
        wet = ramp((scene.y - top) * (scene.edge * 0.35)) * lung.half
        scene.fill(0.97 * wet)
        mask |= (wet * lung.cavity > 0.5) & (scene.heart < 0.5)
    return mask


def pneumothorax(scene: Scene, lesion: Lesion) -> Mask:
    """Air outside the lung: a dark rim without vessels, widest at the apex, bounded by the pleural line."""
    side = lesion.sides[0]
    lung = scene.lungs[side]
    u = lesion.dice[0]
    low, high = ((0.10, 0.14), (0.17, 0.22), (0.27, 0.36))[lesion.grade]
    rim = low + (high - low) * u
    height = ramp((0.95, 1.15, 1.6)[lesion.grade] - lung.b * (1.5, 1.1, 0.9)[lesion.grade])
    across = (lung.wall - lung.d) - rim * height
    below = (lung.b * 0.8) - 1.25 * rim * height + 0.015
    apart = across - below
    inside = 0.5 * (across + below - np.sqrt(apart * apart + 0.004)) + 0.02  # to the visceral pleura, lung positive
    free = ramp(0.5 - inside * scene.edge) * lung.cavity * (lung.air > 0)
    free = free * (height > 0.02)
    scene.vessels *= 1.0 - free
    scene.solid -= 0.12 * free * (lung.air > 0.2)
    line = ramp(1.0 - np.abs(inside) * (scene.edge * 0.75)) * (lung.air > 0.2) * (height > 0.05)
    scene.solid += 0.22 * line
    collapse = ramp(inside * scene.edge) * (lung.air > 0) * (0.05, 0.10, 0.20)[lesion.grade]
    scene.fill(collapse)
    return free > 0.5


def _point(
    lung: Lung, scene: Scene, b: tuple[float, float], a: tuple[float, float], u: float, v: float
) -> tuple[float, float]:
    """The pixel at a place of the lung, as (d, y): uniform ``u`` picks ``a`` in its range, ``v`` picks ``b``."""
    far = np.abs(lung.b - (b[0] + (b[1] - b[0]) * v)) + np.abs(lung.a - (a[0] + (a[1] - a[0]) * u)) * 0.7
    row, col = divmod(int(far.argmin()), scene.n)
    return float(lung.d[row, col]), float(scene.y[row, 0])


def _blob(
    scene: Scene, lesion: Lesion, rough: float, sizes: tuple[tuple[float, float], ...]
) -> Iterable[tuple[Lung, Map]]:
    """For each side the lung and a field that is 1 in the lesion's centre and 0 at its ragged edge."""
    for number, side in enumerate(lesion.sides):
        lung = scene.lungs[side]
        u = lesion.dice[6 * number : 6 * number + 6]
        low, high = sizes[lesion.grade]
        size = low + (high - low) * u[2]
        place = lesion.place or "mid zone"
        left_low = side > 0 and place == "lower zone"  # beside the heart, not behind it
        d, y = _point(lung, scene, _ZONE[place], (0.58, 0.78) if left_low else (0.38, 0.72), u[0], u[1])
        stretch = 0.8 + 0.5 * u[3]
        r = ((lung.d - d) / (size * stretch)) ** 2 + ((scene.y - y) * (stretch / size)) ** 2
        yield lung, 1.0 - np.sqrt(r) + rough * cloud(scene.n, u[3:6])


def consolidation(scene: Scene, lesion: Lesion) -> Mask:
    """A dense patch with a ragged edge that hides the vessels."""
    mask = np.zeros((scene.n, scene.n), np.bool_)
    strength = (0.58, 0.72, 0.86)[lesion.grade]
    for lung, field in _blob(scene, lesion, 0.16, ((0.16, 0.20), (0.21, 0.26), (0.28, 0.35))):
        body = ramp(field * 4.0) * lung.half
        scene.fill(strength * body)
        scene.vessels *= 1.0 - 0.8 * body
        mask |= (body > 0.4) & (lung.air > 0.1)
    return mask


def opacity(scene: Scene, lesion: Lesion) -> Mask:
    """A haze with soft borders; vessels still show."""
    mask = np.zeros((scene.n, scene.n), np.bool_)
    strength = (0.30, 0.38, 0.46)[lesion.grade]
    for lung, field in _blob(scene, lesion, 0.10, ((0.20, 0.24), (0.25, 0.30), (0.32, 0.38))):
        soft = ramp(field * 1.4 + 0.1)
        body = soft * soft * (3.0 - 2.0 * soft) * lung.half
        scene.fill(strength * body)
        mask |= (body > 0.3) & (lung.air > 0.1)
    return mask


def _round(scene: Scene, lesion: Lesion, low: float, high: float, rough: float, strength: float) -> Mask:
    side = lesion.sides[0]
    lung = scene.lungs[side]
    u = lesion.dice
    radius = low + (high - low) * u[2]
    place = lesion.place or "mid zone"
    left_low = side > 0 and place == "lower zone"
    margin = min(1.2 * radius, 0.2)
    inner = (0.60 if left_low else 0.34) + 0.3 * margin
    d, y = _point(lung, scene, _ZONE[place], (inner, 0.86 - margin), u[0], u[1])
    r = np.sqrt(((lung.d - d) / radius) ** 2 + ((scene.y - y) / radius) ** 2)
    edge = ramp((1.0 + rough * cloud(scene.n, u[3:6]) - r) * (scene.edge * radius * 0.8) + 0.5) * lung.half
    scene.fill(strength * edge)
    scene.vessels *= 1.0 - edge
    return (edge > 0.5) & (lung.cavity > 0.5)


def nodule(scene: Scene, lesion: Lesion) -> Mask:
    """A round density of 3 to 6 pixels radius on an image of 128."""
    return _round(scene, lesion, 0.052, 0.088, 0.05, 0.50 + 0.22 * lesion.dice[7])


def mass(scene: Scene, lesion: Lesion) -> Mask:
    """A larger, lobulated density."""
    return _round(scene, lesion, 0.13, 0.22, 0.12, 0.70 + 0.2 * lesion.dice[7])


def atelectasis(scene: Scene, lesion: Lesion) -> Mask:
    """Plates at the base, with the dome drawn up (``reshape``)."""
    mask = np.zeros((scene.n, scene.n), np.bool_)
    for number, side in enumerate(lesion.sides):
        lung = scene.lungs[side]
        u = lesion.dice[6 * number : 6 * number + 6]
        thick = (0.019, 0.023, 0.026)[lesion.grade]
        length = (0.17, 0.20, 0.22)[lesion.grade] + 0.03 * u[0]
        d, y = _point(lung, scene, (0.78, 0.90), (0.54, 0.70), u[1], u[2])
        for plate in range(1 + (lesion.grade > 0)):
            slope = (u[3] - 0.5) * 0.6 * (1 - 1.6 * plate) + 0.1 * plate
            off = lung.d - (d - 0.05 * plate)
            bow = np.abs(scene.y - (y - 0.10 * plate) - slope * off + 0.5 * off * off)
            body = ramp((thick - bow) * scene.edge * 0.8 + 0.5) * ramp((length - np.abs(off)) * 12.0) * lung.cavity
            scene.fill((0.62, 0.66, 0.70)[lesion.grade] * body)
            mask |= (body > 0.4) & (lung.air > 0.1)
        if lesion.grade:
            slack = scene.y - (y - 0.02) + 0.25 * (u[4] - 0.3) * (lung.d - d)
            haze = ramp(slack * 5.0) * lung.half
            scene.fill((0.0, 0.16, 0.42)[lesion.grade] * haze)
            if lesion.grade == 2:
                mask |= (haze > 0.3) & (lung.air > 0.1)
    return mask


def edema(scene: Scene, lesion: Lesion) -> Mask:
    """Perihilar haze of both sides, fuller vessels, short lines at the lower walls (Kerley B)."""
    strength = (0.30, 0.44, 0.58)[lesion.grade]
    mask = np.zeros((scene.n, scene.n), np.bool_)
    scene.vessel_gain *= (1.25, 1.4, 1.5)[lesion.grade]
    texture = cloud(scene.n, lesion.dice[0:3])
    wide = (0.085, 0.11, 0.14)[lesion.grade]
    for lung in scene.lungs.values():
        off = lung.d - 0.20
        haze = np.exp(off * off * (-1.0 / wide) - (scene.y - 0.02) ** 2 * (0.55 / wide))
        haze = haze * ramp(0.85 + 0.16 * texture) * lung.half
        scene.fill(strength * haze)
        near = ramp((0.11 - np.abs(lung.wall - lung.d - 0.04)) * 20.0) * (lung.wall - lung.d > 0)
        lines = ramp(np.cos(scene.y * (2 * np.pi / 0.066)) * 2.0 - 0.9) * near
        lines = lines * (ramp((lung.b - 0.55) * 8.0) * ramp((1.0 - lung.b) * 12.0)) * lung.cavity
        scene.fill((0.20, 0.27, 0.33)[lesion.grade] * lines)
        mask |= (haze > 0.35) & (lung.air > 0.1)
    return mask


def thickening(scene: Scene, lesion: Lesion) -> Mask:
    """A band of pleura: a cap over the apex, or a plaque along the side wall."""
    side = lesion.sides[0]
    lung = scene.lungs[side]
    u = lesion.dice
    thick = (0.080, 0.110, 0.145)[lesion.grade] * (0.9 + 0.2 * u[0])
    wave = 1.0 + 0.20 * np.clip(cloud(scene.n, u[1:4]), -1.0, 1.0)
    if lesion.place == "apex":
        gap = np.minimum(np.minimum(lung.wall - lung.d, lung.d - lung.inner), lung.b * 0.9)
        along = ramp((0.24 - lung.b) * 8.0)
    else:
        gap = np.broadcast_to(lung.wall - lung.d, lung.b.shape)
        along = ramp(1.0 - (np.abs(lung.b - 0.52) - 0.14) * 10.0)
    body = ramp((thick * wave * along - gap) * scene.edge * 0.8) * lung.half
    scene.fill(0.90 * body)
    return (body > 0.4) & (lung.cavity > 0.5)


def cardiomegaly(scene: Scene, lesion: Lesion) -> Mask:
    """The heart itself; ``reshape`` has enlarged it."""
    return scene.heart > 0.5


def wide_mediastinum(scene: Scene, lesion: Lesion) -> Mask:
    """The upper mediastinum; ``reshape`` has widened it."""
    return (scene.mediastinum > 0.5) & (scene.y > -0.72) & (scene.y < -0.02)


def fracture(scene: Scene, lesion: Lesion, at: tuple[float, float, float], body: Body) -> Mask:
    """A step in a rib (drawn with the ribs) and the swelling beside it."""
    lung = scene.lungs[lesion.sides[0]]
    s = at[0] / body.width
    y = (at[1] - body.rib_phase) * body.spacing + body.rib_slope * (0.03 * s + 0.20 * s**3)
    r = ((lung.d - at[0] - 0.03) / 0.12) ** 2 + ((scene.y - y) / 0.10) ** 2
    swelling = ramp(1.0 - r)
    scene.solid += 0.13 * swelling
    return r < 1.0


PAINTERS: dict[str, Callable[[Scene, Lesion], Mask]] = {
    "enlarged mediastinum": wide_mediastinum,
    "cardiomegaly": cardiomegaly,
    "edema": edema,
    "lung opacity": opacity,
    "consolidation": consolidation,
    "mass": mass,
    "nodule": nodule,
    "atelectasis": atelectasis,
    "pleural thickening": thickening,
    "pleural effusion": effusion,
    "pneumothorax": pneumothorax,
}
"""In the order of drawing. Devices and the rib fracture are drawn apart."""
