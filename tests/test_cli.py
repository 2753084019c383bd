"""The command line: errors without traceback, status 2, and the light commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from radpref import __version__
from radpref.cli import app
from radpref.cli.terminal import overrides
from radpref.config import RecipeError

run = CliRunner().invoke


def test_version_and_help() -> None:
    assert __version__ in run(app, ["--version"]).stdout
    listing = run(app, ["--help"]).stdout
    for command in ("run", "sample", "judge", "align", "evaluate", "report", "doctor", "data", "status"):
        assert command in listing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "chexaling"], "chexalign"),
        (["run", "chexalign", "--align.betta", "1"], "beta"),
        (["run", "chexalign", "--align.beta"], "needs a value"),
        (["run", "chexalign", "--align.beta", "strong"], "align.beta"),
        (["run", "chexalign", "stray"], "belongs to no option"),
        (["run", "chexalign", "--preset", "tny"], "tiny"),
        (["sample", "no/such/run"], "holds no run"),
        (["results", "no/such/run"], "holds no run"),
    ],
)
def test_a_mistake_is_explained_without_a_traceback(words: list[str], message: str) -> None:
    done = run(app, words)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_print_recipe_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(app, ["run", "chexalign", "--print-recipe", "--align.loss", "kto"])
    assert done.exit_code == 0
    assert "loss: kto" in done.stdout
    assert "[the command line]" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_overrides_take_both_forms_and_negative_numbers() -> None:
    assert overrides(["--align.beta", "0.05", "--align.loss=kto", "--data.test", "-1"]) == [
        "align.beta=0.05",
        "align.loss=kto",
        "data.test=-1",
    ]
    with pytest.raises(RecipeError):
        overrides(["--align.beta", "--align.loss", "kto"])


def test_doctor_tells_what_is_missing() -> None:
    done = run(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for word in ("torch", "cores", "bfloat16", "radeval"):
        assert word in done.stdout


def test_data_preview_draws_a_sheet(tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    done = run(app, ["data", "preview", "--to", str(target), "--count", "3"])
    assert done.exit_code == 0, done.output
    with Image.open(target) as sheet:
        assert min(sheet.size) > 200
