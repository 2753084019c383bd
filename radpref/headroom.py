"""``radpref headroom``: before any training, whether alignment can help this model on these studies."""

from __future__ import annotations

from radpref.pipeline import road_of, run_road
from radpref.runs.folder import Run, RunError
from radpref.stages.headroom import DRAW, MEASURE, PAGE, PROBE


def headroom_of(run: Run, *, redo: bool = False) -> str:
    """Do what is missing of studies, fine-tuning, drawing and measuring; returns the page's path.

    Raises:
        RunError: the run has no studies; or finished results would be thrown away by a change, and ``redo`` is false.
    """
    road = road_of(run.recipe)
    if road[0].name != "studies":
        raise RunError(f"{run.folder} has pairs and no studies, so that there is nothing to measure on.")
    run_road(run, [*road[:2], DRAW, PROBE, MEASURE], redo=redo)
    return str(run.path(PAGE))
