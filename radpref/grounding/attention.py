"""How much the words of an answer attend to each place of an image, layer by layer.

Attention is averaged over heads. It is read from the eager implementation, which alone hands its weights out; that
is switched on in the language model for the call and off again, and each layer's weights are reduced to the rows and
columns that are asked for as soon as the layer is done, so that one layer's weights exist at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from radpref.grounding.geometry import image_tokens
from radpref.models import (
    ModelError,
    Vlm,
    autocast,
    collate,
    encode_answer,
    encode_prompt,
    language_model,
    token_mask,
    unwrapped,
)
from radpref.records import Span

See = Callable[[int, Tensor], None]
"""(number of the layer from 0, weights (rows, heads, queries, keys))."""


@contextmanager
def watched(vlm: Vlm, see: See) -> Iterator[None]:
    """Calls ``see`` with the attention weights of every decoder layer of each forward inside the context.

    The weights are those that the layer used, in the autograd graph where there is one, softmaxed over the keys. The
    language model runs eager attention inside, and afterwards what it ran before. Raises ModelError where a family
    does not hand its weights out.
    """
    decoder: Any = language_model(vlm.model)
    before = decoder.config._attn_implementation
    handles = []
    try:
        decoder.set_attn_implementation("eager")
        for number, layer in enumerate(_layers(vlm, decoder)):
            handles.append(layer.self_attn.register_forward_hook(_hook(vlm, number, see)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        decoder.set_attn_implementation(before)


def _layers(vlm: Vlm, decoder: Any) -> Sequence[Any]:
    layers = getattr(decoder, "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") for layer in layers):
        raise ModelError(
            f"{vlm.name}: the layers of a {type(decoder).__name__} are not all attention, or are not where radpref "
            "looks for them (layers.N.self_attn), so that its attention cannot be measured."
        )
    return list(layers)


def _hook(vlm: Vlm, number: int, see: See) -> Callable[[Any, Any, Any], None]:
    def hook(_: Any, __: Any, output: Any) -> None:
        if not (isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor)):
            raise ModelError(
                f"{vlm.name}: the attention of a {type(unwrapped(vlm.model)).__name__} hands no weights out, so that "
                "it cannot be measured."
            )
        see(number, output[1])

    return hook


def answer_tokens(vlm: Vlm, answer: str, spans: Sequence[Span]) -> list[int]:
    """Numbers of the tokens of ``encode_answer(vlm, answer)`` that overlap a span (``models.spans.token_mask``).

    The position that predicts token ``j`` is ``len(prompt) + j - 1``. Raises ValueError where no token does.
    """
    found = [number for number, marked in enumerate(token_mask(vlm, answer, spans)) if marked]
    if not found:
        raise ValueError("no token: the tokenizer has none for these characters of the answer")
    return found


@torch.no_grad()
def attention_maps(
    vlm: Vlm, prompt: str, pictures: Sequence[Image.Image], answer: str = "", spans: Sequence[Span] = ()
) -> list[NDArray[np.float32]]:
    """Attention to the cells of each image: one float32 (layers, rows, cols) an image, mean over heads and queries.

    The query is the last token of the prompt, from which the answer begins; with ``spans`` of an ``answer``, the
    positions that predict the spans' tokens: each the token before. Weights are those of the softmax over all keys,
    so a map sums to the share of attention that its image gets (0 to 1), not to 1. A layer with a sliding window
    gives nothing to an image outside it.

    Raises ModelError (``image_tokens``, ``watched``), ValueError for spans that hold no token.
    """
    encoded = encode_prompt(vlm, prompt, pictures)
    images = image_tokens(vlm, encoded, pictures)
    length = encoded["input_ids"].shape[1]
    queries = [length - 1]
    inputs: dict[str, Tensor] = encoded
    if spans:
        queries = [length + token - 1 for token in answer_tokens(vlm, answer, spans)]
        inputs = collate(vlm, [encoded], [encode_answer(vlm, answer)])
        inputs.pop("completion_mask")
    seen: dict[int, list[NDArray[np.float32]]] = {}

    def see(layer: int, weights: Tensor) -> None:
        mean = weights[0][:, queries].float().mean((0, 1)).cpu()
        seen[layer] = [mean[image.positions].numpy() for image in images]

    keep = (
        {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(unwrapped(vlm.model).forward).parameters else {}
    )
    with watched(vlm, see), autocast(vlm):
        vlm.model(**{name: value.to(vlm.device) for name, value in inputs.items()}, use_cache=False, **keep)
    return [
        np.stack([seen[layer][number] for layer in sorted(seen)]).reshape(
            len(seen), image.geometry.rows, image.geometry.cols
        )
        for number, image in enumerate(images)
    ]
