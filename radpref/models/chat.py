"""Prompts and answers as tensors: chat template, end of turn, and batches of ``[prompt | answer]`` rows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from radpref.models.control import refuse_control
from radpref.models.template import adds_special, plain_ids, render
from radpref.models.vlm import Vlm, reads_images_aside

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask")
"""Processor outputs of the shape (1, tokens) or (1, tokens, images, tiles); all others belong to the images."""


def _process(vlm: Vlm, text: str, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    try:
        encoded = vlm.processor(
            text=[text],
            images=[list(images)] if images else None,
            return_tensors="pt",
            add_special_tokens=adds_special(vlm.tokenizer, text),
        )
    except (TypeError, AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"the {type(vlm.processor).__name__} of {vlm.name} fails on it: {type(error).__name__}: {error}"
        ) from error
    tensors = {name: value for name, value in encoded.items() if isinstance(value, Tensor) and name != "labels"}
    tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
    # some families hand pixels out in bfloat16, whatever their model runs in
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def encode_prompt(vlm: Vlm, prompt: str, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """The processor's tensors of one prompt up to the point where the assistant speaks.

    Returns CPU tensors for a batch of one: ``input_ids`` (1, tokens) and what the family adds (``pixel_values``,
    ``image_grid_thw``, ``token_type_ids`` ...). The images stand before the text, in the given order.
    Raises ValueError where the processor cannot use an image.
    """
    refuse_control(vlm, prompt, "the prompt")
    if vlm.most_images is not None and len(images) > vlm.most_images:
        raise ValueError(
            f"the prompt has {len(images)} images, and {vlm.name} can be shown {vlm.most_images} at a time; set "
            f"data.max_images {vlm.most_images}"
        )
    if not images and reads_images_aside(vlm.model):
        raise ValueError(f"the prompt has no image, and the layers of {vlm.name} that look at images need one")
    return _process(vlm, render(vlm.processor, prompt, len(images), form=vlm.turn.form) + vlm.turn.opening, images)


def encode_answer(vlm: Vlm, answer: str) -> list[int]:
    """Token ids of an answer: its natural tokenisation, then the end of turn that the template writes.

    The answer is tokenised alone, as a model generates it after the prompt; ``learn_turn`` has checked that the
    whole conversation gives the same ids. Raises ValueError where the text spells a control token of the model
    (an image placeholder in an answer would ask for image features that are not there).
    """
    refuse_control(vlm, answer, "the answer")
    return [*plain_ids(vlm.tokenizer, vlm.turn.lead + answer), *vlm.turn.end]


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
        if name in PER_TOKEN:
            fill = _pad_id(vlm.tokenizer) if name == "input_ids" else 0
            rows = [prompt[name] if name in prompt else torch.zeros_like(prompt["input_ids"]) for prompt in prompts]
            rest = [max(sizes) for sizes in zip(*(row.shape[2:] for row in rows), strict=True)]
            wide = [_fill(row, (*row.shape[:2], *rest), "right", fill) for row in rows]
            batch[name] = torch.cat([_fill(row, (1, longest, *rest), side, fill) for row in wide])
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
    kind = _answer_kind(vlm.processor)
    rows = [_extended(prompt, answer, kind) for prompt, answer in zip(prompts, answers, strict=True)]
    batch = pad(vlm, rows, "right")
    starts = torch.tensor([prompt["input_ids"].shape[1] for prompt in prompts])[:, None]
    ends = torch.tensor([row["input_ids"].shape[1] for row in rows])[:, None]
    place = torch.arange(batch["input_ids"].shape[1])[None]
    batch["completion_mask"] = (place >= starts) & (place < ends)
    return batch


def _answer_kind(processor: Any) -> int:
    """Token type of an answer: 0, text; 1 where a processor tells a prefix, read both ways, from its suffix."""
    return int("suffix" in inspect.signature(processor.__call__).parameters)


def _extended(prompt: Mapping[str, Tensor], answer: Sequence[int], kind: int) -> dict[str, Tensor]:
    row = dict(prompt)
    tail = torch.tensor([list(answer)], dtype=torch.int64)
    row["input_ids"] = torch.cat([prompt["input_ids"], tail], dim=1)
    fills = {"attention_mask": 1, "token_type_ids": kind, "mm_token_type_ids": 0}
    for name, fill in fills.items():
        if name in prompt:
            row[name] = torch.cat([prompt[name], torch.full_like(tail, fill, dtype=prompt[name].dtype)], dim=1)
    if "cross_attention_mask" in prompt:  # an answer sees the images that the end of its prompt sees
        last = prompt["cross_attention_mask"][:, -1:]
        row["cross_attention_mask"] = torch.cat(
            [prompt["cross_attention_mask"], last.expand(-1, tail.shape[1], -1, -1)], dim=1
        )
    return row
