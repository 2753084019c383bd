"""What leaves a run for other tools: a model or an adapter, each with a card that says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from radpref.exports import export_adapter, export_model, serve_command
from radpref.models import load, served_name
from radpref.pipeline import road_of
from radpref.runs.context import section_of
from radpref.runs.folder import Run, RunError
from radpref.stages.ports import CHOICE, METRICS
from tests.runs import Whole, fact, rows

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("whole")]  # one worker: the tests share finished runs


def card(folder: Path) -> tuple[dict[str, str], str]:
    _, head, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_model_opens_in_plain_transformers_and_its_card_says_what_it_is(whole: Whole, tmp_path: Path) -> None:
    run = whole("firempo")
    export_model(run, road_of(run.recipe), tmp_path / "model")
    head, body = card(tmp_path / "model")
    assert head["library_name"] == "transformers"
    assert head["base_model"] == Path(run.recipe.model.path).name
    assert str(tmp_path) not in body
    assert "For research only" in body
    assert "| pairs |" in body
    assert "| quarantined rows |" in body
    assert "method: firempo" in body
    measured = {(row.system, row.name): row for row in rows(run, METRICS)}
    green = measured["aligned", "green_mean"]
    assert f"| aligned | green_mean | {green.value:.3g} | {green.low:.3g} to {green.high:.3g} | {green.n}" in body
    assert "errors_per_report" not in body  # the headline, not all

    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32)
    AutoProcessor.from_pretrained(tmp_path / "model")
    ours = load(section_of(fact(run, CHOICE).chosen.weights), run.recipe.run)
    ids = torch.tensor([[5, 6, 7, 8]])
    mine = ours.model(input_ids=ids).logits.float()
    torch.testing.assert_close(plain(input_ids=ids).logits, mine, atol=1e-4, rtol=1e-4)


def test_an_adapter_goes_on_the_given_model_in_plain_peft(whole: Whole, tmp_path: Path) -> None:
    run = whole("firempo")
    chosen = fact(run, CHOICE).chosen.weights
    assert chosen.adapter
    export_adapter(run, road_of(run.recipe), tmp_path / "adapter")
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "radpref.json"}
    head, body = card(tmp_path / "adapter")
    assert head["library_name"] == "peft"
    assert "An adapter (PEFT) of" in body
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == run.recipe.model.path
    base = AutoModelForImageTextToText.from_pretrained(run.recipe.model.path, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    mine = load(section_of(chosen), run.recipe.run).model(input_ids=ids).logits.float()
    torch.testing.assert_close(plain(input_ids=ids).logits, mine, atol=1e-4, rtol=1e-4)


def test_an_adapter_of_no_use_is_not_exported(whole: Whole, tmp_path: Path) -> None:
    run = whole("chexpo")
    with pytest.raises(RunError, match="--to model"):
        export_adapter(run, road_of(run.recipe), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_servers_of_the_measured_models_hold_adapters_on_their_base(whole: Whole) -> None:
    run: Run = whole("firempo")
    text = serve_command(run, road_of(run.recipe), "predict")
    weights = fact(run, CHOICE).chosen.weights
    line = next(line for line in text.splitlines() if line.startswith(f"vllm serve {weights.path}"))
    assert "--enable-lora --max-lora-rank 16 --lora-modules" in line
    assert f"{served_name(weights.fingerprint)}={weights.adapter}" in line
    assert "--evaluate.server http://localhost:8000/v1" in text
