"""One page about the headroom of a model: what a better choice among its own answers would give."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.evaluation import Way, definition
from radpref.report import charts
from radpref.report.render import page


def headroom_page(run: str, ways: Sequence[Way], names: Sequence[str], verdict: str, n: int) -> str:
    """HTML that needs no other file: the verdict, the gains of each metric as a chart, and the table.

    Args:
        run: the run's name.
        ways: greedy first.
        names: the metrics, the main one first.
        n: questions.
    """
    css = {"consensus": "after", "reference": "baseline"}
    drawn = []
    for name in names:
        rows = [
            charts.Estimate(way.name, css.get(way.name.split()[0], "before"), gain.difference, gain.low, gain.high)
            for way in ways
            if way.name != "reference" and (gain := way.gains.get(name)) is not None
        ]
        drawn.append((definition(name).title, charts.forest(rows, label=f"gain in {name}", zero=True)))
    kinds = [kind for kind in ways[0].errors if any(way.errors.get(kind) for way in ways)]
    titles = [definition(name).title for name in names]
    told = {"run": run, "verdict": verdict, "n": n, "ways": ways, "names": names}
    return page("headroom.html.j2", **told, titles=titles, kinds=kinds, charts=drawn)
