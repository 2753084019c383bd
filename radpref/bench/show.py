"""The comparison as a table for the terminal, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from radpref.bench.measure import Row

_BAR, _LEFT, _STEP = 360, 210, 22


def table(rows: Sequence[Row]) -> Group:
    """Times and what stands behind them; a line a comparison."""
    times = Table(title="the same model, batch and data, in one run", title_justify="left")
    details = Table(title="a steady step, ours / the other's", title_justify="left")
    for name in ("shape", "objective", "phase", "against"):
        times.add_column(name)
    for name in ("ours s", "other s", "ratio", "overhead"):
        times.add_column(name, justify="right")
    for name in ("shape", "objective"):
        details.add_column(name)
    for name in ("peak MB", "tokens/s", "images encoded", "loss differs", "gradient", "of machine"):
        details.add_column(name, justify="right")
    for row in rows:
        phase = row.phase.replace("_", " ")
        overhead = "" if row.overhead is None else f"{row.overhead:.1%}"
        seconds = (f"{row.ours_s:.3f}", f"{row.other_s:.3f}", f"{row.ratio:.2f}x")
        times.add_row(row.shape, row.objective, phase, row.other, *seconds, overhead)
        if row.phase == "steady":
            details.add_row(
                row.shape,
                row.objective,
                _pair(row.ours_peak_mb, row.other_peak_mb),
                _pair(row.ours_tokens_s, row.other_tokens_s),
                _pair(row.ours_encodings, row.other_encodings),
                f"{row.loss_diff:.0e}",
                f"{row.grad_rel_diff:.0e}",
                "" if row.of_machine is None else f"{row.of_machine:.0%}",
            )
    return Group(times, details)


def _pair(ours: float | None, other: float | None) -> str:
    return "" if ours is None or other is None else f"{ours:.0f} / {other:.0f}"


def plot(rows: Sequence[Row]) -> str:
    """An SVG: how many times as fast, a bar a comparison; the line stands at 1."""
    most = max([row.ratio for row in rows] + [1.0])
    height = _STEP * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _BAR + 70} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<text x="4" y="14" font-weight="bold">times as fast as the other, same model, batch and data</text>',
    ]
    for number, row in enumerate(rows):
        top = 24 + number * _STEP
        width = row.ratio / most * _BAR
        label = f"{row.shape} {row.objective} {row.phase.replace('_', ' ')} ({row.other})"
        parts += [
            f'<text x="{_LEFT - 6}" y="{top + 13}" text-anchor="end" font-size="10">{_escaped(label)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_STEP - 5}" fill="#2b6cb0"/>',
            f'<text x="{_LEFT + width + 5:.1f}" y="{top + 13}">{row.ratio:.2f}</text>',
        ]
    line = _LEFT + _BAR / most
    parts.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="20" y2="{height - 8}" stroke="#c53030"/></svg>')
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
