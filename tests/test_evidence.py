"""The model's own evidence: gradient-weighted attention on every tiny family and on the built-in model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from radpref.config import ModelSection, RunSection
from radpref.grounding.evidence import brightest, evidence, locate
from radpref.models import collate, encode_answer, encode_prompt, load, token_mask
from radpref.records import ImageFile, Pair, Span
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm

PROMPT = "Write the findings of this chest X-ray."
ANSWER = "Small left pleural effusion. No pneumothorax."
WORDS = (Span(start=6, end=10),)


def pair(**changes: object) -> Pair:
    row = Pair(
        id="q/edit",
        question="q",
        patient="p",
        images=(ImageFile(path="/image.png"),),
        prompt=PROMPT,
        chosen="Small right pleural effusion. No pneumothorax.",
        rejected=ANSWER,
        chosen_spans=(Span(start=6, end=11),),
        rejected_spans=WORDS,
    )
    return row.model_copy(update=changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_where_it_found_its_words(family: str) -> None:
    vlm = tiny_vlm(family)
    images = [picture(1), picture(2, 50, 64)]
    heats = evidence(vlm, PROMPT, images, ANSWER, WORDS)
    assert [heat.shape for heat in heats] == [(60, 70), (64, 50)]
    assert all(heat.dtype == np.float32 and (heat >= 0).all() for heat in heats)
    assert max(heat.max() for heat in heats) > 0
    again = evidence(vlm, PROMPT, images, ANSWER, WORDS)
    np.testing.assert_array_equal(heats[0], again[0])


def test_the_weights_and_their_gradients_stay_as_they_were() -> None:
    vlm = fresh_vlm("llava")
    flags = [parameter.requires_grad for parameter in vlm.model.parameters()]
    kind = vlm.model.get_decoder().config._attn_implementation
    evidence(vlm, PROMPT, [picture(1)], ANSWER, WORDS)
    assert [parameter.requires_grad for parameter in vlm.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in vlm.model.parameters())
    assert vlm.model.get_decoder().config._attn_implementation == kind
    embeddings = vlm.model.get_input_embeddings()
    assert not embeddings._forward_hooks


def test_the_relevance_is_attention_times_its_gradient() -> None:
    """Against the definition, by the way of transformers' own ``output_attentions``."""
    vlm = fresh_vlm("llava")
    image = picture(1)
    heat = evidence(vlm, PROMPT, [image], ANSWER, WORDS)[0]
    vlm.model.set_attn_implementation("eager")
    encoded = encode_prompt(vlm, PROMPT, [image])
    ids = encode_answer(vlm, ANSWER)
    inputs = collate(vlm, [encoded], [ids])
    inputs.pop("completion_mask")
    out = vlm.model(**inputs, output_attentions=True, use_cache=False)
    length = encoded["input_ids"].shape[1]
    tokens = [number for number, marked in enumerate(token_mask(vlm, ANSWER, WORDS)) if marked]
    logps = out.logits[0].log_softmax(-1)
    total = sum((logps[length + token - 1, ids[token]] for token in tokens), torch.zeros(()))
    gradients = torch.autograd.grad(total, out.attentions)
    used = torch.stack([(a * g)[0].clamp(min=0) for a, g in zip(out.attentions, gradients, strict=True)])
    queries = [length + token - 1 for token in tokens]
    images = inputs["input_ids"][0] == vlm.model.config.image_token_index
    expected = used[:, :, queries].sum(2).mean((0, 1))[images].detach().view(4, 4).numpy()
    cells = heat[7::15, 8::17][:4, :4]  # one pixel of each cell of an image of 60 by 70
    np.testing.assert_allclose(cells, expected, rtol=1e-4, atol=1e-9)


def test_attention_that_carries_nothing_is_no_evidence() -> None:
    vlm = fresh_vlm("llava")
    with torch.no_grad():
        for layer in vlm.model.get_decoder().layers:
            layer.self_attn.v_proj.weight.zero_()
    heat = evidence(vlm, PROMPT, [picture(1)], ANSWER, WORDS)[0]
    np.testing.assert_allclose(heat, 0, atol=1e-12)


def test_the_brightest_are_at_most_few_and_of_all_images_together() -> None:
    heats = [np.arange(100, dtype=np.float32).reshape(10, 10), np.zeros((10, 10), np.float32)]
    masks = brightest(heats, 0.95)
    assert masks[0].sum() == 10
    assert not masks[1].any()
    assert not any(mask.any() for mask in brightest([np.zeros((4, 4), np.float32)], 0.5))


def test_a_pair_is_asked_for_the_words_that_the_model_wrote() -> None:
    vlm = tiny_vlm("llava")
    images = [picture(1)]
    wrong = locate(vlm, pair(), images, 0.8)
    assert wrong[0].by == "evidence"
    assert wrong[0].mask is not None
    expected = brightest(evidence(vlm, PROMPT, images, ANSWER, WORDS), 0.8)[0]
    np.testing.assert_array_equal(wrong[0].mask, expected)
    right = pair(chosen=ANSWER, chosen_spans=WORDS, rejected="Small right effusion.", provenance={"was_right": "yes"})
    found = locate(vlm, right, images, 0.8)[0].mask
    assert found is not None
    np.testing.assert_array_equal(found, expected)


def test_a_pair_without_marked_words_has_no_evidence() -> None:
    located = locate(tiny_vlm("llava"), pair(rejected_spans=()), [picture(1)], 0.8)
    assert located[0].mask is None
    assert "no words are marked" in located[0].why


def test_the_built_in_model_has_evidence() -> None:
    vlm = load(ModelSection(), RunSection(precision="float32"))
    located = locate(vlm, pair(), [picture(3, 128, 128)], 0.9)
    assert located[0].mask is not None
    assert 0.05 < located[0].mask.mean() < 0.2
