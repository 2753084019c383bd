"""The whole road on the built-in world: finished tables do not depend on kills, and changes recompute little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radpref.pipeline import STAGES
from radpref.runs.folder import Run

pytestmark = pytest.mark.xdist_group("pipeline")  # one worker: the tests share a finished run

RECIPE = ["chexalign", "--preset", "tiny"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}

KILLS = [
    ("studies", "studies/phantom/**/*.png"),
    ("sft", ""),
    ("sft", "sft/training/checkpoint-2/trainer_state.json"),
    ("sample", "sample/completions.jsonl"),
    ("judge", ""),
    ("pair", ""),
    ("prepare", ""),
    ("align", "align/*/checkpoint-2/trainer_state.json"),
    ("select", "select/answers-*.jsonl"),
    ("control", "control/*/checkpoint-2/trainer_state.json"),
    ("evaluate", "evaluate/answers-base.jsonl"),
]
"""Stage, and the file whose appearance while it works is the moment of the kill; none is the stage's first moment."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "radpref.cli", *words]


def radpref(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    done = radpref("run", *RECIPE, "--out", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def tables(folder: Path) -> dict[str, str]:
    """Every table of a run by name, with the place of the run folder taken out."""
    cache = "images-checked.jsonl"  # keyed by the images' times of change
    paths = [path for path in folder.glob("*/*.jsonl") if path.name != cache]
    paths.append(folder / "metrics.json")
    return {str(p.relative_to(folder)): p.read_text("utf-8").replace(str(folder), "RUN") for p in paths}


def events(folder: Path) -> list[tuple[str, str]]:
    path = folder / "recipe.yaml"
    return [(event["stage"], event["event"]) for event in Run(folder).events()] if path.exists() else []


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
def test_a_run_killed_eleven_times_ends_in_the_same_tables(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    hit = [kill_in(folder, stage, sign) for stage, sign in KILLS]
    done = radpref("run", *RECIPE, "--out", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(set(hit)) >= 7, f"the kills fell into too few stages: {hit}"
    expected, found = tables(finished), tables(folder)
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert found[name] == text, f"{name} differs from the run that was never stopped"


def test_the_same_command_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*.jsonl")}
    done = radpref("run", *RECIPE, "--out", str(finished))
    assert done.returncode == 0, done.stderr[-2000:]
    for stage in ("sft", "prepare", "align", "select", "control", "evaluate"):
        assert f"{stage:9} up to date" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/*.jsonl")} == before


def test_every_stage_leaves_its_result(finished: Path) -> None:
    for stage in STAGES:
        assert (finished / stage.name / "done.json").is_file(), stage.name
    content = json.loads((finished / "metrics.json").read_text("utf-8"))
    systems = {row["system"] for row in content["metrics"]}
    assert {"base", "sft", "aligned", "sft on chosen", "constant normal report", "shuffled reference"} <= systems
    green = [row for row in content["metrics"] if row["name"] == "green_mean"]
    assert all(row["n"] == 16 and row["seed"] == 17 for row in green)
    assert all(row["low"] <= row["value"] <= row["high"] for row in green if row["value"] is not None)
    html = (finished / "report.html").read_text("utf-8")
    assert "test bed" in html
    recipe = (finished / "recipe.yaml").read_text("utf-8")
    assert "[preset tiny]" in recipe
    assert "[default]" in recipe


def test_a_change_recomputes_what_depends_on_it_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(finished, folder)

    before = {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob("*/*.jsonl")}
    done = radpref("evaluate", str(folder), "--evaluate.resamples", "150")
    assert done.returncode == 0, done.stderr[-2000:]
    after = {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob("*/*.jsonl")}
    changed = {str(path) for path in after if after[path] != before.get(path)}
    assert "evaluate/metrics.jsonl" in changed
    assert not {name for name in changed if not name.startswith("evaluate/")}
    assert not {name for name in changed if "answers" in name}, "answers do not depend on the bootstrap"


def test_a_stage_without_what_it_needs_says_so(tmp_path: Path) -> None:
    done = radpref("sample", str(tmp_path))
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    done = radpref("run", *RECIPE, "--out", str(tmp_path / "r"), "--model", str(tmp_path / "nothing"))
    assert done.returncode == 2
    done = radpref("judge", str(tmp_path / "r"))
    assert done.returncode == 2
    assert "has not finished" in done.stderr


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
    assert not (tmp_path / "r" / "studies").exists()


def test_limit_does_part_of_a_stage_and_the_next_call_goes_on(tmp_path: Path, finished: Path) -> None:
    folder = tmp_path / "limited"
    (folder / "studies").mkdir(parents=True)
    (folder / "recipe.yaml").write_text((finished / "recipe.yaml").read_text("utf-8"), encoding="utf-8")
    assert radpref("studies", str(folder)).returncode == 0
    done = radpref("sft", str(folder), "--sft.enabled", "false")
    assert done.returncode == 0, done.stderr
    done = radpref("sample", str(folder), "--limit", "5")
    assert done.returncode == 0, done.stderr
    assert "8 of 32 studies" in done.stderr  # whole batches of 8
    assert not (folder / "sample" / "done.json").exists()
    done = radpref("sample", str(folder))
    assert "96 answers for 32 studies" in done.stderr
    done = radpref("judge", str(folder), "--limit", "10")
    assert "10 of 96 judged" in done.stderr


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path, finished: Path) -> None:
    with Run(finished).opened():
        done = radpref("report", str(finished))
    assert done.returncode == 2
    assert "another process" in done.stderr
