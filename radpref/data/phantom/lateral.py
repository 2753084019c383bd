"""The lateral image: the patient faces left, so that the breastbone is left and the spine right.

Both lungs lie over each other, so what fills one of them takes away half of the air along a ray. Only the findings in
``SHOWN`` can be seen from the side; the others leave no mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radpref.data.phantom import devices
from radpref.data.phantom.anatomy import Lung, Map, Mask, Pose, Scene, cloud, grid, ramp, tree
from radpref.data.phantom.patients import Body, Lesion

SHOWN = (
    "pleural effusion",
    "consolidation",
    "lung opacity",
    "nodule",
    "mass",
    "atelectasis",
    "edema",
    "cardiomegaly",
    "endotracheal tube",
    "enteric tube",
    "central venous catheter",
    "pacemaker",
)
_B = {"upper zone": (0.26, 0.36), "mid zone": (0.46, 0.60), "lower zone": (0.68, 0.80)}


def chest(body: Body, pose: Pose, n: int, raised: float) -> Scene:
    """The healthy chest from the side; ``raised`` lifts the dome. ``a`` runs from breastbone (0) to back (1)."""
    across, down = grid(n)
    edge = n / 2.0 * 0.8
    y = (down - pose.shift_y) / pose.zoom
    x = (across - pose.shift_x + pose.tilt * down) / pose.zoom
    depth = 0.68 + 0.5 * (body.width - 0.70) + 0.3 * (body.fat - 0.08)
    t = ramp((y - body.apex) / (body.base - body.apex))
    front = -depth * (0.18 + 0.72 * np.sqrt(1.0 - (1.0 - t) ** 2.2))
    back = depth * (0.34 + 0.62 * np.sqrt(1.0 - (1.0 - t) ** 2.6) - 0.10 * t * t)

    # Soft tissue: neck, raised arms, chest wall, belly.
    ahead = np.minimum(0.26 + 1.1 * ramp((y + 0.98) / 0.30), depth * 0.95 + 0.10 + body.fat + 0.6 * ramp(-y - 0.45))
    behind = np.minimum(0.40 + 1.1 * ramp((y + 0.98) / 0.26), depth + 0.10 + body.fat + 0.6 * ramp(-y - 0.45))
    inside = ramp((x + ahead) * edge * 0.6) * ramp((behind - x) * edge * 0.6)
    middle = (x - 0.5 * (behind - ahead)) / (0.5 * (ahead + behind) + 0.04)
    solid = inside * (0.42 + 0.44 * np.sqrt(np.maximum(1.0 - middle * middle, 0.0)) + 0.10 * ramp(y * 0.6 + 0.4))
    solid += 0.10 * inside * ramp((-0.52 - y) * 3.0)  # shoulders

    dome_y = body.dome + 0.02 - raised
    off = x + 0.14
    behind_off, front_off = np.maximum(off, 0.0), np.minimum(off, 0.0)
    slope = (body.base - 0.04 - dome_y) / (depth + 0.08) ** 2
    dome = dome_y + slope * behind_off * behind_off + 0.75 * front_off * front_off
    cavity = ramp((back - x) * edge) * ramp((x - front) * edge) * ramp((dome - y) * edge)
    a = (x - front) / (back - front + 1e-3)
    b = (y - body.apex) / (dome - body.apex)
    half = 0.60 * body.heart * body.width + 0.09
    heart_x = x + 0.34 * depth
    r = (heart_x / (1.05 * half)) ** 2 + ((y - body.heart_y - 0.04 - 0.35 * heart_x) / (half + 0.07)) ** 2
    heart = ramp((1.0 - np.sqrt(r)) * edge * half * 0.3)
    hilum = np.exp(-(((x - 0.02) / 0.11) ** 2) - ((y + 0.08) / 0.13) ** 2)
    air = cavity * (1.0 - 0.80 * heart) * (0.50 + 0.50 * np.sqrt(ramp(a * (1.03 - a) * 4.2)))
    air = air * (0.62 + 0.38 * ramp(b * 2.6))

    spine_x = back - 0.13 + 0.02 * np.cos(y * 3.0)
    spine = ramp((0.085 - np.abs(x - spine_x)) * edge * 0.4)
    discs = ramp(np.cos((y + 0.08 * body.rib_phase) * (2 * np.pi / 0.15)) * 2.0 - 0.6)
    solid += inside * spine * (0.9 * body.bone) * (1.0 - 0.6 * discs) * (1.1 - 0.5 * ramp(y * 0.5 + 0.5))
    solid += (
        inside
        * 0.10
        * ramp((0.020 - np.abs(x - front + 0.035)) * edge)
        * ramp((0.35 - y) * 6.0)
        * ramp((y + 0.62) * 8.0)
    )
    windpipe = ramp((0.036 - np.abs(x - 0.02 - 0.10 * (y + 0.6))) * edge * 0.6) * ramp((-0.14 - y) * 8.0)
    solid -= 0.14 * inside * windpipe
    ribs = np.zeros((n, n), np.float32)
    for shift in (0.0, 0.45):  # the near and the far side
        phase = (y - (0.42 - 0.1 * shift) * x * x * np.sign(-x) + 0.30 * x) / body.spacing + body.rib_phase + shift
        away = np.abs(phase - np.rint(phase))
        ribs += 0.22 * body.bone * ramp((0.17 - away) * (body.spacing * edge)) * ramp((0.02 + cavity) * 2.0)
    vessels = (0.7 * tree(body.vessels[0], np.abs(2.0 * a - 1.0), b, n) + 0.8 * hilum) * (air > 0)
    lung = Lung(1, x, back, front, dome, a, b, cavity, np.ones((n, n), np.float32), air)
    scene = Scene(n, x, y, edge, solid, ribs, {1: lung}, heart, np.zeros_like(heart), vessels)
    scene.vessel_gain = 0.8 * body.vessel_gain
    return scene


def draw(body: Body, found: Sequence[Lesion], n: int, u: Sequence[float]) -> tuple[Map, dict[str, Mask]]:
    """Attenuation (n, n) and masks of the lateral image of a reshaped ``body``; ``u`` are 16 uniform numbers."""
    pose = Pose(0.08 * (u[0] - 0.5), 0.08 * (u[1] - 0.5), 0.12 * (u[2] - 0.5), 0.0, 0.93 + 0.10 * u[4])
    raised = sum((0.01, 0.03, 0.05)[lesion.grade] for lesion in found if lesion.name == "atelectasis")
    scene = chest(body, pose, n, raised)
    lung = scene.lungs[1]
    masks: dict[str, Mask] = {}
    for lesion in found:
        if lesion.name == "cardiomegaly":
            masks[lesion.name] = (scene.heart > 0.5) & (lung.cavity > 0.5)
        elif lesion.name in _FILLED:
            amount, where = _FILLED[lesion.name](scene, lung, lesion)
            layers = 1.0 if lesion.side in ("bilateral", None) else 0.58  # of two lungs over each other, one is filled
            scene.fill(layers * amount)
            masks[lesion.name] = where & (lung.air > 0.05)
        elif lesion.name in devices.PAINTERS:
            masks[lesion.name] = _device(scene, body, lesion)
    return scene.attenuation() + 0.010 * cloud(n, u[10:13]), masks


def _effusion(scene: Scene, lung: Lung, lesion: Lesion) -> tuple[Map, Mask]:
    """Fluid in the sulcus behind, its upper border a meniscus."""
    low, high = ((0.16, 0.22), (0.36, 0.48), (0.66, 0.90))[lesion.grade]
    floor = float(lung.dome.max(where=lung.cavity > 0.5, initial=-1.0))
    ahead = np.minimum(np.maximum(lung.wall - lung.d, 0.0), np.maximum(lung.d - lung.inner, 0.0) + 0.25)
    top = floor - (low + (high - low) * lesion.dice[0]) + 0.14 * (1.0 - np.exp(ahead * -10.0))
    wet = ramp((scene.y - top) * (scene.edge * 0.35))
    return 0.95 * wet, (wet * lung.cavity) > 0.5


def _patch(scene: Scene, lung: Lung, lesion: Lesion) -> tuple[Map, Mask]:
    """Consolidation, opacity, mass or nodule at the height of its zone."""
    u = lesion.dice
    size, rough, steep, strength = {
        "consolidation": ((0.17, 0.22, 0.29)[lesion.grade], 0.16, 4.0, (0.62, 0.76, 0.88)[lesion.grade]),
        "lung opacity": ((0.21, 0.26, 0.33)[lesion.grade], 0.10, 1.6, (0.36, 0.46, 0.56)[lesion.grade]),
        "mass": (0.13 + 0.09 * u[2], 0.10, 9.0, 0.85),
        "nodule": (0.052 + 0.036 * u[2], 0.05, 4.0, 0.85),
    }[lesion.name]
    low, high = _B[lesion.place or "mid zone"]
    deep = (0.55, 0.75) if lesion.place == "lower zone" else (0.30, 0.70)
    far = np.abs(lung.b - (low + (high - low) * u[1])) + 0.7 * np.abs(lung.a - (deep[0] + (deep[1] - deep[0]) * u[8]))
    row, col = divmod(int(far.argmin()), scene.n)
    r = np.hypot(lung.d - lung.d[row, col], scene.y - scene.y[row, 0]) / size
    body = ramp((1.0 - r + rough * cloud(scene.n, u[3:6])) * steep + 0.1)
    return strength * body, (body * lung.cavity) > 0.4


def _atelectasis(scene: Scene, lung: Lung, lesion: Lesion) -> tuple[Map, Mask]:
    """A plate above the dome."""
    u = lesion.dice
    line = np.abs(lung.b - (0.82 + 0.08 * u[2]) - 0.10 * (u[3] - 0.5) * lung.d)
    thick = (0.016, 0.020, 0.030)[lesion.grade]
    body = ramp((thick - line) * scene.edge + 0.5) * ramp((0.24 - np.abs(lung.a - 0.62)) * 10.0)
    return 0.75 * body, (body * lung.cavity) > 0.4


def _edema(scene: Scene, lung: Lung, lesion: Lesion) -> tuple[Map, Mask]:
    """Haze around the hila."""
    wide = (0.10, 0.13, 0.17)[lesion.grade]
    haze = np.exp((lung.d - 0.02) ** 2 * (-1.0 / wide) - (scene.y + 0.02) ** 2 * (0.8 / wide))
    haze = haze * ramp(0.85 + 0.16 * cloud(scene.n, lesion.dice[0:3]))
    scene.vessel_gain *= (1.2, 1.3, 1.4)[lesion.grade]
    return (0.30, 0.44, 0.58)[lesion.grade] * haze, (haze * lung.cavity) > 0.35


_FILLED = {
    "pleural effusion": _effusion,
    "consolidation": _patch,
    "lung opacity": _patch,
    "mass": _patch,
    "nodule": _patch,
    "atelectasis": _atelectasis,
    "edema": _edema,
}


def _device(scene: Scene, body: Body, lesion: Lesion) -> Mask:
    u = lesion.dice
    heart = (-0.18, body.heart_y + 0.12)
    if lesion.name == "endotracheal tube":
        lines = [(devices.curve([(-0.04, -1.1), (0.0, -0.75), (0.03, -0.36 + 0.10 * u[0])]), 0.026)]
    elif lesion.name == "enteric tube":
        end = (-0.05, body.dome + 0.26 + 0.10 * u[2])
        lines = [(devices.curve([(0.02, -1.1), (0.10, -0.5), (0.16, 0.0), (0.14, body.dome + 0.05), end]), 0.020)]
    elif lesion.name == "central venous catheter":
        lines = [(devices.curve([(-0.10, -1.1), (-0.14, -0.62), (-0.06, -0.35), (-0.04, -0.10 + 0.16 * u[0])]), 0.017)]
    else:
        x, y = -0.42, -0.44 + 0.08 * u[1]
        box = [(x - 0.03, y - 0.09), (x + 0.03, y - 0.09), (x + 0.04, y + 0.09), (x - 0.02, y + 0.09)]
        way = devices.curve(
            [(x, y - 0.08), (-0.20, -0.58), (-0.06, -0.35), (-0.02, 0.0), heart, (-0.34, heart[1] + 0.08)]
        )
        return devices.paint(scene, devices.ink(scene, [(way, 0.014)], [box]), 0.42)
    return devices.paint(scene, devices.ink(scene, lines), 0.27)
