"""Methods: named lists of stages. Run them all, or one alone; each goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.config import Recipe
from radpref.names import NO_STUDIES, check_names
from radpref.runs.engine import engine_of
from radpref.runs.folder import Run, RunError
from radpref.runs.runner import State, check, keep_precision, run_stage, settled, states
from radpref.runs.stage import Road, Stage
from radpref.stages.align import ALIGN, CONTROL, GRPO, PREPARE
from radpref.stages.answers import ANSWER, PREDICT, SAMPLE, VALIDATE
from radpref.stages.corrupt import STAGE as CORRUPT
from radpref.stages.evaluate import STAGE as EVALUATE
from radpref.stages.ground import STAGE as GROUND
from radpref.stages.headroom import DRAW, MEASURE, PROBE
from radpref.stages.interpolate import STAGE as INTERPOLATE
from radpref.stages.judge import STAGE as JUDGE
from radpref.stages.mine import EMBED, MINE
from radpref.stages.pair import COUNTERFACTUAL, EDITED, GIVEN, RANKED
from radpref.stages.report import STAGE as REPORT
from radpref.stages.rounds import in_rounds
from radpref.stages.select import LAST
from radpref.stages.select import STAGE as SELECT
from radpref.stages.sft import STAGE as SFT
from radpref.stages.studies import STAGE as STUDIES
from radpref.stages.style import STAGE as STYLE

METHODS: dict[str, Road] = {
    "chexalign": [STUDIES, SFT, SAMPLE, JUDGE, RANKED, PREPARE, ALIGN, CONTROL, VALIDATE, SELECT, PREDICT, EVALUATE,
                  REPORT],
    "firempo": [STUDIES, SFT, ANSWER, EDITED, CORRUPT, PREPARE, ALIGN, CONTROL, VALIDATE, SELECT, PREDICT, GROUND,
                EVALUATE, REPORT],
    "chexpo": [STUDIES, SFT, ANSWER, JUDGE, EMBED, MINE, COUNTERFACTUAL, PREPARE, ALIGN, CONTROL, VALIDATE, SELECT,
               PREDICT, EVALUATE, REPORT],
    "grpo": [STUDIES, SFT, GRPO, VALIDATE, SELECT, PREDICT, EVALUATE, REPORT],
    "pairs": [STUDIES, SFT, GIVEN, PREPARE, ALIGN, CONTROL, VALIDATE, SELECT, PREDICT, EVALUATE, REPORT],
}  # fmt: skip
PAIRS_ALONE: Road = [SFT, GIVEN, PREPARE, ALIGN, LAST]
"""Method pairs where there are no studies: nothing can be measured, so nothing is."""


def road_of(recipe: Recipe) -> Road:
    """The stages of a run, in their order."""
    if recipe.method == "pairs" and recipe.data.source == NO_STUDIES:
        return PAIRS_ALONE
    road = METHODS[recipe.method]
    if recipe.select.interpolate:
        road = _with(road, road.index(VALIDATE), INTERPOLATE)
    road = in_rounds(road, recipe.align.rounds)
    if recipe.headroom.enabled:
        road = _with(road, road.index(SFT) + 1, DRAW, PROBE, MEASURE)
    return _with(road, road.index(PREDICT) + 1, STYLE) if recipe.evaluate.style else road


def _with(road: Road, at: int, *more: Stage) -> Road:
    """A road with further stages from a place on."""
    return [*road[:at], *more, *road[at:]]


def commands() -> dict[str, Stage]:
    """Every stage by name, once: what each is a command of."""
    return {stage.name: stage for road in (*METHODS.values(), [INTERPOLATE, STYLE]) for stage in road}


def run_all(run: Run, *, redo: bool = False) -> None:
    """Every stage in order. What is up to date is left alone.

    Raises:
        RunError: finished stages would be thrown away by a change, and ``redo`` is false.
    """
    _run(run, road_of(run.recipe), None, redo)


def run_stage_alone(run: Run, name: str, *, limit: int | None = None, redo: bool = False) -> None:
    """One stage.

    Raises:
        RunError: a stage that it needs has not finished, or only on what was there before a later change; the run's
            method has no such stage; or its results would be thrown away by a change, and ``redo`` is false.
    """
    road = road_of(run.recipe)
    stage = next((stage for stage in road if stage.name == name), None)
    if stage is None:
        raise RunError(f"{run.folder} is a run of {run.recipe.method}, whose stages are {_names(road)}.")
    _run(run, road, stage, redo, limit)


def run_road(run: Run, road: Road, *, redo: bool = False) -> None:
    """Other stages than the method's own, in their order: what a command measures beside it. Raises as `run_all`."""
    _run(run, road, None, redo)


def _run(run: Run, road: Road, only: Stage | None, redo: bool, limit: int | None = None) -> None:
    engine = engine_of(run.recipe)
    run.main = engine.processes.first
    check_names(run.loaded)
    recipe = engine.processes.share(settled(run))
    wanted = road if only is None else [only]
    check(wanted, recipe)
    with run.locked():
        found = engine.processes.share(states(run, road, recipe))
        if only is not None:
            _refuse_behind(run, road, only, found)
        if not redo:
            refuse_loss(run, wanted, found)
        run.note_recipe()
        keep_precision(run, recipe)
        for stage in wanted:
            if not redo and only is None:
                refuse_loss(run, [stage], engine.processes.share(states(run, road, recipe)))
            run_stage(run, road, stage, recipe, engine, limit=limit)


def _refuse_behind(run: Run, road: Road, stage: Stage, found: dict[str, State]) -> None:
    """Raises RunError where a stage would rest on what is not there."""
    if found[stage.name].basis is not None:
        return
    behind = next(one for one in road if found[one.name].finished != "yes")
    if found[behind.name].finished == "unknown":
        raise RunError(f"what `{behind.name}` made in {run.folder} cannot be told: {'; '.join(found[behind.name].why)}")
    how = "has not finished" if found[behind.name].finished == "no" else "has not gone over what changed before it"
    raise RunError(
        f"`{stage.name}` rests on what `{behind.name}` makes, which {how} in {run.folder}. "
        f"`radpref {behind.command or behind.name} {run.folder}` does that."
    )


def refuse_loss(run: Run, wanted: Sequence[Stage], found: dict[str, State]) -> None:
    """Raises RunError where finished results would be thrown away, and says which, by what change."""
    gone = [stage.name for stage in wanted if found[stage.name].finished == "outdated"]
    why = [f"{name}: {'; '.join(found[name].why)}" for name in gone if found[name].basis is not None]
    if why and gone:
        raise RunError(
            f"this would throw away finished results of {run.folder}.\n  "
            + "\n  ".join(why)
            + f"\nGiven up would be: {', '.join(gone)}. Add --redo to make them anew, or give another --out."
        )


def _names(road: Road) -> str:
    return ", ".join(stage.name for stage in road)
