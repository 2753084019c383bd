"""Tiny models of all the other families that radpref can use, as ``tests.tiny`` builds the first five.

A builder returns (model, processor) as a published checkpoint of its family would hold them, with the family's own
tokens, image processor and layout of layers, and weights of a few 100 kB.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from radpref.models.processors import image_only
from tests import tiny
from tests.tiny import TOWER, template, tokenizer

Built = tuple[Any, Any]
BOS = "{{ bos_token }}"


def _pictures(kind: str, **settings: Any) -> Any:
    """An image processor of the PIL backend, or of torchvision where a family has no other."""
    found = getattr(hf, f"{kind}ImageProcessorPil", None) or getattr(hf, f"{kind}ImageProcessor")
    return found(**settings)


def _got_ocr2(side: int) -> Any:
    module = importlib.import_module("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    return module.GotOcr2ImageProcessorPil(
        size={"height": side, "width": side}, crop_to_patches=True, min_patches=1, max_patches=4
    )


def _square(side: int = 32) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


def _cropped(side: int = 32) -> dict[str, Any]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _clip() -> Any:
    return hf.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)


def _siglip() -> Any:
    return hf.SiglipVisionConfig(**TOWER, image_size=32, patch_size=8, vision_use_head=False)


def _text(tokens: Any, **more: Any) -> dict[str, Any]:
    ends = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id}
    return {**tiny.TEXT, "vocab_size": len(tokens), "bos_token_id": tokens.bos_token_id, **ends, **more}


def _id(tokens: Any, text: str) -> int:
    return int(tokens.convert_tokens_to_ids(text))


# -------------------------------------------------------------------------------------- Qwen, GLM, Kimi

QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}


def _qwen_tokens() -> tuple[Any, dict[str, int]]:
    tokens = tokenizer(QWEN)
    return tokens, {
        "image_token_id": tokens.image_token_id,
        "video_token_id": tokens.video_token_id,
        "vision_start_token_id": tokens.vision_bos_token_id,
        "vision_end_token_id": tokens.vision_eos_token_id,
    }


def _qwen_processor(kind: str, tokens: Any, patch: int) -> Any:
    limits = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    pictures = _pictures("Qwen2VL", patch_size=patch, merge_size=2, size=limits)
    return image_only(getattr(hf, f"{kind}Processor"))(
        pictures, tokens, chat_template=template("<|vision_start|><|image_pad|><|vision_end|>")
    )


def _merging(patch: int, **more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 48,
        "num_heads": 2,
        "intermediate_size": 48,
        "patch_size": patch,
        "spatial_merge_size": 2,
        **more,
    }


def _rope(sections: tuple[int, int, int] = (2, 2, 2), **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": list(sections), "rope_theta": 10000.0, **more}


def qwen2_vl() -> Built:
    tokens, ids = _qwen_tokens()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2}
    config = hf.Qwen2VLConfig(
        text_config=_text(tokens, rope_parameters=_rope()),
        vision_config={**vision, "patch_size": 14, "spatial_merge_size": 2},
        **ids,
    )
    return hf.Qwen2VLForConditionalGeneration(config), _qwen_processor("Qwen2VL", tokens, 14)


def qwen3_5() -> Built:
    """Linear attention in every second layer."""
    tokens, ids = _qwen_tokens()
    linear = {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    text = _text(
        tokens,
        head_dim=12,
        layer_types=["linear_attention", "full_attention"],
        rope_parameters=_rope((1, 1, 1), mrope_interleaved=True, partial_rotary_factor=0.5),
        **linear,
    )
    config = hf.Qwen3_5Config(text_config=text, vision_config=_merging(16, num_position_embeddings=64), **ids)
    return hf.Qwen3_5ForConditionalGeneration(config), _qwen_processor("Qwen3VL", tokens, 16)


def qwen3_vl_moe() -> Built:
    tokens, ids = _qwen_tokens()
    text = _text(
        tokens,
        head_dim=12,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        rope_parameters=_rope(mrope_interleaved=True),
    )
    vision = _merging(16, num_position_embeddings=64, deepstack_visual_indexes=[0])
    config = hf.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **ids)
    return hf.Qwen3VLMoeForConditionalGeneration(config), _qwen_processor("Qwen3VL", tokens, 16)


def _glm(kind: str) -> Built:
    marks = {
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    }
    tokens = tokenizer({"image_token": "<|image|>", "video_token": "<|video|>", **marks})
    limits = {"shortest_edge": 2 * 28**2, "longest_edge": 2 * 56**2}
    processor = image_only(getattr(hf, f"{kind}Processor"))(
        _pictures(kind, patch_size=14, merge_size=2, size=limits),
        tokens,
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    text = _text(tokens, rope_parameters=_rope(partial_rotary_factor=1.0))
    config = getattr(hf, f"{kind}Config")(
        text_config={"model_type": "glm4v_text", **text},
        vision_config={"model_type": "glm4v_vision", **_merging(14, image_size=56)},
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        **{name: _id(tokens, mark) for name, mark in marks.items()},
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


def glm4v() -> Built:
    return _glm("Glm4v")


def glm46v() -> Built:
    return _glm("Glm46V")


def kimi_k25() -> Built:
    """Latent attention and experts, as DeepSeek-V3."""
    marks = {"start": "<|media_begin|>", "end": "<|media_end|>", "content": "<|media_content|>"}
    tokens = tokenizer({"image_token": "<|media_pad|>", "video_token": "<|kimi_k25_video_placeholder|>", **marks})
    processor = image_only(hf.Kimi_K25Processor)(
        _pictures("Kimi_K25", patch_size=8, merge_kernel_size=2, max_patches=64),
        tokens,
        chat_template=template("<|media_begin|><|media_pad|><|media_end|>"),
    )
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
    experts = {
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    }
    text = _text(tokens, model_type="deepseek_v3", **latent, **experts) | {"num_key_value_heads": 4}
    vision = {"patch_size": 8, "pos_emb_height": 8, "pos_emb_width": 8, "num_attention_heads": 2}
    config = hf.Kimi_K25Config(
        text_config=text,
        vision_config={**vision, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48},
        projection_hidden_size=32,
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        vision_start_token_id=_id(tokens, "<|media_begin|>"),
        vision_end_token_id=_id(tokens, "<|media_end|>"),
        tie_word_embeddings=False,
    )
    return hf.Kimi_K25ForConditionalGeneration(config), processor


# -------------------------------------------------------------------------------------- LLaVA and its like


def vipllava() -> Built:
    """Features of several layers of the tower."""
    tokens = tokenizer({"image_token": "<image>"})
    processor = hf.LlavaProcessor(
        _pictures("CLIP", **_cropped()),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    config = hf.VipLlavaConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        vision_feature_layers=[-1, -2],
        image_seq_length=16,
    )
    return hf.VipLlavaForConditionalGeneration(config), processor


PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def llava_next() -> Built:
    """Tiles of an image, as many as its shape asks for."""
    tokens = tokenizer({"image_token": "<image>"})
    processor = hf.LlavaNextProcessor(
        _pictures("LlavaNext", **_cropped(), image_grid_pinpoints=PINPOINTS),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    config = hf.LlavaNextConfig(
        vision_config=_clip(),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> Built:
    tokens = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    processor = image_only(hf.LlavaOnevisionProcessor)(
        _pictures("LlavaOnevision", **_square(), image_grid_pinpoints=PINPOINTS),
        tokens,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config=hf.Qwen2Config(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        image_grid_pinpoints=PINPOINTS,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def fast_vlm() -> Built:
    """A convolutional tower of timm, whose last layer's places are the image tokens."""
    tokens = tokenizer({"image_token": "<image>"})
    processor = hf.LlavaProcessor(
        _pictures("CLIP", **_cropped(128)),
        tokens,
        patch_size=32,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )
    config = hf.FastVlmConfig(
        vision_config=hf.TimmWrapperConfig(architecture="test_efficientnet", do_pooling=False, hidden_size=256),
        text_config=hf.Qwen2Config(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        image_seq_length=16,
    )
    return hf.FastVlmForConditionalGeneration(config), processor


def _pixtral_parts(merge: int) -> tuple[Any, Any, Any, Any]:
    """Images keep their own size."""
    tokens = tokenizer({"image_token": "[IMG]", "break": "[IMG_BREAK]", "close": "[IMG_END]"}, bos_token="<s>")
    processor = hf.PixtralProcessor(
        _pictures("Pixtral", size={"longest_edge": 64}, patch_size=8),
        tokens,
        patch_size=8,
        spatial_merge_size=merge,
        chat_template=template("[IMG]", start=BOS),
    )
    tower = hf.PixtralVisionConfig(**TOWER, image_size=64, patch_size=8)
    return tokens, processor, tower, hf.MistralConfig(**_text(tokens, sliding_window=24))  # shorter than a prompt


def pixtral() -> Built:
    tokens, processor, tower, text = _pixtral_parts(1)
    config = hf.LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=tokens.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def mistral3() -> Built:
    tokens, processor, tower, text = _pixtral_parts(2)
    config = hf.Mistral3Config(
        vision_config=tower,
        text_config=text,
        image_token_index=tokens.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return hf.Mistral3ForConditionalGeneration(config), processor


def internvl() -> Built:
    tokens = tokenizer(
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    )
    processor = image_only(hf.InternVLProcessor)(
        _got_ocr2(32), tokens, image_seq_length=4, chat_template=template("<IMG_CONTEXT>\n")
    )
    config = hf.InternVLConfig(
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        text_config=hf.Qwen2Config(**_text(tokens)),
        image_token_id=tokens.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def aya_vision() -> Built:
    """Cohere's decoder, whose logits are scaled, with a sliding window."""
    marks = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    tokens = tokenizer({f"mark{i}": mark for i, mark in enumerate((*marks, "TILE", "TILE_GLOBAL"))}, bos_token="<s>")
    processor = hf.AyaVisionProcessor(
        _got_ocr2(32),
        tokens,
        patch_size=8,
        img_size=32,
        downsample_factor=2,
        chat_template=template("<image>", start=BOS),
    )
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 32}
    config = hf.AyaVisionConfig(
        vision_config=_siglip(),
        text_config=hf.Cohere2Config(**_text(tokens, **layers)),
        image_token_index=_id(tokens, "<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    return hf.AyaVisionForConditionalGeneration(config), processor


# -------------------------------------------------------------------------------------- Idefics and SmolVLM


def idefics2() -> Built:
    """A perceiver between tower and language model."""
    tokens = tokenizer(
        {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>", "end": "<end_of_utterance>"},
        bos_token="<s>",
    )
    processor = hf.Idefics2Processor(
        _pictures("Idefics2", size={"longest_edge": 64, "shortest_edge": 32}, do_image_splitting=False),
        tokens,
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    perceiver = {
        "hidden_size": 48,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
        "num_key_value_heads": 1,
    }
    config = hf.Idefics2Config(
        vision_config={**TOWER, "image_size": 64, "patch_size": 16},
        perceiver_config=perceiver,
        text_config=hf.MistralConfig(**_text(tokens)),
        image_token_id=tokens.image_token_id,
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def smolvlm() -> Built:
    """An image in tiles, each with marks of its own."""
    tokens = tokenizer(
        {
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        }
    )
    sizes = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
    processor = image_only(hf.SmolVLMProcessor)(
        _pictures("SmolVLM", **sizes, do_image_splitting=True),
        tokens,
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    vision = importlib.import_module("transformers.models.smolvlm.configuration_smolvlm").SmolVLMVisionConfig
    config = hf.SmolVLMConfig(
        vision_config=vision(**TOWER, image_size=64, patch_size=16),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_id=tokens.image_token_id,
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


# -------------------------------------------------------------------------------------- Google


def paligemma() -> Built:
    """A prefix that is read both ways; a processor that takes no text without an image."""
    tokens = tokenizer({"image_token": "<image>"}, bos_token="<s>")
    pictures = _pictures("Siglip", **_square())
    pictures.image_seq_length = 16
    config = hf.PaliGemmaConfig(
        vision_config=_siglip(),
        text_config=hf.GemmaConfig(**_text(tokens, head_dim=12)),
        image_token_index=tokens.image_token_id,
        projection_dim=48,
        hidden_size=48,
        vocab_size=len(tokens),
    )
    processor = hf.PaliGemmaProcessor(pictures, tokens, chat_template=template("<image>"))
    return hf.PaliGemmaForConditionalGeneration(config), processor


def gemma4() -> Built:
    """Embeddings of their own for each layer."""
    roles = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
        "video": "<|video|>",
    }
    tokens = tokenizer(roles, bos_token="<s>")
    processor = image_only(hf.Gemma4Processor)(
        _pictures("Gemma4", patch_size=8, pooling_kernel_size=2, max_soft_tokens=70),
        tokens,
        image_seq_length=70,
        chat_template=template("<|image|>", start=BOS),
    )
    heads = {"head_dim": 16, "global_head_dim": 16, "sliding_window": 16}
    text = _text(
        tokens,
        layer_types=["sliding_attention", "full_attention"],
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=len(tokens),
        **heads,
    )
    vision = {**TOWER, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 8, "pooling_kernel_size": 2}
    config = hf.Gemma4Config(
        text_config=text,
        vision_config={**vision, "position_embedding_size": 1024},
        audio_config=None,
        boi_token_id=tokens.boi_token_id,
        eoi_token_id=tokens.eoi_token_id,
        image_token_id=tokens.image_token_id,
        video_token_id=_id(tokens, "<|video|>"),
        audio_token_id=tokens.audio_token_id,
        boa_token_id=tokens.boa_token_id,
        eoa_token_index=tokens.eoa_token_id,
    )
    return hf.Gemma4ForConditionalGeneration(config), processor


# -------------------------------------------------------------------------------------- Meta


def mllama() -> Built:
    """Images enter through cross-attention, and not in place of tokens."""
    tokens = tokenizer({"image_token": "<|image|>", "python": "<|python_tag|>"}, bos_token="<s>")
    processor = hf.MllamaProcessor(
        _pictures("Mllama", **_square(), max_image_tiles=2), tokens, chat_template=template("<|image|>", start=BOS)
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "vision_output_dim": 64,
        "image_size": 32,
        "patch_size": 8,
        "max_num_tiles": 2,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    }
    text = _text(tokens, cross_attention_layers=[1]) | {"num_hidden_layers": 3}
    config = hf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=tokens.image_token_id)
    return hf.MllamaForConditionalGeneration(config), processor


def llama4() -> Built:
    """Experts behind a router, attention in chunks, pixels in bfloat16."""
    marks = (
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    )
    tokens = tokenizer({f"mark{i}": mark for i, mark in enumerate(marks)}, bos_token="<s>")
    processor = hf.Llama4Processor(
        _pictures("Llama4", **_square(), max_patches=2),
        tokens,
        patch_size=8,
        pixel_shuffle_ratio=0.5,
        chat_template=template("<|image|>", start=BOS),
    )
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "vision_output_dim": 32,
        "image_size": 32,
        "patch_size": 8,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
        "pixel_shuffle_ratio": 0.5,
    }
    experts = {"intermediate_size_mlp": 96, "num_local_experts": 2, "num_experts_per_tok": 1}
    config = hf.Llama4Config(
        vision_config=vision,
        text_config=_text(tokens, head_dim=12, attention_chunk_size=16, **experts),
        boi_token_index=_id(tokens, "<|image_start|>"),
        eoi_token_index=_id(tokens, "<|image_end|>"),
        image_token_index=_id(tokens, "<|patch|>"),
    )
    return hf.Llama4ForConditionalGeneration(config), processor


# -------------------------------------------------------------------------------------- others


def lfm2_vl() -> Built:
    """Short convolutions in every second layer."""
    marks = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    tokens = tokenizer(marks, bos_token="<s>")
    pictures = _pictures(
        "Lfm2Vl",
        encoder_patch_size=8,
        tile_size=32,
        min_image_tokens=4,
        max_image_tokens=16,
        max_num_patches=64,
        do_image_splitting=False,
    )
    text = hf.Lfm2Config(**_text(tokens, layer_types=["conv", "full_attention"], block_multiple_of=8))
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**TOWER, patch_size=8, num_patches=64, vision_use_head=False),
        text_config=text,
        image_token_id=tokens.image_token_id,
        projector_hidden_size=32,
    )
    processor = hf.Lfm2VlProcessor(pictures, tokens, chat_template=template("<image>", start=BOS))
    return hf.Lfm2VlForConditionalGeneration(config), processor


def blip2() -> Built:
    """A query former; its processor puts the image's tokens before the text itself, for one image."""
    tokens = tokenizer({})
    processor = hf.Blip2Processor(_pictures("Blip", **_square()), tokens, num_query_tokens=4)
    processor.chat_template = template("")
    former = {**TOWER, "vocab_size": 60, "encoder_hidden_size": 32}
    text = {"hidden_size": 48, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = hf.Blip2Config(
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        qformer_config=former,
        text_config=hf.OPTConfig(**text, vocab_size=len(tokens), word_embed_proj_dim=48, pad_token_id=0),
        num_query_tokens=4,
        image_token_index=_id(tokens, "<image>"),
    )
    return hf.Blip2ForConditionalGeneration(config), processor


def deepseek_vl() -> Built:
    tokens = tokenizer({"image_token": "<image_placeholder>"}, bos_token="<s>")
    processor = hf.DeepseekVLProcessor(
        _pictures("DeepseekVL", **_square()),
        tokens,
        chat_template=template("<image_placeholder>", start=BOS),
        num_image_tokens=16,
    )
    config = hf.DeepseekVLConfig(
        vision_config=_siglip(),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_id=tokens.image_token_id,
    )
    return hf.DeepseekVLForConditionalGeneration(config), processor


def janus() -> Built:
    """A second head that draws images, which stays unused."""
    marks = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokens = tokenizer(marks, bos_token="<s>")
    processor = hf.JanusProcessor(
        _pictures("Janus", **_square(), min_size=8),
        tokens,
        chat_template=template("<image_placeholder>", start=BOS),
    )
    processor.num_image_tokens = 16
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 48,
        "mlp_ratio": 2.0,
        "num_image_tokens": 16,
    }
    drawing = {
        "embed_dim": 8,
        "num_embeddings": 16,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "num_patches": 4,
        "image_token_embed_dim": 48,
        "projection_dim": 48,
        "out_channels": 3,
        "num_hidden_layers": 1,
        "latent_channels": 8,
    }
    config = hf.JanusConfig(
        vision_config=vision,
        vq_config=drawing,
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_id=tokens.image_token_id,
    )
    return hf.JanusForConditionalGeneration(config), processor


def git() -> Built:
    """Images stand before the text without a token of theirs: refused."""
    tokens = tokenizer({})
    processor = hf.GitProcessor(_pictures("CLIP", **_cropped()), tokens)
    processor.chat_template = template("")
    config = hf.GitConfig(
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        vocab_size=len(tokens),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return hf.GitForCausalLM(config), processor


BUILDERS: dict[str, Callable[[], Built]] = {
    builder.__name__: builder
    for builder in (
        qwen2_vl,
        qwen3_5,
        qwen3_vl_moe,
        glm4v,
        glm46v,
        kimi_k25,
        vipllava,
        llava_next,
        llava_onevision,
        fast_vlm,
        pixtral,
        mistral3,
        internvl,
        aya_vision,
        idefics2,
        smolvlm,
        paligemma,
        gemma4,
        mllama,
        llama4,
        lfm2_vl,
        blip2,
        deepseek_vl,
        janus,
    )
}
MORE = {
    "torchvision": ("kimi_k25", "llama4", "lfm2_vl", "mistral3", "pixtral"),
    "num2words": ("smolvlm",),
    "timm": ("fast_vlm",),
}
"""Packages that transformers asks for, and the families that it asks them for."""


def save_family(family: str, folder: Path) -> Path:
    """Any family's tiny model with its processor in ``folder``, which is returned."""
    builder = {**tiny.BUILDERS, **BUILDERS, "git": git}[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = builder()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(save_family(name, Path(sys.argv[1]) / name))
