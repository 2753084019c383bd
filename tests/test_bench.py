"""The benchmark measures what it says: the same loss and gradient on both sides, and every row with its fields."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from radpref.bench import Row, bench, plot
from radpref.bench.measure import BenchError, Setting, _data, _model, _peak, _sides, section_of
from radpref.cli import app
from radpref.models import language_model
from tests import tiny

pytestmark = pytest.mark.heavy

ROW = ["shape", "objective", "phase", "ours_s", "other_s", "ratio", "peak_memory_ratio", "loss_diff", "grad_rel_diff"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny("llava", tmp_path_factory.mktemp("bench") / "llava")


def setting(model: Path, objective: str, **changes: int) -> Setting:
    values = {"batch": 2, "pairs": 4, "repetitions": 1, "threads": 1, "rank": 4, **changes}
    return Setting(str(model), objective, device="cpu", precision="float32", checkpointing=False, **values)


@pytest.mark.parametrize(
    ("objective", "rank", "other", "encodings"),
    # two images: for each of two answers under policy and reference, and with the corrupted images as many again
    [("dpo", 4, "trl", 8), ("firempo", 4, "published", 16), ("sft", 4, "trl", 2), ("sft", 0, "trl", 2)],
)
def test_both_sides_compute_the_same(objective: str, rank: int, other: str, encodings: int, model: Path) -> None:
    rows = bench(
        setting(model, objective, rank=rank), phases=["steady", "first_epoch"], memory=False, tell=lambda _: None
    )
    assert [row.phase for row in rows] == ["steady", "first_epoch"]
    steady = rows[0]
    assert steady.other == other
    assert steady.loss_diff is not None
    assert steady.loss_diff < 1e-5
    assert steady.grad_rel_diff is not None
    assert steady.grad_rel_diff < 1e-4
    assert steady.other_encodings == encodings
    assert steady.ours_encodings in (0, 2, 4)  # kept, or once an image
    assert all(row.ours_s > 0 and row.other_s > 0 and row.ratio > 0 for row in rows)


@pytest.mark.parametrize("objective", ["dpo", "firempo", "sft"])
def test_checkpointing_is_on_for_both_sides_or_for_none(objective: str, model: Path, tmp_path: Path) -> None:
    """A layer that is checkpointed runs again in the backward pass."""
    for on in (False, True):
        asked = setting(model, objective)._replace(checkpointing=on)
        for number, make in enumerate(_sides(asked)):
            folder = tmp_path / f"{on}-{number}"
            folder.mkdir()
            stepper = make(_model(asked, folder), _data(asked, folder), section_of(asked), folder)
            again: list[bool] = []
            first = language_model(stepper.model).layers[0].self_attn
            handle = first.register_forward_pre_hook(
                lambda *_, again=again: again.append(torch._C._current_graph_task_id() != -1)
            )
            stepper.step()
            handle.remove()
            assert any(again) == on, (stepper.name, on)


def test_what_cannot_be_measured_is_said(model: Path) -> None:
    with pytest.raises(BenchError, match="nothing to compare"):
        bench(setting(model, "ipo"), phases=["steady"])
    with pytest.raises(BenchError, match="of sft alone"):
        bench(setting(model, "dpo", rank=0), phases=["steady"])
    with pytest.raises(BenchError, match="no whole step"):
        bench(setting(model, "dpo", pairs=1), phases=["steady"])
    with pytest.raises(BenchError, match="no folder of a model"):
        bench(setting(model / "gone", "dpo"), phases=["steady"], tell=lambda _: None)


def test_the_command_prints_one_json_object(model: Path, tmp_path: Path) -> None:
    words = [
        "bench",
        "--shape",
        str(model),
        "--phase",
        "steady",
        "--batch",
        "1",
        "--pairs",
        "1",
        "--reps",
        "1",
        "--json",
        "--no-memory",
    ]
    done = CliRunner().invoke(app, [*words, "--rank", "2", "--out", str(tmp_path / "plot.svg")])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert set(ROW) <= set(row)
    assert set(row) == {field.name for field in fields(Row)}
    ElementTree.parse(tmp_path / "plot.svg")


def test_peak_memory_is_that_of_a_process_of_its_own(model: Path) -> None:
    held = bytearray(3 << 30)  # not in the child's peak, though it is in this process'
    held[::4096] = b"1" * len(held[::4096])
    assert 100 < _peak(setting(model, "dpo"), 0) < 3000


def test_the_plot_escapes_names() -> None:
    row = Row("a<b", "dpo", "steady", "trl", 1.0, 2.0, 2.0, 1)
    assert "a&lt;b" in plot([row])
    assert asdict(row)["ratio"] == 2.0


def test_the_section_is_the_objectives() -> None:
    section = section_of(Setting("v6-112", "firempo", 4, 8, 1, 1, "cpu", "float32", 8, False))
    assert (section.spans, section.kl.weight, section.visual.weight) == (True, 0.01, 0.1)
