"""The loaded model as one value, and the few questions about its parts that every caller asks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from peft import PeftModel
from torch import nn

from radpref.errors import RadprefError


class ModelError(RadprefError, ValueError):
    """A model, processor or adapter that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Turn:
    """How a chat template surrounds the assistant's words."""

    lead: str
    """What stands between the generation prompt and the answer; usually empty, sometimes a space."""
    end: tuple[int, ...]
    """Token ids that close the answer; the last one ends generation."""
    opening: str = ""
    """Words that stand before every answer and are no part of it, such as an empty thought; the prompt ends in them."""
    form: Literal["parts", "answer as text", "text"] = "parts"
    """How the template takes contents (``template.Form``)."""


class Control(NamedTuple):
    """Tokens that no text of the data may spell."""

    ids: frozenset[int]
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Vlm:
    """An image-text-to-text model with its processor, ready for prompts.

    ``dtype`` is the dtype of the weights, ``compute`` the one that matrix products run in: weights in float32
    with ``compute`` bfloat16 means autocast (see ``autocast``).
    """

    model: Any
    processor: Any
    tokenizer: Any
    name: str
    folder: Path
    """Where config, processor and the weights without adapter were read from."""
    device: torch.device
    dtype: torch.dtype
    compute: torch.dtype
    fingerprint: str
    """SHA-256 over the files that weights, config, processor and adapter were read from. A model that has been
    trained since has a new one once it is saved and loaded."""
    turn: Turn
    control: Control
    quantised: bool = False
    """Whether the language model's frozen weights are kept in 4 bits."""
    most_images: int | None = None
    """Images that one prompt can show; None where there is no such limit."""


def autocast(vlm: Vlm) -> AbstractContextManager[Any]:
    """The context that every forward of ``vlm`` runs in: bfloat16 autocast, or nothing at all in float32."""
    if vlm.compute == torch.float32:
        return nullcontext()
    return torch.autocast(vlm.device.type, dtype=vlm.compute)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper; the model itself where there is none."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def language_model(model: Any) -> nn.Module:
    """The decoder stack: embeddings and layers, without vision tower, projector and head."""
    decoder: nn.Module = unwrapped(model).get_decoder()
    tower = vision_tower(model)
    if any(part is tower for part in decoder.modules()):
        raise ModelError(
            f"{type(unwrapped(model)).__name__} does not keep its language model apart from its vision tower, "
            "so that one cannot be trained without the other. Use a model family that does (LLaVA, Idefics3, "
            "Gemma3, Qwen-VL, InternVL ...)."
        )
    return decoder


def vision_tower(model: Any) -> nn.Module:
    """The image encoder. Raises ModelError where transformers names none."""
    inner = unwrapped(model)
    tower: nn.Module = inner.get_encoder(modality="image")
    if tower is inner or tower is inner.base_model:
        raise ModelError(
            f"{type(inner).__name__} names no image encoder; it is not a vision-language model that radpref can use."
        )
    return tower


def image_token_ids(vlm: Vlm) -> frozenset[int]:
    """Ids that stand for image content in ``input_ids``; they are placeholders and never text."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    found = (getattr(unwrapped(vlm.model).config, name, None) for name in names)
    return frozenset(i for i in found if isinstance(i, int))


def reads_images_aside(model: Any) -> bool:
    """Whether images enter through cross-attention layers, and not in place of tokens."""
    return bool(getattr(unwrapped(model).config.get_text_config(), "cross_attention_layers", None))
