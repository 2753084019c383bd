"""The group-relative step: answers are sampled, judged and learnt from, each prompt read once for its whole group.

TRL's GRPOTrainer computes the same update (tests/test_grpo_trainer.py holds one against the other), but reads prompt
and image once an answer, both when it samples and when it scores. With eight answers to an image of 64 image tokens
that is most of its time.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainingArguments

from radpref.config import GrpoSection, SampleSection
from radpref.models import Vlm, autocast, decode, pad, sampler, text_positions, unwrapped
from radpref.records import Question
from radpref.training.division import SHARE, Batches, Shuffled, loader
from radpref.training.errors import TrainingError
from radpref.training.loop import Means, check_device, save_trained, schedule_of
from radpref.training.rows import Prompts, Row

Reward = Callable[..., list[float | None]]
"""TRL's form: ``(prompts, completions, **columns)``; ``reference`` is the reference report, ``answer`` the short
answer where a question has one, ``closed`` whether it then has few answers."""

_TINY = 1e-4
"""Added to a standard deviation before it divides, as TRL does."""


class Asked(NamedTuple):
    """A question with its encoded prompt's row."""

    question: Question
    row: Row


def advantages(
    rewards: Tensor, scale: Literal["none", "group", "batch"] = "none", everyone: Tensor | None = None
) -> Tensor:
    """How far each answer is above its group: (groups, n) float32, of rewards (groups, n) with NaN for none.

    ``none``: the reward less its group's mean, so that the step follows the gradient of the mean reward (Liu et al.
    2025, Dr. GRPO). ``group``: that over the group's standard deviation (Shao et al. 2024), which gives a group whose
    answers hardly differ the weight of one whose answers differ much. ``batch``: over that of the whole batch, whose
    rewards are ``everyone`` where other processes have some of them. An
    answer without a reward has the advantage 0, and no part in mean and deviation.
    """
    centred = (rewards - rewards.nanmean(1, keepdim=True)).nan_to_num(0.0)
    if scale == "none":
        return centred
    known = (~rewards.isnan()).sum(1, keepdim=True)
    if scale == "group":
        return centred / ((centred.square().sum(1, keepdim=True) / (known - 1).clamp(min=1)).sqrt() + _TINY)
    given = rewards if everyone is None else everyone
    given = given[~given.isnan()]
    return centred / (given.std() + _TINY) if len(given) > 1 else centred


def group_logps(
    vlm: Vlm,
    model: Any,
    prompts: Sequence[Mapping[str, Tensor]],
    answers: Sequence[Sequence[int]],
    n: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """log p of every answer's tokens, ``n`` answers a prompt in the prompts' order, with gradient.

    Each prompt goes through the model once; its cache, which carries the gradient, is repeated for its answers.

    Args:
        vlm: whose prompts they are.
        model: its model, wrapped for several processes or not, in eval mode.
        prompts: from ``encode_prompt``.
        answers: token ids, with the end of turn where an answer ended; none of them empty.
        n: answers a prompt.
        temperature: what the answers were drawn at; divides the logits.

    Returns:
        log-probs (rows, T) float32, entropies in nats (rows, T) float32 without gradient, and the mask (rows, T)
        of the tokens that there are; zeros elsewhere. T is the longest answer.
    """
    inner = unwrapped(vlm.model)
    inputs = {name: value.to(vlm.device) for name, value in pad(vlm, prompts, "left").items()}
    positions = text_positions(inner, inputs)
    lengths = torch.tensor([len(ids) for ids in answers], device=vlm.device)
    mask = torch.arange(int(lengths.max()), device=vlm.device)[None] < lengths[:, None]
    flat = torch.tensor([i for ids in answers for i in ids], device=vlm.device)
    tokens = torch.zeros(mask.shape, dtype=torch.int64, device=vlm.device).masked_scatter(mask, flat)
    keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}
    with autocast(vlm):
        out = model(**inputs, position_ids=positions, use_cache=True, **keep)
        logits = out.logits[:, -1:].repeat_interleave(n, 0)
        if mask.shape[1] > 1:
            cache = out.past_key_values
            cache.batch_repeat_interleave(n)
            last = positions.amax(-1, keepdim=True).repeat_interleave(n, -2)
            following = model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([inputs["attention_mask"].repeat_interleave(n, 0), mask[:, :-1].long()], 1),
                position_ids=last + torch.arange(1, mask.shape[1], device=vlm.device),
                past_key_values=cache,
                use_cache=True,
            ).logits
            logits = torch.cat([logits, following], dim=1)
    spoken = logits[mask].float() / temperature
    logps = torch.zeros(mask.shape, device=vlm.device)
    with torch.no_grad():
        likely = spoken.log_softmax(-1)
        entropies = logps.masked_scatter(mask, -(likely.exp() * likely).sum(-1))
    return logps.masked_scatter(mask, -F.cross_entropy(spoken, flat, reduction="none")), entropies, mask


