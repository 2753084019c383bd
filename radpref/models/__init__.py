"""Vision-language models: any Hugging Face image-text-to-text model, from a name to answers.

``load`` gives a ``Vlm`` that has proved to work; ``encode_prompt``, ``encode_answer`` and ``collate`` make the
tensors of training and scoring; ``generate`` answers questions; ``attach_lora`` and ``freeze`` say what is
trained. All forwards run under ``autocast(vlm)``.
"""

from radpref.models.adapt import attach_lora, freeze, language_targets, merged, trainable_summary
from radpref.models.chat import collate, encode_answer, encode_prompt, messages
from radpref.models.decoding import decode, generate
from radpref.models.fingerprint import fingerprint
from radpref.models.loading import load, locate, save
from radpref.models.precision import pick_device, settle_precision
from radpref.models.vlm import (
    ModelError,
    Turn,
    Vlm,
    autocast,
    image_token_ids,
    language_model,
    unwrapped,
    vision_tower,
)

__all__ = [
    "ModelError",
    "Turn",
    "Vlm",
    "attach_lora",
    "autocast",
    "collate",
    "decode",
    "encode_answer",
    "encode_prompt",
    "fingerprint",
    "freeze",
    "generate",
    "image_token_ids",
    "language_model",
    "language_targets",
    "load",
    "locate",
    "merged",
    "messages",
    "pick_device",
    "save",
    "settle_precision",
    "trainable_summary",
    "unwrapped",
    "vision_tower",
]
