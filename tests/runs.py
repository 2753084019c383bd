"""What tests ask of a run folder: the rows, numbers and states that its stages have left, and stages put by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from radpref import config
from radpref.config import ModelSection
from radpref.pipeline import road_of, run_all
from radpref.records import Quarantined, Record
from radpref.rooms import models
from radpref.runs.context import QUARANTINED, Left
from radpref.runs.folder import Mark, Run
from radpref.runs.runner import basis_of, settled, states
from radpref.runs.stage import Fact, Port, TableOf
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

    shutil.copytree(run.folder, folder, copy_function=put)
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


# ------------------------------------------------------------------------------------------ whole runs

_SMALL = (
    "data.train=8", "data.validation=2", "data.test=3", "run.threads=1", "run.precision=float32",
    "sft.enabled=false", "sample.max_new_tokens=96", "align.batch=4", "align.save_steps=9", "align.lr=5e-4",
    "align.accumulate=1", "align.gradient_checkpointing=false", "evaluate.resamples=100", "report.studies=2",
    "report.pairs=2",
)  # fmt: skip
_OF_METHOD = {
    "chexalign": ("sample.n=2",),
    "firempo": ("ground.studies=1", "ground.placements=1", "ground.attention=false"),
    "chexpo": ("task.per_study=2", "sample.max_new_tokens=12", "mine.budget=8", "mine.k=2", "align.epochs=1",
               "evaluate.controls=[negated]"),
    "grpo": ("grpo.steps=1", "grpo.questions=3", "grpo.n=4", "grpo.unfinished=judged", "sample.max_new_tokens=48"),
    "pairs": ("data.source=phantom",),
}  # fmt: skip


def smallest_words(method: str) -> list[str]:
    """The same as words of the command line, behind ``run METHOD --out FOLDER``."""
    given = [one.partition("=") for one in (*_SMALL, *_OF_METHOD[method])]
    return ["--preset", "tiny", *(f"--{key}={value}" for key, _, value in given)]


def smallest(method: str, *overrides: str) -> config.Loaded:
    """The settings of the smallest run of a method that has something in every table."""
    return config.load(method, preset="tiny", overrides=[*_SMALL, *_OF_METHOD[method], *overrides])


class Whole:
    """The smallest run of each method, run once and then shared: whoever changes one takes a copy.

    All start from one copy of the built-in model, so that a test may change its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.model = folder / "model"

    def __call__(self, method: str) -> Run:
        """The finished run of a method."""
        folder = self._folder / method
        if not self.model.exists():
            shutil.copytree(models.locate(ModelSection()), self.model)
        if not folder.exists():
            given = [f"pair.file={self('chexalign').path('pair', 'pairs.jsonl')}"] if method == "pairs" else []
            run_all(Run(folder, smallest(method, f"model.path={self.model}", *given)))
        return Run(folder)
