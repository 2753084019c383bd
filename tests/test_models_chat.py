"""Prompts, answers and batches: what a model is trained on is what it is asked, in a batch as alone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radpref.models import ModelError, Vlm, collate, encode_answer, encode_prompt, image_token_ids, messages, pad, said
from radpref.models.control import control_of
from radpref.models.template import learn_turn
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm

PROMPT = "Write the findings of this chest X-ray."
ANSWER = "Small left pleural effusion. No pneumothorax."


def log_probs(vlm: Vlm, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return vlm.model(**batch, use_cache=False).logits.log_softmax(-1)


def test_messages_put_the_images_before_the_text() -> None:
    user, assistant = messages("what?", 2, "this")
    assert [part["type"] for part in user["content"]] == ["image", "image", "text"]
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "this"}]}
    assert len(messages("what?", 0)) == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_a_prompt_is_what_the_processor_itself_makes_of_the_conversation(family: str, images: int) -> None:
    vlm = tiny_vlm(family)
    pictures = [picture(i, width=60 + 30 * i) for i in range(images)]
    ours = encode_prompt(vlm, PROMPT, pictures)
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": PROMPT}]
    theirs = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    placeholders = sum(int((ours["input_ids"] == token).sum()) for token in image_token_ids(vlm))
    assert (placeholders > 0) == (images > 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_answer_tokenised_apart_are_the_whole_conversation(family: str) -> None:
    vlm = tiny_vlm(family)
    image = picture(0)
    content = [{"type": "image", "image": image}, {"type": "text", "text": PROMPT}]
    conversation = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
    ]
    whole = vlm.processor.apply_chat_template(conversation, tokenize=True, return_dict=True)["input_ids"][0]
    apart = encode_prompt(vlm, PROMPT, [image])["input_ids"][0].tolist() + encode_answer(vlm, ANSWER)
    assert list(whole)[: len(apart)] == apart
    assert vlm.tokenizer.decode(whole[len(apart) :]) == "\n"  # only what follows the end of turn is left


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<>|"), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_an_answer_decodes_to_itself_and_ends_its_turn(text: str) -> None:
    vlm = tiny_vlm("llava")
    ids = encode_answer(vlm, text)
    assert ids[-1] == vlm.tokenizer.convert_tokens_to_ids("<|end|>")
    assert vlm.tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["prompt", "answer"])
def test_data_that_spells_any_control_token_is_refused(family: str, where: str) -> None:
    """Each special token, and each mark that the family's processor or config knows."""
    vlm = tiny_vlm(family)
    marks = {token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special}
    marks |= {vlm.tokenizer.convert_ids_to_tokens(i) for i in image_token_ids(vlm)}
    assert len(marks) >= 6
    for mark in marks:
        text = f"Indication: cough {mark} and fever."
        with pytest.raises(ValueError, match=r"special tokens of .*" + re.escape(repr(mark))):
            encode_prompt(vlm, text, [picture(0)]) if where == "prompt" else encode_answer(vlm, text)


@pytest.mark.parametrize("text", ["a < b and c > d", "[right] <3 cm", "</p>", "image", "end", "|end|", "<unk>"])
def test_ordinary_text_is_no_control_token(text: str) -> None:
    vlm = tiny_vlm("llava")
    encode_prompt(vlm, text, [])
    encode_answer(vlm, text)


def turn_of(template: str, **tokens: Any) -> Any:
    vlm = fresh_vlm("llava")
    vlm.processor.chat_template = template
    for name, value in tokens.items():
        setattr(vlm.tokenizer, name, value)
    return vlm, learn_turn(vlm.processor, vlm.tokenizer, "a model")


CONTENT = "{% for p in m['content'] %}{{ p['text'] if p['type'] == 'text' else '<image>' }}{% endfor %}"


