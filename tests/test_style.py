"""Is the style kept? What each answer costs under the model before alignment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from radpref.cli import app
from radpref.files import read_json
from radpref.images import read_image
from radpref.models import collate, encode_answer, encode_prompt, load
from radpref.pipeline import road_of
from radpref.runs.context import section_of
from radpref.runs.folder import Run
from radpref.runs.runner import states
from radpref.stages.ports import PREDICTED, STYLED, TEST, TUNED
from tests.runs import fact, rows


@pytest.mark.slow
def test_every_answer_costs_what_the_model_before_alignment_gives_it(tmp_path: Path) -> None:
    words = ["chexalign", "--preset", "tiny", "--evaluate.drawn", "true", "--evaluate.control", "false"]
    out = ["--out", str(tmp_path / "run"), "--align.lr", "0.01", "--run.precision", "float32"]
    done = CliRunner().invoke(app, ["run", *words, *out, "--evaluate.style", "true"])
    assert done.exit_code == 0, done.output
    run = Run(tmp_path / "run")
    found = {row.id: row for row in rows(run, STYLED)}
    said = {row.id: row for row in rows(run, PREDICTED)}
    assert found.keys() == said.keys()
    assert {row.system for row in found.values()} == {"base", "sft", "aligned", "sft, drawn", "aligned, drawn"}

    asked = rows(run, TEST)

    # One of them as anybody would work it out.
    one = next(row for row in said.values() if row.system == "aligned" and row.text)
    question = next(row for row in asked if row.id == one.question)
    vlm = load(section_of(fact(run, TUNED)), run.recipe.run)
    prompt = encode_prompt(vlm, question.prompt, [read_image(image) for image in question.images])
    batch = collate(vlm, [prompt], [encode_answer(vlm, one.text)])
    spoken = batch.pop("completion_mask")[0]
    with torch.no_grad():
        logits = vlm.model(**batch, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    logps = logits.gather(-1, batch["input_ids"][0, 1:, None])[spoken[1:], 0]
    assert found[one.id].tokens == len(logps)
    assert found[one.id].nats == pytest.approx(-float(logps.sum()), rel=1e-4)

    content = read_json(run.path("metrics.json"))
    means = {row["system"]: row["value"] for row in content["metrics"] if row["name"] == "style_nats_mean"}
    own = [row.nats / row.tokens for row in found.values() if row.system == "aligned"]
    assert means["aligned"] == pytest.approx(sum(own) / len(own))
    assert means["sft"] < means["sft, drawn"]  # the likeliest words cost less than those that are drawn
    assert means["sft"] < means["base"]
    tests = {(row["before"], row["after"]) for row in content["comparisons"] if row["name"] == "style_nats_mean"}
    assert {("sft", "aligned"), ("sft, drawn", "aligned, drawn")} <= tests
    assert "nats a token" in run.path("report.html").read_text("utf-8")

    # Switched off again, the numbers stand as they are but for these; nothing is answered anew.
    again = CliRunner().invoke(app, ["run", *words, *out, "--redo"])
    assert again.exit_code == 0, again.output
    assert not any(row["name"] == "style_nats_mean" for row in read_json(run.path("metrics.json"))["metrics"])
    run = Run(tmp_path / "run")
    assert {state.finished for state in states(run, road_of(run.recipe)).values()} == {"yes"}
