"""A text-promptable segmenter: SAM 3 (Carion et al., 2025) and models of its shape (MedSAM-3), through transformers.

transformers' ``Sam3Processor`` needs torchvision, an extra; what it does to an image and to the model's output is a
resize, a normalisation and a threshold, and stands here. ``tests/test_segmenter.py`` compares the two where
torchvision is installed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from transformers import AutoTokenizer
from transformers.image_processing_utils import BaseImageProcessor

from radpref.images import Mask
from radpref.models.fingerprint import fingerprint
from radpref.models.loading import _folder, _only_safetensors
from radpref.models.vlm import ModelError

MODELS = {"sam3": "Sam3Model", "sam3_video": "Sam3Model", "sam3_lite_text": "Sam3LiteTextModel"}
"""Model type of a checkpoint to transformers' class of it; a video checkpoint holds the image model."""
WORDS = 32
"""Tokens of a prompt: the text tower was trained on prompts padded to so many."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A loaded segmenter."""

    model: Any
    tokenizer: Any
    size: tuple[int, int]
    """(width, height) that every image is brought to."""
    mean: torch.Tensor
    std: torch.Tensor
    """(3, 1, 1) float32, of values in 0 to 1."""
    score: float
    device: torch.device
    fingerprint: str


def load_segmenter(path: str, *, score: float = 0.5, device: torch.device | None = None) -> Segmenter:
    """A segmenter from a folder or a name on the hub, in float32, ready for ``segment``.

    ``score`` is the least probability (0 to 1) of an object that counts. Raises ModelError: not there, no SAM 3, only
    pickled weights, weights missing or broken.
    """
    try:
        folder = _folder(path, None)
    except ModelError as error:
        raise ModelError(str(error).replace("model.path", "corrupt.segmenter", 1)) from error
    _only_safetensors(folder, path)
    try:
        kind = str(json.loads((folder / "config.json").read_text("utf-8")).get("model_type"))
        if kind not in MODELS:
            raise ModelError(
                f"corrupt.segmenter {path} is a model of type {kind!r}; radpref can prompt {', '.join(MODELS)}"
            )
        model, info = getattr(transformers, MODELS[kind]).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        settings, _ = BaseImageProcessor.get_image_processor_dict(folder)
    except ModelError:
        raise
    except Exception as error:  # whatever a family raises on a broken file
        raise ModelError(f"corrupt.segmenter {path} cannot be loaded: {error}. Copy or download it again.") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"corrupt.segmenter {path} lacks {len(missing)} of its weights, which would be random: "
            f"{', '.join(missing[:3])}. Copy or download it again."
        )
    device = device or torch.device("cpu")
    side = model.config.vision_config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    mean, std = (torch.tensor(settings.get(f"image_{name}") or [0.5] * 3).view(3, 1, 1) for name in ("mean", "std"))
    return Segmenter(model.to(device).eval(), tokenizer, (width, height), mean, std, score, device, fingerprint(folder))


@torch.no_grad()
def segment(segmenter: Segmenter, picture: Image.Image, names: Sequence[str]) -> Mask | None:
    """The union of all objects of all ``names`` on an image, (height, width) as ``picture``; None where none is seen.

    An object counts where its probability times that of the name being on the image at all is above the score; a
    pixel is its own above one half (SAM 3's post-processing). The image is encoded once for all names.
    """
    squashed = picture.convert("RGB").resize(segmenter.size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(squashed)).permute(2, 0, 1) / 255
    pixels = ((pixels - segmenter.mean) / segmenter.std)[None].to(segmenter.device)
    image = segmenter.model.get_vision_features(pixel_values=pixels)
    whole: torch.Tensor | None = None
    for name in names:
        words = segmenter.tokenizer(
            name, padding="max_length", max_length=WORDS, truncation=True, return_tensors="pt"
        ).to(segmenter.device)
        out = segmenter.model(vision_embeds=image, input_ids=words["input_ids"], attention_mask=words["attention_mask"])
        scores = out.pred_logits[0].sigmoid()
        if out.presence_logits is not None:
            scores = scores * out.presence_logits[0].sigmoid()
        masks = out.pred_masks[0][scores > segmenter.score].sigmoid()
        if len(masks):
            large = F.interpolate(masks[None], size=picture.size[::-1], mode="bilinear", align_corners=False)[0]
            here = (large > 0.5).any(0)
            whole = here if whole is None else whole | here
    if whole is None:
        return None
    mask: Mask = whole.cpu().numpy()
    return mask
