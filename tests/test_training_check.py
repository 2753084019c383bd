"""``radpref models check``: what it says of a model is what the model does; and the model card."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from radpref.config import LoraSection, ModelSection
from radpref.models import ModelError, attach_lora, trainable_summary
from radpref.models.card import LIMITS, CardFacts, model_card
from radpref.records import Metric
from radpref.training.check import check, rows
from tests import tiny
from tests import training_toys as toys
from tests.families import save_family


@pytest.mark.parametrize(("family", "shared"), [("llava", True), ("qwen3_5", False)])
def test_a_check_says_what_is_shared_kept_and_trained(family: str, shared: bool, tmp_path: Path) -> None:
    path = save_family(family, tmp_path / family)
    found = check(ModelSection(path=str(path)), toys.FLOAT32, LoraSection(rank=2), size=(64, 64))
    vlm = toys.vlm(path)
    assert found.parameters == sum(p.numel() for p in vlm.model.parameters())
    assert found.way.shared == shared
    assert found.way.features
    assert found.way.fused
    assert found.image_tokens[0] > 0
    student = attach_lora(vlm, LoraSection(rank=2))
    assert found.trained == trainable_summary(student.model)
    count = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    assert (found.memory.gradients, found.memory.optimizer) == (4 * count, 8 * count)
    assert found.memory.weights == 4 * sum(p.numel() for p in student.model.parameters())
    assert found.memory.activations > 0
    table = dict(rows(found))
    assert table["both answers of a pair in one row"] == ("yes" if shared else "no")
    assert ("because" in table) == (not shared)


def test_larger_images_take_more_memory_where_they_are_more_tokens(tmp_path: Path) -> None:
    path = tiny.save_tiny("qwen2_5_vl", tmp_path / "qwen")
    small, large = (
        check(ModelSection(path=str(path)), toys.FLOAT32, LoraSection(rank=2), size=(side, side)) for side in (28, 112)
    )
    assert large.image_tokens > small.image_tokens
    assert large.memory.activations > small.memory.activations


def test_a_model_that_cannot_be_used_is_an_error_with_the_cause(tmp_path: Path) -> None:
    path = save_family("git", tmp_path / "git")
    with pytest.raises(ModelError, match="has no token that stands for an image"):
        check(ModelSection(path=str(path)), toys.FLOAT32)


def test_a_card_holds_counts_metrics_with_intervals_recipe_and_limits() -> None:
    metrics = [
        Metric(id="aligned/green", system="aligned", name="green", value=0.5123, low=0.48, high=0.541, n=1200),
        Metric(id="aligned/rare|odd", system="aligned", name="rare|odd", value=None, n=0),
        Metric(id="sft/bleu", system="sft", name="bleu", value=0.25, n=1200),
    ]
    text = model_card(
        CardFacts(
            name="aligned",
            base="google/medgemma-4b-it",
            adapter=True,
            method="CheXalign with LC-GREEN.",
            data={"pairs": 12345, "quarantined": 1},
            source="Synthetic phantoms.",
            metrics=metrics,
            recipe="method: chexalign\n",
            limits=("Frontal images only.",),
        )
    )
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "google/medgemma-4b-it"
    assert yaml.safe_load(head)["library_name"] == "peft"
    assert "license" not in yaml.safe_load(head)
    assert "| pairs | 12,345 |" in body
    assert "| aligned | green | 0.512 | 0.48 to 0.541 | 1,200 study |" in body
    assert "| sft | bleu | 0.25 | not computed | 1,200 study |" in body
    assert "rare" not in body
    assert "Research only" in body
    assert all(f"- {limit}" in body for limit in (*LIMITS, "Frontal images only."))
    assert "```yaml\nmethod: chexalign\n```" in body
    assert "Nothing was measured." in model_card(CardFacts(name="a", base="b"))
