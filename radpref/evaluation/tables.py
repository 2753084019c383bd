"""The results as terminal tables and as the content of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from radpref.evaluation import vqa_metrics
from radpref.evaluation.baselines import BASELINES as REPORT_BASELINES
from radpref.evaluation.definitions import definition, headline
from radpref.evaluation.vqa import VQA_BASELINES
from radpref.records import Comparison, Metric

BASELINES = (*REPORT_BASELINES, *VQA_BASELINES)
_WAYS = {"higher": " ↑", "lower": " ↓", "neither": ""}


def terminal_table(
    metrics: Sequence[Metric],
    *,
    baselines: Sequence[str] = BASELINES,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Group:
    """Models, then trivial baselines, each in 80 columns: metrics down, systems across, value over interval.

    Without ``names``, those that head a table.
    """
    names = headline(metric.name for metric in metrics) if names is None else names
    systems = list(dict.fromkeys(metric.system for metric in metrics))
    models, trivial = ([name for name in systems if (name in baselines) == is_trivial] for is_trivial in (False, True))
    parts = ((title, models), ("trivial answers", trivial))
    return Group(*(_systems_table(metrics, some, names, heading) for heading, some in parts if some))


def _systems_table(metrics: Sequence[Metric], systems: Sequence[str], names: Sequence[str], title: str) -> Table:
    cells = {(metric.system, metric.name): metric for metric in metrics}
    rows = {name: [cells.get((system, name)) for system in systems] for name in names}
    rows = {name: row for name, row in rows.items() if any(cell and cell.value is not None for cell in row)}
    sizes = sorted({cell.n for row in rows.values() for cell in row if cell and cell.value is not None})
    unit = "questions" if any(name.startswith(vqa_metrics.PREFIX) for name in rows) else "studies"
    n = f"n = {' to '.join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))} {unit}; " if sizes else ""
    caption = f"{n}95 % intervals over patients"
    table = Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        caption=caption,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", width=19)
    for system in systems:
        table.add_column(Text(system), justify="right", max_width=9)
    for name, row in rows.items():
        table.add_row(definition(name).title + _WAYS[definition(name).better], *(_cell(cell) for cell in row))
    return table


def markdown_table(metrics: Sequence[Metric], *, baselines: Sequence[str] = BASELINES) -> str:
    """The headline metrics as Markdown, systems down and metrics across, each with its interval; n in the caption."""
    systems = list(dict.fromkeys(metric.system for metric in metrics))
    ordered = [name for name in systems if name not in baselines] + [name for name in systems if name in baselines]
    cells = {(metric.system, metric.name): metric for metric in metrics}
    names = headline(name for _, name in cells)
    lines = [
        "| metric | " + " | ".join(f"*{name}*" if name in baselines else name for name in ordered) + " | n |",
        "|---" * (len(ordered) + 2) + "|",
    ]
    for name in names:
        row = [cells.get((system, name)) for system in ordered]
        n = max((cell.n for cell in row if cell is not None), default=0)
        lines.append(f"| {definition(name).title} | " + " | ".join(_plain(cell) for cell in row) + f" | {n} |")
    return "\n".join(lines)


def comparison_table(comparisons: Sequence[Comparison], *, title: str = "") -> Table:
    """One row a paired test: difference, interval, p, and p after Holm's correction."""
    table = Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        caption="paired over patients; p from permutations",
        caption_justify="left",
    )
    table.add_column("")
    for heading in ("difference", "95 % interval", "p", "p (Holm)", "n"):
        table.add_column(heading, justify="right")
    for row in comparisons:
        better = definition(row.name).better
        gain = {"higher": row.difference, "lower": -row.difference, "neither": 0.0}[better]
        colour = "" if row.p >= 0.05 or not gain else "green" if gain > 0 else "red"
        table.add_row(
            Text(f"{definition(row.name).title}: {row.after} − {row.before}"),
            Text(_minus(f"{row.difference:+.3f}"), style=colour),
            _minus(f"{row.low:+.3f} to {row.high:+.3f}"),
            format_p(row.p),
            "" if row.p_holm is None else format_p(row.p_holm),
            str(row.n),
        )
    return table


def markdown_tests(comparisons: Sequence[Comparison]) -> str:
    """Paired tests as Markdown, one row each."""
    lines = ["| difference | value | 95 % interval | p | p (Holm) | n |", "|---|---|---|---|---|---|"]
    for row in comparisons:
        holm = "" if row.p_holm is None else format_p(row.p_holm)
        lines.append(
            f"| {definition(row.name).title}: {row.after} − {row.before} | {row.difference:+.3f} "
            f"| {row.low:+.3f} to {row.high:+.3f} | {format_p(row.p)} | {holm} | {row.n} |"
        )
    return "\n".join(lines)


def metrics_json(metrics: Sequence[Metric], comparisons: Sequence[Comparison], **more: Any) -> dict[str, Any]:
    """Every number with its n, interval and seed, and every key's rule in words; plain JSON types throughout."""
    names = dict.fromkeys([metric.name for metric in metrics] + [row.name for row in comparisons])
    return {
        "metrics": [metric.model_dump(mode="json") for metric in metrics],
        "comparisons": [row.model_dump(mode="json") for row in comparisons],
        "rules": {name: definition(name).rule for name in names},
        **more,
    }


def format_p(p: float) -> str:
    """``.032``; a p below .001 is given as such."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _cell(metric: Metric | None) -> Text:
    if metric is None or metric.value is None:
        return Text("–")
    value = Text(_short(metric.value, 3))
    if metric.low is not None and metric.high is not None:
        value.append(f"\n{_short(metric.low, 2)}–{_short(metric.high, 2)}", style="dim")
    return value


def _short(value: float, digits: int) -> str:
    """``.387``, ``1.02``, ``58.4``: no leading zero, about three figures."""
    if abs(value) >= 10:
        return f"{value:.1f}"
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if 0 <= value < 1 else text


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _plain(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"{metric.value:.3f}{interval}"
