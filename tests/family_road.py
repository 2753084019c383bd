"""The whole road of one family: sample, prepare, align, save and load again, with a poisoned row on the way."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from radpref.config import LoraSection, ModelSection
from radpref.models import Vlm, encode_prompt, generate, image_token_ids, load, merged, save
from radpref.records import ImageFile, Pair, Quarantined, Question
from radpref.training import align, prepare
from tests import training_toys as toys
from tests.families import save_family
from tests.tiny import picture

SIZES = ((70, 60), (60, 90), (64, 64), (120, 50))
"""(width, height) of the images, in turn."""


def drive(folder: str, *families: str) -> None:
    """The roads of several families, one after the other; for ``tests.elsewhere``."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    for family in families:
        try:
            road(family, Path(folder) / family)
        except Exception as error:
            print(json.dumps({family: f"{type(error).__name__}: {error}"}))
        else:
            print(json.dumps({family: ""}))


def road(family: str, folder: Path) -> None:
    """Asserts all the way that a family works."""
    path = save_family(family, folder / "model")
    vlm = load(ModelSection(path=str(path)), toys.FLOAT32)
    images = _images(folder / "images")
    spoilt = poison(vlm)
    _sample(vlm, images, spoilt)
    adapter = _align(vlm, images, spoilt, folder)
    trained = load(ModelSection(path=str(path), adapter=str(adapter)), toys.FLOAT32)
    expected = logits(trained)
    assert (expected - logits(vlm)).abs().max() > 1e-4
    save(merged(trained), folder / "whole")
    whole = load(ModelSection(path=str(folder / "whole")), toys.FLOAT32)
    torch.testing.assert_close(logits(whole), expected, atol=1e-4, rtol=1e-4)


def poison(vlm: Vlm) -> list[str]:
    """Texts that spell the model's control tokens: the end of its turn, and its image's placeholder."""
    placeholder = vlm.tokenizer.convert_ids_to_tokens(min(image_token_ids(vlm)))
    return [f"cough {mark} and fever" for mark in ("<|end|>", placeholder)]


def logits(vlm: Vlm) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = vlm.model(**encode_prompt(vlm, "Write the findings.", [picture(1)])).logits
    return out


def _images(folder: Path) -> list[ImageFile]:
    folder.mkdir()
    made = []
    for number, (width, height) in enumerate(SIZES):
        noise = np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        made.append(ImageFile(path=str(folder / f"{number}.png")))
    return made


def _sample(vlm: Vlm, images: list[ImageFile], spoilt: list[str]) -> None:
    """34 questions, of which one or two are poisoned, and every third shows two images."""

    def question(number: int) -> Question:
        words = spoilt[number // 17] if number in (5, 20) else "cough"
        shown = [images[(number + k) % len(images)] for k in range(2 if number % 3 == 0 else 1)]
        return Question(
            id=f"q{number}",
            study=f"s{number}",
            patient=f"p{number}",
            split="train",
            images=tuple(shown),
            prompt=f"{toys.PROMPT} Indication: {words}.",
            reference="Clear.",
        )

    asked = [question(number) for number in range(34)]
    answers = generate(vlm, asked, n=2, temperature=1.0, max_new_tokens=3, batch=16, seed=0)
    rows = {question.id: row for question, row in answers}
    refused = {name: row.reason for name, row in rows.items() if isinstance(row, Quarantined)}
    assert refused.keys() == {"q5", "q20"}, refused
    assert all("special tokens" in reason for reason in refused.values())
    for row in rows.values():
        assert isinstance(row, Quarantined) or [answer.index for answer in row] == [0, 1]


def _align(vlm: Vlm, images: list[ImageFile], spoilt: list[str], folder: Path) -> Path:
    """One step on eight pairs of one and two images, after which the poisoned ones are quarantined."""

    def pair(number: int, **values: Any) -> Pair:
        shown = [images[(number + k) % len(images)] for k in range(1 + number % 2)]
        whole = {
            "id": f"q{number}",
            "question": f"q{number}",
            "patient": f"p{number}",
            "images": tuple(shown),
            "prompt": toys.PROMPT,
            "chosen": toys.text(number, 3),
            "rejected": toys.text(100 + number, 6),
        }
        return Pair(**{**whole, **values})

    pairs = [pair(number) for number in range(8)]
    bad = [pair(90, prompt=spoilt[0]), pair(91, chosen=spoilt[1]), pair(92, prompt=spoilt[1])]
    section = toys.section(batch=8, epochs=2, lora=LoraSection(rank=2))
    prepared = prepare(vlm, [*bad, *pairs], section, folder / "prepared")
    assert [row.id for row in prepared.quarantined] == ["q90", "q91", "q92"]
    assert all("special tokens" in row.reason for row in prepared.quarantined)
    result = align(vlm, prepared, section, folder / "aligned", seed=0)
    assert result.history[0]["loss"] == pytest.approx(0.6931472, abs=2e-6)
    return result.checkpoints[-1].path


if __name__ == "__main__":
    drive(*sys.argv[1:])
