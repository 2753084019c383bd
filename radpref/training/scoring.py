"""Log-probs of answers under a model: images encoded once, the head applied at answer positions only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radpref.models import Vlm, collate, unwrapped

_PIXELS = "pixel_"
"""Names of the tensors that the vision tower alone reads begin so, in all families."""

_TEXT = frozenset({"input_ids", "attention_mask", "completion_mask", "token_type_ids", "mm_token_type_ids"})


class Batch(NamedTuple):
    """Rows ``[prompt | answer]`` in ``copies`` blocks over the same prompts, whose images stand here once."""

    rows: dict[str, Tensor]
    """What the language model reads: (copies * prompts, tokens) ids and masks, and per-image tensors it needs."""
    images: dict[str, Tensor]
    """What the vision tower reads, for the prompts of one block; empty for prompts without images."""


def batch_of(vlm: Vlm, prompts: Sequence[Mapping[str, Tensor]], answers: Sequence[Sequence[Sequence[int]]]) -> Batch:
    """Collate blocks of answers, each with one answer a prompt; the rows are block after block."""
    whole = collate(vlm, [*prompts] * len(answers), [ids for block in answers for ids in block])
    images = {name: value[: len(value) // len(answers)] for name, value in whole.items() if name not in _TEXT}
    # grids and sizes of images are asked for by the language model as well, for its positions
    rows = {name: value for name, value in whole.items() if not name.startswith(_PIXELS)}
    return Batch(rows, images)


def encode_images(model: Any, images: Mapping[str, Tensor]) -> Any:
    """The frozen tower's and projector's output, without gradient; None without images.

    None as well for a model family that cannot be given encoded images; ``token_logps`` then sends the pixels
    through it, once a row.
    """
    inner = unwrapped(model)
    if not images or "mm_encoder_outputs" not in inspect.signature(inner.forward).parameters:
        return None
    accepted = inspect.signature(inner.get_image_features).parameters
    with torch.no_grad():
        return inner.get_image_features(
            **{name: value for name, value in images.items() if name in accepted}, return_dict=True
        )


def token_logps(
    model: Any, rows: Mapping[str, Tensor], images: Mapping[str, Tensor], copies: int, features: Any = None
) -> tuple[Tensor, Tensor]:
    """log p of every answer token: ((R, T) float32, (R, T) bool), T the longest answer, zeros after an answer.

    The head and the softmax run at the R rows' answer positions only; no logits of prompts or images exist.

    Args:
        model: the model, in a PEFT or DDP wrapper or not.
        rows: ``Batch.rows``.
        images: ``Batch.images``, of one block.
        copies: number of blocks in ``rows``.
        features: ``encode_images`` of the images, or None.
    """
    mask = rows["completion_mask"]
    inputs: dict[str, Any] = {name: value for name, value in rows.items() if name != "completion_mask"}
    if features is not None:
        inputs["mm_encoder_outputs"] = {"image": _repeated(features, copies)}
    else:
        pixels = {name: value for name, value in images.items() if name.startswith(_PIXELS)}
        inputs |= {name: torch.cat([value] * copies) for name, value in pixels.items()}
    with _head_at(model, mask[:, 1:]):
        logits = model(**inputs, use_cache=False).logits
    flat = -F.cross_entropy(logits.float(), rows["input_ids"][mask], reduction="none")
    lengths = mask.sum(1, keepdim=True)
    place = torch.arange(int(lengths.max()), device=mask.device)[None] < lengths
    return flat.new_zeros(place.shape).masked_scatter(place, flat), place


@contextmanager
def _head_at(model: Any, predicts: Tensor) -> Iterator[None]:
    """Let the head see the hidden states at ``predicts`` (R, L - 1) alone, flattened to (answer tokens, width).

    A hook rather than ``logits_to_keep``, which keeps the same positions in every row, and rather than a call
    of the decoder, which would go past DDP's and FSDP's own forward.
    """

    def gather(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0][:, :-1][predicts], *arguments[1:])

    handle = unwrapped(model).get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def _repeated(features: Any, copies: int) -> Any:
    """The encoded images of one block, for ``copies`` blocks: per-image lists and tensors are repeated."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.cat([value] * copies)
        return [*value] * copies

    parts: dict[str, Any] = {"pooler_output": repeat(features.pooler_output)}
    if features.get("deepstack_features") is not None:  # Qwen3-VL: one such list a layer that they enter
        parts["deepstack_features"] = [repeat(layer) for layer in features.deepstack_features]
    return type(features)(**parts)
