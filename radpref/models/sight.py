"""What a model's tower and projector hand to its language model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from radpref.models.chat import encode_prompt, pad
from radpref.models.vlm import Vlm, autocast, image_token_ids, unwrapped


@torch.no_grad()
def image_features(vlm: Vlm, images: Sequence[Image.Image]) -> list[Tensor]:
    """Of each image (places, width) float32 on the CPU, in one forward pass of the tower.

    Raises ValueError where the processor cannot use an image.
    """
    model = unwrapped(vlm.model)
    known = inspect.signature(model.get_image_features).parameters.keys() - {"input_ids"}
    places = torch.tensor(sorted(image_token_ids(vlm)))
    prompts = [encode_prompt(vlm, "", [image]) for image in images]
    inputs = {name: value.to(vlm.device) for name, value in pad(vlm, prompts, "left").items() if name in known}
    with autocast(vlm):
        out = model.get_image_features(**inputs, return_dict=True).pooler_output
    features = torch.cat([part.reshape(-1, part.shape[-1]) for part in out]).float().cpu()
    tokens = [int(torch.isin(prompt["input_ids"], places).sum()) for prompt in prompts]  # as they are spread
    return list(torch.split(features, tokens))
