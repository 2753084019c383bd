"""The preference trainer: transformers' Trainer with the objectives of ``radpref.losses``."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from radpref.losses import Evaluated, Scored, Sides, evaluate, nll
from radpref.models import Vlm
from radpref.training.division import SHARE, Batches, loader
from radpref.training.features import encode, joined
from radpref.training.head import Against, Head
from radpref.training.layout import Batch, Group, pack
from radpref.training.loop import Means, check_device, save_trained, schedule_of
from radpref.training.prepare import Prepared, hidden_name, kl_places
from radpref.training.rows import Item, Prompts, Row, answer_ids, rewarded
from radpref.training.scoring import score

ROLES = ("chosen", "rejected", "corrupted_chosen", "corrupted_rejected")
MEGABATCH = 50
"""Batches that are sorted by length together; shuffled before and after."""


class Collator:
    """Items to the tensors of a step.

    Returns ``batch`` (the fields of ``Batch``, answers of all items), ``features`` where they are kept, ``weight``
    of the items, for each of ``ROLES`` the numbers of its answers, ``grounded`` (items with corrupted images),
    ``reference`` and ``rewarded`` (answers, T), ``against`` (token numbers) with ``hidden`` for a divergence, and
    for unpaired objectives ``mismatched``, a batch of its own.
    """

    def __init__(self, vlm: Vlm, prepared: Prepared) -> None:
        self._vlm, self._prepared = vlm, prepared
        self._prompts = Prompts(vlm)
        self._known: dict[str, array[int]] = {}

    def _ids(self, row: Row) -> array[int]:
        """The answer's token ids; tokenised once, since a short step would feel it."""
        known = self._known.get(row.key)
        if known is None:
            known = self._known[row.key] = array("l", answer_ids(self._vlm, row))
        return known

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        whole = self._prepared.objective
        if whole.unpaired:
            items = sorted(items, key=lambda item: item.chosen is None)
        groups: dict[str, list[tuple[int, str, Row]]] = {}
        for number, item in enumerate(items):
            for role in ROLES:
                row = getattr(item, role)
                if row is not None:  # one row of the batch for each prompt of an item: its own, and the corrupted
                    groups.setdefault(f"{number}/{row.prompt_key}", []).append((number, role, row))
        members = [member for group in groups.values() for member in group]
        out = self._scored([[row for _, _, row in group] for group in groups.values()])
        numbers = {(item, role): answer for answer, (item, role, _) in enumerate(members)}
        for role in ROLES:
            found = [numbers[n, role] for n in range(len(items)) if (n, role) in numbers]
            out[role] = torch.tensor(found, dtype=torch.int64)
        side = whole.corrupted_sides[0] if whole.corrupted_sides else ""
        grounded = [n for n in range(len(items)) if (n, f"corrupted_{side}") in numbers]
        out["grounded"] = torch.tensor(grounded, dtype=torch.int64)
        out["weight"] = torch.tensor([item.weight for item in items])
        if whole.kl:
            out |= self._against(items, members)
        if whole.unpaired:
            out["mismatched"] = self._scored([[item.mismatched] for item in items if item.mismatched])
        return out

    def _scored(self, groups: Sequence[Sequence[Row]]) -> dict[str, Any]:
        """The batch of groups of rows, each with one prompt, and what the reference says of its answers."""
        vlm, cache, way = self._vlm, self._prepared.cache, self._prepared.way
        prompts = [self._prompt(rows[0]) for rows in groups]
        ids = [[self._ids(row) for row in rows] for rows in groups]
        batch = pack(vlm, [Group(p, a) for p, a in zip(prompts, ids, strict=True)], shared=way.shared)
        out: dict[str, Any] = {"batch": batch._asdict()}
        if self._prepared.features:
            repeats = [1 if way.shared else len(rows) for rows in groups]
            parts = [cache.below(f"features/{rows[0].prompt_key}/") for rows in groups]
            out["features"] = joined([part for part, n in zip(parts, repeats, strict=True) for _ in range(n)])
        rows = [row for some in groups for row in some]
        longest = int(batch.lengths.max())
        reference = torch.zeros(len(rows), longest)
        if self._prepared.objective.reference:
            for number, (row, n) in enumerate(zip(rows, batch.lengths.tolist(), strict=True)):
                reference[number, :n] = cache[f"logps/{row.key}"]
        out["reference"] = reference
        if self._prepared.objective.section.spans:
            counts = torch.zeros(len(rows), longest)
            for number, row in enumerate(rows):
                marks = rewarded(vlm, row)
                counts[number, : len(marks)] = torch.tensor(marks, dtype=torch.float32)
            out["rewarded"] = counts
        return out

    def _prompt(self, row: Row) -> dict[str, Tensor]:
        """The encoded prompt, with its pixels where its features are not kept."""
        return (
            self._prepared.cache.below(f"prompt/{row.prompt_key}/") if self._prepared.features else self._prompts(row)
        )

    def _against(self, items: Sequence[Item], members: Sequence[tuple[int, str, Row]]) -> dict[str, Tensor]:
        """Token numbers at which a divergence is taken, and the reference's hidden states there."""
        index: list[int] = []
        hidden: list[Tensor] = []
        start = 0
        for number, _, row in members:
            if places := kl_places(self._vlm, self._prepared.objective, items[number], row):
                index += [start + place for place in places]
                hidden.append(self._prepared.cache[hidden_name(row, places)])
            start += len(self._ids(row))
        if not hidden:  # KTO: a batch of undesirable answers alone
            return {}
        return {"against": torch.tensor(index, dtype=torch.int64), "hidden": torch.cat(hidden)}


