"""Vision-language models: any Hugging Face image-text-to-text model, from a name to answers.

``load`` gives a ``Vlm`` that has proved to work; ``encode_prompt``, ``encode_answer`` and ``collate`` make the
tensors of training and scoring; ``generate`` answers questions; ``attach_lora`` and ``freeze`` say what is
trained. All forwards run under ``autocast(vlm)``.
"""

from radpref.models.adapt import attach_lora, freeze, interpolated, language_targets, merged, trainable_summary
from radpref.models.card import CardFacts, facts_of_recipe, model_card
from radpref.models.chat import PER_TOKEN, collate, encode_answer, encode_prompt, pad
from radpref.models.decoding import context_length, decode, generate, repeat_cache, said, sampler, text_positions
from radpref.models.dropout import without_dropout
from radpref.models.fingerprint import fingerprint
from radpref.models.loading import BASE_RECORD, in_full, load, locate, read_config, save, save_beside
from radpref.models.precision import pick_device, rounded, settle_precision
from radpref.models.quantised import check_installed
from radpref.models.segmenter import Segmenter, load_segmenter, segment
from radpref.models.serving import Served, reach, served_name
from radpref.models.sight import image_features
from radpref.models.spans import lost, token_mask
from radpref.models.template import messages
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
    "BASE_RECORD",
    "PER_TOKEN",
    "CardFacts",
    "ModelError",
    "Segmenter",
    "Served",
    "Turn",
    "Vlm",
    "attach_lora",
    "autocast",
    "check_installed",
    "collate",
    "context_length",
    "decode",
    "encode_answer",
    "encode_prompt",
    "facts_of_recipe",
    "fingerprint",
    "freeze",
    "generate",
    "image_features",
    "image_token_ids",
    "in_full",
    "interpolated",
    "language_model",
    "language_targets",
    "load",
    "load_segmenter",
    "locate",
    "lost",
    "merged",
    "messages",
    "model_card",
    "pad",
    "pick_device",
    "reach",
    "read_config",
    "repeat_cache",
    "rounded",
    "said",
    "sampler",
    "save",
    "save_beside",
    "segment",
    "served_name",
    "settle_precision",
    "text_positions",
    "token_mask",
    "trainable_summary",
    "unwrapped",
    "vision_tower",
    "without_dropout",
]