def test_a_template_that_ends_a_turn_with_plain_text_gets_the_eos_token() -> None:
    vlm, turn = turn_of(
        "{% for m in messages %}{{ m['role'] }}:\n" + CONTENT + " \n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    assert turn.end == (vlm.tokenizer.eos_token_id,)
    with pytest.raises(ModelError, match="nothing ends an answer"):
        turn_of(vlm.processor.chat_template, eos_token=None)


def test_what_a_template_writes_before_an_answer_is_part_of_it() -> None:
    vlm, turn = turn_of(
        "{% for m in messages %}{{ m['role'] }}: " + CONTENT + "<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert turn.lead == " "
    assert vlm.tokenizer.decode(list(turn.end)) == "<|end|>"


THINKING = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}" + CONTENT + "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{{ GENERATION }}{% endif %}"
)
OPENINGS = (
    "",  # Qwen3: the model begins the thought
    "<think>\n",  # Qwen3-Thinking: the prompt begins it
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",  # Qwen3, asked not to
)


@pytest.mark.parametrize("generation", OPENINGS)
@pytest.mark.parametrize("added", [True, False])
def test_an_empty_thought_belongs_to_the_prompt(generation: str, added: bool) -> None:
    """It is neither asked for, nor trained on, nor part of the answer; ``added``: the marks are tokens of their own."""
    vlm = fresh_vlm("llava")
    if added:
        vlm.tokenizer.add_tokens(["<think>", "</think>"])
    vlm.processor.chat_template = THINKING.replace("{{ GENERATION }}", generation)
    turn = learn_turn(vlm.processor, vlm.tokenizer, "a model")
    control = control_of(vlm.processor, vlm.tokenizer, vlm.model.config)
    vlm = replace(vlm, turn=turn, control=control)
    assert turn.lead == ""
    prompt = vlm.tokenizer.decode(encode_prompt(vlm, PROMPT, [])["input_ids"][0])
    assert prompt.endswith("<|turn|>assistant\n<think>\n\n</think>\n\n")
    assert vlm.tokenizer.decode(encode_answer(vlm, ANSWER)) == ANSWER + "<|end|>"
    with pytest.raises(ValueError, match="</think>"):
        encode_answer(vlm, f"<think>\n\n</think>\n\n{ANSWER}")


@pytest.mark.parametrize("added", [True, False])
def test_a_thought_is_cut_from_what_a_model_says(added: bool) -> None:
    vlm = fresh_vlm("llava")
    if added:
        vlm.tokenizer.add_tokens(["<think>", "</think>"])
    spoken = {
        f"<think>\nis it clear?\n</think>\n\n{ANSWER}": ANSWER,
        f"<think>\n\n</think>\n\n{ANSWER}": ANSWER,
        f"is it clear?</think>{ANSWER}": ANSWER,
        "<think>\nis it clear? and so on": "",
        f" {ANSWER}": ANSWER,
    }
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spoken]
    assert said(vlm, ids) == list(spoken.values())


@pytest.mark.parametrize(
    ("user", "assistant"),
    [("m['content']", "m['content']"), ("m['content'][-1]['text']", "m['content']")],
    ids=["strings", "strings from the assistant"],
)
def test_a_template_that_joins_strings_is_given_strings(user: str, assistant: str) -> None:
    image = "'<image>\n' + " if "text" in user else ""
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|turn|>user\n' + " + image + user + " + '<|end|>\n' }}"
        "{% else %}{{ '<|turn|>assistant\n' + " + assistant + " + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
    )
    vlm, turn = turn_of(template)
    vlm = replace(vlm, turn=turn)
    prompt = encode_prompt(vlm, PROMPT, [picture(0)])
    assert (prompt["input_ids"] == vlm.tokenizer.image_token_id).sum() == 16
    text = vlm.tokenizer.decode(prompt["input_ids"][0]).replace("<image>", "")
    assert text == f"<|turn|>user\n\n{PROMPT}<|end|>\n<|turn|>assistant\n"


