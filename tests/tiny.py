"""Tiny vision-language models of several families, random but complete, saved to disk as ``load`` reads them.

``save_tiny(family, folder)`` builds one from config alone: no hub, no torchvision, some 100,000 parameters.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from radpref.config import ModelSection, RunSection
from radpref.models import Vlm, load
from radpref.models.processors import image_only

CORPUS = (
    "Write the findings of this chest X-ray. Indication: cough and fever.",
    "No acute finding. The lungs are clear. Heart size is normal.",
    "Small left pleural effusion with adjacent atelectasis. No pneumothorax.",
    "Patchy right lower lobe consolidation, unchanged. Mild cardiomegaly.",
)
COMMON = ("<pad>", "<s>", "</s>", "<|turn|>", "<|end|>")
TEMPLATE = (
    "{{ START }}{% for message in messages %}<|turn|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ IMAGE }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def template(image: str, start: str = "") -> str:
    return TEMPLATE.replace("{{ IMAGE }}", image).replace("{{ START }}", start)


def tokenizer(special: dict[str, str], **names: str) -> Any:
    """A byte-level BPE of 400 pieces; ``special`` are the family's own tokens by their role."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*COMMON, *special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 20, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", extra_special_tokens=special, **names
    )


def _text(tokens: Any, **more: Any) -> dict[str, Any]:
    ends = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id, "bos_token_id": None}
    return {**TEXT, "vocab_size": len(tokens), **ends, **more}


def llava() -> tuple[Any, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokens = tokenizer({"image_token": "<image>"})
    processor = hf.LlavaProcessor(
        CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_index=tokens.image_token_id,
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    roles = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokens = tokenizer(roles)
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, do_image_splitting=False
    )
    processor = hf.Idefics3Processor(pictures, tokens, image_seq_len=4, chat_template=template("<image>"))
    config = hf.Idefics3Config(
        vision_config=Idefics3VisionConfig(**TOWER, image_size=64, patch_size=16),
        text_config=hf.LlamaConfig(**_text(tokens)),
        image_token_id=tokens.image_token_id,
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
    )
    return hf.Idefics3ForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    roles = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokens = tokenizer(roles, bos_token="<s>")
    processor = hf.Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 64, "width": 64}),
        tokens,
        image_seq_length=4,
        chat_template=template("<start_of_image>", start="{{ bos_token }}"),
    )
    text = _text(
        tokens,
        head_dim=12,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        bos_token_id=tokens.bos_token_id,
    )
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**TOWER, image_size=64, patch_size=16, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(**text),
        mm_tokens_per_image=4,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def _qwen(kind: str, patch: int, vision: dict[str, Any], rope: dict[str, Any]) -> tuple[Any, Any]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    roles = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    tokens = tokenizer(roles)
    limits = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    processor = image_only(getattr(hf, f"{kind}Processor"))(
        Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, size=limits),
        tokens,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 48,
        "num_heads": 2,
        "intermediate_size": 48,
        "patch_size": patch,
        "spatial_merge_size": 2,
        **vision,
    }
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0, **rope}
    config = getattr(hf, f"{kind}Config")(
        text_config=_text(tokens, head_dim=12, rope_parameters=rope),
        vision_config=vision,
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        vision_start_token_id=tokens.vision_bos_token_id,
        vision_end_token_id=tokens.vision_eos_token_id,
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen("Qwen2_5_VL", 14, {"window_size": 56, "fullatt_block_indexes": [1]}, {})


def qwen3_vl() -> tuple[Any, Any]:
    vision = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return _qwen("Qwen3VL", 16, vision, {"mrope_interleaved": True})


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": llava,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
FAMILIES = tuple(BUILDERS)


def save_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Builds a family's tiny model with processor and saves both into ``folder``, which is returned.

    The weights are drawn wider than usual, so that next-token distributions are far from uniform and an error in
    masks or positions shows in them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = BUILDERS[family]()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@functools.cache
def tiny_vlm(family: str) -> Vlm:
    """A family's tiny model, saved, loaded and kept for the process. Do not change it: see ``fresh_vlm``."""
    return fresh_vlm(family)


def fresh_vlm(family: str) -> Vlm:
    """As ``tiny_vlm``, but the caller's own."""
    with tempfile.TemporaryDirectory() as folder:
        return load(ModelSection(path=str(save_tiny(family, Path(folder)))), RunSection(precision="float32"))


def picture(seed: int, width: int = 70, height: int = 60) -> Image.Image:
    """An image of noise; the same seed gives the same image."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return Image.fromarray(noise).convert("RGB")
