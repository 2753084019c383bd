"""One page about the headroom of a model: what a better choice among its own answers would give."""

from __future__ import annotations

from typing import Any

from radpref.evaluation import definition
from radpref.records import Headroom
from radpref.report import charts
from radpref.report.environment import page


def headroom_page(run: str, found: Headroom) -> str:
    """HTML that needs no other file: the verdict, the gains of each metric as a chart, and the table."""
    return page("headroom.html.j2", run=run, headroom=shown(found))


def shown(found: Headroom) -> dict[str, Any]:
    """What the templates draw of it: the charts, and the heads of the table."""
    ways, names = found.ways, found.names
    css = {"consensus": "after", "reference": "baseline"}
    drawn = []
    for name in names:
        rows = [
            charts.Estimate(way.id, css.get(way.id.split()[0], "before"), gain.difference, gain.low, gain.high)
            for way in ways
            if way.id != "reference" and (gain := way.gains.get(name)) is not None
        ]
        drawn.append((definition(name).title, charts.forest(rows, label=f"gain in {name}", zero=True)))
    kinds = [kind for kind in ways[0].errors if any(way.errors.get(kind) for way in ways)]
    titles = [definition(name).title for name in names]
    return {"found": found, "titles": titles, "kinds": kinds, "charts": drawn}
