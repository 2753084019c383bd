"""Bad input, full disks and moved folders on the command line: a clear message, exit status 2, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from radpref.cli import app
from radpref.data import phantom
from radpref.runs.folder import Run
from tests.runs import everything, tables
from tests.tiny import save_tiny

pytestmark = pytest.mark.heavy

SMALL = [
    *("run", "chexalign", "--preset", "tiny", "--data.train", "12", "--data.validation", "4", "--data.test", "6"),
    *("--sft.epochs", "1", "--align.beta", "0.5", "--run.precision", "float32"),
]
SECRET = "Zebraword"


def radpref(*words: str | Path) -> Result:
    """A command in this process. What is no explained error fails the test with its traceback."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def fails(*words: str | Path) -> str:
    """The message of a command that must end with status 2, its line breaks taken out."""
    done = radpref(*words)
    assert done.exit_code == 2, done.output[-2000:]
    return " ".join(done.output.split())


def works(*words: str | Path) -> str:
    done = radpref(*words)
    assert done.exit_code == 0, done.output[-2000:]
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made with a relative path that has a blank and an accent."""
    before, place = Path.cwd(), tmp_path_factory.mktemp("here")
    os.chdir(place)
    try:
        works(*SMALL, "--out", "a run é")
    finally:
        os.chdir(before)
    return place / "a run é"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy elsewhere that may be spoilt, while the run that it was copied from is not there."""
    copy = Path(shutil.copytree(made, tmp_path / "moved [/b]"))
    away = made.with_name("away")
    made.rename(away)
    yield copy
    away.rename(made)


# ------------------------------------------------------------------------------------------------ run folders


def test_a_run_folder_can_be_moved(run: Path, tmp_path: Path) -> None:
    before = tables(run)
    works("report", run)
    html = (run / "report.html").read_text("utf-8")
    assert html.count("data:image") >= 6
    assert "image missing" not in html
    works(*SMALL, "--out", run)
    assert tables(run) == before, "the same command in the new place recomputes something"
    works("evaluate", run, "--evaluate.resamples", "150", "--redo")
    works("export", run, "--to", "model", tmp_path / "exported model")
    assert (tmp_path / "exported model" / "model.safetensors").is_file()
    assert "is there already" in fails("export", run, "--to", "model", tmp_path / "exported model")


def test_a_change_makes_what_rests_on_it_outdated(run: Path, tmp_path: Path) -> None:
    behind = ["validate", "select", "predict", "evaluate", "report"]
    told = fails("align", run, "--align.loss", "ipo")
    assert "align.loss was 'dpo', is 'ipo'" in told
    works("align", run, "--align.loss", "ipo", "--redo")
    status = works("status", run)
    lines = [line.split("│") for line in status.splitlines() if "outdated" in line]
    assert [line[1].strip() for line in lines] == behind
    assert "radpref validate" in fails("evaluate", run)
    assert "trained anew" in fails("export", run, "--to", "model", tmp_path / "x")
    assert "older than a later change" in " ".join(works("results", run).split())
    assert "--redo" in fails("validate", run)
    for stage in behind:
        assert "outdated" in works("status", run)
        works(stage, run, "--redo")
    assert "outdated" not in works("status", run)


def test_a_limit_does_a_part_and_says_so(run: Path) -> None:
    shutil.rmtree(run / "prepare")
    assert "8 answers done (--limit)" in works("prepare", run, "--limit", "8")
    assert not (run / "prepare" / "done.json").exists()
    works("prepare", run)
    assert (run / "prepare" / "done.json").exists()
    (run / "evaluate" / "done.json").unlink()
    works("evaluate", run, "--limit", "2")
    assert "part of the studies" in " ".join(works("results", run).split())
    assert "has not finished" in fails("report", run)


@pytest.mark.parametrize(
    "name", ["metrics.json", "evaluate/metrics.jsonl", "align/beta-0.5", "studies/train.jsonl", "sft/training"]
)
def test_what_was_deleted_is_made_again(name: str, run: Path) -> None:
    before, path = tables(run), run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "has not finished" in fails("report", run)
    works(*SMALL, "--out", run)
    assert path.exists()
    assert tables(run) == before


def test_a_page_that_was_deleted_is_made_again(run: Path) -> None:
    (run / "report.html").unlink()
    works("report", run)
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("name", ["sft/done.json", "metrics.json", "run.json"])
def test_a_file_changed_by_hand_is_named(name: str, run: Path) -> None:
    (run / name).write_text("{", encoding="utf-8")
    command = "results" if name == "metrics.json" else "status"
    assert Path(name).name in fails(command, run)


