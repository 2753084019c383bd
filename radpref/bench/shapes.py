"""Models of known size, random weights, no hub: a LLaVA of a CLIP tower and a Llama decoder, with images and pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from radpref.records import ImageFile, Pair, Span

PROMPT = "Describe the findings of this chest X-ray."
WORDS = [
    *("no", "small", "left", "right", "pleural", "effusion", "lungs", "are", "clear", "consolidation", "heart"),
    *("size", "is", "within", "normal", "limits", "mild", "opacity", "unchanged", "without", "pneumothorax"),
]
_START, _END, _IMAGE = "<|turn|>", "<|end|>", "<image>"
_TEMPLATE = (
    "{% for message in messages %}" + _START + "{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + _IMAGE + "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}" + _END + "{% endfor %}"
    "{% if add_generation_prompt %}" + _START + "assistant\n{% endif %}"
)


class Shape(NamedTuple):
    """Sizes of a model. The decoder has 6 layers of 256 with 4 heads, the tower a width of 192 and patches of 14."""

    tower_layers: int
    pixels: int
    vocabulary: int | None = None
    """Rows of the head; None for as many as the tokenizer has words."""


SHAPES = {
    "v6-112": Shape(6, 112),
    "v12-224": Shape(12, 224),
    "v12-224-150k": Shape(12, 224, 150_000),
}
"""``v12-224``: 12 layers of tower over 224 pixels, 256 image tokens; ``v6-112``: 6 layers, 64 image tokens."""


def build(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """Save a randomly initialised model of a shape with its processor, as ``radpref.models.load`` reads them."""
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", _START, _END, _IMAGE]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS), PROMPT, "user assistant"] * 20, trainer)
    tokens = hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token=_END, extra_special_tokens={"image_token": _IMAGE}
    )
    size = {"height": shape.pixels, "width": shape.pixels}
    processor = hf.LlavaProcessor(
        CLIPImageProcessorPil(size=size, do_center_crop=False),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    vision = hf.CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=shape.tower_layers,
        num_attention_heads=4,
        image_size=shape.pixels,
        patch_size=14,
    )
    text = hf.LlamaConfig(
        vocab_size=shape.vocabulary or len(tokens),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=None,
    )
    config = hf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokens.image_token_id, vision_feature_layer=-1
    )
    torch.manual_seed(seed)
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def pairs(count: int, pixels: int, folder: Path, seed: int = 0, words: tuple[int, int] = (12, 14)) -> list[Pair]:
    """Pairs of random words on noise images, each with one span a side and a corrupted image.

    ``words`` are those of the chosen and of the rejected answer; the span is the two words in the middle.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)

    def image(name: str) -> ImageFile:
        path = folder / f"{name}.png"
        Image.fromarray(random.integers(0, 256, (pixels, pixels), dtype=np.uint8)).save(path)
        return ImageFile(path=str(path))

    def answer(count: int) -> tuple[str, tuple[Span, ...]]:
        chosen = list(random.choice(WORDS, count))
        start = len(" ".join(chosen[: count // 2])) + 1
        return " ".join(chosen) + ".", (Span(start=start, end=start + len(" ".join(chosen[count // 2 :][:2]))),)

    made = []
    for number in range(count):
        (chosen, chosen_spans), (rejected, rejected_spans) = answer(words[0]), answer(words[1])
        made.append(
            Pair(
                id=f"{number}",
                question=f"{number}",
                patient=f"{number}",
                images=(image(f"{number}"),),
                prompt=PROMPT,
                chosen=chosen,
                rejected=rejected,
                chosen_spans=chosen_spans,
                rejected_spans=rejected_spans,
                corrupted=(image(f"{number}-corrupted"),),
            )
        )
    return made


def conversation(pair: Pair) -> dict[str, Any]:
    """A pair as TRL takes it."""
    from radpref.images import read_image

    return {
        "images": [read_image(image) for image in pair.images],
        "prompt": [{"role": "user", "content": pair.prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }
