"""Group-relative policy optimisation on a reward, through TRL's GRPOTrainer (Shao et al. 2024, DeepSeekMath).

Every step samples a group of answers to each of a few questions, asks the reward for each answer, and raises the
log-probability of answers above their group's mean. TRL does this for vision-language models with the processors
that we load, so it is used as it is; only the films come from us, one batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import constants
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from radpref.images import read_film
from radpref.models import Vlm, attach_lora, freeze, merged, messages
from radpref.recipe import AlignSection, GrpoSection, SampleSection
from radpref.records import Quarantined, Question
from radpref.store import content_key
from radpref.training.errors import TrainingError
from radpref.training.loop import (
    Log,
    Training,
    arguments,
    check_device,
    claim,
    history,
    quiet,
    reached,
    run,
    trained,
)
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, Row
from radpref.training.sft import finish, usable

Reward = Callable[..., list[float | None]]
"""TRL's form: ``(prompts, completions, **columns)``; the column ``reference`` is the reference report."""


@dataclass(frozen=True, kw_only=True)
class Rewarded(Training):
    """What the training left behind. ``history`` holds ``reward``, the judge's mean over a step's answers."""

    path: Path
    """Folder of the whole model with its processor, adapter merged."""
    quarantined: list[Quarantined]
    """Questions that could not be trained on."""


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
) -> Rewarded:
    """Train ``section.steps`` steps of GRPO; resumed from the last checkpoint when called again on the folder.

    A fresh LoRA on the language model is trained (``lora.rank`` 0: the language model in full); tower and projector
    stay frozen. ``vlm.model`` is trained in place and not to be used afterwards: load ``path``.

    Args:
        vlm: the model; an adapter that it has is merged into it.
        questions: prompts and films; the references go to the reward alone.
        reward: what is maximised; None for an answer takes it out of its group.
        section: what to train with.
        sample: ``temperature``, ``top_p`` and ``max_new_tokens`` of the answers.
        folder: where all goes.
        seed: of the adapter, the order of the questions and the answers.
        max_steps: stop after so many steps, with a checkpoint; the next call goes on.
        log: called after every step.

    Raises:
        TrainingError: no usable question, a folder of other settings, or a loss that broke down.
    """
    prompts = Prompts(vlm)
    rows, quarantined = usable(vlm, questions, prompts)
    lost = {row.id for row in quarantined}
    kept = [question for question in questions if question.id not in lost]
    settings = {"grpo": section.model_dump(mode="json"), "sample": sample.model_dump(mode="json")}
    claim(folder, {"model": identity(vlm), "seed": seed, "rows": _key(rows), **settings})
    path = folder / "model"
    if not path.exists():
        with quiet():
            _train(vlm, kept, reward, section, sample, folder, seed, max_steps, log)
    step, steps = reached(folder)
    return Rewarded(
        step=step, steps=steps, history=history(folder), trainable=trained(folder), path=path, quarantined=quarantined
    )


def _key(rows: Sequence[Row]) -> str:
    return content_key([row.key for row in rows])


def _train(
    vlm: Vlm,
    questions: Sequence[Question],
    reward: Reward,
    section: GrpoSection,
    sample: SampleSection,
    folder: Path,
    seed: int,
    max_steps: int | None,
    log: Log | None,
) -> None:
    set_seed(seed)
    student = merged(vlm)
    if section.lora.rank:
        student = attach_lora(student, section.lora)
    else:
        freeze(student, language=True)
    common = AlignSection(
        lr=section.lr, warmup=section.warmup, weight_decay=section.weight_decay, save_steps=section.save_steps
    )
    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL's trainers report themselves when they are built
    config = GRPOConfig(
        **arguments(student, common, folder, seed)
        | {"per_device_train_batch_size": section.questions * section.n, "max_steps": section.steps},
        num_generations=section.n,
        max_completion_length=sample.max_new_tokens,
        temperature=sample.temperature,
        top_p=sample.top_p,
        beta=section.beta,
        epsilon=section.clip,
        gradient_checkpointing=False,
        save_total_limit=1,
    )
    check_device(student, config)
    trainer: Any = GRPOTrainer(
        model=student.model,
        reward_funcs=reward,
        args=config,
        train_dataset=_rows(questions),
        processing_class=student.processor,
    )
    run(trainer, folder, log, max_steps)
    step, steps = reached(folder)
    if step >= steps and trainer.is_world_process_zero():
        finish(student, folder / "model")


def _rows(questions: Sequence[Question]) -> Any:
    """The questions in TRL's columns; films are read when their batch is made, and so never all held at once."""

    def columns(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        some = [questions[number] for number in batch["question"]]
        return {
            "prompt": [messages(question.prompt, len(question.films)) for question in some],
            "images": [[read_film(film) for film in question.films] for question in some],
            "reference": [question.reference for question in some],
        }

    if len(questions) < 1:
        raise TrainingError("no question is left to train on")
    return Dataset.from_dict({"question": list(range(len(questions)))}).with_transform(columns)
