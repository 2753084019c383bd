"""A run is safe from its user: nothing finished is thrown away, rewritten or overwritten without being told to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from radpref import files
from radpref.cli import app
from radpref.data import SOURCES, Found
from radpref.pipeline import METHODS, run_all, run_stage_alone
from radpref.records import Quarantined, Study
from radpref.runs.folder import Run, RunError
from radpref.runs.runner import _lower
from tests.runs import Whole, copy, everything, finished, outdated, smallest, tables

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("whole")]  # one worker: the tests share finished runs

STAGES = [stage.name for stage in METHODS["chexalign"]]


def radpref(*words: object) -> tuple[int, str]:
    """Exit status and output of a command in this process, its line breaks taken out."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def run(whole: Whole, tmp_path: Path) -> Run:
    """A finished run that may be spoilt."""
    return copy(whole("chexalign"), tmp_path / "run")


def again(run: Run, *words: object) -> tuple[int, str]:
    """The command that made the run, with other words: its own recipe stands elsewhere."""
    recipe = run.folder.with_name("recipe-of-the-run.yaml")
    recipe.write_bytes(run.path("recipe.yaml").read_bytes())
    return radpref("run", recipe, "--out", run.folder, *words)


# ------------------------------------------------------------------------------------------ a changed setting


@pytest.mark.parametrize(
    ("words", "told", "first"),
    [
        (("--data.train", "5"), "data.train was 8, is 5", "studies"),
        (("--sample.temperature", "0.9"), "sample.temperature was 1.0, is 0.9", "sample"),
        (("--align.beta", "0.7"), "align.beta was 0.5, is 0.7", "align"),
        (("--select.by", "text"), "the judge that selects has changed", "select"),
        (("--run.precision", "bfloat16"), "run.precision was 'float32', is 'bfloat16'", "sft"),
        (("--report.studies", "1"), "report.studies was 2, is 1", "report"),
    ],
)
def test_a_changed_setting_on_a_finished_run_is_refused(
    words: tuple[str, str], told: str, first: str, run: Run
) -> None:
    """The message says which setting, its old and new value, and what would be given up; no byte of the run changes."""
    before = everything(run.folder)
    status, said = again(run, *words)
    assert status == 2
    assert f"{first}: {told}" in said
    gone = said.partition("Given up would be: ")[2].partition(".")[0].split(", ")
    assert gone[0] == first
    assert gone[-1] == "report"
    assert gone == [name for name in STAGES if name in gone]
    assert "--redo" in said
    assert "--out" in said
    assert everything(run.folder) == before
    assert set(finished(Run(run.folder)).values()) == {"yes"}


def test_a_change_of_one_stage_is_refused_by_its_command(run: Run) -> None:
    before = everything(run.folder)
    status, said = radpref("select", run.folder, "--select.checkpoints", "false")
    assert status == 2
    assert "select.checkpoints was True, is False" in said or "`validate` makes" in said
    status, said = radpref("report", run.folder, "--report.pairs", "1")
    assert status == 2
    assert "report.pairs was 2, is 1" in said
    assert everything(run.folder) == before


def test_a_run_is_not_replaced_by_another_recipe(run: Run) -> None:
    before = everything(run.folder)
    status, said = radpref(
        "run", "chexalign", "--preset", "tiny", "--out", run.folder, "--model", run.recipe.model.path
    )
    assert status == 2
    assert "data.train was 8, is 32" in said
    assert everything(run.folder) == before


