"""Group-relative policy optimisation on a reward: the grpo stage's training, in place of pairs.

Every step samples a group of answers to each of a few questions, asks the reward for each answer, and raises the
log-probability of answers above their group's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments, set_seed

from radpref.config import AlignSection, GrpoSection, SampleSection
from radpref.files import content_key
from radpref.images import ImageError
from radpref.models import Vlm, attach_lora, context_length, freeze, merged
from radpref.records import Quarantined, Question
from radpref.training.errors import TrainingError
from radpref.training.groups import Asked, GroupTrainer, Reward
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
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, keyed
from radpref.training.sft import finish

STAGE = "grpo"


@dataclass(frozen=True, kw_only=True)
class Rewarded(Training):
    """What the training left behind.

    ``history`` holds of each step ``reward`` (the judge's mean over the step's answers), ``reward_std`` (within
    groups), ``groups_without_spread`` (share of groups that teach nothing), ``unrewarded`` and ``unfinished`` (shares
    of the answers), ``tokens`` (an answer), ``entropy`` (nats a token) and, with ``beta``, ``kl`` (nats a token).
    """

    path: Path
    """Folder of the whole model with its processor, adapter merged."""
    checkpoints: list[Checkpoint]
    """By step; the last one is the end of training when ``finished``."""
    quarantined: list[Quarantined]
    """Questions that could not be trained on."""

    @property
    def rewards(self) -> tuple[float, float]:
        """The mean reward of the first tenth of the steps, and of the last."""
        told = [entry["reward"] for entry in self.history if "reward" in entry]
        tenth = max(len(told) // 10, 1)
        first, last = (sum(part) / tenth for part in (told[:tenth], told[-tenth:]))
        return first, last


def grpo(
    vlm: Vlm,
    questions: Sequence[Question],
    reward: Reward,
    section: GrpoSection,
    sample: SampleSection,
    folder: Path,
    *,
    seed: int,
    max_steps: int | None = None,
    log: Log | None = None,
    trackers: Sequence[str] = (),
) -> Rewarded:
    """Train ``section.steps`` steps of GRPO; resumed from the last checkpoint when called again on the folder.

    The language model is trained, through a fresh LoRA or (``lora.rank`` 0) in full; tower and projector stay
    frozen. ``vlm.model`` is trained in place and not to be used afterwards: load ``path``.

    Args:
        vlm: the model; an adapter that it has is merged into it.
        questions: prompts and images; the references go to the reward alone.
        reward: what is maximised; None for an answer takes it out of its group.
        section: what to train with.
        sample: ``temperature``, ``top_p`` and ``max_new_tokens`` of the answers.
        folder: where all goes.
        seed: of the adapter, the order of the questions and the answers.
        max_steps: stop after so many steps, with a checkpoint; the next call goes on.
        log: called after every step.
        trackers: where steps are shown besides (``run.trackers``).

    Raises:
        TrainingError: no usable question, a folder of other settings, or a loss that broke down.
    """
    prompts = Prompts(vlm)
    asked, quarantined = _usable(vlm, questions, prompts, sample.max_new_tokens)
    rows = content_key([row.key for _, row in asked])
    settings = {
        "grpo": section.model_dump(mode="json", exclude={"questions", "accumulate"}),
        "sample": sample.model_dump(mode="json"),
    }
    claim(
        folder,
        {"model": identity(vlm), "seed": seed, "rows": rows, **settings},
        section.questions * section.accumulate,
    )
    path = folder / "model"
    if not path.exists():
        with quiet():
            _train(vlm, asked, prompts, reward, section, sample, folder, seed, max_steps, log, trackers)
    step, steps = reached(folder)
    return Rewarded(
        step=step,
        steps=steps,
        history=history(folder),
        trainable=trained(folder),
        path=path,
        checkpoints=checkpoints(folder),
        quarantined=quarantined,
    )


def _usable(
    vlm: Vlm, questions: Sequence[Question], prompts: Prompts, tokens: int
) -> tuple[list[Asked], list[Quarantined]]:
    """The questions that can be put to the model with room for ``tokens`` of an answer, and those that cannot."""
    make = keyed(identity(vlm))
    asked: list[Asked] = []
    quarantined: list[Quarantined] = []
    context = context_length(vlm)
    for question in questions:
        try:
            row = make(question.prompt, question.images, question.reference)
            length = prompts(row)["input_ids"].shape[1]
            if length + tokens > context:
                raise ValueError(
                    f"{length} prompt tokens and up to {tokens} new ones exceed the model's context of {context}; "
                    "show fewer images (data.max_images) or lower sample.max_new_tokens"
                )
        except (ImageError, ValueError) as error:
            quarantined.append(Quarantined(id=question.id, stage=STAGE, reason=str(error)))
        else:
            asked.append(Asked(question, row))
    if not asked:
        why = quarantined[0].reason if quarantined else "there are no questions"
        raise TrainingError(f"no question is left to train on, of {len(questions)}; the first reason: {why}")
    return asked, quarantined


def _train(
    vlm: Vlm,
    asked: Sequence[Asked],
    prompts: Prompts,
    reward: Reward,
    section: GrpoSection,
    sample: SampleSection,
    folder: Path,
    seed: int,
    max_steps: int | None,
    log: Log | None,
    trackers: Sequence[str],
) -> None:
    set_seed(seed)
    student = merged(vlm)
    if section.lora.rank:
        student = attach_lora(student, section.lora)
    else:
        freeze(student, language=True)
    common = AlignSection(
        lr=section.lr,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        schedule=section.schedule,
        optimizer=section.optimizer,
        batch=section.questions,
        accumulate=section.accumulate,
        save_steps=section.save_steps,
    )
    args = TrainingArguments(
        **arguments(student, common, folder, seed, trackers)
        | {
            "max_steps": section.steps,
            "bf16": False,  # the trainer casts by itself: on a CPU it samples in float32 and scores in bfloat16
        }
    )
    trainer = GroupTrainer(student, args, asked, prompts, reward, section, sample)
    run(trainer, folder, log, max_steps)
    step, steps = reached(folder)
    if step >= steps and trainer.is_world_process_zero():
        finish(student, folder / "model")
