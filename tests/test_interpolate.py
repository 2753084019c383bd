"""On the way from the given model to the fine-tuned one (``sft.interpolate``), and keys that a version adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from radpref import config
from radpref.cli import app
from radpref.config import ModelSection, RunSection
from radpref.models import interpolated, load, merged, save
from radpref.pipeline import road_of, run_stage_alone
from radpref.runs.context import section_of
from radpref.runs.folder import Run
from radpref.runs.runner import State, states
from radpref.stages.ports import CHOICE, TUNED
from tests.runs import fact
from tests.tiny import fresh_vlm


@pytest.mark.parametrize("family", ["llava", "gemma3"])  # a head of its own, and one tied to the embeddings
def test_every_weight_lies_on_the_line(family: str, tmp_path: Path) -> None:
    start, tuned = fresh_vlm(family), fresh_vlm(family)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight.add_(torch.randn_like(weight))
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    after = {name: value.clone() for name, value in tuned.model.state_dict().items()}
    between = interpolated(start, tuned, 0.25)
    for name, value in between.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 0.25 * (after[name] - before[name]))
    save(between, tmp_path / "between")
    again = load(ModelSection(path=str(tmp_path / "between")), RunSection(precision="float32"))
    torch.testing.assert_close(again.model.state_dict(), between.model.state_dict())


def run_of(folder: Path, *words: str) -> str:
    fixed = ["sft", str(folder), "--run.precision", "float32", *words]
    done = CliRunner().invoke(app, fixed)
    assert done.exit_code == 0, done.output
    return done.output


def sft_of(folder: Path) -> State:
    run = Run(folder)
    return states(run, road_of(run.recipe))["sft"]


@pytest.mark.slow
def test_another_share_needs_no_other_training_and_new_keys_leave_old_runs_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_stage_alone(Run(folder, config.load("chexalign", preset="tiny", overrides=["data.train=8"])), "studies")
    run_of(folder, "--sft.lora.rank", "2")
    trained = folder / "sft" / "training" / "model" / "model.safetensors"
    stamp = trained.stat().st_mtime_ns
    assert (
        "sft.interpolate was 1.0, is 0.5"
        in CliRunner().invoke(app, ["sft", str(folder), "--sft.interpolate", "0.5"]).output
    )
    run_of(folder, "--sft.interpolate", "0.5", "--redo")
    assert trained.stat().st_mtime_ns == stamp
    made = fact(Run(folder), TUNED)
    assert made.path.endswith("model-0.5")
    given, whole, half = (
        load(section, RunSection(precision="float32")).model.state_dict()
        for section in (ModelSection(), ModelSection(path=str(trained.parent)), section_of(made))
    )
    moved = 0
    for name, value in half.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (given[name] + whole[name]) / 2, atol=1e-6, rtol=1e-5)
            moved += not torch.equal(value, given[name])
    assert moved > 4

    # A run of a version that did not know the key had its default.
    mark = folder / "sft" / "done.json"
    without_the_key(mark)
    assert sft_of(folder).why == ("sft.interpolate was 1.0, is 0.5",)
    run_of(folder, "--redo")
    run_of(folder, "--sft.interpolate", "1.0", "--redo")
    without_the_key(mark)
    assert sft_of(folder).finished == "yes"
    assert "up to date" in run_of(folder)


def without_the_key(mark: Path) -> None:
    content = json.loads(mark.read_text("utf-8"))
    content["basis"]["config"].pop("sft.interpolate")
    mark.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
def test_models_on_the_way_are_tried_and_the_control_is_treated_alike(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["run", "chexalign", "--preset", "tiny", "--out", str(folder), "--run.precision", "float32"]
    few = ["--data.train", "10", "--data.validation", "4", "--data.test", "5", "--align.lr", "0.01"]
    done = CliRunner().invoke(app, [*words, *few, "--select.interpolate", "[0.5, 0.9]"])
    assert done.exit_code == 0, done.output
    run = Run(folder)
    choice = fact(run, CHOICE)
    last = max(choice.tried, key=lambda row: row.step or 0)
    ids = [row.id for row in choice.tried]
    assert {f"{last.id}-share-0.5", f"{last.id}-share-0.9"} <= set(ids)
    assert len({row.id for row in choice.controls}) == 3
    assert all(row.scores["lc-green"] is not None for row in (*choice.tried, *choice.controls))
    half = next(row for row in choice.tried if row.id.endswith("0.5"))
    given, whole, found = (
        merged(load(section, RunSection(precision="float32"))).model.state_dict()
        for section in (ModelSection(), section_of(last.weights), section_of(half.weights))
    )
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (given[name] + whole[name]) / 2, atol=1e-5, rtol=1e-4)
    assert f"{last.id}-share-0.5" in run.path("report.html").read_text("utf-8")
    again = CliRunner().invoke(app, [*words, *few, "--select.interpolate", "[0.5, 0.9]"])
    assert again.exit_code == 0, again.output
    assert "interpolate up to date" in " ".join(again.output.split())
    assert CliRunner().invoke(app, ["interpolate", str(folder)]).exit_code == 0  # a command as any stage
