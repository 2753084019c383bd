"""Small inline SVG charts, drawn by functions: data in, ``Markup`` out.

Colours come from the page's CSS classes (``before``, ``after``, ``control``, ``baseline``, ...), so that one chart
serves light and dark. Charts are drawn 400 units wide, so that their text is legible on a phone. Points that are not
finite are left out, and a chart without any is empty markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

Point = tuple[float, float]
_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_MOST_POINTS = 300


@dataclass(frozen=True)
class Series:
    """A named line, cloud or set of bars; ``css`` is the class that colours it."""

    name: str
    css: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, one row of a forest plot."""

    name: str
    css: str
    value: float
    low: float | None = None
    high: float | None = None


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that lie within ``low`` and ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label: as few digits as tell it apart, with a true minus sign."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def lines(series: Sequence[Series], *, x: str, label: str, rule: float | None = None) -> Markup:
    """Lines over a common x; ``rule`` draws a dashed horizontal at a value that means something (chance, ln 2)."""
    drawn = [(one, _thinned(_finite(one.points))) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return Markup("")
    frame = _Frame.around([p for _, points in drawn for p in points], also_y=[rule] if rule is not None else [])
    body = [frame.axes(x)]
    if rule is not None:
        body.append(_line(_LEFT, frame.y(rule), _WIDTH - _RIGHT, frame.y(rule), "rule"))
    for one, points in drawn:
        if len(points) == 1:
            body.append(_dot(frame.x(points[0][0]), frame.y(points[0][1]), 3, f"dot {one.css}"))
            continue
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        body.append(
            Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(one.css, path, one.name)
        )
    return _svg(body, label)


def scatter(series: Sequence[Series], *, x: str, y: str, label: str, rule_x: float | None = None) -> Markup:
    """Clouds of points; ``rule_x`` draws a dashed vertical."""
    drawn = [(one, _finite(one.points)) for one in series]
    every = [point for _, points in drawn for point in points]
    if not every:
        return Markup("")
    frame = _Frame.around(every, also_x=[rule_x] if rule_x is not None else [])
    body = [frame.axes(x, y)]
    if rule_x is not None:
        body.append(_line(frame.x(rule_x), _TOP, frame.x(rule_x), _HEIGHT - _BOTTOM, "rule"))
    body += [_dot(frame.x(a), frame.y(b), 2.4, f"cloud {one.css}") for one, points in drawn for a, b in points]
    return _svg(body, label)


def histogram(series: Sequence[Series], *, x: str, label: str, bins: int = 24) -> Markup:
    """Overlaid outlines of distributions; the x of each point is counted, its y ignored."""
    values = [np.array([a for a, _ in _finite(one.points)]) for one in series]
    every = np.concatenate(values) if values else np.zeros(0)
    if not every.size:
        return Markup("")
    edges = np.histogram_bin_edges(every, bins=bins if np.ptp(every) > 0 else 1)
    heights = [np.histogram(one, edges)[0] for one in values]
    frame = _Frame.around([(float(edges[0]), 0.0), (float(edges[-1]), float(max(h.max() for h in heights)))])
    body = [frame.axes(x)]
    for one, height in zip(series, heights, strict=True):
        corners = [(float(edges[0]), 0.0)]
        for index, count in enumerate(height):
            corners += [(float(edges[index]), float(count)), (float(edges[index + 1]), float(count))]
        corners.append((float(edges[-1]), 0.0))
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in corners)
        body.append(
            Markup('<polygon class="area {}" points="{}"><title>{}</title></polygon>').format(one.css, path, one.name)
        )
    return _svg(body, label)


