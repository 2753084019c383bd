"""A world small enough to train in: tiny models, noise images, and pairs with one or two images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from radpref.config import AlignSection, LoraSection, ModelSection, RunSection
from radpref.models import Vlm, load
from radpref.records import ImageFile, Pair, Question
from radpref.training import Prepared
from tests import tiny

PROMPT = "Write the findings of this chest X-ray."
WORDS = [
    "no",
    "small",
    "left",
    "right",
    "pleural",
    "effusion",
    "lungs",
    "are",
    "clear",
    "consolidation",
    "heart",
    "size",
    "normal",
]
FLOAT32 = RunSection(device="cpu", precision="float32", threads=1)


def images(folder: Path, n: int = 6) -> list[ImageFile]:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(n):
        path = folder / f"image{i}.png"
        Image.fromarray((random.random((70, 60)) * 255).astype("uint8")).save(path)
        made.append(ImageFile(path=str(path)))
    return made


def text(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + "."


def pairs(folder: Path, n: int = 8) -> list[Pair]:
    """Every second pair has two images; answers are of different lengths."""
    all_images = images(folder)
    return [
        Pair(
            id=f"q{i}/0-1",
            question=f"q{i}",
            patient=f"p{i}",
            images=tuple(all_images[(i + k) % len(all_images)] for k in range(1 + i % 2)),
            prompt=PROMPT,
            chosen=text(i, 3 + i % 4),
            rejected=text(100 + i, 7),
        )
        for i in range(n)
    ]


def questions(folder: Path, n: int = 8) -> list[Question]:
    return [
        Question(
            id=pair.question,
            study=pair.question,
            patient=pair.patient,
            split="train",
            images=pair.images,
            prompt=pair.prompt,
            reference=pair.chosen,
        )
        for pair in pairs(folder, n)
    ]


def vlm(folder: Path, family: str = "llava") -> Vlm:
    """A tiny model of the family, built in ``folder`` if it is not there yet."""
    if not folder.exists():
        tiny.save_tiny(family, folder)
    return load(ModelSection(path=str(folder)), FLOAT32)


def section(**settings: Any) -> AlignSection:
    base: dict[str, Any] = {"batch": 4, "lora": LoraSection(rank=4), "lr": 1e-3, "warmup": 0.0, "save_steps": 50}
    return AlignSection.model_validate({**base, **settings})


def weights(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of its adapter, or of the model."""
    adapter = checkpoint / "adapter_model.safetensors"
    return load_file(adapter if adapter.exists() else checkpoint / "model.safetensors")


def numbers(history: list[dict[str, float]], *names: str) -> list[list[float]]:
    return [[entry[name] for name in names] for entry in history]


def logps(prepared: Prepared) -> dict[str, Tensor]:
    """The reference's log-probs by row key."""
    rows = [row for item in prepared.items for row in item.rows()]
    return {row.key: prepared.cache[f"logps/{row.key}"] for row in rows}