def test_redo_goes_through_and_only_what_depends_on_it_is_made_anew(run: Run) -> None:
    stamps = {name: run.path(name, "done.json").stat().st_mtime_ns for name in STAGES}
    status, said = radpref("report", run.folder, "--report.studies", "1", "--redo")
    assert status == 0, said
    assert Run(run.folder).recipe.report.studies == 1
    assert "studies: 1 " in run.path("recipe.yaml").read_text("utf-8").partition("\nreport:")[2]
    assert [name for name in STAGES if run.path(name, "done.json").stat().st_mtime_ns != stamps[name]] == ["report"]
    assert outdated(Run(run.folder)) == []
    status, said = again(run, "--pair.limit", "2", "--redo")
    assert status == 0, said
    assert Run(run.folder).recipe.pair.limit == 2
    assert outdated(Run(run.folder)) == []
    anew = [name for name in STAGES if run.path(name, "done.json").stat().st_mtime_ns != stamps[name]]
    assert {"pair", "align", "report"} <= set(anew)
    assert not {"sft", "sample", "judge"} & set(anew)


def test_a_setting_of_speed_is_no_change(run: Run) -> None:
    status, said = again(run, "--run.threads", "2", "--align.cache_features", "never")
    assert status == 0, said
    assert Run(run.folder).recipe.run.threads == 2


def test_what_has_not_finished_may_change(whole: Whole, tmp_path: Path) -> None:
    """A run that failed on the way goes on with a mended setting; nothing is thrown away by that."""
    run = Run(tmp_path / "run", smallest("chexalign", f"model.path={whole.model}", "pair.margin=1e9"))
    with pytest.raises(RunError, match="no question gave a pair"):
        run_all(run)
    assert finished(run)["judge"] == "yes"
    other = Run(run.folder, smallest("chexalign", f"model.path={whole.model}"))
    run_stage_alone(other, "pair")
    assert finished(Run(run.folder))["pair"] == "yes"


