"""What tests ask of a run folder: the rows, numbers and states that its stages have left, and stages put by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from radpref.pipeline import road_of
from radpref.records import Quarantined, Record
from radpref.run.context import QUARANTINED, Left
from radpref.run.folder import Mark, Run
from radpref.run.runner import basis_of, settled, states
from radpref.run.stage import Fact, Port, TableOf
from radpref.stages.ports import MODEL
from radpref.stages.sft import base

Row = TypeVar("Row", bound=Record)


# ------------------------------------------------------------------------------------------ what is there


def rows(run: Run, port: TableOf[Row]) -> list[Row]:
    """The rows of a finished table, by the last stage of the method that writes it."""
    table = Left(run, road_of(run.recipe)).table(port)
    assert table is not None, f"no finished {port.name} in {run.folder}"
    return list(table)


def fact(run: Run, port: Fact[Row]) -> Row:
    """What a finished stage has left as a fact."""
    found = Left(run, road_of(run.recipe)).fact(port)
    assert found is not None, f"no {port.name} in {run.folder}"
    return found


def quarantined(run: Run, stage: str) -> list[Quarantined]:
    """What a stage could not use."""
    return list(run.table(stage, QUARANTINED))


def mark(run: Run, stage: str) -> Mark:
    """The mark of a stage that has finished."""
    found = run.mark(stage)
    assert found is not None, f"{stage} has not finished in {run.folder}"
    return found


def counts(run: Run, stage: str) -> Mapping[str, Any]:
    """The numbers in a finished stage's mark."""
    return mark(run, stage).counts


def digest(run: Run, stage: str, port: TableOf[Row]) -> str:
    """Of a table's file."""
    return run.table(stage, port).digest()


def finished(run: Run) -> dict[str, str]:
    """Every stage's state in a word: yes, no, outdated, damaged."""
    return {name: state.finished for name, state in states(run, road_of(run.recipe)).items()}


def outdated(run: Run) -> list[str]:
    """The stages that are not up to date, in order."""
    return [name for name, state in finished(run).items() if state != "yes"]


def last_line(run: Run, stage: str) -> str:
    """What a stage said when it was done the last time."""
    said = [event["result"] for event in run.events() if event["stage"] == stage and event["event"] == "finished"]
    return str(said[-1])


def tables(folder: Path) -> dict[str, bytes]:
    """Every table of a run folder by its path in it, but for what is keyed by the images' times of change."""
    paths = [path for path in folder.glob("*/*.jsonl") if path.name != "images-checked.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------ put by hand


def copy(run: Run, folder: Path) -> Run:
    """A copy of a run elsewhere, which a test may change; models and images in it are links."""

    def put(one: str, other: str) -> None:
        if one.endswith((".png", ".safetensors", ".pt", ".bin")):
            Path(other).hardlink_to(one)
        else:
            shutil.copy2(one, other)

    shutil.copytree(run.folder, folder, copy_function=put, ignore=shutil.ignore_patterns(".lock"))
    return Run(folder)


def pretend(run: Run, until: str, tables: Mapping[TableOf[Any], Sequence[Record]]) -> None:
    """Mark every stage before ``until`` as finished: with the rows of ``tables``, where they write one of these.

    Other tables are empty, and the fine-tuned model is the one that the recipe names.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    run.note_recipe()
    recipe, road, marks = settled(run), road_of(run.recipe), dict[str, Mark]()
    for stage in road:
        if stage.name == until:
            return
        ports: tuple[Port, ...] = stage.writes
        written = [port for port in ports if isinstance(port, TableOf)]
        for port in written:
            run.table(stage.name, port).write(tables.get(port, ()))
        facts = {MODEL.name: base(run.recipe).model_dump(mode="json")} if MODEL in ports else {}
        digests = {port.name: run.table(stage.name, port).digest() for port in written}
        marks[stage.name] = Mark(basis=basis_of(stage, road, marks, recipe), tables=digests, facts=facts)
        run.finish(stage.name, marks[stage.name])
    raise AssertionError(f"{run.recipe.method} has no stage {until}")
