"""The preference trainer: transformers' Trainer with the objectives of ``radpref.losses``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from radpref.losses import Knobs, Objective, PreferenceLoss, Scored, nll
from radpref.models import Vlm, save
from radpref.recipe import AlignSection
from radpref.training.loop import check_device
from radpref.training.prepare import References
from radpref.training.rows import Item, Prompts, Row, answer_ids
from radpref.training.scoring import batch_of, encode_images, token_logps


class Collator:
    """Items to the tensors of a step: rows in blocks over the items' prompts, images once an item.

    A paired objective gets two blocks in one set of rows, chosen then rejected; an unpaired one gets the
    desirable and then the undesirable items as one block, and their mismatched rows as another set. Returns
    ``rows`` and ``images`` (see ``Batch``), ``reference`` (rows, T) float32 (zeros without a reference),
    ``desirable`` (number of chosen rows), and ``mismatched`` and ``mismatched_reference`` for unpaired items.
    """

    def __init__(self, vlm: Vlm, objective: Objective, prompts: Prompts, references: References) -> None:
        self._vlm, self._objective, self._prompts, self._references = vlm, objective, prompts, references

    def __call__(self, batch: Sequence[Item]) -> dict[str, Any]:
        if not self._objective.unpaired:
            chosen, rejected = [i.chosen for i in batch if i.chosen], [i.rejected for i in batch if i.rejected]
            return {**self._block(batch, chosen, rejected), "desirable": len(chosen)}
        batch = sorted(batch, key=lambda item: item.chosen is None)
        own = [row for item in batch if (row := item.chosen or item.rejected)]
        other = self._block(batch, [item.mismatched for item in batch if item.mismatched])
        return {
            **self._block(batch, own),
            "desirable": sum(item.chosen is not None for item in batch),
            "mismatched": other["rows"],
            "mismatched_reference": other["reference"],
        }

    def _block(self, batch: Sequence[Item], *blocks: Sequence[Row]) -> dict[str, Any]:
        ids = [[answer_ids(self._vlm, row) for row in block] for block in blocks]
        prompts = [self._prompts(item.rows()[0]) for item in batch]
        rows, images = batch_of(self._vlm, prompts, ids)
        lengths = [len(answer) for block in ids for answer in block]
        reference = torch.zeros(len(lengths), max(lengths))
        if self._objective.reference:
            for i, (row, n) in enumerate(zip([r for block in blocks for r in block], lengths, strict=True)):
                reference[i, :n] = self._references.of(row, n)
        return {"rows": rows, "images": images, "reference": reference}


class PairTrainer(Trainer):  # type: ignore[misc]
    """Trains on items with one of ``LOSSES``; all else is transformers' Trainer.

    The loss of a step is the mean over its rows, and over the accumulated steps. The vision tower and the
    projector must be frozen: each item's images are encoded once for all its rows, without gradient. The
    reference's log-probs come with the batch, so no second model is held.

    Args:
        vlm: the model to train, its parameters' ``requires_grad`` set.
        args: the Trainer's arguments.
        items: what to train on; all paired or all unpaired, as the objective asks.
        objective: one of ``LOSSES``.
        section: the numbers of the objective (``beta``, ``length_alpha``, ``nll``).
        collator: batches of items to tensors.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean over one batch: the Trainer averages over accumulated ones

    def __init__(
        self,
        vlm: Vlm,
        args: TrainingArguments,
        items: Sequence[Item],
        objective: Objective,
        section: AlignSection,
        collator: Callable[[Sequence[Item]], dict[str, Any]],
    ) -> None:
        check_device(vlm, args)
        super().__init__(model=vlm.model, args=args, train_dataset=items, data_collator=collator)
        self._vlm, self._objective, self._section = vlm, objective, section
        self._sums: dict[str, Tensor] = {}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss of a batch from ``Collator``, as a scalar (with the per-row result if ``return_outputs``)."""
        images, desirable = inputs["images"], inputs["desirable"]
        unpaired = self._objective.unpaired
        with self.accelerator.autocast():
            features = encode_images(self.accelerator.unwrap_model(model), images)
        policy, mask = token_logps(model, inputs["rows"], images, 1 if unpaired else 2, features)
        scored = Scored(policy, inputs["reference"], mask)
        chosen, rejected = Scored(*(t[:desirable] for t in scored)), Scored(*(t[desirable:] for t in scored))
        kl = self._mismatched_ratios(model, inputs, features) if unpaired else None
        result = self._objective.loss(chosen, rejected, Knobs(self._section.beta, self._section.length_alpha, kl))
        loss = result.loss.mean()
        if self._section.nll and desirable:
            loss = loss + self._section.nll * nll(chosen).mean()
        self._note(chosen, rejected, result, kl)
        return (loss, result) if return_outputs else loss

    @torch.no_grad()
    def _mismatched_ratios(self, model: Any, inputs: Mapping[str, Any], features: Any) -> Tensor:
        """(items,) summed log-ratios of the mismatched rows."""
        policy, mask = token_logps(model, inputs["mismatched"], inputs["images"], 1, features)
        return Scored(policy, inputs["mismatched_reference"], mask).ratio()

    @torch.no_grad()
    def _note(self, chosen: Scored, rejected: Scored, result: PreferenceLoss, kl: Tensor | None) -> None:
        """Add a batch to the sums of what is logged: (sum, count) of every quantity."""
        values = {
            "chosen_reward": result.chosen_reward,
            "rejected_reward": result.rejected_reward,
            "chosen_logp": chosen.total(),
            "rejected_logp": rejected.total(),
            "chosen_tokens": chosen.length(),
            "rejected_tokens": rejected.length(),
            "chosen_nll": nll(chosen),
        }
        if not self._objective.unpaired:
            margin = result.chosen_reward - result.rejected_reward
            values |= {"reward_margin": margin, "reward_accuracy": (margin > 0).float()}
        if self._objective.reference:
            # E_ref[pi/ref - 1 - log pi/ref] = KL(ref || pi) a token, where the answers are samples of the reference
            logs = torch.cat([(side.policy - side.reference)[side.mask] for side in (chosen, rejected)])
            values["kl"] = logs.expm1() - logs
        if kl is not None:
            values["kl_mismatched"] = kl
        for name, value in values.items():
            part = torch.stack([value.sum(), value.new_tensor(value.numel())]).detach()
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log, over all processes, to what the Trainer logs."""
        if self._sums:
            sums = self.accelerator.reduce(torch.stack(list(self._sums.values())), reduction="sum")
            for name, (total, count) in zip(self._sums, sums.tolist(), strict=True):
                if count:
                    logs[name] = total / count
            self._sums.clear()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint that ``radpref.models.load`` reads: with the base's fingerprint, or with the processor."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)  # the weights must be gathered first
        elif self.args.should_save:
            save(self._vlm, Path(output_dir or self.args.output_dir))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would walk through all parameters at every step."""
        return 0