def forest(rows: Sequence[Estimate], *, label: str, zero: bool = False) -> Markup:
    """Values with their intervals, one row each, named at the left and written out at the right.

    ``zero`` draws the line of no difference and keeps it in view.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return Markup("")
    left, right, step, top = _name_width([row.name for row in rows]), 50, 24, 8
    height = top + step * len(rows) + 26
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None] + ([0.0] if zero else [])
    low, high = _padded(min(ends), max(ends))

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (_WIDTH - left - right)

    bottom = top + step * len(rows)
    body = []
    for tick in ticks(low, high):
        body.append(_line(place(tick), top, place(tick), bottom, "grid"))
        body.append(_text(place(tick), bottom + 15, number(tick), "tick middle"))
    if zero:
        body.append(_line(place(0), top, place(0), bottom, "rule"))
    for index, row in enumerate(rows):
        middle = top + step * (index + 0.5)
        body.append(_text(left - 8, middle + 4, row.name, "name end"))
        if row.low is not None and row.high is not None:
            body.append(_line(place(row.low), middle, place(row.high), middle, f"whisker {row.css}"))
        body.append(_dot(place(row.value), middle, 4, f"dot {row.css}"))
        text = f"{row.value:+.3f}" if zero else f"{row.value:.3f}"
        body.append(_text(_WIDTH - right + 8, middle + 4, text.replace("-", "−"), "value"))
    return _svg(body, label, height)


def bars(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    css: Mapping[str, str],
    *,
    label: str,
    form: Callable[[float], str],
) -> Markup:
    """Groups of horizontal bars: a row a category, a bar a series; ``css`` orders and colours the series."""
    rows = [(name, values) for name, values in rows if any(math.isfinite(v) for v in values.values())]
    if not rows or not css:
        return Markup("")
    left, right, bar, gap = _name_width([name for name, _ in rows]), 46, 10, 12
    step = bar * len(css) + gap
    height = step * len(rows) + 8
    top = max(v for _, values in rows for v in values.values() if math.isfinite(v)) or 1.0
    body = [_line(left, 4, left, height - 4, "axis")]
    for index, (name, values) in enumerate(rows):
        start = 4 + index * step + gap / 2
        body.append(_text(left - 8, start + bar * len(css) / 2 + 4, name, "name end"))
        for offset, (series, colour) in enumerate(css.items()):
            value = values.get(series, math.nan)
            if not math.isfinite(value):
                continue
            width = value / top * (_WIDTH - left - right)
            body.append(
                Markup(
                    '<rect class="bar {}" x="{}" y="{:.1f}" width="{:.1f}" height="{}"><title>{}</title></rect>'
                ).format(colour, left, start + bar * offset, max(width, 0.0), bar - 1.5, f"{series}: {form(value)}")
            )
            body.append(_text(left + width + 4, start + bar * offset + 7.6, form(value) if value else "0", "small"))
    return _svg(body, label, height)


def reliability(points: Sequence[tuple[float, float, int]], css: str, *, label: str) -> Markup:
    """Accuracy over confidence, both from 0 to 1: a dot a bin, its area its number of answers, beside the diagonal.

    ``points`` are (mean confidence, accuracy, answers).
    """
    points = [(a, b, n) for a, b, n in points if math.isfinite(a) and math.isfinite(b) and n > 0]
    if not points:
        return Markup("")
    frame = _Frame((-0.03, 1.03), (-0.05, 1.05))
    most = max(n for _, _, n in points)
    body = [
        frame.axes("confidence", "accuracy"),
        _line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "rule"),
        Markup('<polyline class="line {}" points="{}"/>').format(
            css, " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b, _ in points)
        ),
    ]
    for a, b, n in points:
        dot = _dot(frame.x(a), frame.y(b), round(1.5 + 6 * math.sqrt(n / most), 1), f"dot {css}")
        words = f"{n} answers: confidence {a:.2f}, accuracy {b:.2f}"
        body.append(Markup("<g>{}<title>{}</title></g>").format(dot, words))
    return _svg(body, label)


@dataclass(frozen=True)
class _Frame:
    """Data ranges and their place on the drawing."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @classmethod
    def around(cls, points: Sequence[Point], also_x: Sequence[float] = (), also_y: Sequence[float] = ()) -> _Frame:
        xs, ys = [*(a for a, _ in points), *also_x], [*(b for _, b in points), *also_y]
        return cls(_padded(min(xs), max(xs), 0.02), _padded(min(ys), max(ys)))

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x: str, y: str = "") -> Markup:
        parts = []
        for tick in ticks(*self.y_range):
            parts.append(_line(_LEFT, self.y(tick), _WIDTH - _RIGHT, self.y(tick), "grid"))
            parts.append(_text(_LEFT - 6, self.y(tick) + 4, number(tick), "tick end"))
        for tick in ticks(*self.x_range, about=5):
            parts.append(_text(self.x(tick), _HEIGHT - _BOTTOM + 15, number(tick), "tick middle"))
        parts.append(_line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis"))
        parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 4, x, "tick end"))
        if y:
            parts.append(_text(_LEFT, _HEIGHT - 4, f"↑ {y}", "tick"))
        return Markup("").join(parts)


def _name_width(names: Sequence[str]) -> float:
    """Room for the longest name at the left, at about 6 units a letter."""
    return min(12 + 6.4 * max(len(name) for name in names), 0.55 * _WIDTH)


def _padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    if high > low:
        return low - share * (high - low), high + share * (high - low)
    return low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(float(a), float(b)) for a, b in points if math.isfinite(a) and math.isfinite(b)]


def _thinned(points: list[Point]) -> list[Point]:
    """At most ``_MOST_POINTS`` points: means of neighbours, so that a long log stays a light page."""
    if len(points) <= _MOST_POINTS:
        return points
    return [
        (float(part[:, 0].mean()), float(part[:, 1].mean())) for part in np.array_split(np.array(points), _MOST_POINTS)
    ]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(css, x1, y1, x2, y2)


def _dot(x: float, y: float, radius: float, css: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(css, x, y, radius)


def _text(x: float, y: float, text: str, css: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(css, x, y, text)


def _svg(body: Sequence[Markup], label: str, height: float = _HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, label, Markup("").join(body)
    )
