"""Where in its images a model found its words: attention to the image, weighted by what it did for them.

For the log-probability L of the words, the relevance of an image token is the mean over layers and heads of
max(0, A * dL/dA), A the attention to it from the positions that predict the words: the gradient-weighted attention of
Chefer et al. (ICCV 2021, eq. 5), read off without its roll-out through the layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from radpref.grounding.attention import watched
from radpref.grounding.geometry import image_tokens, to_image
from radpref.images import Located
from radpref.models import ModelError, Vlm, autocast, collate, encode_answer, encode_prompt, token_mask, unwrapped
from radpref.records import Pair, Span


def evidence(
    vlm: Vlm, prompt: str, pictures: Sequence[Image.Image], answer: str, spans: Sequence[Span]
) -> list[NDArray[np.float32]]:
    """The relevance of every pixel of each image for the words of ``spans``: float32 (height, width) an image, >= 0.

    The scale is the images' own: compare places and images of one call, not calls. Weights are not changed and get no
    gradient. Raises ModelError (a family whose attention or image tokens cannot be mapped), ValueError for spans that
    hold no token, or an answer that spells a special token.
    """
    encoded = encode_prompt(vlm, prompt, pictures)
    images = image_tokens(vlm, encoded, pictures)
    tokens = [number for number, marked in enumerate(token_mask(vlm, answer, spans)) if marked]
    if not tokens:
        raise ValueError("the spans hold no token of the answer")
    ids = encode_answer(vlm, answer)
    inputs = collate(vlm, [encoded], [ids])
    inputs.pop("completion_mask")
    start = encoded["input_ids"].shape[1] - 1  # the position that predicts the first token of the answer
    places = torch.tensor(tokens, device=vlm.device)
    words = torch.tensor([ids[token] for token in tokens], device=vlm.device)
    weights: dict[int, Tensor] = {}
    forward = inspect.signature(unwrapped(vlm.model).forward).parameters
    keep = {"logits_to_keep": len(ids) + 1} if "logits_to_keep" in forward else {}
    with torch.enable_grad(), _through_embeddings(vlm), watched(vlm, weights.__setitem__), autocast(vlm):
        out = vlm.model(**{name: value.to(vlm.device) for name, value in inputs.items()}, use_cache=False, **keep)
        logits = out.logits[0, -(len(ids) + 1) :].index_select(0, places)
        total = logits.float().log_softmax(-1).gather(1, words[:, None]).sum()
        layers = list(weights.values())
        gradients = torch.autograd.grad(total, layers, allow_unused=True)
    relevance = torch.zeros(inputs["input_ids"].shape[1])
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is not None:
            used = (layer * gradient).detach()[0].float().clamp(min=0)
            relevance += used.index_select(1, places + start).sum(1).mean(0).cpu() / len(layers)
    return [
        to_image(
            relevance[image.positions].view(image.geometry.rows, image.geometry.cols).numpy(),
            image.geometry,
            picture.size,
        )
        for image, picture in zip(images, pictures, strict=True)
    ]


def brightest(heats: Sequence[NDArray[np.float32]], quantile: float) -> list[NDArray[np.bool_]]:
    """Masks of the pixels at or above the ``quantile`` (0 to 1) of all images together, but of none that is 0.

    A grid cell is taken or left as a whole, so that the masks may cover more than 1 - quantile of a coarse grid.
    """
    threshold = np.quantile(np.concatenate([heat.ravel() for heat in heats]), quantile)
    return [(heat >= threshold) & (heat > 0) for heat in heats]


def locate(vlm: Vlm, pair: Pair, images: Sequence[Image.Image], quantile: float) -> list[Located]:
    """A provider of masks for ``radpref.pairs.corrupt``: where the model looked for the words that it got wrong.

    Of a pair made from a right answer (provenance ``was_right`` is ``yes``) the model's own words are the chosen
    ones, and so those are asked for. A pair that differs as a whole has no such words.
    """
    right = pair.provenance.get("was_right") == "yes"
    answer, spans = (pair.chosen, pair.chosen_spans) if right else (pair.rejected, pair.rejected_spans)
    spans = tuple(span for span in spans if span.end > span.start)
    try:
        if not spans:
            raise ValueError("no words are marked")
        masks = brightest(evidence(vlm, pair.prompt, images, answer, spans), quantile)
    except ModelError:
        raise  # holds for every pair: the run cannot have evidence
    except ValueError as error:
        return [Located(None, "evidence", f"no evidence: {error}")] * len(images)
    return [Located(mask, "evidence") for mask in masks]


@contextmanager
def _through_embeddings(vlm: Vlm) -> Iterator[None]:
    """A graph from the embeddings on and none of the weights, whatever of them is trained."""
    trained = [parameter for parameter in vlm.model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    embeddings: Any = unwrapped(vlm.model).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_(True))
    try:
        yield
    finally:
        handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
