"""QLoRA: the frozen language model in 4 bits, by bitsandbytes, which computes on a CPU too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from radpref.config import LoraSection, ModelSection, SftSection
from radpref.models import (
    ModelError,
    Vlm,
    attach_lora,
    encode_prompt,
    freeze,
    in_full,
    language_targets,
    load,
    merged,
    quantised,
    unwrapped,
)
from radpref.training import align, prepare, sft
from tests import tiny
from tests import training_toys as toys

needs = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.fixture(autouse=True)
def _round_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes' kernels for CPUs take inputs in blocks of 64 and outputs in blocks of 32."""
    monkeypatch.setitem(tiny.TEXT, "hidden_size", 64)
    monkeypatch.setitem(tiny.TEXT, "intermediate_size", 128)


def small(path: Path, adapter: Path | None = None) -> Vlm:
    return load(ModelSection(path=str(path), adapter=str(adapter) if adapter else None, quantize="nf4"), toys.FLOAT32)


@needs
@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_the_decoders_linear_layers_and_no_others_are_kept_in_4_bits(family: str, tmp_path: Path) -> None:
    path = tiny.save_tiny(family, tmp_path / family)
    whole, vlm = toys.vlm(path), small(path)
    packed = {name for name, p in unwrapped(vlm.model).named_parameters() if p.dtype == torch.uint8}
    assert packed == {f"{name}.weight" for name in language_targets(whole.model)}
    kept = dict(unwrapped(vlm.model).named_parameters())
    for name, parameter in whole.model.named_parameters():
        assert name in packed or torch.equal(parameter, kept[name]), name
    prompt = encode_prompt(vlm, "Write the findings.", [tiny.picture(0)])
    rounded, exact = (some.model(**prompt).logits.flatten() for some in (vlm, whole))
    assert not torch.equal(rounded, exact)
    assert torch.cosine_similarity(rounded, exact, dim=0) > 0.9


@needs
def test_an_adapter_is_trained_on_it_aligned_against_it_and_merged_into_the_weights_as_they_were(
    tmp_path: Path,
) -> None:
    path = tiny.save_tiny("llava", tmp_path / "llava")
    questions, pairs = toys.questions(tmp_path / "images"), toys.pairs(tmp_path / "images")
    section = SftSection(lora=LoraSection(rank=2), lr=1e-2, epochs=1, batch=4)
    tuned = sft(small(path), questions, section, tmp_path / "sft", seed=0)
    whole = toys.vlm(tuned.path)
    before = dict(toys.vlm(path).model.named_parameters())
    changed = {name for name, p in whole.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"{name}.weight" for name in language_targets(whole.model)}
    assert all(p.dtype == torch.float32 for p in whole.model.parameters())

    vlm, recipe = small(tuned.path), toys.section(lora=LoraSection(rank=2), epochs=1)
    prepared = prepare(vlm, pairs, recipe, tmp_path / "prepare")
    result = align(vlm, prepared, recipe, tmp_path / "align", seed=0)
    assert result.history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    again = small(tuned.path, result.checkpoints[-1].path)
    full = in_full(again)
    prompt = encode_prompt(vlm, "Write the findings.", [tiny.picture(0)])
    expected = full.model(**prompt).logits
    torch.testing.assert_close(merged(full).model(**prompt).logits, expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(expected, whole.model(**prompt).logits)


@needs
def test_references_of_the_whole_model_are_not_those_of_the_small_one(tmp_path: Path) -> None:
    path = tiny.save_tiny("llava", tmp_path / "llava")
    pairs, recipe = toys.pairs(tmp_path / "images"), toys.section(lora=LoraSection(rank=2))
    prepared = prepare(toys.vlm(path), pairs, recipe, tmp_path / "prepare")
    with pytest.raises(Exception, match="in 4 bits"):
        align(small(path), prepared, recipe, tmp_path / "align", seed=0)


@needs
def test_weights_in_4_bits_are_neither_trained_nor_merged_into(tmp_path: Path) -> None:
    vlm = small(tiny.save_tiny("llava", tmp_path / "llava"))
    with pytest.raises(ModelError, match="cannot be trained"):
        freeze(vlm)
    with pytest.raises(ModelError, match="cannot be merged"):
        merged(attach_lora(vlm, LoraSection(rank=2)))


def test_where_bitsandbytes_is_absent_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.save_tiny("llava", tmp_path / "llava")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"radpref\[quantize\]"):
        small(path)
