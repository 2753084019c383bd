"""What a step takes, told from a config, against what is measured on the weights; and the presets by size."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from radpref import config
from radpref.bench.real import SIZES, build, config_of
from radpref.config import AlignSection, LoraSection, ModelSection, VisualSection
from radpref.models import load
from radpref.training.check import check
from radpref.training.layout import pack
from radpref.training.memory import NF4, estimate
from radpref.training.scoring import trial
from tests import training_toys as toys
from tests.tiny import save_tiny


@pytest.mark.parametrize("name", ["llava", "qwen3-vl-tiny", "gemma-3-tiny"])
def test_an_estimate_is_what_a_step_is_measured_to_take(name: str, tmp_path: Path) -> None:
    path = save_tiny(name, tmp_path / "m") if name == "llava" else build(name, tmp_path / "m", ["the lungs are clear"])
    side, lora = (128, 128), LoraSection(rank=4)
    rows = pack(load(ModelSection(path=str(path)), toys.FLOAT32), trial(toys.vlm(path), (side, side)), shared=True).rows
    measured = check(ModelSection(path=str(path)), toys.FLOAT32, lora, size=side).memory
    told = estimate(
        AutoConfig.from_pretrained(path),
        AlignSection(lora=lora, batch=2),
        tokens=rows["input_ids"].shape[1],
        dtype="float32",
    )
    assert (told.weights, told.gradients, told.optimizer) == (
        measured.weights,
        measured.gradients,
        measured.optimizer,
    )
    assert told.activations == pytest.approx(measured.activations, rel=0.2)


def test_memory_follows_from_what_is_asked_for() -> None:
    read = config_of(SIZES["qwen3-vl-tiny"])
    plain = AlignSection(lora=LoraSection(rank=4), batch=4)
    whole = estimate(read, plain, tokens=64)
    assert estimate(read, plain, tokens=64, processes=4).activations * 4 == pytest.approx(whole.activations, rel=0.02)
    assert estimate(read, plain, tokens=128).activations >= 2 * whole.activations
    small = estimate(read, plain, tokens=64, quantized=True)
    decoder = (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128) * 2
    assert whole.weights - small.weights == pytest.approx(decoder * (2 - NF4), abs=1)
    seen = plain.model_copy(update={"visual": VisualSection(weight=0.1)})  # each pair with its corrupted image as well
    twice = plain.model_copy(update={"batch": 8})
    assert estimate(read, seen, tokens=64).activations == estimate(read, twice, tokens=64).activations
    less = plain.model_copy(update={"gradient_checkpointing": True})
    assert estimate(read, less, tokens=64).activations == 2 * 4 * 64 * 64 * 2
    full = estimate(read, AlignSection(lora=LoraSection(rank=0), batch=4), tokens=64)
    assert full.gradients == 4 * (decoder + 2 * (2 * 64 + 2 * 16) + 64 + 1024 * 64)  # norms, head tied to embeddings
    assert full.optimizer == 2 * full.gradients
    eighth = AlignSection(lora=LoraSection(rank=4), batch=4, optimizer="adamw-8bit")
    assert estimate(read, eighth, tokens=64).optimizer * 4 == whole.optimizer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "name", "processes"),
    [("4b-one-gpu", "qwen3-vl-4b", 1), ("4b-one-gpu", "gemma-3-4b", 1), ("8b-4gpu", "qwen3-vl-8b", 4)],
)
def test_presets_fit_the_gpus_that_they_are_for(preset: str, name: str, processes: int) -> None:
    recipe = config.load("chexalign", preset=preset).recipe
    for section, tokens in ((recipe.sft, 2048), (recipe.align, recipe.align.max_length or 0)):
        told = estimate(config_of(SIZES[name]), section, tokens=tokens, processes=processes)
        assert told.total * 1.1 < 80e9


def test_the_shapes_are_of_the_sizes_that_they_are_named_after() -> None:
    for name, billions in (("qwen3-vl-4b", 4.4), ("gemma-3-4b", 4.3), ("qwen3-vl-8b", 8.2)):
        section = AlignSection(lora=LoraSection(rank=1), batch=1)
        weights = estimate(config_of(SIZES[name]), section, tokens=16).weights
        assert weights / 2e9 == pytest.approx(billions, rel=0.06)
