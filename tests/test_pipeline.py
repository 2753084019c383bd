"""The whole road on the built-in world: finished tables do not depend on kills, and changes recompute little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from radpref import config
from radpref.pipeline import METHODS, run_all, run_stage_alone
from radpref.records import Question, Weights
from radpref.runs.folder import Run
from radpref.stages import answers as answering
from radpref.stages import judge as judging
from radpref.stages.ports import CHOICE, JUDGEMENTS, PREDICTED
from tests.runs import copy, fact, finished, last_line, rows, tables

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("pipeline")]  # one worker: the tests share a finished run

RECIPE = ["chexalign", "--preset", "tiny"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}

KILLS = [
    ("studies", "studies/phantom/**/*.png"),
    ("sft", ""),
    ("sft", "sft/training/checkpoint-2/trainer_state.json"),
    ("sample", "sample/completions.part0"),
    ("judge", ""),
    ("pair", ""),
    ("prepare", ""),
    ("align", "align/*/checkpoint-2/trainer_state.json"),
    ("control", "control/*/checkpoint-2/trainer_state.json"),
    ("validate", "validate/validated.part0"),
    ("predict", "predict/predicted.part0"),
    ("evaluate", ""),
]
"""Stage, and the file whose appearance while it works is the moment of the kill; none is the stage's first moment."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "radpref", *words]


