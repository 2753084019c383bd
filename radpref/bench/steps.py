"""Ways to take one step on the same batch: ours, TRL's DPOTrainer and SFTTrainer, and FiRe-MPO as it was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from radpref.bench.shapes import conversation
from radpref.config import AlignSection, SftSection
from radpref.images import read_image
from radpref.models import (
    Vlm,
    attach_lora,
    collate,
    encode_prompt,
    freeze,
    language_targets,
    token_mask,
    unwrapped,
    vision_tower,
)
from radpref.records import Pair, Question
from radpref.training import Collator, PairTrainer, Prepared, Prompts, prepare, way_of
from radpref.training.answers import AnswerTrainer, encoded
from radpref.training.head import Head
from radpref.training.loop import arguments, walked_once
from radpref.training.prepare import identity
from radpref.training.rows import answer_ids, keyed
from radpref.training.sft import usable


class Stepper(NamedTuple):
    """One way to take a step: forward, loss, backward."""

    name: str
    step: Callable[[], Tensor]
    """Adds to the gradients of ``model``, and returns the loss."""
    model: Any
    epoch: Callable[[int], object]
    """Trains so many epochs from raw pairs, everything included; the model is used up."""
    tokens: int
    """Tokens that a step sends through the language model, padding included, the reference's included."""
    note: str = ""


def with_lora(vlm: Vlm, section: AlignSection | SftSection) -> Vlm:
    """The model with an adapter whose output is not zero, the same for every way."""
    student = attach_lora(vlm, section.lora)
    _drawn(student.model)
    return student


def _drawn(model: Any) -> None:
    """The same weights for every adapter."""
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_((torch.randn(parameter.shape, generator=random) * 0.02).to(parameter.device))


def _pefts(model: Any, section: AlignSection | SftSection) -> Any:
    """The adapter as TRL's users ask for it."""
    from peft import LoraConfig

    return LoraConfig(r=section.lora.rank, lora_alpha=section.lora.alpha, target_modules=language_targets(model))


def ours(vlm: Vlm, pairs: Sequence[Pair], section: AlignSection, folder: Path) -> Stepper:
    """``prepare`` and ``PairTrainer``; the adapter is taken off again before the reference is computed anew."""
    prepared = prepare(vlm, pairs, section, folder / "prepared")
    head = _reference_head(vlm, prepared)
    student = with_lora(vlm, section)
    args = TrainingArguments(**arguments(student, section, folder / "ours", 0))
    trainer = PairTrainer(student, args, prepared, head)
    _checkpointed(student.model, section)
    inputs = trainer._prepare_inputs(Collator(student, prepared)(prepared.items[: section.batch]))

    def step() -> Tensor:
        student.model.train()
        loss: Tensor = trainer.compute_loss(student.model, inputs)
        trainer.accelerator.backward(loss)
        return loss.detach()

    def epoch(count: int) -> PairTrainer:
        bare = replace(vlm, model=student.model.unload() if hasattr(student.model, "unload") else vlm.model)
        whole = section.model_copy(update={"epochs": float(count)})
        anew = prepare(bare, pairs, whole, folder / f"prepared-{count}")
        again = with_lora(bare, whole)
        args = TrainingArguments(**{**arguments(again, whole, folder / f"ours-{count}", 0), "save_strategy": "no"})
        training = PairTrainer(again, args, anew, _reference_head(bare, anew))
        training.remove_callback(PrinterCallback)
        with walked_once(training):
            training.train()
        again.model.unload()
        return training

    tokens = inputs["batch"]["rows"]["input_ids"].numel()
    note = "encoded images kept" if prepared.features else "images encoded at every step"
    return Stepper("radpref", step, student.model, epoch, tokens, "; ".join([note, *prepared.way.notes]))


def _reference_head(vlm: Vlm, prepared: Prepared) -> Head | None:
    return Head.of(unwrapped(vlm.model).get_output_embeddings()) if prepared.objective.kl else None


