"""Supervised fine-tuning through TRL's SFTTrainer, on the same rows that alignment later reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import constants
from torch import Tensor
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from radpref.config import SftSection
from radpref.files import content_key
from radpref.images import ImageError
from radpref.models import Vlm, attach_lora, collate, freeze, merged, save
from radpref.records import Quarantined, Question
from radpref.training.division import SHARE, Batches, Shuffled, loader
from radpref.training.errors import TrainingError
from radpref.training.loop import (
    Log,
    Training,
    arguments,
    check_device,
    checkpoints,
    claim,
    history,
    quiet,
    reached,
    run,
    trained,
)
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, Row, answer_ids, keyed

STAGE = "sft"


@dataclass(frozen=True, kw_only=True)
class Tuned(Training):
    """What supervised fine-tuning left behind."""

    path: Path
    """Folder of the whole model with its processor, adapter merged: give it to ``radpref.models.load``."""
    quarantined: list[Quarantined]
    """Questions that could not be trained on."""


def sft(
    vlm: Vlm,
    questions: Sequence[Question],
    section: SftSection,
    folder: Path,
    *,
    seed: int,
    max_steps: int | None = None,
    log: Log | None = None,
) -> Tuned:
    """Teach the model the questions' references; only the answer and its end of turn are in the loss.

    Every image is opened once beforehand, so that a bad one is quarantined rather than met in the middle of
    training. ``vlm.model`` is trained in place and not to be used afterwards: load ``path``. Checkpoints lie in
    ``folder``, one every ``section.save_steps`` steps, of which the last is kept until the model is saved; called
    again on the same folder, training goes on from there. With a LoRA the tower and the projector stay frozen.

    Args:
        vlm: the model; an adapter that it has is merged into it.
        questions: prompts, images and reference answers.
        section: what to train with.
        folder: where all goes.
        seed: of the adapter's weights, the order of the questions and dropout.
        max_steps: stop after so many steps, with a checkpoint; the next call goes on. Without the last one,
            there is no model at ``path`` yet.
        log: called after every step.

    Raises:
        TrainingError: no usable question, a folder of other settings, or a loss that broke down.
    """
    if section.lora.rank and section.train_tower:
        raise TrainingError(
            f"sft.train_tower with sft.lora.rank {section.lora.rank}: the adapter is on the language model alone. "
            "Set sft.lora.rank to 0 to train the tower, or sft.train_tower to false."
        )
    prompts = Prompts(vlm)
    rows, quarantined = usable(vlm, questions, prompts)
    claim(
        folder,
        {
            "model": identity(vlm),
            "seed": seed,
            "rows": content_key([row.key for row in rows]),
            "section": section.model_dump(mode="json"),
        },
    )
    path = folder / "model"
    steps = None
    if not path.exists():
        with quiet():
            steps = _train(vlm, rows, prompts, section, folder, seed, max_steps, log)
    logged = history(folder)
    step = int(logged[-1]["step"])
    return Tuned(
        step=step,
        steps=steps or step,
        history=logged,
        trainable=trained(folder),
        path=path,
        quarantined=quarantined,
    )


def _train(
    vlm: Vlm,
    rows: Sequence[Row],
    prompts: Prompts,
    section: SftSection,
    folder: Path,
    seed: int,
    max_steps: int | None,
    log: Log | None,
) -> int:
    """Train, save the model after the last step, and return the number of steps of the whole training."""
    set_seed(seed)
    student = _student(vlm, section)

    def collator(some: Sequence[Row]) -> dict[str, Tensor]:
        tensors = collate(student, [prompts(row) for row in some], [answer_ids(student, row) for row in some])
        answers = tensors.pop("completion_mask")
        return {**tensors, "labels": tensors["input_ids"].masked_fill(~answers, -100)}

    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL's trainers report themselves when they are built
    config = SFTConfig(
        **arguments(student, section, folder, seed),
        save_total_limit=1,
        gradient_checkpointing=False,  # TRL's own default is True, as is bf16
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    check_device(vlm, config)
    trainer: Any = _Trainer(
        rows,
        section.batch,
        model=student.model,
        args=config,
        train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
        data_collator=collator,
        processing_class=vlm.processor,
    )
    run(trainer, folder, log, max_steps)
    step, steps = reached(folder)
    if step >= steps and trainer.is_world_process_zero():
        finish(student, folder / "model")
        for checkpoint in checkpoints(folder):
            shutil.rmtree(checkpoint.path)
    return steps


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, with every batch divided among all processes (``radpref.training.division``)."""

    def __init__(self, rows: Sequence[Row], batch: int, **options: Any) -> None:
        self._rows, self._batch = rows, batch
        super().__init__(**options)

    def get_train_dataloader(self) -> Any:
        """This process's share of every batch."""
        args = self.args
        order = Shuffled(len(self._rows), args.data_seed if args.data_seed is not None else args.seed)
        return loader(self._rows, Batches(order, self._batch), self._collated, args)

    def _collated(self, rows: list[Row], counts: list[bool]) -> dict[str, Any]:
        batch: dict[str, Any] = self.data_collator(rows)
        batch["labels"][~torch.tensor(counts)] = -100
        return batch

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's: a mean over the answers' tokens of all processes, whoever has how many of them."""
        inputs.pop(SHARE, None)
        return super().compute_loss(model, inputs, *args, **kwargs)


def usable(vlm: Vlm, questions: Sequence[Question], prompts: Prompts) -> tuple[list[Row], list[Quarantined]]:
    """The questions with their references as rows, all of which can be encoded, and those that cannot."""
    make = keyed(identity(vlm))
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    for question in questions:
        try:
            row = make(question.prompt, question.images, question.reference)
            answer_ids(vlm, row)
            prompts(row)
        except (ImageError, ValueError) as error:
            quarantined.append(Quarantined(id=question.id, stage=STAGE, reason=str(error)))
        else:
            rows.append(row)
    if not rows:
        why = quarantined[0].reason if quarantined else "there are no questions"
        raise TrainingError(f"no question is left to train on, of {len(questions)}; the first reason: {why}")
    return rows, quarantined


def _student(vlm: Vlm, section: SftSection) -> Vlm:
    """The model with its trainable parts set: an adapter, or the language model and what else is asked for."""
    vlm = merged(vlm)
    if section.lora.rank:
        return attach_lora(vlm, section.lora)
    freeze(vlm, language=True, projector=section.train_projector, tower=section.train_tower)
    return vlm


def finish(student: Vlm, path: Path) -> None:
    """Save the whole model in one step: a folder of this name is complete."""
    whole = merged(student)
    # TRL puts its own forward on the model, bound to this one: a later copy of the model would call back here
    vars(whole.model).pop("forward", None)
    whole.model.eval()
    part = path.with_name(path.name + ".part")
    save(whole, part)
    part.rename(path)
