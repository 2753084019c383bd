"""``radpref compare``: which runs are seeds of one method, what is refused, and what the table says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from radpref import config
from radpref.cli import app
from radpref.comparing import Finished, as_plain, compare_runs, methods_of, read_finished
from radpref.evaluation import over_seeds
from radpref.pipeline import road_of
from radpref.records import PatientCounts, Question
from radpref.runs.folder import Mark, Run, RunError
from radpref.runs.runner import basis_of, settled
from radpref.runs.stage import TableOf
from radpref.stages.ports import BY_PATIENT, TEST

PATIENTS = [f"p{n:02d}" for n in range(20)]
COLUMNS = ["green:asked", "green:n", "green:score", "studies", "words"]
SYSTEMS = {"sft": 0.5, "aligned": 0.6, "sft on chosen": 0.55}
Make = Callable[..., Path]


def made(
    folder: Path, *overrides: str, seed: int = 1, gain: float = 0.0, references: str = "x", judge: str = ""
) -> Path:
    """A run folder as its stages leave it, without any of their work: marks, test questions and sums by patient."""
    loaded = config.load("chexalign", overrides=[f"run.seed={seed}", f"data.phantom.seed={seed}", *overrides])
    run = Run(folder, loaded)
    folder.mkdir(parents=True)
    run.note_recipe()
    recipe, road, marks = settled(run), road_of(run.recipe), dict[str, Mark]()
    rng = np.random.default_rng(seed)
    person = rng.normal(0, 0.05, len(PATIENTS))
    rows = [
        PatientCounts(
            id=f"{name}:{patient}", system=name, patient=patient,
            counts={"green:asked": 1.0, "green:n": 1.0, "studies": 1.0, "words": 40.0 + 2 * seed,
                    "green:score": mean + (gain if name == "aligned" else 0.0) + person[at] + rng.normal(0, 0.02)},
        )
        for name, mean in SYSTEMS.items() for at, patient in enumerate(PATIENTS)
    ]  # fmt: skip
    questions = [
        Question(id=patient, study=patient, patient=patient, split="test", images=(), prompt="?",
                 reference=f"{references} {seed}")
        for patient in PATIENTS
    ]  # fmt: skip
    tables: dict[TableOf[Any], Sequence[Any]] = {BY_PATIENT: rows, TEST: questions}
    for stage in road:
        written = [port for port in stage.writes if isinstance(port, TableOf)]
        for port in written:
            run.table(stage.name, port).write(tables.get(port, ()))
        basis = basis_of(stage, road, marks, recipe)
        if judge and stage.name == "evaluate":
            basis = type(basis)(basis.config, {**basis.identity, "the judges' rules": judge}, basis.inputs)
        marks[stage.name] = Mark(
            basis=basis,
            tables={port.name: run.table(stage.name, port).digest() for port in written},
            counts={"systems": list(SYSTEMS), "columns": COLUMNS} if stage.name == "evaluate" else {},
        )
        run.finish(stage.name, marks[stage.name])
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda name, *overrides, **more: made(tmp_path / name, *overrides, **more)


def test_runs_that_differ_in_seeds_alone_are_seeds_of_one_method(make: Make) -> None:
    runs = [make("a1"), make("a2", seed=2), make("b1", "align.beta=0.3"), make("c1", "evaluate.resamples=200", seed=3)]
    methods = methods_of([read_finished(folder) for folder in runs])
    assert {one.name: list(one.runs) for one in methods} == {
        "chexalign align.beta=0.5": [(1, 1), (2, 2), (3, 3)],
        "chexalign align.beta=0.3": [(1, 1)],
    }


def test_what_is_compared_is_what_the_runs_have_counted(make: Make) -> None:
    folders = [make("a1"), make("a2", seed=2), make("b1", "align.beta=0.3", gain=0.2),
               make("b2", "align.beta=0.3", seed=2, gain=0.2)]  # fmt: skip
    found = compare_runs(folders, metrics=["green_mean"], against=["sft", "chexalign align.beta=0.5"])
    told = {(row.method, row.system): row for row in found.rows}
    plain, better = (told[f"chexalign align.beta={beta}", "aligned"] for beta in ("0.5", "0.3"))
    again = over_seeds("green_mean", {n: read_finished(folder).sums("aligned") for n, folder in enumerate(folders[:2])})
    assert plain.value == again
    assert plain.words == 43.0
    assert set(plain.differences) == {"sft"}
    assert set(better.differences) == {"sft", "chexalign align.beta=0.5"}
    against = better.differences["chexalign align.beta=0.5"]
    assert against.difference.value == pytest.approx(0.2)
    p = sorted(one.difference.p for row in (plain, better) for one in row.differences.values())
    assert min(one.p_holm for row in (plain, better) for one in row.differences.values()) == pytest.approx(3 * p[0])
    assert json.loads(json.dumps(as_plain(found)))["rows"]


def test_a_single_training_is_said_to_be_one(make: Make) -> None:
    one, two = make("a1"), make("a2", seed=2)
    alone = CliRunner().invoke(app, ["compare", str(one), "--metric", "green_mean"])
    assert alone.exit_code == 0, alone.output
    assert "one training: interval over patients alone; says nothing of another training" in alone.output
    both = CliRunner().invoke(app, ["compare", str(one), str(two), "--metric", "green_mean"])
    assert both.exit_code == 0, both.output
    assert "says nothing of another training" not in both.output
    assert "Student's t over trainings, each with its own test patients" in both.output


@pytest.mark.parametrize(
    ("second", "more", "words"),
    [
        ({}, (), "of one recipe and one seed run.seed 1, data.phantom.seed 1"),
        ({"references": "y", "gain": 0.1}, ("align.beta=0.3",), "tested on different questions or against different"),
        ({"judge": "another", "seed": 2}, (), "measured by different versions of the judges' rules"),
    ],
)
def test_runs_that_cannot_be_held_against_each_other_are_refused(
    make: Make, second: dict[str, Any], more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RunError, match=words):
        compare_runs([make("a"), make("b", *more, **second)])


def test_what_is_missing_is_named_with_what_to_do(make: Make, tmp_path: Path) -> None:
    folder = make("a")
    with pytest.raises(RunError, match="no system 'x'; measured are 'sft', 'aligned'"):
        compare_runs([folder], system="x")
    with pytest.raises(RunError, match=r"no baseline 'stf'.*Systems of these runs: sft, aligned"):
        compare_runs([folder], against=["stf"])
    with pytest.raises(RunError, match="there is no metric 'gren_mean'"):
        compare_runs([folder], metrics=["gren_mean"])
    with pytest.raises(RunError, match="against itself"):
        compare_runs([folder], against=["aligned"])
    with pytest.raises(RunError, match="holds no run"):
        compare_runs([tmp_path / "none"])
    mark = json.loads((folder / "evaluate" / "done.json").read_text("utf-8"))
    del mark["tables"]["by-patient"]
    (folder / "evaluate" / "done.json").write_text(json.dumps(mark), encoding="utf-8")
    with pytest.raises(RunError, match="kept no sums by patient"):
        compare_runs([folder])
    shutil.rmtree(folder / "evaluate")
    with pytest.raises(RunError, match="not been measured to the end"):
        compare_runs([folder])


def test_seeds_are_not_among_the_settings(make: Make) -> None:
    one: Finished = read_finished(make("a"))
    assert one.seed == (1, 1)
    assert "run.seed" not in one.settings
    assert one.columns == tuple(COLUMNS)
