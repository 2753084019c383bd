"""Supervised fine-tuning, on the same rows and through the same parts as alignment."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments, set_seed

from radpref.config import ModelSection, RunSection, SftSection
from radpref.files import content_key
from radpref.images import ImageError
from radpref.models import Vlm, attach_lora, freeze, in_full, interpolated, load, merged, save, without_dropout
from radpref.records import Quarantined, Question
from radpref.training.answers import AnswerTrainer, encoded
from radpref.training.errors import TrainingError
from radpref.training.loop import (
    Log,
    Training,
    arguments,
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
from radpref.training.scoring import way_of
from radpref.training.settings import check_settings

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
    trackers: Sequence[str] = (),
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
        trackers: where steps are shown besides (``run.trackers``).

    Raises:
        TrainingError: settings that rule each other out, no usable question, a folder of other settings, or a loss
            that broke down.
    """
    check_settings("sft", section, trackers=trackers)
    prompts = Prompts(vlm)
    rows, quarantined = usable(vlm, questions, prompts)
    claim(
        folder,
        {
            "model": identity(vlm),
            "seed": seed,
            "rows": content_key([row.key for row in rows]),
            "section": section.model_dump(mode="json", exclude={"batch", "accumulate", "interpolate"}),
        },
        section.batch * section.accumulate,
    )
    path = folder / "model"
    steps = None
    if not path.exists():
        with quiet():
            steps = _train(vlm, rows, prompts, section, folder, seed, max_steps, log, trackers)
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
    trackers: Sequence[str],
) -> int:
    """Train, save the model after the last step, and return the number of steps of the whole training."""
    set_seed(seed)
    vlm = merged(vlm)
    way = way_of(vlm, shared=False)
    frozen = bool(section.lora.rank) or not (section.train_tower or section.train_projector)
    features = encoded(vlm, rows, prompts, section.batch, folder / "features") if way.features and frozen else None
    student = _student(vlm, section)
    args = TrainingArguments(**arguments(student, section, folder, seed, trackers), save_total_limit=1)
    trainer = AnswerTrainer(student, args, rows, prompts, way, features, section)
    with without_dropout(student.model, trained=False):
        run(trainer, folder, log, max_steps)
    step, steps = reached(folder)
    if step >= steps and trainer.is_world_process_zero():
        finish(student, folder / "model")
        shutil.rmtree(folder / "features", ignore_errors=True)
        for checkpoint in checkpoints(folder):
            shutil.rmtree(checkpoint.path)
    return steps


def usable(vlm: Vlm, questions: Sequence[Question], prompts: Prompts) -> tuple[list[Row], list[Quarantined]]:
    """The questions with their references as rows, all of which can be encoded, and those that cannot."""
    make = keyed(identity(vlm))
    rows: list[Row] = []
    quarantined: list[Quarantined] = []
    for question in questions:
        try:
            if not question.reference.strip():
                raise ValueError("no reference: nothing is learned from an empty text")
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
    if section.lora.rank:
        return attach_lora(vlm, section.lora)
    freeze(vlm, language=True, projector=section.train_projector, tower=section.train_tower)
    return vlm


def interpolate(start: Vlm, trained: ModelSection, share: float, path: Path, how: RunSection) -> None:
    """Save the model at ``share`` of the way from ``start``, which has no adapter, to a trained one.

    A fine-tuned model says what its references say most often, and forgets what the given one could see; on the way
    between them lies one that has the references' style and most of the sight (docs/results/evidence.md).
    """
    finish(interpolated(start, merged(load(trained, how)), share), path)


def finish(student: Vlm, path: Path) -> None:
    """Save the whole model in one step: a folder of this name is complete."""
    whole = merged(in_full(student))
    whole.model.eval()
    part = path.with_name(path.name + ".part")
    save(whole, part)
    part.rename(path)