def radpref(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    done = radpref("run", *RECIPE, "--out", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def events(folder: Path) -> list[tuple[str, str]]:
    begun = (folder / "run.json").exists() and (folder / "recipe.yaml").exists()
    return [(event["stage"], event["event"]) for event in Run(folder).events()] if begun else []


def kill_in(folder: Path, stage: str, sign: str) -> str:
    """Start the run, kill it in the midst of a stage, and return the stage that was hit."""
    before = len(events(folder))
    process = subprocess.Popen(
        command("run", *RECIPE, "--out", str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        started = (stage, "started") in events(folder)[before:]
        if started and (not sign or any(folder.glob(sign))):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return events(folder)[-1][0]


@pytest.mark.slow
def test_a_run_killed_eleven_times_ends_in_the_same_tables(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    hit = [kill_in(folder, stage, sign) for stage, sign in KILLS]
    done = radpref("run", *RECIPE, "--out", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(set(hit)) >= 7, f"the kills fell into too few stages: {hit}"
    assert set(finished(Run(folder)).values()) == {"yes"}
    expected, found = tables(whole), tables(folder)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, f"{name} differs from the run that was never stopped"
    assert (folder / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert not list(folder.glob("*/*.part*")), "nothing half done is left"


def test_the_same_command_again_does_nothing(whole: Path) -> None:
    def stamps() -> dict[Path, int]:
        made = [path for path in whole.glob("*/*") if path.parent.name != "studies" and path.suffix]
        return {path: path.stat().st_mtime_ns for path in made}

    before, content = stamps(), tables(whole)
    done = radpref("run", *RECIPE, "--out", str(whole))
    assert done.returncode == 0, done.stderr[-2000:]
    for stage in METHODS["chexalign"]:
        if stage.name != "studies":  # which looks at the data again: they lie outside
            assert f"{stage.name:9} up to date" in done.stderr
    assert stamps() == before
    assert tables(whole) == content


def test_every_stage_leaves_its_result(whole: Path) -> None:
    assert finished(Run(whole)) == {stage.name: "yes" for stage in METHODS["chexalign"]}
    content = json.loads((whole / "metrics.json").read_text("utf-8"))
    systems = {row["system"] for row in content["metrics"]}
    assert {"base", "sft", "aligned", "sft on chosen", "constant normal report", "shuffled reference"} <= systems
    green = [row for row in content["metrics"] if row["name"] == "green_mean"]
    assert all(row["n"] == 16 and row["seed"] == 17 for row in green)
    assert all(row["low"] <= row["value"] <= row["high"] for row in green if row["value"] is not None)
    html = (whole / "report.html").read_text("utf-8")
    assert "test bed" in html
    recipe = (whole / "recipe.yaml").read_text("utf-8")
    assert "[preset tiny]" in recipe
    assert "[default]" in recipe


def test_a_change_recomputes_what_depends_on_it_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    folder = copy(Run(whole), tmp_path / "changed").folder

    def stamps() -> dict[str, int]:
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/*.json*")}

    before = stamps()
    change = ("evaluate", str(folder), "--evaluate.resamples", "150")
    refused = radpref(*change)
    assert refused.returncode == 2
    assert "evaluate.resamples was 200, is 150" in refused.stderr
    assert stamps() == before
    done = radpref(*change, "--redo")
    assert done.returncode == 0, done.stderr[-2000:]
    changed = {path for path, stamp in stamps().items() if stamp != before.get(path)}
    assert "evaluate/metrics.jsonl" in changed
    assert not {name for name in changed if not name.startswith("evaluate/")}, "answers do not depend on the bootstrap"


def test_another_alignment_asks_only_the_models_that_it_made(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the models before it said to validation and test questions is taken over, in a sweep above all."""
    folder = copy(Run(whole), tmp_path / "other").folder
    before = {row.id: row for row in rows(Run(folder), PREDICTED)}
    asked: Counter[str] = Counter()
    greedy = answering.greedy

    def counted(context: Any, weights: Weights, questions: Sequence[Question], **how: Any) -> Any:
        asked[weights.fingerprint] += len(questions)
        return greedy(context, weights, questions, **how)

    monkeypatch.setattr(answering, "greedy", counted)
    run = Run(folder, config.override(Run(folder).loaded, ["align.lr=0.003"]))
    run_all(run, redo=True)
    choice = fact(run, CHOICE)
    assert choice.before.weights.fingerprint not in asked
    assert set(asked) >= {row.weights.fingerprint for row in choice.tried}
    after = {row.id: row for row in rows(run, PREDICTED)}
    assert all(after[key] == row for key, row in before.items() if row.system in ("base", "sft"))
    assert after.keys() == before.keys()


def test_a_stage_without_what_it_needs_says_so(whole: Path, tmp_path: Path) -> None:
    done = radpref("sample", str(tmp_path))
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    done = radpref("run", *RECIPE, "--out", str(tmp_path / "r"), "--model", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert not (tmp_path / "r").exists(), "what cannot begin leaves nothing"
    other = copy(Run(whole), tmp_path / "torn")
    other.path("sample", "done.json").unlink()
    done = radpref("judge", str(other.folder))
    assert done.returncode == 2
    assert "`sample` makes, which has not finished" in done.stderr


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--judge.name=gren", "green"),
        ("--align.loss=dppo", "dpo"),
        ("--data=phantoms", "phantom"),
        ("--select.by=x", ""),
    ],
)
def test_a_name_that_does_not_exist_fails_before_any_work(word: str, nearest: str, tmp_path: Path) -> None:
    done = radpref("run", *RECIPE, "--out", str(tmp_path / "r"), word)
    assert done.returncode == 2
    assert nearest in done.stderr
    assert not (tmp_path / "r").exists()


def test_limit_does_part_of_a_stage_and_the_next_call_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "limited"
    folder.mkdir()
    for name in ("recipe.yaml", "run.json"):
        (folder / name).write_bytes((whole / name).read_bytes())
    assert radpref("studies", str(folder)).returncode == 0
    done = radpref("sft", str(folder), "--sft.enabled", "false")
    assert done.returncode == 0, done.stderr
    done = radpref("sample", str(folder), "--limit", "5")
    assert done.returncode == 0, done.stderr
    assert "8 of 32 studies (--limit)" in done.stderr  # whole batches of 8
    assert not (folder / "sample" / "done.json").exists()
    assert not (folder / "sample" / "completions.jsonl").exists()
    done = radpref("sample", str(folder))
    assert "96 answers for 32 studies" in done.stderr
    run = Run(folder)
    monkeypatch.setattr(judging, "BATCH", 8)
    run_stage_alone(run, "judge", limit=10)
    assert last_line(run, "judge").startswith("16 of 96 candidates (--limit)")
    run_stage_alone(run, "judge", limit=10)
    assert last_line(run, "judge").startswith("32 of 96 candidates (--limit)")
    assert run.mark("judge") is None
    run_stage_alone(run, "judge")
    assert len(rows(run, JUDGEMENTS)) == 96


def test_two_processes_do_not_share_a_run_folder(whole: Path) -> None:
    with Run(whole).locked():
        done = radpref("report", str(whole))
    assert done.returncode == 2
    assert "another process" in done.stderr