def trl(vlm: Vlm, pairs: Sequence[Pair], section: AlignSection, folder: Path) -> Stepper:
    """TRL's DPOTrainer with its own collator, and its own computation of the loss."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [conversation(pair) for pair in pairs]
    settings = _trls(vlm, section, folder)

    def trainer_of(model: Any, epochs: int = 1) -> Any:
        args = DPOConfig(
            **{**settings, "num_train_epochs": epochs},
            beta=section.beta,
            loss_type=["sigmoid"],
            max_length=None,
        )
        return DPOTrainer(
            model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=vlm.processor,
            peft_config=_pefts(model, section),
        )

    trainer = trainer_of(vlm.model)
    _checkpointed(trainer.model, section)
    _drawn(trainer.model)
    some = list(pairs[: section.batch])
    batch = trainer._prepare_inputs(trainer.data_collator([conversation(pair) for pair in some]))
    _same_answers(vlm, some, batch)

    def step() -> Tensor:
        trainer.model.train()
        loss: Tensor = trainer._compute_loss(trainer.model, batch, False)
        trainer.accelerator.backward(loss)
        return loss.detach()

    def epoch(count: int) -> Any:
        training = trainer_of(trainer.model.unload(), count)
        training.remove_callback(PrinterCallback)
        training.train()
        training.model.unload()
        return training

    return Stepper("trl", step, trainer.model, epoch, 2 * batch["input_ids"].numel())


def _trls(vlm: Vlm, section: AlignSection | SftSection, folder: Path) -> dict[str, Any]:
    """Our arguments as far as TRL takes them, without checkpoints."""
    ours = arguments(vlm, section, folder / "trl", 0)
    ours.pop("save_steps")
    return {**ours, "save_strategy": "no"}


def _checkpointed(model: Any, section: AlignSection | SftSection) -> None:
    """A single step does not go through ``Trainer.train``, which is where checkpointing is switched on."""
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable()


def ours_sft(vlm: Vlm, pairs: Sequence[Pair], section: SftSection, folder: Path) -> Stepper:
    """``AnswerTrainer`` on the chosen answers; images are encoded beforehand where what encodes them is frozen."""
    prompts = Prompts(vlm)
    rows, _ = usable(vlm, _questions(pairs), prompts)

    def trainer_of(vlm: Vlm, epochs: int, place: Path) -> tuple[Vlm, AnswerTrainer]:
        whole = section.model_copy(update={"epochs": float(epochs)})
        way = way_of(vlm, shared=False)
        kept = encoded(vlm, rows, prompts, section.batch, place / "features") if section.lora.rank else None
        student = _trained_parts(vlm, section)
        args = TrainingArguments(**{**arguments(student, whole, place, 0), "save_strategy": "no"})
        return student, AnswerTrainer(student, args, rows, prompts, way, kept, whole)

    student, trainer = trainer_of(vlm, 1, folder / "ours")
    _checkpointed(student.model, section)
    inputs = trainer._prepare_inputs(trainer.collated(range(section.batch)))

    def step() -> Tensor:
        student.model.train()
        loss: Tensor = trainer.compute_loss(student.model, inputs)
        trainer.accelerator.backward(loss)
        return loss.detach()

    def epoch(count: int) -> AnswerTrainer:
        bare = replace(vlm, model=student.model.unload() if section.lora.rank else vlm.model)
        again, training = trainer_of(bare, count, folder / f"ours-{count}")
        training.remove_callback(PrinterCallback)
        with walked_once(training):
            training.train()
        if section.lora.rank:
            again.model.unload()
        return training

    note = "encoded images kept" if section.lora.rank else "images encoded at every step"
    return Stepper("radpref", step, student.model, epoch, inputs["batch"]["rows"]["input_ids"].numel(), note)


def trl_sft(vlm: Vlm, pairs: Sequence[Pair], section: SftSection, folder: Path) -> Stepper:
    """TRL's SFTTrainer with its own collator on the chosen answers, only these in the loss."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = _trls(vlm, section, folder)

    def rows() -> list[dict[str, Any]]:  # anew each time: TRL's collator writes into what it is given
        made = [conversation(pair) for pair in pairs]
        return [{"images": row["images"], "prompt": row["prompt"], "completion": row["chosen"]} for row in made]

    def trainer_of(model: Any, epochs: int = 1) -> Any:
        if not section.lora.rank:
            _trained_parts(replace(vlm, model=model), section)
        return SFTTrainer(
            model,
            args=SFTConfig(**{**settings, "num_train_epochs": epochs}, max_length=None),
            train_dataset=Dataset.from_list(rows()),
            processing_class=vlm.processor,
            peft_config=_pefts(model, section) if section.lora.rank else None,
        )

    trainer = trainer_of(vlm.model)
    _checkpointed(trainer.model, section)
    _drawn(trainer.model)
    batch = trainer._prepare_inputs(trainer.data_collator(rows()[: section.batch]))
    make = keyed(identity(vlm))
    for labels, pair in zip(batch["labels"], pairs, strict=False):
        labels[(labels != -100).nonzero().squeeze(1)[len(answer_ids(vlm, make("", (), pair.chosen))) :]] = -100

    def step() -> Tensor:
        trainer.model.train()
        loss: Tensor = trainer.compute_loss(trainer.model, dict(batch))
        trainer.accelerator.backward(loss)
        return loss.detach()

    def epoch(count: int) -> Any:
        training = trainer_of(trainer.model.unload() if section.lora.rank else trainer.model, count)
        training.remove_callback(PrinterCallback)
        training.train()
        if section.lora.rank:
            training.model.unload()
        return training

    return Stepper("trl", step, trainer.model, epoch, batch["input_ids"].numel())


