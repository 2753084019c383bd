"""Models of real size and random weights: the shapes of Qwen3-VL and Gemma 3, and tiny ones of the same make."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers as hf

Template = Literal["qwen3-vl", "gemma-3"]


class Size(NamedTuple):
    """Widths and depths of a model."""

    family: Template
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    tower: int
    """Width of the tower."""
    tower_layers: int
    tower_heads: int
    tower_inner: int
    pixels: int
    """Side of a square image; of Gemma 3 the one that all images are made."""


SIZES = {
    "qwen3-vl-2b": Size("qwen3-vl", 2048, 28, 16, 8, 128, 6144, 151_936, 1024, 24, 16, 4096, 896),
    "qwen3-vl-4b": Size("qwen3-vl", 2560, 36, 32, 8, 128, 9728, 151_936, 1024, 24, 16, 4096, 896),
    "qwen3-vl-8b": Size("qwen3-vl", 4096, 36, 32, 8, 128, 12288, 151_936, 1152, 27, 16, 4304, 896),
    "gemma-3-4b": Size("gemma-3", 2560, 34, 8, 4, 256, 10240, 262_208, 1152, 27, 16, 4304, 896),
    "qwen3-vl-tiny": Size("qwen3-vl", 64, 2, 4, 2, 16, 128, 1024, 32, 2, 2, 64, 128),
    "gemma-3-tiny": Size("gemma-3", 64, 6, 4, 2, 16, 128, 1024, 32, 2, 2, 64, 112),
}
"""Their published configs' sizes; the weights are random, so that only time and memory mean something."""

_MARKS = {
    "qwen3-vl": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    "gemma-3": {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
}
_IMAGE = {"qwen3-vl": "<|vision_start|><|image_pad|><|vision_end|>", "gemma-3": "<start_of_image>"}
_START, _END = "<|turn|>", "<|end|>"
_TEMPLATE = (
    "{% for message in messages %}" + _START + "{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}" + _END + "{% endfor %}"
    "{% if add_generation_prompt %}" + _START + "assistant\n{% endif %}"
)


def _tokens(family: Template, corpus: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", _START, _END, *_MARKS[family].values()]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(corpus * 20, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token=_START,
        eos_token=_END,
        extra_special_tokens=_MARKS[family],
    )


def config_of(size: Size, tokens: Any = None) -> Any:
    """The config of a model of a size; ids of special tokens are those of ``tokens``, or any."""

    def number(name: str) -> int:
        return int(tokens.convert_tokens_to_ids(_MARKS[size.family][name])) if tokens else 3

    text = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head,
        "max_position_embeddings": 32_768,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    tower = {
        "hidden_size": size.tower,
        "intermediate_size": size.tower_inner,
        "num_attention_heads": size.tower_heads,
    }
    if size.family == "gemma-3":
        side = size.pixels // 14
        return hf.Gemma3Config(
            vision_config=hf.SiglipVisionConfig(
                **tower,
                num_hidden_layers=size.tower_layers,
                image_size=size.pixels,
                patch_size=14,
                vision_use_head=False,
            ),
            text_config=hf.Gemma3TextConfig(**text, sliding_window=1024, tie_word_embeddings=True),
            mm_tokens_per_image=(side // 4) ** 2,
            boi_token_index=number("boi_token"),
            eoi_token_index=number("eoi_token"),
            image_token_index=number("image_token"),
        )
    parts = size.head // 2
    sections = [parts - 2 * (parts * 5 // 16), parts * 5 // 16, parts * 5 // 16]
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections, "mrope_interleaved": True}
    depth = size.tower_layers
    return hf.Qwen3VLConfig(
        text_config={**text, "rope_parameters": rope, "tie_word_embeddings": True},
        vision_config={
            **tower,
            "num_heads": size.tower_heads,
            "depth": depth,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 2304,
            "out_hidden_size": size.hidden,
            "deepstack_visual_indexes": sorted({depth // 4, depth // 2, 3 * depth // 4}),
        },
        image_token_id=number("image_token"),
        video_token_id=number("video_token"),
        vision_start_token_id=number("vision_start_token"),
        vision_end_token_id=number("vision_end_token"),
        tie_word_embeddings=True,
    )


def _processor(size: Size, tokens: Any) -> Any:
    template = _TEMPLATE.replace("IMAGE", _IMAGE[size.family])
    if size.family == "gemma-3":
        from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

        side = {"height": size.pixels, "width": size.pixels}
        length = (size.pixels // 14 // 4) ** 2
        pictures = Gemma3ImageProcessorPil(size=side)
        return hf.Gemma3Processor(pictures, tokens, image_seq_length=length, chat_template=template)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from radpref.models.processors import image_only

    limits = {"shortest_edge": 64 * 64, "longest_edge": size.pixels**2}
    pictures = Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, temporal_patch_size=2, size=limits)
    return image_only(hf.Qwen3VLProcessor)(pictures, tokens, chat_template=template)


def build(name: str, folder: Path, corpus: list[str], *, device: str = "cpu", seed: int = 0) -> Path:
    """Save a model of random weights (bfloat16, on a CPU float32) with its processor, as ``radpref.models.load`` reads.

    ``corpus`` is what its tokenizer is made of.
    """
    size = SIZES[name]
    tokens = _tokens(size.family, corpus)
    torch.manual_seed(seed)
    with torch.device(device):
        model = hf.AutoModelForImageTextToText.from_config(
            config_of(size, tokens), dtype=torch.bfloat16 if device != "cpu" else torch.float32
        )
    model.save_pretrained(folder)
    _processor(size, tokens).save_pretrained(folder)
    return folder
