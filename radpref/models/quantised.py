"""QLoRA (Dettmers et al. 2023): the language model's frozen weights in 4 bits, an adapter on top in float32.

The linear layers of the decoder are kept as NF4 with doubly quantised scales, by bitsandbytes through transformers' own
way; tower, projector, embeddings and head stay as they are. Whatever is saved whole is put together from the weights
that were quantised and the adapter, so that no checkpoint is written in 4 bits.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from radpref.models.vlm import ModelError, language_model


def check_installed() -> None:
    """Raises ModelError where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.quantize nf4 keeps weights with bitsandbytes, which is not installed: pip install "
            "'radpref[quantize]', or set model.quantize none."
        )


def settings(config: Any, compute: torch.dtype) -> Any:
    """What ``from_pretrained`` is told: NF4 for the decoder's linear layers, products in ``compute``."""
    check_installed()
    with torch.device("meta"):
        skeleton = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    decoder = {id(module) for module in language_model(skeleton).modules()}
    kept = [name for name, part in skeleton.named_modules() if isinstance(part, nn.Linear) and id(part) not in decoder]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,  # of 4 bits as well, whatever the name says
    )