class LikeLengths(Sampler[int]):
    """Items in random order, but with others of like length beside them, so that batches hold little padding.

    The order follows from the seed and the epoch alone. It does not depend on how a step's items are divided among
    processes and accumulated batches.

    Args:
        lengths: of the items, in tokens.
        step: items an optimiser step takes.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self._lengths, self._step, self._seed, self._epoch = lengths, step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at each epoch's start."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self), generator=random).tolist()
        size = MEGABATCH * self._step
        sorted_order: list[int] = []
        for start in range(0, len(order), size):
            sorted_order += sorted(order[start : start + size], key=lambda item: self._lengths[item])
        steps = [sorted_order[start : start + self._step] for start in range(0, len(order), self._step)]
        tail = [steps.pop()] if steps and len(steps[-1]) < self._step else []  # a short step stays the last one
        shuffled = torch.randperm(len(steps), generator=random).tolist()
        return (item for step in [*(steps[number] for number in shuffled), *tail] for item in step)


class PairTrainer(Trainer):  # type: ignore[misc]
    """Trains on prepared items with their objective; all else is transformers' Trainer.

    The loss of a step is the mean over its items, and over the accumulated batches; a step that an epoch's end leaves
    short counts by its items, so that each has the same weight, and is logged as the mean that it is. What the frozen
    parts and the reference say comes with the batch, so no second model is held.

    Args:
        vlm: the model to train, its parameters' ``requires_grad`` set.
        args: the Trainer's arguments.
        prepared: items, and what was computed for them with the same model.
        reference: head of the reference.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean over one batch: the Trainer averages over accumulated ones

    def __init__(self, vlm: Vlm, args: TrainingArguments, prepared: Prepared, reference: Head | None) -> None:
        check_device(vlm, args)
        super().__init__(
            model=vlm.model, args=args, train_dataset=prepared.items, data_collator=Collator(vlm, prepared)
        )
        self._vlm, self._prepared, self._reference = vlm, prepared, reference
        section = prepared.objective.section
        self._encode_apart = not (section.train_tower or section.train_projector)
        self._share = 1.0  # of a full batch, while a step is taken
        self._means = Means()

    def get_train_dataloader(self) -> Any:
        """This process's share of every batch, in an order that puts items of like length together."""
        lengths = [sum(self._prepared.lengths[row.key] for row in item.rows()) for item in self._prepared.items]
        args, batch = self.args, self._prepared.objective.section.batch
        seed = args.data_seed if args.data_seed is not None else args.seed
        order = LikeLengths(lengths, batch * args.gradient_accumulation_steps, seed)
        return loader(self._prepared.items, Batches(order, batch), self._collated, args)

    def _collated(self, items: list[Item], counts: list[bool]) -> dict[str, Any]:
        batch: dict[str, Any] = self.data_collator(items)
        return batch

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of an optimiser step. KTO's reference point is estimated over all of them, of all processes."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._prepared.objective.unpaired and batches:
            ratios = torch.cat([self._mismatched(self._prepare_inputs(batch.pop("mismatched"))) for batch in batches])
            counts = torch.cat([torch.full((len(batch["weight"]),), bool(batch.get(SHARE, 1.0))) for batch in batches])
            own = ratios.masked_fill(~counts.to(ratios.device), torch.nan)
            # processes may have another number of items each in a short batch
            everyone = self.accelerator.gather(self.accelerator.pad_across_processes(own, pad_index=torch.nan))
            everyone = everyone[~everyone.isnan()]
            for batch in batches:
                batch["mismatched_ratios"] = everyone
        return batches, count

    @torch.no_grad()
    def _mismatched(self, inputs: Mapping[str, Any]) -> Tensor:
        """(items,) summed log-ratios of the mismatched rows of a batch, without dropout.

        It runs before the Trainer has put the random state of a checkpoint back, so it must not draw.
        """
        training = self.model.training
        self.model.eval()
        policy, mask = self._scores(self.model, inputs)[:2]
        self.model.train(training)
        return Scored(policy, inputs["reference"], mask).ratio()

    def _scores(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        way, batch = self._prepared.way, Batch(**inputs["batch"])
        features = inputs.get("features")
        if features is None and way.features and self._encode_apart:
            with self.accelerator.autocast():
                features = encode(self.accelerator.unwrap_model(model), batch.images)
        against = None
        if "against" in inputs and len(inputs["against"]):
            assert self._reference is not None
            against = Against(inputs["against"], inputs["hidden"], self._reference)
        return score(model, batch, way, features, against)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's schedule."""
        return schedule_of(self, self._prepared.objective.section.schedule, num_training_steps)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """A batch's part of an optimiser step."""
        steps = self.current_gradient_accumulation_steps / self.args.gradient_accumulation_steps
        self._share = inputs.pop(SHARE) * steps
        try:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        finally:
            self._share = 1.0
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss of a batch from ``Collator``, as a scalar (with its parts if ``return_outputs``)."""
        found = self._scores(model, inputs)
        scored = Scored(
            found.logps, inputs["reference"], found.mask, inputs.get("rewarded"), found.forward_kl, found.reverse_kl
        )
        chosen, rejected, corrupted_chosen, corrupted_rejected = (scored.rows(inputs[role]) for role in ROLES)
        sides = Sides(
            chosen,
            rejected,
            weight=inputs["weight"].to(found.logps.dtype),
            kl=inputs.get("mismatched_ratios"),
            grounded=inputs["grounded"] if len(inputs["grounded"]) else None,
            corrupted_chosen=corrupted_chosen if len(corrupted_chosen.mask) else None,
            corrupted_rejected=corrupted_rejected if len(corrupted_rejected.mask) else None,
        )
        result = evaluate(self._prepared.objective, sides)
        if self._share:
            self._note(sides, result)
        loss = result.loss * self._share
        return (loss, result) if return_outputs else loss

    @torch.no_grad()
    def _note(self, sides: Sides, result: Evaluated) -> None:
        """Add a batch to what is logged."""
        chosen, rejected = sides.chosen, sides.rejected
        values = {
            "loss": result.loss.expand(len(sides.weight)),
            "chosen_reward": result.chosen_reward,
            "rejected_reward": result.rejected_reward,
            "chosen_logp": chosen.whole().total(),
            "rejected_logp": rejected.whole().total(),
            "chosen_tokens": chosen.length(),
            "rejected_tokens": rejected.length(),
            "chosen_nll": nll(chosen),
        }
        if not self._prepared.objective.unpaired:
            margin = result.chosen_reward - result.rejected_reward
            values |= {"reward_margin": margin, "reward_accuracy": (margin > 0).float()}
        if self._prepared.objective.reference:
            # E_ref[pi/ref - 1 - log pi/ref] = KL(ref || pi) a token, where the answers are samples of the reference
            logs = torch.cat([(side.policy - side.reference)[side.mask] for side in (chosen, rejected)])
            values["kl"] = logs.expm1() - logs
        if sides.kl is not None:
            values["kl_mismatched"] = sides.kl
        if result.visual_margin is not None:  # apart: this term can end worse than it starts
            values |= {"visual_margin": result.visual_margin, "visual_accuracy": (result.visual_margin > 0).float()}
        if len(result.terms) > 1:
            values |= {f"term_{name}": value for name, value in result.terms.items()}
        self._means.add(values, chosen.policy.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log, over all processes, to what the Trainer logs."""
        logs |= self._means.taken(self.accelerator)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint that ``radpref.models.load`` reads: with the base's fingerprint, or with the processor."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)  # the weights must be gathered first
        save_trained(self, self._vlm, output_dir)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would walk through all parameters at every step."""
        return 0
