"""The align stage: from prepared pairs to checkpoints, one of which a later stage selects."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import TrainingArguments, set_seed

from radpref.config import AlignSection
from radpref.files import content_key
from radpref.losses import objective
from radpref.models import Vlm, attach_lora, freeze, merged, unwrapped, without_dropout
from radpref.training.errors import TrainingError
from radpref.training.head import Head
from radpref.training.loop import (
    Checkpoint,
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
from radpref.training.prepare import Prepared, identity
from radpref.training.settings import check_settings
from radpref.training.trainer import PairTrainer


@dataclass(frozen=True, kw_only=True)
class Aligned(Training):
    """What an alignment left behind. ``history`` holds rewards, margin, accuracy, log-probs, KL and lengths."""

    checkpoints: list[Checkpoint]
    """By step; when ``finished``, the last one is the end of training."""


def align(
    vlm: Vlm,
    prepared: Prepared,
    section: AlignSection,
    folder: Path,
    *,
    seed: int,
    max_steps: int | None = None,
    log: Log | None = None,
    trackers: Sequence[str] = (),
) -> Aligned:
    """Train on the prepared pairs, and keep a checkpoint every ``section.save_steps`` steps and at the end.

    A fresh LoRA goes on the language model (``lora.rank`` 0: the language model is trained in full, with its head,
    in a copy); tower and projector stay frozen unless the section says otherwise. ``vlm`` is afterwards as it was.
    Called again on the same folder it goes on from the last complete checkpoint, and ends with the weights of a run
    that never stopped; a folder of other settings is refused. KTO counts rows, not pairs: ``section.batch`` rows a
    step, twice as many rows as pairs.

    Args:
        vlm: the model to start from, without adapter (``radpref.models.merged``); the reference.
        prepared: from ``prepare`` with the same model and the same ``section.loss``.
        section: what to train with.
        folder: where checkpoints, ``log.jsonl`` and ``settings.json`` go.
        seed: of the adapter's weights, the order of the pairs and dropout.
        max_steps: stop after so many steps, with a checkpoint; the next call goes on.
        log: called after every step.
        trackers: where steps are shown besides (``run.trackers``).

    Raises:
        TrainingError: settings that rule each other out, references of another model, a folder of other settings, or
            a loss that broke down.
    """
    check_settings("align", section, trackers=trackers)
    for what, made, given in zip(
        ("weights", "dtype", "precision"), prepared.cache.model.split("/"), identity(vlm).split("/"), strict=True
    ):
        if made != given:
            raise TrainingError(
                f"what was prepared was made with other {what} than those of the model to align: {made} against "
                f"{given}. Run the prepare stage with this model."
            )
    if objective(section).needs != prepared.objective.needs:
        raise TrainingError(
            f"what was prepared is for the loss {prepared.objective.section.loss} (with the terms and spans of "
            f"then), and align.loss is {section.loss}. Run the prepare stage with this recipe."
        )
    claim(
        folder,
        {
            "model": identity(vlm),
            "seed": seed,
            "items": content_key([row.key for item in prepared.items for row in item.rows()]),
            "section": section.model_dump(mode="json", exclude={"batch", "accumulate"}),
        },
        section.batch * section.accumulate,
    )
    step, steps = reached(folder)
    if step < steps:
        with quiet():
            _train(vlm, prepared, section, folder, seed, max_steps, log, trackers)
        step, steps = reached(folder)
    return Aligned(
        step=step,
        steps=steps,
        history=history(folder),
        trainable=trained(folder),
        checkpoints=checkpoints(folder),
    )


def _train(
    vlm: Vlm,
    prepared: Prepared,
    section: AlignSection,
    folder: Path,
    seed: int,
    max_steps: int | None,
    log: Log | None,
    trackers: Sequence[str],
) -> None:
    """Train, and leave ``vlm`` as it was."""
    set_seed(seed)
    student = _student(vlm, section)
    try:
        args = TrainingArguments(**arguments(student, section, folder, seed, trackers))
        mine = prepared._replace(objective=objective(section))
        with without_dropout(student.model, trained=not section.dropout):
            run(PairTrainer(student, args, mine, _reference_head(vlm, mine)), folder, log, max_steps)
    finally:
        if section.lora.rank:
            student.model.unload()
            if section.gradient_checkpointing:
                vlm.model.gradient_checkpointing_disable()
        vlm.model.eval()


def _reference_head(vlm: Vlm, prepared: Prepared) -> Head | None:
    """The head that the reference's hidden states are read with: that of ``vlm``, below an adapter on it."""
    head = unwrapped(vlm.model).get_output_embeddings()
    return Head.of(getattr(head, "base_layer", head)) if prepared.objective.kl else None


def _student(vlm: Vlm, section: AlignSection) -> Vlm:
    """The model with what is trained on top: an adapter in place, or a copy for training in full."""
    if section.lora.rank:
        return attach_lora(vlm, section.lora)
    student = merged(replace(vlm, model=copy.deepcopy(vlm.model)))
    freeze(student, language=True, projector=section.train_projector, tower=section.train_tower)
    return student