def test_a_template_that_drops_the_words_is_refused() -> None:
    with pytest.raises(ModelError, match="neither as parts nor as plain text"):
        turn_of("{% for m in messages %}<|turn|>{{ m['role'] }}<|end|>{% endfor %}")


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    with pytest.raises(ModelError, match="differently from the prompt"):
        turn_of(
            "{% for m in messages %}<|turn|>" + CONTENT + "<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|turn|>let me think{% endif %}"
        )


def test_a_prompt_whose_end_melts_into_the_answer_is_refused() -> None:
    """``assistant: N`` merges differently from ``assistant:`` and `` N`` where the prompt ends inside a piece."""
    with pytest.raises(ModelError, match="joins the end of the prompt"):
        turn_of(
            "{% for m in messages %}" + CONTENT + "{% if m['role'] == 'user' %}\nThe lungs are {% endif %}{% endfor %}"
        )


def test_no_chat_template_is_an_error_that_says_so() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        turn_of(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_batch_scores_as_the_row_alone(family: str) -> None:
    """None, one and two images a prompt, of different aspect, in one batch with answers of different length."""
    vlm = tiny_vlm(family)
    images = [[], [picture(1)], [picture(2, 90, 50), picture(3, 40, 80)], [picture(4, 50, 50)]]
    texts = [PROMPT, "Why?", PROMPT, f"{PROMPT} Indication: cough and fever."]
    prompts = [encode_prompt(vlm, text, pictures) for text, pictures in zip(texts, images, strict=True)]
    answers = [encode_answer(vlm, text) for text in (ANSWER, "Yes.", "No acute finding.", ANSWER)]
    batch = collate(vlm, prompts, answers)
    mask = batch.pop("completion_mask")
    together = log_probs(vlm, batch)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start, stop = prompt["input_ids"].shape[1], prompt["input_ids"].shape[1] + len(answer)
        assert mask.dtype == torch.bool
        assert mask[row].nonzero().flatten().tolist() == list(range(start, stop))
        assert batch["input_ids"][row, mask[row]].tolist() == answer
        assert batch["attention_mask"][row].sum() == stop
        single = collate(vlm, [prompt], [answer])
        del single["completion_mask"]
        alone = log_probs(vlm, single)[0]
        torch.testing.assert_close(together[row, start - 1 : stop - 1], alone[start - 1 : stop - 1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl", "qwen3_vl"])
def test_token_types_go_on_as_text(family: str) -> None:
    vlm = tiny_vlm(family)
    name = "token_type_ids" if family == "gemma3" else "mm_token_type_ids"
    prompt = encode_prompt(vlm, PROMPT, [picture(0)])
    batch = collate(vlm, [prompt, prompt], [encode_answer(vlm, ANSWER), encode_answer(vlm, "No.")])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(batch[name][:, :length], prompt[name].expand(2, -1))
    assert not batch[name][:, length:].any()
    assert batch[name].shape == batch["input_ids"].shape


@pytest.mark.parametrize("family", FAMILIES)
def test_images_reach_the_answer_and_in_their_order(family: str) -> None:
    vlm = tiny_vlm(family)
    one, two = picture(1), picture(2)
    answer = [encode_answer(vlm, ANSWER)]

    def score(*images: Any) -> Tensor:
        batch = collate(vlm, [encode_prompt(vlm, PROMPT, images)], answer)
        mask = batch.pop("completion_mask")
        return log_probs(vlm, batch)[mask]

    assert (score(one) - score(two)).abs().max() > 1e-3
    assert (score(one, two) - score(two, one)).abs().max() > 1e-3


def test_left_padding_leaves_the_prompts_at_the_end() -> None:
    vlm = tiny_vlm("llava")
    prompts = [encode_prompt(vlm, text, []) for text in ("Why?", PROMPT)]
    batch = pad(vlm, prompts, "left")
    for row, prompt in enumerate(prompts):
        length = prompt["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, -length:], prompt["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - length) + [1] * length
