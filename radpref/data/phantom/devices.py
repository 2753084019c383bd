"""Tubes, lines and a pacemaker on a frontal image, drawn as bright polylines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from radpref.data.phantom.anatomy import Map, Mask, Scene
from radpref.data.phantom.patients import Body, Lesion

Point = tuple[float, float]
_OVER = 3  # supersampling of the pen


def curve(points: Sequence[Point], steps: int = 10) -> list[Point]:
    """A smooth line through ``points`` (Catmull-Rom)."""
    p = np.asarray([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = line.reshape(-1, 2).tolist()
    return [*((float(x), float(y)) for x, y in flat), points[-1]]


def ink(scene: Scene, lines: Sequence[tuple[Sequence[Point], float]], boxes: Sequence[Sequence[Point]] = ()) -> Map:
    """Cover of the pen, 0 to 1; points in the patient's frame, widths in half image widths."""
    size = scene.n * _OVER
    image = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(image)
    # The patient's frame is the image's, shifted, zoomed and sheared: read the map off its corners.
    x0, y0 = float(scene.x[0, 0]), float(scene.y[0, 0])
    dx = (float(scene.x[0, -1]) - x0) / (scene.n - 1)
    dy = (float(scene.y[-1, 0]) - y0) / (scene.n - 1)
    lean = (float(scene.x[-1, 0]) - x0) / (scene.n - 1)

    def pixel(point: Point) -> Point:
        row = (point[1] - y0) / dy
        return ((point[0] - x0 - lean * row) / dx + 0.5) * _OVER, (row + 0.5) * _OVER

    for points, width in lines:
        wide = max(_OVER, round(width / dx * _OVER))
        pen.line([pixel(p) for p in points], fill=255, width=wide, joint="curve")
    for box in boxes:
        pen.polygon([pixel(p) for p in box], fill=255)
    return np.asarray(image.reduce(_OVER), np.float32) * np.float32(1 / 255)


def paint(scene: Scene, cover: Map, bright: float) -> Mask:
    scene.solid += bright * cover
    return cover > 0.3


def endotracheal(scene: Scene, lesion: Lesion, body: Body, middle: float) -> Mask:
    """In the windpipe, its tip above the carina."""
    u = lesion.dice
    tip = -0.36 + 0.10 * u[0]
    x = middle + 0.008 + 0.012 * (u[1] - 0.5)
    points = curve([(x + 0.02 * (u[2] - 0.5), -1.1), (x, -0.7), (x, tip)])
    return paint(scene, ink(scene, [(points, 0.026)]), 0.30)


def enteric(scene: Scene, lesion: Lesion, body: Body, middle: float) -> Mask:
    """Down the midline, behind the heart, into the stomach under the left dome."""
    u = lesion.dice
    x = middle + 0.035 + 0.02 * (u[0] - 0.5)
    end = (0.26 + 0.10 * u[1], body.dome + 0.26 + 0.10 * u[2])
    points = curve([(x - 0.03, -1.1), (x - 0.012, -0.5), (x, 0.0), (x + 0.03, body.dome + 0.06), end])
    return paint(scene, ink(scene, [(points, 0.020)]), 0.25)


def central(scene: Scene, lesion: Lesion, body: Body, middle: float) -> Mask:
    """From the neck or from under the clavicle to the superior vena cava, right of the midline."""
    u = lesion.dice
    side = lesion.sides[0]
    cava = middle - body.mediastinum * 0.62
    tip = (cava, -0.12 + 0.16 * u[0])
    if u[1] < 0.5:
        start = [(side * 0.24, -1.1), (side * 0.17, -0.75)]
    else:
        start = [(side * (0.52 + 0.12 * u[2]), -0.66), (side * 0.32, body.clavicle - 0.02)]
    cross = [(cava if side < 0 else middle + 0.06, -0.48)] if side < 0 else [(0.05 + middle, -0.47)]
    points = curve([*start, *cross, (cava, -0.32), tip])
    return paint(scene, ink(scene, [(points, 0.017)]), 0.27)


def pacemaker(scene: Scene, lesion: Lesion, body: Body, middle: float) -> Mask:
    """A generator on the chest wall and one or two leads into the heart."""
    u = lesion.dice
    side = lesion.sides[0]
    x, y = side * (0.78 * body.width + 0.06 * (u[0] - 0.5)), -0.46 + 0.08 * u[1]
    wide, high, lean = 0.10 + 0.02 * u[2], 0.085 + 0.015 * u[3], 0.25 * (u[4] - 0.5)
    corner = [(-1, -0.6), (-0.6, -1), (0.6, -1), (1, -0.6), (1, 0.5), (0.5, 1), (-0.5, 1), (-1, 0.5)]
    box = [(x + wide * i + lean * high * j, y + high * j - lean * wide * i) for i, j in corner]
    cava = middle - body.mediastinum * 0.5
    half = body.heart * body.width
    way = [(x, y - high), (side * 0.34, -0.60), (side * 0.10 + middle, -0.46), (cava, -0.25)]
    atrium = (middle - 0.45 * half, 0.12)
    ventricle = (middle + 0.75 * half, body.heart_y + 0.22)
    lines = [(curve([*way, (cava - 0.02, 0.06), (middle + 0.1 * half, body.heart_y + 0.2), ventricle]), 0.014)]
    if u[5] < 0.6:
        lines.append((curve([*way, (cava + 0.02, 0.05), atrium]), 0.014))
    return paint(scene, ink(scene, lines, [box]), 0.42)


PAINTERS: dict[str, Callable[[Scene, Lesion, Body, float], Mask]] = {
    "endotracheal tube": endotracheal,
    "enteric tube": enteric,
    "central venous catheter": central,
    "pacemaker": pacemaker,
}
