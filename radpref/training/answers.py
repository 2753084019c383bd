"""The supervised trainer: answers' likelihood, with frozen images encoded once and items of like length together.

TRL's SFTTrainer computes the same loss (tests/test_training_trl.py holds one against the other), but encodes every
image at every step and makes the logits of every position, prompt and image included.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from radpref.config import SftSection
from radpref.models import Vlm, autocast
from radpref.training.cache import Cache
from radpref.training.division import SHARE, Batches, loader
from radpref.training.features import encode, joined, split
from radpref.training.layout import PIXELS, Batch, Group, image_tokens, images_of, pack
from radpref.training.loop import Means, check_device, save_trained, schedule_of
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, Row, answer_ids
from radpref.training.scoring import Way, score
from radpref.training.trainer import LikeLengths

LOG = logging.getLogger(__name__)


@torch.no_grad()
def encoded(vlm: Vlm, rows: Sequence[Row], prompts: Prompts, batch: int, folder: Path) -> Cache | None:
    """Every prompt with what frozen tower and projector make of its images, ``batch`` prompts at a time, in ``folder``.

    None where the disk has no room for that.
    """
    cache = Cache(folder, identity(vlm))
    vlm.model.eval()
    left = {row.prompt_key: row for row in rows if not cache.below(f"prompt/{row.prompt_key}/")}
    keys = list(left)
    for start in range(0, len(keys), batch):
        some = keys[start : start + batch]
        whole = [prompts(left[key]) for key in some]
        images = {name: value.to(vlm.device) for name, value in images_of(vlm, whole).items()}
        with autocast(vlm):
            parts = split(encode(vlm.model, images), [image_tokens(vlm, prompt["input_ids"]) for prompt in whole])
        if start == 0:
            size = sum(value.nbytes for part in parts for value in part.values()) / len(some) * len(keys)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if size > 0.9 * shutil.disk_usage(folder.parent).free:
                LOG.info("encoded images would take %.2g GB, which the disk has no room for", size / 1e9)
                return None
        for key, prompt, part in zip(some, whole, parts, strict=True):
            cache.put({f"features/{key}/{name}": value for name, value in part.items()})
            cache.put({f"prompt/{key}/{name}": value for name, value in prompt.items() if not name.startswith(PIXELS)})
    cache.flush()
    return cache


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """Trains on the likelihood of rows' answers; all else is transformers' Trainer.

    The loss of a step is the mean over its answer tokens, end of turn included, however they are divided into batches
    and processes; a step that an epoch's end leaves short counts by its rows, and is logged as the mean that it is.

    Args:
        vlm: the model to train, its parameters' ``requires_grad`` set.
        args: the Trainer's arguments.
        rows: prompts with their answers.
        prompts: the rows' encoded prompts.
        way: how answers go through the model.
        features: encoded images of the rows' prompts; None sends pixels through the tower at every step.
        section: its batch, accumulation and schedule.
    """

    loss_is_scaled_for_ga = True  # by the tokens of the whole step

    def __init__(
        self,
        vlm: Vlm,
        args: TrainingArguments,
        rows: Sequence[Row],
        prompts: Prompts,
        way: Way,
        features: Cache | None,
        section: SftSection,
    ) -> None:
        check_device(vlm, args)
        numbers: Any = range(len(rows))
        super().__init__(model=vlm.model, args=args, train_dataset=numbers)
        self._vlm, self._rows, self._prompts, self._way = vlm, rows, prompts, way
        self._features, self._section = features, section
        self._means = Means()

    def collated(self, numbers: Sequence[int], counts: Sequence[bool] = ()) -> dict[str, Any]:
        """The batch of these rows; ``counts`` says of each whether it is one of the step's own, all where empty."""
        rows = [self._rows[number] for number in numbers]
        kept, out = self._features, {}
        if kept is None:
            whole = [self._prompts(row) for row in rows]
        else:
            whole = [kept.below(f"prompt/{row.prompt_key}/") for row in rows]
            out["features"] = joined([kept.below(f"features/{row.prompt_key}/") for row in rows])
        groups = [Group(prompt, [answer_ids(self._vlm, row)]) for prompt, row in zip(whole, rows, strict=True)]
        batch = pack(self._vlm, groups, shared=False)
        return {**out, "batch": batch._asdict(), "rows": sum(counts) if counts else len(rows)}

    def get_train_dataloader(self) -> Any:
        """This process's share of every batch, in an order that puts rows of like length together."""
        lengths = [self._prompts.length(row) + len(answer_ids(self._vlm, row)) for row in self._rows]
        args = self.args
        order = LikeLengths(lengths, self._full_step(), args.data_seed if args.data_seed is not None else args.seed)
        return loader(range(len(self._rows)), Batches(order, self._section.batch), self.collated, args)

    def _full_step(self) -> int:
        return self._section.batch * self._section.accumulate

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's schedule."""
        return schedule_of(self, self._section.schedule, num_training_steps)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of an optimiser step, each with what its tokens' sum is multiplied with."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [[len(batch["batch"]["targets"]) if batch.get(SHARE, 1.0) else 0, batch["rows"]] for batch in batches]
        here = torch.tensor(counts, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32).sum(
            0
        )
        tokens, rows = self.accelerator.reduce(here, reduction="sum").tolist() if batches else (1.0, 1.0)
        for batch in batches:  # gradients of several processes are averaged, not summed
            whole = rows / self._full_step() / tokens * self.args.world_size
            batch["factor"] = whole if batch.get(SHARE, 1.0) else 0.0
        return batches, count

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The batch's part of the step's loss, as a scalar."""
        batch = Batch(**inputs["batch"])
        found = score(model, batch, self._way, inputs.get("features"))
        spoken = found.logps[found.mask]
        if inputs.get(SHARE, 1.0):
            self._means.add({"loss": -spoken.detach()}, spoken.device)
        loss = -spoken.sum() * inputs.get("factor", 1 / len(spoken))
        return (loss, found) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put the mean over tokens since the last log, over all processes, in the place of the Trainer's loss."""
        logs |= self._means.taken(self.accelerator)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint that ``radpref.models.load`` reads."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)  # the weights must be gathered first
        save_trained(self, self._vlm, output_dir)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would walk through all parameters at every step."""
        return 0