def test_data_that_changed_outside_throw_nothing_away_unasked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The studies are read anew each time; where they have changed, what rests on them is only given up when asked."""
    before = SOURCES["phantom"]

    def other(*given: Any) -> Found:
        found = before.find(*given)
        return replace(found, studies=[with_more_words(row) for row in found.studies])

    def with_more_words(row: Study | Quarantined) -> Study | Quarantined:
        changed = f"{row.findings} Good inspiration." if isinstance(row, Study) else ""
        return row.model_copy(update={"findings": changed} if changed else {})

    kept = [path for path in run.folder.glob("*/*") if path.is_file() and path.parent.name != "studies"]
    files = {path: path.read_bytes() for path in kept}
    monkeypatch.setattr("radpref.data.load.SOURCES", {**SOURCES, "phantom": replace(before, find=other)})
    status, said = again(run)
    assert status == 2
    assert "what studies/train holds has changed" in said
    assert "--redo" in said
    assert {path: path.read_bytes() for path in files} == files
    status, said = again(run, "--redo")
    assert status == 0, said
    assert outdated(Run(run.folder)) == []


# ------------------------------------------------------------------------------------------ a command that fails


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("align", "--align.loss", "dppo", "--redo"), "did you mean `dpo`"),
        (("align", "--align.betta", "1", "--redo"), "align.beta"),
        (("align", "--align.beta", "strong", "--redo"), "align.beta"),
        (("judge", "--judge.name", "chat", "--redo"), "judge.server"),
        (("judge", "--judge.name", "grean", "--redo"), "green"),
        (("sft", "--model", "no/such/model", "--redo"), "no/such/model"),
        (("sft", "--run.device", "banana", "--redo"), "banana"),
        (("studies", "--data.source", "phantoms", "--redo"), "phantom"),
        (("mine", "--redo"), "is a run of chexalign|No such command"),
        (("report", "--report.studies", "1"), "report.studies was 2, is 1"),
        (("validate", "--align.beta", "0.9", "--redo"), "`align` makes"),
    ],
)
def test_a_command_that_fails_changes_nothing(words: tuple[str, ...], message: str, run: Run) -> None:
    before = everything(run.folder)
    status, said = radpref(words[0], run.folder, *words[1:])
    assert status == 2
    assert re.search(message, said), said
    assert everything(run.folder) == before


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    for words in (
        ("--model", tmp_path / "none"),
        ("--judge.name", "chat"),
        ("--run.device", "banana"),
        ("--align.loss", "dppo"),
    ):
        status, _ = radpref("run", "chexalign", "--preset", "tiny", "--out", tmp_path / "run", *words)
        assert status == 2
        assert not (tmp_path / "run").exists(), words


# ------------------------------------------------------------------------------------------ what is not ours


@pytest.mark.parametrize(
    "content", ["method: chexalign\ndata: {train: 5}\n", "# notes of mine\n", "no: recipe: at all"]
)
def test_a_recipe_of_the_users_own_is_not_overwritten(content: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "recipe.yaml").write_text(content, encoding="utf-8")
    (mine / "studies").mkdir()
    (mine / "studies" / "notes.txt").write_text("mine", encoding="utf-8")
    before = everything(mine)
    status, said = radpref("run", "chexalign", "--preset", "tiny", "--out", mine)
    assert status == 2
    assert "--out" in said
    assert everything(mine) == before
    status, _ = radpref("run", mine / "recipe.yaml", "--preset", "tiny", "--out", mine)
    assert status == 2
    assert everything(mine) == before


def test_a_run_of_another_version_is_left_alone(run: Run) -> None:
    path = run.path("run.json")
    path.write_text(path.read_text("utf-8").replace('"format": ', '"format": 1'), encoding="utf-8")
    before = everything(run.folder)
    for words in (
        ("status", run.folder),
        ("report", run.folder),
        ("export", run.folder, "--to", "ids", run.folder / "x"),
    ):
        status, said = radpref(*words)
        assert status == 2
        assert "another version of radpref" in said
    assert everything(run.folder) == before
    status, said = again(run)
    assert status == 2, "a run that this version cannot read is not taken for an empty folder"
    assert everything(run.folder) == before


def test_an_export_leaves_its_neighbours_alone(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "place"
    for name in ("x.part", ".x.part", "x.unfinished", ".x", "part"):
        (place / name).mkdir(parents=True)
        (place / name / "mine.txt").write_text("mine", encoding="utf-8")
    (place / "x.txt").write_text("mine", encoding="utf-8")
    before = everything(place)
    for to in ("trl", "ids", "model"):
        status, said = radpref("export", run.folder, "--to", to, place / "x")
        assert status == 0, said
        made = {name: content for name, content in everything(place).items() if not name.startswith("x/")}
        assert made == before
        for path in (place / "x").iterdir():
            path.unlink()  # an empty folder may be written to
    run.path("pair", "done.json").unlink()
    assert radpref("export", run.folder, "--to", "trl", place / "y")[0] == 2
    assert everything(place) == before, "one that fails as well"
    (place / "x" / "mine.txt").write_text("mine", encoding="utf-8")
    assert radpref("export", run.folder, "--to", "model", place / "x")[0] == 2
    assert (place / "x" / "mine.txt").read_text("utf-8") == "mine"


# ------------------------------------------------------------------------------------------ rights


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def rights(folder: Path, since: int = 0) -> dict[str, int]:
    """Of every file and folder in a folder, and of itself, as far as it was made since a time."""
    found = [folder, *folder.rglob("*")]
    return {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777
        for path in found
        if not path.is_symlink() and path.stat().st_mtime_ns >= since and path.name != ".lock"
    }


def wrong(folder: Path, mask: int) -> dict[str, str]:
    """What has other rights than umask leaves."""
    return {
        name: oct(mode)
        for name, mode in rights(folder).items()
        if mode != (0o777 if (folder / name).is_dir() else 0o666) & ~mask
    }


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_a_run_has_the_rights_that_umask_leaves(mask: int, whole: Whole, tmp_path: Path) -> None:
    """Tables, images, checkpoints, marks, the log: a group shares a run, or nobody reads it, as its user wishes."""
    method = "grpo" if mask == 0o002 else "chexalign"
    stages = ("studies", "sft", "grpo") if method == "grpo" else ("studies", "sft")
    with umask(mask):
        given = (f"model.path={whole.model}", "sft.enabled=true", "sft.epochs=1", "run.shared=true")
        run = Run(tmp_path / "run", smallest(method, *given))
        for stage in stages:
            run_stage_alone(run, stage)
    assert any(path.suffix == ".safetensors" for path in run.folder.rglob("*"))
    assert any(path.suffix == ".png" for path in run.folder.rglob("*"))
    assert not wrong(run.folder, mask)


def test_nobody_else_looks_into_a_new_run_unless_it_is_shared(whole: Whole, tmp_path: Path) -> None:
    """A run holds reports. A folder that was there before keeps the rights that its user gave it."""
    (tmp_path / "given").mkdir(mode=0o750)
    (tmp_path / "given").chmod(0o750)
    with umask(0o022):
        for name, words in (("own", ()), ("shared", ("run.shared=true",)), ("given", ())):
            run = Run(tmp_path / name, smallest("chexalign", f"model.path={whole.model}", *words))
            run_stage_alone(run, "studies")
    found = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("own", "shared", "given")}
    assert found == {"own": 0o700, "shared": 0o755, "given": 0o750}


# ------------------------------------------------------------------------------------------ what killed writes leave


def litter(folder: Path, name: str, process: int = 2**22 + 1) -> Path:
    """What a process that is not there any more was writing, and what is not ours."""
    path = folder / f".{name}.{files._machine()}-{process}-0123abcd{files.UNFINISHED}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half", encoding="utf-8")
    return path


def test_what_killed_writes_leave_is_swept_and_is_no_part_of_a_run(run: Run) -> None:
    left = [litter(run.folder / place, "recipe.yaml") for place in (".", "judge", "judge/answers/ab", "align/beta-0.5")]
    assert outdated(Run(run.folder)) == [], "litter outdates nothing"
    before = tables(run.folder)
    status, said = radpref("report", run.folder)
    assert status == 0, said
    assert not [path for path in left if path.exists()]
    assert outdated(Run(run.folder)) == []
    assert tables(run.folder) == before


def test_an_export_sweeps_what_its_kin_left_and_nothing_else(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "place"
    dead = litter(place, "x")
    alive = litter(place, "y", os.getpid())
    mine = place / f".mine{files.UNFINISHED}"
    mine.write_text("mine", encoding="utf-8")
    assert radpref("export", run.folder, "--to", "ids", place / "x")[0] == 0
    assert not dead.exists()
    assert alive.exists()
    assert mine.exists()


@pytest.mark.parametrize("mask", [0o077, 0o002])
@pytest.mark.parametrize("to", ["model", "trl", "ids"])
def test_an_export_has_the_rights_that_umask_leaves(to: str, mask: int, whole: Whole, tmp_path: Path) -> None:
    with umask(mask):
        status, said = radpref("export", whole("chexalign").folder, "--to", to, tmp_path / "x")
    assert status == 0, said
    assert not wrong(tmp_path / "x", mask)


# ------------------------------------------------------------------------------------------ memory


def test_memory_that_does_not_suffice_says_what_to_lower(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocator's error in the middle of a stage: one message with the stage's own keys; the rest is kept."""
    from radpref.stages import report

    def short(*_: object) -> str:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
        )

    run.path("report", "done.json").unlink()
    before = tables(run.folder)
    with monkeypatch.context() as patched:
        patched.setattr(report._report, "__code__", short.__code__)
        status, said = radpref("report", run.folder)
    assert status == 2
    assert "memory does not suffice for `report`" in said
    assert "Lower" in said
    assert tables(run.folder) == before
    assert radpref("report", run.folder)[0] == 0


@pytest.mark.parametrize(
    ("stage", "key"),
    [("sample", "sample.batch"), ("align", "align.batch"), ("sft", "sft.batch"), ("evaluate", "data.train")],
)
def test_a_stage_names_the_keys_that_its_memory_grows_with(stage: str, key: str) -> None:
    (found,) = [one for one in METHODS["chexalign"] if one.name == stage]
    assert key in _lower(found)
