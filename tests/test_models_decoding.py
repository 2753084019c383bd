"""Answers: equal to transformers' own decoding, equal in any batch, and never lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from radpref.images import ImageError
from radpref.models import ModelError, Vlm, collate, encode_prompt, generate, image_token_ids, precision, rounded
from radpref.models import decoding as room
from radpref.records import Completion, ImageFile, Quarantined, Question
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm

TOKENS = 12


def question(number: int, images: int = 1, prompt: str = "Write the findings.") -> Question:
    return Question(
        id=f"q{number}",
        study=f"s{number}",
        patient="p",
        split="test",
        images=tuple(ImageFile(path=f"{10 * number + i}") for i in range(images)),
        prompt=prompt,
        reference="",
    )


def read(image: ImageFile) -> Image.Image:
    seed = int(image.path)
    return picture(seed, 50 + seed % 7 * 5, 60)


MIXED = [
    question(0),
    question(1, 0, "Is there an effusion? Answer yes or no, and say on which side."),
    question(2, 2),
    question(3, 1, "Why?"),
    question(4, 2, "Compare the images."),
]


def answers(vlm: Vlm, questions: Sequence[Question], **settings: Any) -> dict[str, list[Completion]]:
    settings = {"max_new_tokens": TOKENS, "batch": 8, "seed": 0, "read": read, **settings}
    found = dict[str, list[Completion]]()
    for asked, got in generate(vlm, questions, **settings):
        assert isinstance(got, list)
        found[asked.id] = got
    return found


def greedy(vlm: Vlm, prompts: Sequence[dict[str, Tensor]], n: int = 1) -> list[list[int]]:
    return [ids for ids, _ in room.decode(vlm, prompts, n=n, choose=room._greedy, max_new_tokens=TOKENS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_is_that_of_transformers(family: str) -> None:
    vlm = tiny_vlm(family)
    prompts = [encode_prompt(vlm, q.prompt, [read(image) for image in q.images]) for q in MIXED]
    ours = greedy(vlm, prompts)
    never = room._unspeakable(vlm, len(vlm.tokenizer)).nonzero().flatten().tolist()
    for prompt, ids in zip(prompts, ours, strict=True):
        theirs = vlm.model.generate(
            **prompt,
            do_sample=False,
            max_new_tokens=TOKENS,
            suppress_tokens=never,
            eos_token_id=sorted(room.end_ids(vlm)),
            pad_token_id=0,
        )
        assert theirs[0, prompt["input_ids"].shape[1] :].tolist() == ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_an_answer_does_not_depend_on_its_batch(family: str, temperature: float | None) -> None:
    vlm = tiny_vlm(family)
    together = answers(vlm, MIXED, n=3, temperature=temperature, top_p=0.9)
    assert together == answers(vlm, MIXED, n=3, temperature=temperature, top_p=0.9, batch=1)
    turned = answers(vlm, MIXED[::-1], n=3, temperature=temperature, top_p=0.9, batch=2)
    assert turned == together
    assert list(turned) == [q.id for q in MIXED[::-1]]
    more = answers(vlm, MIXED[2:3], n=5, temperature=temperature, top_p=0.9)["q2"]
    assert more[:3] == together["q2"]


def test_candidates_differ_by_index_question_and_seed() -> None:
    vlm = tiny_vlm("llava")
    twin = question(0).model_copy(update={"id": "twin"})
    drawn = answers(vlm, [question(0), twin], n=4, temperature=1.0)
    texts = [row.text for rows in drawn.values() for row in rows]
    assert len(set(texts)) == 8
    assert texts[:4] != [row.text for row in answers(vlm, [question(0)], n=4, temperature=1.0, seed=1)["q0"]]
    assert [row.id for row in drawn["twin"]] == ["twin/0", "twin/1", "twin/2", "twin/3"]
    assert len({row.text for row in answers(vlm, [question(0)], n=4)["q0"]}) == 1


def test_a_shorter_limit_cuts_the_same_answer() -> None:
    vlm = tiny_vlm("llava")
    prompt = encode_prompt(vlm, "Write the findings.", [picture(0)])

    def draw(steps: int) -> list[int]:
        choose = room.sampler(["q\0" + "0"], 0, 1.0, 1.0, steps)
        return room.decode(vlm, [prompt], n=1, choose=choose, max_new_tokens=steps)[0][0]

    assert draw(20)[:5] == draw(5)


def test_rows_that_end_leave_the_batch_and_count_their_end_token() -> None:
    vlm = tiny_vlm("llava")
    prompts = [encode_prompt(vlm, text, []) for text in ("Why?", "Write the findings.")]
    end, word = sorted(room.end_ids(vlm))[0], vlm.tokenizer(" effusion", add_special_tokens=False)["input_ids"][0]
    lengths = [1, 4, 3, 20]
    sizes = []

    def choose(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        sizes.append(len(rows))
        return torch.tensor([end if step + 1 >= lengths[row] else word for row in rows])

    rows = room.decode(vlm, prompts, n=2, choose=choose, max_new_tokens=6)
    assert [len(ids) for ids, _ in rows] == [1, 4, 3, 6]
    assert [done for _, done in rows] == [True, True, True, False]
    assert [ids.count(end) for ids, _ in rows] == [1, 1, 1, 0]
    assert sizes == [4, 3, 3, 2, 1, 1]
    lengths[:] = [2, 2, 2, 2]
    sizes.clear()
    room.decode(vlm, prompts, n=2, choose=choose, max_new_tokens=6)
    assert len(sizes) == 2


def test_completions_say_whether_they_ended_and_hold_plain_text() -> None:
    vlm = tiny_vlm("llava")
    rows = answers(vlm, MIXED, n=8, temperature=1.5, max_new_tokens=40)
    flat = [row for some in rows.values() for row in some]
    assert {row.finished for row in flat} == {True, False}
    for row in flat:
        assert row.tokens == 40 or row.finished
        assert row.text == row.text.strip()
        assert "<|end|>" not in row.text


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_encoded_and_a_prompt_prefilled_once_for_all_candidates(family: str) -> None:
    vlm = tiny_vlm(family)
    rows: list[tuple[int, int]] = []
    decoder, tower, calls = (
        room.unwrapped(vlm.model).get_decoder(),
        room.unwrapped(vlm.model).get_encoder("image"),
        [],
    )
    hooks = [
        decoder.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
        tower.register_forward_pre_hook(lambda *_: calls.append(1)),
    ]
    try:
        answers(vlm, [question(0), question(2, 2)], n=4, temperature=1.0)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 1
    assert rows[0][0] == 2
    assert all(length == 1 for _, length in rows[1:])
    assert rows[1][0] <= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_placeholders_are_never_generated(family: str) -> None:
    vlm = tiny_vlm(family)
    never = room._unspeakable(vlm, len(vlm.tokenizer) + 8)
    assert never[list(image_token_ids(vlm))].all()
    assert never[-8:].all()
    assert not never[sorted(room.end_ids(vlm))].any()


def test_what_cannot_be_asked_is_handed_back_with_its_reason() -> None:
    vlm = tiny_vlm("llava")

    def bad(image: ImageFile) -> Image.Image:
        if image.path == "20":
            raise ImageError("the file is empty")
        return read(image)

    long = question(3, 1, "Why? " * 400)
    results = list(
        generate(vlm, [question(1), question(2), long, question(4)], max_new_tokens=3, batch=2, seed=0, read=bad)
    )
    assert [asked.id for asked, _ in results] == ["q1", "q2", "q3", "q4"]
    kinds = [type(got) for _, got in results]
    assert kinds == [list, Quarantined, Quarantined, list]
    assert results[1][1].reason == "the file is empty"
    assert "exceed the model's context of 512" in results[2][1].reason
    only = list(generate(vlm, [question(2)], max_new_tokens=3, batch=2, seed=0, n=2, temperature=1.0, read=bad))
    assert isinstance(only[0][1], Quarantined)
    assert list(generate(vlm, [], max_new_tokens=3, batch=2, seed=0)) == []


def test_a_reader_that_breaks_is_an_error_and_not_a_quarantined_question() -> None:
    def broken(image: ImageFile) -> Image.Image:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        list(generate(tiny_vlm("llava"), [question(1)], max_new_tokens=3, batch=2, seed=0, read=broken))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_zero_is_refused_by_name(temperature: float) -> None:
    with pytest.raises(ValueError, match="greedily"):
        list(generate(tiny_vlm("llava"), [], temperature=temperature, max_new_tokens=3, batch=2, seed=0))


weights = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30).filter(lambda ws: sum(ws) > 0.01)


@given(weights=weights, uniform=st.floats(0, 1, exclude_max=True), top_p=st.floats(0.05, 1))
@settings(max_examples=200, deadline=None)
def test_a_draw_has_probability_and_lies_in_the_nucleus(weights: list[float], uniform: float, top_p: float) -> None:
    p = torch.tensor([weights])
    p = p / p.sum()
    token = int(room.draw(p, top_p, torch.tensor([uniform], dtype=torch.float64)))
    assert p[0, token] > 0
    above = float(p[0][p[0] > p[0, token]].sum())
    assert above < top_p + 1e-5


@given(weights=weights, top_p=st.sampled_from([0.3, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_draws_have_the_frequencies_of_the_distribution(weights: list[float], top_p: float) -> None:
    """Over an even grid of uniform numbers each token comes up in proportion, up to one grid point a boundary."""
    p = torch.tensor([weights], dtype=torch.float64)
    p = p / p.sum()
    points = 2000
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    counts = torch.bincount(room.draw(p.expand(points, -1), top_p, grid), minlength=len(weights)) / points
    order = p[0].argsort(descending=True, stable=True)
    kept, total = torch.zeros_like(p[0]), 0.0
    for token in order.tolist():
        if total < top_p - 1e-12 or top_p == 1:
            kept[token] = p[0, token]
        total += float(p[0, token])
    if top_p == 1 or not any(math.isclose(float(c), top_p, abs_tol=1e-9) for c in p[0][order].cumsum(0)):
        assert (counts - kept / kept.sum()).abs().max() <= 2 / points


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_whose_positions_work_otherwise_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm(family)
    room.check_decoding(vlm)
    real = room.text_positions
    monkeypatch.setattr(room, "text_positions", lambda model, inputs: torch.zeros_like(real(model, inputs)))
    with pytest.raises(ModelError, match="other probabilities"):
        room.check_decoding(vlm)


def test_a_machine_that_rounds_float32_is_allowed_as_much_as_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFloat-32 of a GPU lies .0015 off, which was taken for a broken cache."""
    vlm = tiny_vlm("llava")
    assert not rounded(torch.float32, vlm.device)
    assert rounded(torch.bfloat16, vlm.device)
    real = room.text_positions
    monkeypatch.setattr(room, "text_positions", lambda model, inputs: torch.zeros_like(real(model, inputs)))
    with pytest.raises(ModelError, match=r"at most 0\.001 is rounding"):
        room.check_decoding(vlm)
    monkeypatch.setattr(precision, "_rounds_float32", lambda device: True)
    assert rounded(torch.float32, vlm.device)
    with pytest.raises(ModelError, match=r"at most 0\.1 is rounding"):
        room.check_decoding(vlm)


def test_generating_leaves_a_model_that_can_be_trained() -> None:
    vlm = fresh_vlm("qwen3_vl")
    prompt = encode_prompt(vlm, "Why?", [picture(0)])
    batch = collate(vlm, [prompt, prompt], [[7, 8], [9]])
    batch.pop("completion_mask")
    before = vlm.model(**batch).logits
    answers(vlm, MIXED, n=2)
    after = vlm.model(**batch).logits
    after.sum().backward()
    assert torch.equal(before, after)
