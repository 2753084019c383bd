"""Encoded images: what the frozen tower and projector make of a prompt's images, once for every use.

A prompt's features are flat: each tensor holds one vector an image token, in the order of the placeholders, so that
they can be cut apart by prompts, kept, and joined for any batch. Numbers in a name are places in lists:
``pooler_output.0`` is what a family returns image by image, ``deepstack_features.2.0`` what enters Qwen3-VL's third
layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from radpref.models import unwrapped

Features = dict[str, Tensor]


@dataclass
class Encoded(ModelOutput):  # type: ignore[misc]
    """What models take as ``mm_encoder_outputs["image"]``."""

    pooler_output: Any = None
    deepstack_features: Any = None


def takes_features(model: Any) -> bool:
    """Whether the family can be given encoded images in place of pixels."""
    inner = unwrapped(model)
    return hasattr(inner, "get_image_features") and "mm_encoder_outputs" in inspect.signature(inner.forward).parameters


@torch.no_grad()
def encode(model: Any, images: Mapping[str, Tensor]) -> Features:
    """Features of all images of a batch, joined; {} where there are none."""
    if not any(name.startswith("pixel_") for name in images):
        return {}
    inner = unwrapped(model)
    # the outer method hands on what only the inner one names (LLaVA's image_sizes)
    methods = (getattr(part, "get_image_features", None) for part in (inner, inner.base_model))
    accepted = {name for method in methods if method for name in inspect.signature(method).parameters}
    given = {name: value for name, value in images.items() if name in accepted}
    out = inner.get_image_features(**given, return_dict=True)
    features = _of_images("pooler_output", out.pooler_output)
    for number, layer in enumerate(out.get("deepstack_features") or ()):
        features |= _of_images(f"deepstack_features.{number}", layer)
    return features


def _of_images(name: str, value: Any) -> Features:
    """A tensor over all images, or a sequence of one an image, as one flat tensor."""
    if isinstance(value, Tensor):
        return {name: value.flatten(0, -2)}
    return {f"{name}.0": torch.cat([image.flatten(0, -2) for image in value])}


def split(features: Features, counts: Sequence[int]) -> list[Features]:
    """Cut joined features into those of prompts with ``counts`` image tokens.

    Raises ValueError where they are of another number of tokens.
    """
    for name, value in features.items():
        if len(value) != sum(counts):
            raise ValueError(f"{name} has {len(value)} vectors for {sum(counts)} image tokens")
    parts = {name: torch.split(value, list(counts)) for name, value in features.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(len(counts))]


def joined(parts: Sequence[Features]) -> Features:
    """The features of several prompts after one another; prompts without images have none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


def as_encoded(features: Features) -> Encoded:
    """The form that models take."""
    out: dict[str, Any] = {}
    for name, value in features.items():
        field, *places = name.split(".")
        # the last number stands for the images, which come as one tensor; one before it for a layer
        layer = [value] if len(places) > 1 else value
        out[field] = [*out.get(field, []), layer] if places else value
    return Encoded(**out)
