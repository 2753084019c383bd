"""What is trained: the language model, and nothing by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from radpref.config import LoraSection, ModelSection, RunSection
from radpref.models import (
    ModelError,
    Vlm,
    attach_lora,
    collate,
    encode_answer,
    encode_prompt,
    freeze,
    generate,
    language_model,
    language_targets,
    load,
    merged,
    save,
    trainable_summary,
    unwrapped,
    vision_tower,
)
from radpref.records import ImageFile, Question
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm


def loss(vlm: Vlm) -> torch.Tensor:
    prompt = encode_prompt(vlm, "Write the findings.", [picture(0)])
    batch = collate(vlm, [prompt], [encode_answer(vlm, "No acute finding.")])
    mask = batch.pop("completion_mask")
    scores = vlm.model(**batch).logits.log_softmax(-1)
    return -scores[:, :-1].gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)[mask[:, 1:]].sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_are_all_linear_layers_of_the_decoder_and_no_others(family: str) -> None:
    model = tiny_vlm(family).model
    targets = language_targets(model)
    assert len(targets) == 2 * 7  # two layers of q, k, v, o, gate, up and down
    assert all(isinstance(model.get_submodule(name), nn.Linear) for name in targets)
    tower = {id(module) for module in vision_tower(model).modules()}
    assert tower
    assert not tower & {id(model.get_submodule(name)) for name in targets}
    assert model.get_output_embeddings() not in [model.get_submodule(name) for name in targets]
    assert not any("projector" in name or "merger" in name or "connector" in name for name in targets)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_adapter_changes_nothing_and_trains_the_language_model_alone(family: str) -> None:
    vlm = fresh_vlm(family)
    plain, targets = loss(vlm), language_targets(vlm.model)
    vlm = attach_lora(vlm, LoraSection(rank=2))
    assert torch.equal(loss(vlm), plain)
    trained = {name for name, p in vlm.model.named_parameters() if p.requires_grad}
    expected = {f"base_model.model.{name}.lora_{half}.default.weight" for name in targets for half in ("A", "B")}
    assert trained == expected
    loss(vlm).backward()
    assert all(p.grad is not None for p in vlm.model.parameters() if p.requires_grad)


def test_rank_zero_and_a_second_adapter_are_refused() -> None:
    vlm = fresh_vlm("llava")
    with pytest.raises(ModelError, match="rank is 0"):
        attach_lora(vlm, LoraSection(rank=0))
    with pytest.raises(ModelError, match="has an adapter already"):
        attach_lora(attach_lora(vlm, LoraSection(rank=2)), LoraSection(rank=2))


def test_answers_come_with_the_adapter_and_merging_keeps_them() -> None:
    vlm = fresh_vlm("llava")
    image = ImageFile(path="0")
    asked = Question(
        id="q", study="s", patient="p", split="test", images=(image,), prompt="Write the findings.", reference=""
    )

    def answer(some: Vlm) -> str:
        [(_, rows)] = generate(some, [asked], max_new_tokens=16, batch=1, seed=0, read=lambda _: picture(0))
        assert isinstance(rows, list)
        return rows[0].text

    plain = answer(vlm)
    vlm = attach_lora(vlm, LoraSection(rank=2))
    assert answer(vlm) == plain
    torch.manual_seed(0)
    for name, parameter in vlm.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    changed = answer(vlm)
    assert changed != plain
    whole = merged(vlm)
    assert not hasattr(whole.model, "peft_config")
    assert answer(whole) == changed
    assert merged(whole) is whole


@pytest.mark.parametrize("family", ["gemma3", "llava"])  # the head shares the embeddings' weights in the first
def test_an_adapter_on_the_head_is_merged_rightly(family: str, tmp_path: Path) -> None:
    vlm = fresh_vlm(family)
    inner = unwrapped(vlm.model)
    tied = inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    assert tied == (family == "gemma3")
    embeddings = inner.get_input_embeddings().weight.clone()
    torch.manual_seed(0)  # of both matrices: rounding grows with what happens to be drawn
    vlm = attach_lora(vlm, LoraSection(rank=2, head=True))
    for name, parameter in vlm.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    assert any("lm_head.lora_B" in name for name, _ in vlm.model.named_parameters())
    prompt = encode_prompt(vlm, "Write the findings.", [picture(0)])
    expected = vlm.model(**prompt).logits
    save(vlm, tmp_path / "adapter")
    assert not [name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "lora_" not in name]
    whole = merged(vlm)
    torch.testing.assert_close(whole.model(**prompt).logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(unwrapped(whole.model).get_input_embeddings().weight, embeddings)
    save(whole, tmp_path / "whole")
    again = load(ModelSection(path=str(tmp_path / "whole")), RunSection(precision="float32"))
    torch.testing.assert_close(again.model(**prompt).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [("language",), ("projector",), ("tower",), ("language", "projector")])
def test_freeze_trains_the_named_parts_and_only_them(family: str, parts: tuple[str, ...]) -> None:
    vlm = fresh_vlm(family)
    flags = {name: name in parts for name in ("language", "projector", "tower")}
    freeze(vlm, **flags)
    inner = unwrapped(vlm.model)
    language = {id(p) for part in (language_model(inner), inner.get_output_embeddings()) for p in part.parameters()}
    tower = {id(p) for name, p in vision_tower(inner).named_parameters() if "merger" not in name}
    for name, parameter in inner.named_parameters():
        part = "language" if id(parameter) in language else "tower" if id(parameter) in tower else "projector"
        assert parameter.requires_grad == flags[part], name
    assert any(p.requires_grad for p in inner.parameters())


def test_trained_parts_of_a_bfloat16_model_are_kept_in_float32() -> None:
    vlm = fresh_vlm("llava")
    vlm.model.to(torch.bfloat16)
    freeze(vlm)
    for parameter in vlm.model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
    vlm = fresh_vlm("llava")
    vlm.model.to(torch.bfloat16)
    for parameter in attach_lora(vlm, LoraSection(rank=2)).model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)


def test_the_summary_counts_what_is_trained_with_layers_taken_together() -> None:
    vlm = attach_lora(fresh_vlm("llava"), LoraSection(rank=2))
    summary = trainable_summary(vlm.model)
    assert sum(count for _, count in summary) == sum(p.numel() for p in vlm.model.parameters() if p.requires_grad)
    names = [name for name, _ in summary]
    assert len(names) == 14
    assert names[0].endswith("language_model.layers.*.self_attn.q_proj.lora_A.default")
    freeze(fresh := fresh_vlm("llava"), language=False)
    assert trainable_summary(fresh.model) == []
