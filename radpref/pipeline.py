"""The stages in their order: run them all, or one alone; each resumes where it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table as RichTable

from radpref import stages
from radpref.config import Recipe
from radpref.files import disk_errors
from radpref.run.folder import Run, RunError, stopwatch


@dataclass(frozen=True)
class Stage:
    """One step of the road.

    Attributes:
        name: also its folder in the run folder and its command.
        work: does what is missing, at most ``limit`` items of it, and returns a line about what is there now.
        needs: the stages whose results it reads.
        judging: it may ask the recipe's judge, whose server or package must then be there.
        command: its command, where that is not its name.
    """

    name: str
    work: Callable[[Run, int | None], str]
    needs: tuple[str, ...] = ()
    judging: bool = False
    command: str = ""


STAGES = (
    Stage("studies", stages.studies),
    Stage("sft", stages.sft, ("studies",)),
    Stage("sample", stages.sample, ("studies", "sft")),
    Stage("judge", stages.judge, ("studies", "sample"), judging=True),
    Stage("pair", stages.pair, ("studies", "sample", "judge")),
    Stage("prepare", stages.prepare, ("pair", "sft")),
    Stage("align", stages.align, ("pair", "prepare", "sft")),
    Stage("select", stages.select, ("studies", "sft", "align"), judging=True),
    Stage("control", stages.control, ("studies", "pair", "sft"), judging=True),
    Stage("evaluate", stages.evaluate, ("studies", "sft", "select", "control")),
    Stage("report", stages.report, ("evaluate",)),
)

METHODS: dict[str, tuple[Stage, ...]] = {
    "chexalign": STAGES,
    "grpo": (
        *STAGES[:2],
        Stage("grpo", stages.grpo, ("studies", "sft"), judging=True),
        Stage("evaluate", stages.evaluate, ("studies", "sft", "grpo")),
        Stage("report", stages.report, ("evaluate",)),
    ),
    "firempo": (
        *STAGES[:2],
        Stage("answer", stages.own_answers, ("studies", "sft")),
        Stage("pair", stages.edited_pairs, ("studies", "answer")),
        Stage("corrupt", stages.corrupt, ("pair", "sft"), command="corrupt pairs"),
        Stage("prepare", stages.prepare, ("corrupt", "sft")),
        Stage("align", stages.align, ("corrupt", "prepare", "sft")),
        *STAGES[-4:-2],
        Stage("ground", stages.ground, ("studies", "sft", "select", "control")),
        Stage("evaluate", stages.evaluate, ("studies", "sft", "select", "control", "ground")),
        STAGES[-1],
    ),
    "chexpo": (
        *STAGES[:2],
        Stage("mine", stages.mine, ("studies", "sft")),
        Stage("pair", stages.counterfactual_pairs, ("studies", "mine")),
        *STAGES[-6:],
    ),
    "pairs": (
        *STAGES[:2],
        Stage("pair", stages.given_pairs, ("studies",)),
        *(stage for stage in STAGES if stage.name in ("prepare", "align", "select", "control", "evaluate", "report")),
    ),
}
"""The stages of each method, in their order."""

PAIRS_ALONE = (
    Stage("sft", stages.sft),
    Stage("pair", stages.given_pairs),
    *(stage for stage in STAGES if stage.name in ("prepare", "align")),
    Stage("select", stages.select, ("sft", "align")),
)
"""The road of method pairs where there are no studies: nothing can be measured, so nothing is."""


def road_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a run, in their order."""
    alone = recipe.method == "pairs" and recipe.data.source == stages.NO_STUDIES
    return PAIRS_ALONE if alone else METHODS[recipe.method]


def run_all(run: Run) -> None:
    """Every stage in order. What is up to date is left alone."""
    with run.opened():
        stages.check(run, judging=any(stage.judging for stage in road_of(run.recipe)))
        for stage in road_of(run.recipe):
            _work(run, stage, None)


def run_stage(run: Run, name: str, *, limit: int | None = None) -> None:
    """One stage alone.

    Raises:
        RunError: a stage that it needs has not finished, or only on what was there before a later change; or the
            run's method has no such stage.
    """
    road = {stage.name: stage for stage in road_of(run.recipe)}
    if name not in road:
        raise RunError(f"{run.folder} is a run of {run.recipe.method}, whose stages are {', '.join(road)}.")
    stage, state = road[name], states(run)
    behind = [need for need in state if need in _road_to(name, road) and state[need] != "yes"]
    if behind:
        how = "has not finished" if state[behind[0]] == "no" else "has not gone over what changed before it"
        raise RunError(
            f"`{name}` rests on what `{behind[0]}` makes, which {how} in {run.folder}. "
            f"`radpref {road[behind[0]].command or behind[0]} {run.folder}` does that."
        )
    with run.opened():
        stages.check(run, judging=stage.judging)
        _work(run, stage, limit)


def _work(run: Run, stage: Stage, limit: int | None) -> None:
    run.event(stage.name, "started", limit=limit)
    with stopwatch() as seconds, disk_errors(run.path(stage.name)):
        line = stage.work(run, limit)
        run.stamp(stage.name, {need: (run.done(need) or {})["key"] for need in stage.needs})
    run.event(stage.name, "finished", seconds=seconds[0], result=line)
    print(f"{stage.name:9} {line}  [{seconds[0]:.1f} s]", file=sys.stderr, flush=True)


def _road_to(name: str, road: Mapping[str, Stage]) -> set[str]:
    """The stages that a stage rests on, those that these rest on, and so on."""
    needs = road[name].needs
    return set(needs).union(*(_road_to(need, road) for need in needs))


def states(run: Run) -> dict[str, str]:
    """For each stage in order: ``yes``, it has finished; ``no``; ``outdated``, what it was made from has changed."""
    road = road_of(run.recipe)
    marks = {stage.name: run.done(stage.name) for stage in road}
    found: dict[str, str] = {}
    for stage in road:
        mark = marks[stage.name]
        inputs = (mark or {}).get("inputs", {})
        current = all(found[n] == "yes" and inputs.get(n) == (marks[n] or {})["key"] for n in stage.needs)
        found[stage.name] = "no" if mark is None else "yes" if current else "outdated"
    return found


def status_table(run: Run) -> RichTable:
    """A row a stage: finished or not, the last result line, the seconds it took in all sittings."""
    finished = [event for event in run.events() if event["event"] == "finished" and event["result"] != "up to date"]
    last = {event["stage"]: event["result"] for event in finished}
    spent = run.seconds()
    state = states(run)
    table = RichTable("stage", "finished", "result", "seconds", title=escape(str(run.folder)), title_justify="left")
    for stage in road_of(run.recipe):
        line = escape(last.get(stage.name, ""))
        table.add_row(stage.name, state[stage.name], line, f"{spent.get(stage.name, 0.0):.1f}")
    return table
