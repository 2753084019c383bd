"""The stages in their order: run them all, or one alone; each resumes where it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table as RichTable

from radpref import stages
from radpref.runfolder import Run, RunError, stopwatch


@dataclass(frozen=True)
class Stage:
    """One step of the road.

    Attributes:
        name: also its folder in the run folder and its command.
        work: does what is missing, at most ``limit`` items of it, and returns a line about what is there now.
        needs: the stages whose results it reads.
    """

    name: str
    work: Callable[[Run, int | None], str]
    needs: tuple[str, ...] = ()


STAGES = (
    Stage("studies", stages.studies),
    Stage("sft", stages.sft, ("studies",)),
    Stage("sample", stages.sample, ("studies", "sft")),
    Stage("judge", stages.judge, ("studies", "sample")),
    Stage("pair", stages.pair, ("studies", "sample", "judge")),
    Stage("prepare", stages.prepare, ("pair", "sft")),
    Stage("align", stages.align, ("pair", "prepare", "sft")),
    Stage("select", stages.select, ("studies", "sft", "align")),
    Stage("control", stages.control, ("studies", "pair", "sft")),
    Stage("evaluate", stages.evaluate, ("studies", "sft", "select", "control")),
    Stage("report", stages.report, ("evaluate",)),
)


def run_all(run: Run) -> None:
    """Every stage in order. What is up to date is left alone."""
    with run.opened():
        stages.check(run)
        for stage in STAGES:
            _work(run, stage, None)


def run_stage(run: Run, name: str, *, limit: int | None = None) -> None:
    """One stage alone.

    Raises:
        RunError: a stage that it needs has not finished.
    """
    stage = next(stage for stage in STAGES if stage.name == name)
    missing = [need for need in stage.needs if run.done(need) is None]
    if missing:
        raise RunError(
            f"`{name}` reads what `{missing[0]}` makes, which has not finished in {run.folder}. "
            f"`radpref {missing[0]} {run.folder}` finishes it."
        )
    with run.opened():
        stages.check(run)
        _work(run, stage, limit)


def _work(run: Run, stage: Stage, limit: int | None) -> None:
    run.event(stage.name, "started", limit=limit)
    with stopwatch() as seconds:
        line = stage.work(run, limit)
    run.event(stage.name, "finished", seconds=seconds[0], result=line)
    print(f"{stage.name:9} {line}  [{seconds[0]:.1f} s]", file=sys.stderr, flush=True)


def status_table(run: Run) -> RichTable:
    """A row a stage: finished or not, the last result line, the seconds it took in all sittings."""
    last = {event["stage"]: event["result"] for event in run.events() if event["event"] == "finished"}
    spent = run.seconds()
    table = RichTable("stage", "finished", "result", "seconds", title=str(run.folder), title_justify="left")
    for stage in STAGES:
        done = "yes" if run.done(stage.name) else "no"
        table.add_row(stage.name, done, last.get(stage.name, ""), f"{spent.get(stage.name, 0.0):.1f}")
    return table
