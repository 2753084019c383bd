"""Our objectives and our forward against TRL's own trainers: one batch, one tiny model, loss and gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from radpref.images import read_film
from radpref.losses import LOSSES
from radpref.models import Vlm, collate, encode_answer, encode_prompt, language_targets
from radpref.records import Pair
from radpref.training import PairTrainer
from radpref.training.scoring import token_logps
from tests import training_toys as toys

ROWS = 4


@pytest.fixture
def vlm(tmp_path: Path) -> Vlm:
    return toys.vlm(tmp_path / "llava")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return toys.pairs(tmp_path / "films", ROWS)


def conversation(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": pair.prompt}],
        "images": [read_film(film) for film in pair.films],
    }


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def config(kind: type, folder: Path, **settings: Any) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        report_to="none",
        **settings,
    )


def trained(trainer: Any) -> Any:
    """TRL's model with an adapter that is not zero, so that policy and reference differ."""
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return trainer.model


def gradients(model: Any, loss: Tensor) -> Tensor:
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, wanted)])


def assert_equal(model: Any, ours: Tensor, theirs: Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    our_gradient, their_gradient = gradients(model, ours), gradients(model, theirs)
    assert their_gradient.norm() > 1e-3
    assert (our_gradient - their_gradient).norm() / their_gradient.norm() < 1e-4


def pair_trainer(vlm: Vlm, model: Any, loss: str, folder: Path) -> PairTrainer:
    """Only its ``compute_loss`` is used."""
    args = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
    return PairTrainer(vlm_with(vlm, model), args, [], LOSSES[loss], toys.section(loss=loss), lambda batch: {})


def vlm_with(vlm: Vlm, model: Any) -> Vlm:
    return replace(vlm, model=model)


def rows_of(batch: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    rows = {name: batch[prefix + name] for name in ("input_ids", "attention_mask")}
    return {**rows, "completion_mask": batch[prefix + "completion_mask"].bool()}


def reference_of(model: Any, rows: dict[str, Tensor], images: dict[str, Tensor], copies: int) -> Tensor:
    with torch.no_grad(), model.disable_adapter():
        return token_logps(model, rows, images, copies)[0]


@pytest.mark.parametrize(("ours", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo_are_trls(ours: str, theirs: str, vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    rows = [{**conversation(p), "chosen": said(p.chosen), "rejected": said(p.rejected)} for p in pairs]
    trainer = DPOTrainer(
        vlm.model,
        args=config(DPOConfig, tmp_path, loss_type=[theirs], beta=0.1),
        train_dataset=Dataset.from_list(rows),
        processing_class=vlm.processor,
        peft_config=LoraConfig(r=4, target_modules=language_targets(vlm.model)),
    )
    model = trained(trainer)
    batch = trainer.data_collator(rows)
    expected = trainer._compute_loss(model, batch, False)

    text = rows_of(batch)
    images = {"pixel_values": batch["pixel_values"].chunk(2)[0]}
    assert len(images["pixel_values"]) == sum(len(pair.films) for pair in pairs)
    inputs = {
        "rows": text,
        "images": images,
        "reference": reference_of(model, text, images, 2),
        "desirable": ROWS,
    }
    assert_equal(model, pair_trainer(vlm, model, ours, tmp_path).compute_loss(model, inputs), expected)


def test_kto_is_trls(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    rows = [
        {**conversation(p), "completion": said(p.chosen if good else p.rejected), "label": good}
        for p, good in zip(pairs, (True, True, True, False), strict=True)
    ]
    trainer = KTOTrainer(
        vlm.model,
        args=config(KTOConfig, tmp_path, beta=0.1),
        train_dataset=Dataset.from_list(rows),
        processing_class=vlm.processor,
        peft_config=LoraConfig(r=4, target_modules=language_targets(vlm.model)),
    )
    model = trained(trainer)
    batch = trainer.data_collator(rows)
    expected = trainer._compute_loss(model, batch, False)

    images = {"pixel_values": batch["pixel_values"]}
    own, mismatched = rows_of(batch), rows_of(batch, "KL_")
    inputs = {
        "rows": own,
        "images": images,
        "reference": reference_of(model, own, images, 1),
        "desirable": 3,
        "mismatched": mismatched,
        "mismatched_reference": reference_of(model, mismatched, images, 1),
    }
    assert_equal(model, pair_trainer(vlm, model, "kto", tmp_path).compute_loss(model, inputs), expected)


def test_our_rows_are_trls_but_for_what_follows_the_end_of_turn(vlm: Vlm, pairs: list[Pair]) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    rows = [{**conversation(p), "chosen": said(p.chosen), "rejected": said(p.rejected)} for p in pairs]
    theirs = DataCollatorForVisionPreference(processor=vlm.processor)(rows)
    prompts = [encode_prompt(vlm, p.prompt, [read_film(film) for film in p.films]) for p in pairs]
    answers = [encode_answer(vlm, text) for text in [p.chosen for p in pairs] + [p.rejected for p in pairs]]
    ours = collate(vlm, prompts * 2, answers)
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
    for i in range(2 * ROWS):
        our_row = ours["input_ids"][i][ours["attention_mask"][i].bool()].tolist()
        their_row = theirs["input_ids"][i][theirs["attention_mask"][i].bool()].tolist()
        assert their_row[: len(our_row)] == our_row
        # the newline that the template writes after the end of turn: a model that has ended never generates it
        assert vlm.tokenizer.decode(their_row[len(our_row) :]).strip() == ""
        their_answer = theirs["input_ids"][i][theirs["completion_mask"][i].bool()].tolist()
        assert their_answer[: len(answers[i])] == answers[i]
