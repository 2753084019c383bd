"""Charts of mining: the cells, what the quantile does, calibration, hit rates against random, rare findings."""

from __future__ import annotations

from markupsafe import Markup

from radpref.mining import CELLS, Calibration, Rate, Summary
from radpref.report import charts


def cells(summary: Summary) -> Markup:
    """How many answers are in each cell."""
    rows = [(name.replace("-", ", "), {"answers": float(summary.cells[name])}) for name in CELLS]
    return charts.bars(
        rows, {"answers": "before"}, label=f"cells of {summary.scored} answers", form=lambda value: f"{value:.0f}"
    )


def sensitivity(summary: Summary) -> Markup:
    """The hard set's size, and its overlap with the one in use, as the quantile moves: shares of 1."""
    whole = max(summary.scored, 1)
    return charts.lines(
        [
            charts.Series("hard, share of answers", "before", [(m.quantile, m.hard / whole) for m in summary.moved]),
            charts.Series("overlap (Jaccard)", "after", [(m.quantile, m.overlap) for m in summary.moved]),
        ],
        x="quantile of the cut",
        label="the hard set as the quantile moves",
    )


def calibration(found: Calibration, *, mass: bool = True) -> Markup:
    """Reliability plot, over bins of equal mass or of equal width."""
    bins, ece = (found.bins_mass, found.ece_mass) if mass else (found.bins_width, found.ece_width)
    kind = "mass" if mass else "width"
    return charts.reliability(
        [(one.confidence, one.accuracy, one.n) for one in bins],
        "before",
        label=f"reliability, bins of equal {kind}, expected calibration error {ece:.3f}, n {found.n}",
    )


def hits(summary: Summary) -> Markup:
    """Share of wrong answers: of random questions, by confidence, of neighbours of hard ones, of what was taken.

    Neighbours stand beside what random draws would have given for the same hard questions.
    """
    css = {"random": "baseline", "taken": "after"}
    rows = [_estimate(one, css.get(one.name, "before")) for one in summary.found]
    if summary.retrieval:
        retrieved, random = summary.retrieval.retrieved, summary.retrieval.random
        rows[1:1] = [
            _estimate(random.model_copy(update={"name": "random for hard"}), "baseline"),
            _estimate(retrieved.model_copy(update={"name": "neighbours of hard"}), "after"),
        ]
    return charts.forest(rows, label="share of wrong answers, with 95 % intervals")


def tail(summary: Summary) -> Markup:
    """The share of rare findings in the pool, among hard questions, with their neighbours, and after quotas."""
    css = {"pool": "baseline", "taken": "after"}
    rows = [_estimate(one, css.get(one.name, "before")) for one in summary.tail_shares]
    return charts.forest(
        rows,
        label=f"share of the {len(summary.tail)} rarest findings, with 95 % intervals",
    )


def _estimate(rate: Rate, css: str) -> charts.Estimate:
    value = float("nan") if rate.rate is None else rate.rate
    return charts.Estimate(rate.name, css, value, rate.low, rate.high)
