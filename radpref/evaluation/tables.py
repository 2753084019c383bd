"""The results as a terminal table and as the content of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from radpref.evaluation.baselines import BASELINES
from radpref.evaluation.metrics import HEADLINE, METRICS
from radpref.records import Comparison, Metric


def terminal_table(
    metrics: Sequence[Metric],
    *,
    baselines: Sequence[str] = BASELINES,
    names: Sequence[str] = HEADLINE,
    title: str = "",
) -> Table:
    """Metrics down, systems across, in the order they come, with intervals; trivial baselines last and dim."""
    systems = list(dict.fromkeys(metric.system for metric in metrics))
    ordered = [name for name in systems if name not in baselines] + [name for name in systems if name in baselines]
    cells = {(metric.system, metric.name): metric for metric in metrics}
    table = Table(title=title or None, caption="95 % bootstrap intervals over patients", caption_justify="left")
    table.add_column("")
    for system in ordered:
        table.add_column(Text(system), justify="right", style="dim" if system in baselines else "")
    table.add_column("n", justify="right")
    for name in names:
        row = [cells.get((system, name)) for system in ordered]
        if any(cell is not None and cell.value is not None for cell in row):
            n = max(cell.n for cell in row if cell is not None)
            table.add_row(METRICS[name].title, *(_cell(cell) for cell in row), str(n))
    return table


def comparison_table(comparisons: Sequence[Comparison], *, title: str = "") -> Table:
    """One row a paired test: difference, interval, p, and p after Holm's correction."""
    table = Table(title=title or None, caption="paired over patients; p from permutations", caption_justify="left")
    table.add_column("")
    for heading in ("difference", "95 % interval", "p", "p (Holm)", "n"):
        table.add_column(heading, justify="right")
    for row in comparisons:
        better = METRICS[row.name].better
        gain = {"higher": row.difference, "lower": -row.difference, "neither": 0.0}[better]
        colour = "" if row.p >= 0.05 or not gain else "green" if gain > 0 else "red"
        table.add_row(
            Text(f"{METRICS[row.name].title}: {row.after} − {row.before}"),
            Text(f"{row.difference:+.3f}", style=colour),
            f"{row.low:+.3f} to {row.high:+.3f}",
            format_p(row.p),
            "" if row.p_holm is None else format_p(row.p_holm),
            str(row.n),
        )
    return table


def metrics_json(metrics: Sequence[Metric], comparisons: Sequence[Comparison], **more: Any) -> dict[str, Any]:
    """Every number with its n, interval and seed, and every key's rule in words; plain JSON types throughout."""
    names = dict.fromkeys([metric.name for metric in metrics] + [row.name for row in comparisons])
    return {
        "metrics": [metric.model_dump(mode="json") for metric in metrics],
        "comparisons": [row.model_dump(mode="json") for row in comparisons],
        "rules": {name: METRICS[name].rule for name in names if name in METRICS},
        **more,
    }


def format_p(p: float) -> str:
    """``.032``; a p below .001 is given as such."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