def test_paths_do_not_depend_on_where_a_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_studies(tmp_path / "data", {})
    monkeypatch.chdir(tmp_path)
    limits = ("--data.train", "3", "--data.validation", "1", "--data.test", "1")
    fails(*SMALL, "--data", "table", "--data.root", "data", "--out", "r", *limits, "--sample.n", "1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    works("studies", "../r")


def test_ctrl_c_is_no_crash(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from radpref.stages import report

    def stopped(*_: object) -> str:
        raise KeyboardInterrupt

    (run / "report" / "done.json").unlink()
    monkeypatch.setattr(report._report, "__code__", stopped.__code__)
    done = radpref("report", run)
    assert done.exit_code == 130
    assert "goes on" in done.output


# ------------------------------------------------------------------------------------------------ a full disk


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: what a full disk is to a program, within this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        ("studies", 9_000),  # in the table
        ("sft", 50_000),  # the weights of a checkpoint
        ("sft", 12_000_000),  # the optimiser's state
        ("sample", 9_000),
        ("judge", 9_000),
        ("align", 50_000),
        ("align", 1_500_000),
        ("control", 50_000),
        ("predict", 9_000),
        ("evaluate", 9_000),
        ("report", 50_000),
    ],
)
def test_a_full_disk_is_explained_and_the_same_command_goes_on(
    stage: str, size: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(run)
    for path in (run / stage).glob("*"):
        if path.name != "phantom":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with monkeypatch.context() as patched, files_up_to(size):
        patched.setattr(Run, "note_recipe", lambda run: None)  # recipe.yaml would be the first that is too large
        told = fails(stage, run)
    assert "make room" in told.lower()
    assert re.search(rf"cannot [^:]*/({stage}|report\.html)", told), "in the stage's own folder"
    works(stage, run)
    assert tables(run) == before


def test_a_disk_without_room_for_the_recipe_leaves_the_run_as_it_was(run: Path) -> None:
    before = everything(run)
    with files_up_to(9_000):
        assert "make room" in fails("report", run, "--report.studies", "3", "--redo")
    assert everything(run) == before
    assert "outdated" not in works("status", run)


def test_an_export_onto_a_full_disk_leaves_nothing_half(run: Path, tmp_path: Path) -> None:
    with files_up_to(1_000_000):
        assert "make room" in fails("export", run, "--to", "model", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    works("export", run, "--to", "model", tmp_path / "x")


# ------------------------------------------------------------------------------------------------ data


def write_studies(folder: Path, change: dict[str, object]) -> None:
    """A table of 8 studies; ``change`` is put into every row."""
    folder.mkdir()
    rows = []
    for index in range(8):
        drawn = phantom.draw(index, seed=3, size=64)
        Image.fromarray(drawn.image).save(folder / f"{index}.png")
        report = f"{SECRET}. {drawn.report.findings}"
        split = ("train", "train", "train", "validation", "test")[index % 5]
        keys = {"id": f"{SECRET}{index}", "patient": f"{SECRET}{index}"}
        row = {**keys, "images": [f"{index}.png"], "findings": report, "split": split}
        rows.append(json.dumps({**row, **change}))
    (folder / "studies.jsonl").write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({}, ["--data.table.images", "findings"], "image missing|image broken|image not readable"),
        ({"images": ["../../etc/passwd"]}, [], "leads out"),
        ({"findings": "XXXX"}, [], "no findings"),
        ({"findings": "Clear. " * 9000}, [], "too long"),
        ({"images": []}, [], "no images"),
        ({"id": "same"}, [], "split|duplicate"),
        ({}, ["--data.table.findings", "finding"], "did you mean 'findings'"),
        ({}, ["--data.table.split", "findings"], "no cell of that column"),
    ],
)
def test_data_that_cannot_be_used_is_explained_without_its_text(
    change: dict[str, object], words: list[str], message: str, tmp_path: Path
) -> None:
    write_studies(tmp_path / "data", change)
    out = tmp_path / "run"
    told = fails(*SMALL, "--out", out, "--data", "table", "--data.root", tmp_path / "data", *words)
    assert re.search(message, told), told
    assert SECRET not in told
    assert SECRET not in (out / "events.jsonl").read_text("utf-8")


# ------------------------------------------------------------------------------------------------ models


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llava", tmp_path_factory.mktemp("models") / "llava")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% for %}"), "chat template"),
        (cut("model.safetensors", 5000), "weights of .* do not load.*again"),
        (cut("model.safetensors", 0), "weights of .* do not load.*again"),
        (cut("config.json", 40), "config.json is no JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
        (cut("tokenizer.json", 300), "processor of .* cannot be loaded"),
        (lambda folder: (folder / "processor_config.json").unlink(), "processor"),
    ],
)
def test_a_damaged_model_is_explained(
    damage: Callable[[Path], object], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    damage(model)
    told = fails(*SMALL, "--out", tmp_path / "run", "--model", model)
    assert re.search(message, told), told


def test_an_adapter_is_looked_at_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    words = (*SMALL, "--out", tmp_path / "run", "--model", tiny_model, "--model.adapter")
    assert "adapter_config.json" in fails(*words, tmp_path / "none")
    assert not (tmp_path / "run" / "studies").exists()


def test_a_device_is_looked_for_before_any_work(tmp_path: Path) -> None:
    assert "banana" in fails(*SMALL, "--out", tmp_path / "run", "--run.device", "banana")
    assert not (tmp_path / "run" / "studies").exists()


def test_limit_never_raises_what_the_recipe_says(tmp_path: Path) -> None:
    printed = works("run", "chexalign", "--preset", "tiny", "--limit", "14", "--print-recipe")
    data = printed.partition("data:")[2]
    for split, count in {"train": 14, "validation": 12, "test": 14}.items():
        assert f"  {split}: {count}  #" in data