class GroupTrainer(Trainer):  # type: ignore[misc]
    """Group-relative policy optimisation (Shao et al. 2024, DeepSeekMath), one update a batch of answers.

    The loss is ``-sum(advantage * log p) / (answers * max_new_tokens)`` over the tokens of a step's answers: a
    constant divisor, for a mean over an answer's own tokens would prefer long bad answers to short ones (Liu et al.
    2025, Dr. GRPO). As the answers are always the present model's own, the probability ratio of PPO is 1 and needs no
    clipping. ``beta`` adds that many times the KL to the starting model, with the gradient of the true KL.

    Model and answers are in eval mode throughout: what was drawn without dropout is scored without it.

    Args:
        vlm: the model to train, its parameters' ``requires_grad`` set.
        args: the Trainer's arguments; a batch counts questions.
        asked: what to train on.
        prompts: their encoded prompts.
        reward: what is maximised; None for an answer takes it out of its group. An answer without a word has the
            reward 0, whatever the judge says: silence is the model's failing and not the judge's.
        section: ``n``, ``beta``, ``scale`` and ``unfinished``.
        sample: ``temperature``, ``top_p`` and ``max_new_tokens`` of the answers.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean over one batch: the Trainer averages over accumulated ones

    def __init__(
        self,
        vlm: Vlm,
        args: TrainingArguments,
        asked: Sequence[Asked],
        prompts: Prompts,
        reward: Reward,
        section: GrpoSection,
        sample: SampleSection,
    ) -> None:
        check_device(vlm, args)
        numbers: Any = range(len(asked))
        super().__init__(model=vlm.model, args=args, train_dataset=numbers)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainingError(
                "grpo samples from the model that it trains, which FSDP and DeepSpeed split over processes; use "
                "`accelerate launch` with plain data parallelism (--multi_gpu), or TRL's GRPOTrainer with "
                "radpref.judges.reward_function as its reward"
            )
        self._vlm, self._asked, self._prompts = vlm, asked, prompts
        self._reward, self._section, self._sample = reward, section, sample
        whole = section.beta > 0 and not section.lora.rank
        self._start = copy.deepcopy(vlm.model).requires_grad_(False) if whole else None
        self._means = Means()

    def get_train_dataloader(self) -> Any:
        """The numbers of this process's share of every batch of questions."""
        args, batch = self.args, self._section.questions
        order = Shuffled(len(self._asked), args.data_seed if args.data_seed is not None else args.seed)
        # a short batch is a noisy step of full length
        batches = Batches(order, batch, drop_last=len(self._asked) >= batch)
        return loader(range(len(self._asked)), batches, lambda numbers, counts: {"asked": numbers}, args)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sample, judge and score the questions of the numbers ``inputs["asked"]``; the loss as a scalar."""
        asked, n = [self._asked[number] for number in inputs["asked"]], self._section.n
        model.eval()
        prompts = [self._prompts(row) for _, row in asked]
        drawn = self._draw([question for question, _ in asked], prompts)
        answers, ended = [ids for ids, _ in drawn], torch.tensor([end for _, end in drawn])
        rewards = self._judged([question for question, _ in asked], answers)
        if self._section.unfinished == "zero":
            rewards = rewards.masked_fill(~ended, 0.0)
        rewards = rewards.view(-1, n)
        share = inputs.get(SHARE, 1.0)
        everyone = None
        if self._section.scale == "batch":
            own = rewards.flatten().to(self._vlm.device) if share else rewards.new_empty(0).to(self._vlm.device)
            everyone = self.accelerator.gather(self.accelerator.pad_across_processes(own, pad_index=torch.nan)).cpu()
        weights = advantages(rewards, self._section.scale, everyone).view(-1, 1).to(self._vlm.device)
        logps, entropies, mask = self._logps(model, prompts, answers)
        ratio = (logps - logps.detach()).exp()  # 1, with the gradient of log p
        gain = weights * ratio
        kl = self._kl(prompts, answers, logps) if self._section.beta else torch.zeros_like(logps)
        loss = -((gain - self._section.beta * kl) * mask).sum() / (len(answers) * self._sample.max_new_tokens)
        if share:
            self._note(rewards, entropies[mask], kl.detach()[mask], ~ended, mask)
        loss = loss * share
        return (loss, {}) if return_outputs else loss

    def _draw(
        self, questions: Sequence[Question], prompts: Sequence[Mapping[str, Tensor]]
    ) -> list[tuple[list[int], bool]]:
        """``n`` answers a prompt: (ids, whether it ended). They follow from seed, step, question and number alone."""
        sample, n = self._sample, self._section.n
        keys = [f"{self.state.global_step}\0{question.id}\0{index}" for question in questions for index in range(n)]
        choose = sampler(keys, self.args.seed, sample.temperature, sample.top_p, sample.max_new_tokens)
        return decode(self._vlm, prompts, n=n, choose=choose, max_new_tokens=sample.max_new_tokens)

    def _judged(self, questions: Sequence[Question], answers: Sequence[Sequence[int]]) -> Tensor:
        """Rewards (answers,) float32, NaN where there is none."""
        texts = [text.strip() for text in self._vlm.tokenizer.batch_decode(answers, skip_special_tokens=True)]
        repeated = [question for question in questions for _ in range(self._section.n)]
        columns: dict[str, list[Any]] = {"reference": [question.reference for question in repeated]}
        if any(question.labels for question in repeated):
            columns["labels"] = [question.labels for question in repeated]
        if any(question.answer for question in repeated):
            columns["answer"] = [question.answer for question in repeated]
            columns["closed"] = [question.closed for question in repeated]
        found = self._reward([question.prompt for question in repeated], texts, **columns)
        given = [0.0 if not text else value for text, value in zip(texts, found, strict=True)]
        return torch.tensor([float("nan") if value is None else value for value in given])

    def _logps(
        self, model: Any, prompts: Sequence[Mapping[str, Tensor]], answers: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return group_logps(self._vlm, model, prompts, answers, self._section.n, self._sample.temperature)

    def _kl(self, prompts: Sequence[Mapping[str, Tensor]], answers: Sequence[Sequence[int]], logps: Tensor) -> Tensor:
        """KL to the starting model a token (rows, T), estimated at the drawn tokens, never below 0 (Schulman 2020).

        Times the probability ratio, whose value is 1: the expectation is over the model's own answers, and without
        the ratio the gradient would leave out that they change.
        """
        with torch.no_grad(), self._at_start():
            start, _, _ = self._logps(self._vlm.model if self._start is None else self._start, prompts, answers)
        less = start - logps
        return (less.expm1() - less) * (logps - logps.detach()).exp()

    def _at_start(self) -> AbstractContextManager[Any]:
        off: AbstractContextManager[Any] = self._vlm.model.disable_adapter() if self._start is None else nullcontext()
        return off

    @torch.no_grad()
    def _note(self, rewards: Tensor, entropies: Tensor, kl: Tensor, cut: Tensor, mask: Tensor) -> None:
        """Add a batch to what is logged."""
        centred = advantages(rewards)
        spread = (centred.square().sum(1) / max(rewards.shape[1] - 1, 1)).sqrt()
        values = {
            "reward": rewards[~rewards.isnan()],
            "reward_std": spread,
            "groups_without_spread": (spread < 1e-6).float(),
            "unrewarded": rewards.isnan().float(),
            "unfinished": cut.float(),
            "tokens": mask.sum(1).float(),
            "entropy": entropies,
        } | ({"kl": kl} if self._section.beta else {})
        self._means.add(values, self._vlm.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log, over all processes, to what the Trainer logs."""
        logs |= self._means.taken(self.accelerator)
        super().log(logs, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's schedule."""
        return schedule_of(self, self._section.schedule, num_training_steps)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint that ``radpref.models.load`` reads."""
        save_trained(self, self._vlm, output_dir)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it would walk through all parameters at every step."""
        return 0