def _questions(pairs: Sequence[Pair]) -> list[Question]:
    """The pairs' prompts with their chosen answers as references."""
    return [
        Question(
            id=pair.id,
            study=pair.id,
            patient=pair.patient,
            split="train",
            images=pair.images,
            prompt=pair.prompt,
            reference=pair.chosen,
        )
        for pair in pairs
    ]


def _trained_parts(vlm: Vlm, section: SftSection) -> Vlm:
    """An adapter on the language model, or that and the projector in full."""
    if section.lora.rank:
        return with_lora(vlm, section)
    freeze(vlm, language=True, projector=True)
    return vlm


def _same_answers(vlm: Vlm, pairs: Sequence[Pair], batch: Mapping[str, Tensor]) -> None:
    """Score in TRL's rows the tokens that ours have: templates may write a newline after the end of turn."""
    make = keyed(identity(vlm))
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    for row, text in enumerate(texts):
        length = len(answer_ids(vlm, make("", (), text)))
        mask = batch["completion_mask"][row]
        mask[mask.nonzero().squeeze(1)[length:]] = 0


def published_firempo(vlm: Vlm, pairs: Sequence[Pair], section: AlignSection, folder: Path) -> Stepper:
    """FiRe-MPO as its code does it: four policy and four reference forwards, full logits everywhere.

    One forward for each of (image, chosen), (image, rejected), (corrupted image, chosen), (corrupted image, rejected),
    under the policy and under the reference (the adapter switched off); log-softmax of all positions; the KL of both
    directions from the two distributions at the chosen answer's spans.
    """
    student = with_lora(vlm, section)
    _checkpointed(student.model, section)
    some = list(pairs[: section.batch])
    make = keyed(identity(vlm))
    batches: dict[tuple[bool, bool], tuple[dict[str, Tensor], Tensor]] = {}
    for corrupted in (False, True):
        prompts = [
            encode_prompt(vlm, p.prompt, [read_image(f) for f in (p.corrupted if corrupted else p.images)])
            for p in some
        ]
        for chosen in (True, False):
            answers = [p.chosen if chosen else p.rejected for p in some]
            spans = [p.chosen_spans if chosen else p.rejected_spans for p in some]
            rows = collate(vlm, prompts, [answer_ids(vlm, make("", (), text)) for text in answers])
            where = rows.pop("completion_mask")
            marks = [mark for a, s in zip(answers, spans, strict=True) for mark in token_mask(vlm, a, s)]
            rewarded = torch.zeros_like(where).masked_scatter(where, torch.tensor(marks))
            inputs = {name: value.to(vlm.device) for name, value in rows.items()}
            batches[corrupted, chosen] = inputs, rewarded.to(vlm.device)

    def logps(key: tuple[bool, bool], frozen: bool) -> tuple[Tensor, Tensor]:
        inputs, rewarded = batches[key]
        reference = student.model.disable_adapter() if frozen else nullcontext()
        with torch.set_grad_enabled(not frozen), reference:
            whole = student.model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        taken = whole.gather(-1, inputs["input_ids"][:, 1:, None]).squeeze(-1)
        return (taken * rewarded[:, 1:]).sum(-1), whole

    def step() -> Tensor:
        student.model.train()
        margins: dict[tuple[bool, bool], Tensor] = {}
        divergence = torch.zeros((), device=vlm.device)
        for key in batches:
            reward, own = logps(key, frozen=False)
            other_reward, other = logps(key, frozen=True)
            margins[key] = section.beta * (reward - other_reward)
            if key == (False, True):
                forward = (other.exp() * (other - own)).sum(-1)
                reverse = (own.exp() * (own - other)).sum(-1)
                share = section.kl.forward
                at = batches[key][1][:, 1:]
                divergence = ((share * forward + (1 - share) * reverse) * at).sum(-1)
        rank = -F.logsigmoid(margins[False, True] - margins[False, False])
        visual = -F.logsigmoid(margins[True, False] - margins[True, True])
        loss = (rank + section.visual.weight * visual + section.kl.weight * divergence).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def epoch(count: int) -> None:
        trainable = [p for p in student.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=section.lr)
        nonlocal batches
        for _ in range(count * max(1, len(pairs) // section.batch)):
            step()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    tokens = 2 * sum(inputs["input_ids"].numel() for inputs, _ in batches.values())
    note = "an epoch goes over the first batch again and again, its images processed beforehand"
    return Stepper("published", step, student.model, epoch, tokens, note)


def encodings(model: Any, step: Callable[[], Tensor]) -> int:
    """Images that go through the vision tower in one step."""
    tower = vision_tower(model)
    seen: list[int] = []

    def count(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(value for value in (*arguments, *named.values()) if isinstance(value, Tensor))
        grid = named.get("grid_thw")
        seen.append(len(grid) if grid is not None else len(first))

    handle = tower.register_forward_pre_hook(count, with_kwargs=True)
    try:
        step()
    finally:
        handle.remove()
        model.zero_grad()
    return sum(seen)
