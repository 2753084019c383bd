"""Prompts and answers as tensors: chat template, end of turn, and batches of ``[prompt | answer]`` rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor

from radpref.models.vlm import ModelError, Turn, Vlm, image_token_ids

_PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Processor outputs of the shape (1, tokens); all others belong to the images."""


def messages(prompt: str, n_images: int, answer: str | None = None) -> list[dict[str, Any]]:
    """A conversation in the form of chat templates: the images, then ``prompt``, then perhaps ``answer``."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in range(n_images)]
    conversation = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
    if answer is not None:
        conversation.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return conversation


def render(processor: Any, prompt: str, n_images: int, answer: str | None = None) -> str:
    """The conversation as the template writes it; without an answer it ends where the model begins to speak."""
    text: str = processor.apply_chat_template(
        messages(prompt, n_images, answer), add_generation_prompt=answer is None, tokenize=False
    )
    return text


def _process(processor: Any, tokenizer: Any, text: str, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    # The rule of transformers' own apply_chat_template: where the template writes the BOS token, the tokenizer
    # must not add another.
    bos = tokenizer.bos_token
    encoded = processor(
        text=[text],
        images=[list(images)] if images else None,
        return_tensors="pt",
        add_special_tokens=not (bos and text.startswith(bos)),
    )
    tensors = {name: value for name, value in encoded.items() if isinstance(value, Tensor)}
    tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
    return tensors


def encode_prompt(vlm: Vlm, prompt: str, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """The processor's tensors of one prompt up to the point where the assistant speaks.

    Returns CPU tensors for a batch of one: ``input_ids`` (1, tokens) and what the family adds (``pixel_values``,
    ``image_grid_thw``, ``token_type_ids`` ...). The images stand before the text, in the given order.
    Raises ValueError where the processor cannot use an image.
    """
    return _process(vlm.processor, vlm.tokenizer, render(vlm.processor, prompt, len(images)), images)


def encode_answer(vlm: Vlm, answer: str) -> list[int]:
    """Token ids of an answer: its natural tokenisation, then the end of turn that the template writes.

    The answer is tokenised alone, as a model generates it after the prompt; ``learn_turn`` has checked that the
    whole conversation gives the same ids. Raises ValueError where the text spells a special token of the model
    (an image placeholder in an answer would ask for image features that are not there).
    """
    ids = _answer_ids(vlm.tokenizer, vlm.turn.lead + answer)
    special = (_special_ids(vlm.tokenizer) | image_token_ids(vlm)) - {vlm.tokenizer.unk_token_id}
    if clash := special.intersection(ids):
        spelt = ", ".join(repr(vlm.tokenizer.convert_ids_to_tokens(i)) for i in sorted(clash))
        raise ValueError(f"the answer spells special tokens of {vlm.name}: {spelt}; remove them from the text")
    return [*ids, *vlm.turn.end]


def _answer_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _special_ids(tokenizer: Any) -> set[int]:
    """Named special tokens, and those that the vocabulary marks as special without a name."""
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def learn_turn(processor: Any, tokenizer: Any, name: str) -> Turn:
    """What the template puts before and after an answer, checked against the whole conversation.

    Raises ModelError where there is no template or it fails, where it rewrites the prompt once that is answered,
    or where prompt and answer tokenised apart differ from both tokenised together: a model trained on the one
    would be asked in the other.
    """
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"{name} has no chat template, so that it is unknown how a prompt is put to it. Use the "
            "instruction-tuned variant of the model, or put its template into chat_template.jinja in its folder."
        )
    prompt, answer = "Write the findings.", "No acute finding. Heart size is normal."
    try:
        before, whole = render(processor, prompt, 0), render(processor, prompt, 0, answer)
    except (TemplateError, ValueError) as error:
        raise ModelError(f"the chat template of {name} cannot write a prompt with its answer: {error}") from error
    if not whole.startswith(before) or answer not in whole[len(before) :]:
        raise ModelError(
            f"the chat template of {name} writes an answered conversation differently from the prompt that the "
            f"answer is generated from: the prompt ends in {before[-60:]!r}, the conversation in {whole[-120:]!r}. "
            "Training would teach another context than the one used. Use a variant of the model whose template "
            "keeps the prompt (for example the one without hidden reasoning), or edit chat_template.jinja."
        )
    lead, _, after = whole[len(before) :].partition(answer)
    end = _end_of_turn(tokenizer, after, name)
    prompt_ids = _process(processor, tokenizer, before, ())["input_ids"][0].tolist()
    together = _process(processor, tokenizer, whole, ())["input_ids"][0].tolist()
    # Some tokenizers put a space before every text that they are given, and so write the lead themselves.
    for candidate in dict.fromkeys((lead, lead.rstrip(" "))):
        ids = prompt_ids + _answer_ids(tokenizer, candidate + answer)
        if together[: len(ids)] == ids:
            return Turn(lead=candidate, end=end)
    raise ModelError(
        f"the tokenizer of {name} joins the end of the prompt ({before[-20:]!r}) with the start of an answer, so "
        "that prompt and answer tokenised apart differ from the whole conversation. End the generation prompt of "
        "chat_template.jinja in a special token or a newline."
    )


def _end_of_turn(tokenizer: Any, after: str, name: str) -> tuple[int, ...]:
    """Ids up to the first special token of what the template writes after an answer, else the EOS token."""
    special = _special_ids(tokenizer)
    ids = _answer_ids(tokenizer, after)
    for position, token in enumerate(ids):
        if token in special:
            return tuple(ids[: position + 1])
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"nothing ends an answer of {name}: its chat template writes no special token after the assistant's "
            "words and its tokenizer has no EOS token. Set eos_token in tokenizer_config.json."
        )
    return (int(tokenizer.eos_token_id),)


def pad(vlm: Vlm, prompts: Sequence[Mapping[str, Tensor]], side: Literal["left", "right"]) -> dict[str, Tensor]:
    """One batch of the prompts: per-token tensors padded on ``side``, image tensors joined in row order.

    Returns ``input_ids`` and ``attention_mask`` (rows, longest), token types where any prompt has them, and the
    image tensors, concatenated along their first dimension; where their other dimensions differ (images a row,
    height, width) they are padded with zeros at the end.
    """
    longest = max(prompt["input_ids"].shape[1] for prompt in prompts)
    names = list(dict.fromkeys(name for prompt in prompts for name in prompt))
    batch: dict[str, Tensor] = {}
    for name in names:
        if name in _PER_TOKEN:
            fill = _pad_id(vlm.tokenizer) if name == "input_ids" else 0
            rows = [prompt[name] if name in prompt else torch.zeros_like(prompt["input_ids"]) for prompt in prompts]
            batch[name] = torch.cat([_fill(row, (1, longest), side, fill) for row in rows])
        else:
            parts = [prompt[name] for prompt in prompts if name in prompt]
            largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
            batch[name] = torch.cat([_fill(part, (part.shape[0], *largest), "right", 0) for part in parts])
    return batch


def _fill(part: Tensor, shape: Sequence[int], side: Literal["left", "right"], value: int) -> Tensor:
    if part.shape == tuple(shape):
        return part
    whole = part.new_full(tuple(shape), value)
    where = tuple(
        slice(0, size) if side == "right" else slice(length - size, length)
        for size, length in zip(part.shape, shape, strict=True)
    )
    whole[where] = part
    return whole


def _pad_id(tokenizer: Any) -> int:
    """Any id will do where the attention mask is 0, so a tokenizer without a pad token needs none."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def collate(vlm: Vlm, prompts: Sequence[Mapping[str, Tensor]], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Right-padded rows ``[prompt | answer]``, ready for ``model(**batch)`` but for ``completion_mask``.

    ``prompts`` come from ``encode_prompt``, ``answers`` from ``encode_answer``; a prompt that stands in two rows
    carries its images in both. Returns CPU tensors: ``input_ids``, ``attention_mask`` int64 (rows, longest),
    ``completion_mask`` bool (rows, longest), True on the answer with its end of turn, token types extended by 0
    (text), and the image tensors joined in row order.
    """
    rows = [_extended(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    batch = pad(vlm, rows, "right")
    starts = torch.tensor([prompt["input_ids"].shape[1] for prompt in prompts])[:, None]
    ends = torch.tensor([row["input_ids"].shape[1] for row in rows])[:, None]
    place = torch.arange(batch["input_ids"].shape[1])[None]
    batch["completion_mask"] = (place >= starts) & (place < ends)
    return batch


def _extended(prompt: Mapping[str, Tensor], answer: Sequence[int]) -> dict[str, Tensor]:
    row = dict(prompt)
    tail = torch.tensor([list(answer)], dtype=torch.int64)
    row["input_ids"] = torch.cat([prompt["input_ids"], tail], dim=1)
    for name in _PER_TOKEN[1:]:
        if name in prompt:
            fill = 1 if name == "attention_mask" else 0
            row[name] = torch.cat([prompt[name], torch.full_like(tail, fill, dtype=prompt[name].dtype)], dim=1)
    return row
