"""The objectives: DPO, LC-DPO, IPO, KTO, ORPO, and the likelihood anchor.

Notation: x a prompt with its films, y an answer of |y| tokens, pi the policy, ref the frozen reference,
``R(y) = sum_t [log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)]``; c is the chosen answer, r the rejected one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Scored(NamedTuple):
    """Log-probs of one answer a row; entries outside the mask do not matter, unless they are not finite."""

    policy: Tensor
    """(B, T) float: log pi of every answer token; carries the gradient."""
    reference: Tensor
    """(B, T) float: log ref of the same tokens; zeros where an objective needs no reference."""
    mask: Tensor
    """(B, T) bool: True where there is a token of the answer."""

    def total(self) -> Tensor:
        """(B,) log pi(y|x), summed over the answer's tokens."""
        return (self.policy * self.mask).sum(-1)

    def mean(self) -> Tensor:
        """(B,) log pi(y|x) / |y|; 0 for a row without tokens."""
        return self.total() / self.length().clamp(min=1)

    def ratio(self) -> Tensor:
        """(B,) the summed log-ratio R(y)."""
        return ((self.policy - self.reference) * self.mask).sum(-1)

    def length(self) -> Tensor:
        """(B,) number of answer tokens, in the dtype of the log-probs."""
        return self.mask.sum(-1).to(self.policy.dtype)


class PreferenceLoss(NamedTuple):
    """What an objective says of a batch."""

    loss: Tensor
    """(B,) one loss a pair; for KTO (Bc + Br,) one a row, the desirable rows first."""
    chosen_reward: Tensor
    """(B,) implied reward of the chosen side, without gradient."""
    rejected_reward: Tensor
    """(B,) implied reward of the rejected side, without gradient."""


def dpo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Direct preference optimisation: ``-log sigmoid(beta [R(c) - R(r)])``; ln 2 where policy = reference.

    Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """
    return lc_dpo(chosen, rejected, beta=beta, alpha=0.0)


def lc_dpo(chosen: Scored, rejected: Scored, *, beta: float, alpha: float) -> PreferenceLoss:
    """Length-controlled (regularised) DPO: ``-log sigmoid(beta [R(c) - R(r)] + alpha (|c| - |r|))``.

    Lengths are in tokens. Where the chosen answer is the longer one, the argument is larger, hence the gradient
    smaller: a preference that length alone explains pushes less. With alpha = 0 this is DPO.
    R-DPO of Park et al. 2024, arXiv 2403.19159, equation 9; CheXalign's LC-DPO uses alpha 0.05.
    """
    reward_chosen, reward_rejected = beta * chosen.ratio(), beta * rejected.ratio()
    argument = reward_chosen - reward_rejected + alpha * (chosen.length() - rejected.length())
    return PreferenceLoss(-F.logsigmoid(argument), reward_chosen.detach(), reward_rejected.detach())


def ipo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Identity preference optimisation: ``(R(c)/|c| - R(r)/|r| - 1/(2 beta))^2``.

    Azar et al. 2023, arXiv 2310.12036, equation 17, with log-ratios averaged over tokens: the authors' own
    convention and TRL's, without which the loss grows with the square of the length.
    """
    mean_chosen = chosen.ratio() / chosen.length().clamp(min=1)
    mean_rejected = rejected.ratio() / rejected.length().clamp(min=1)
    loss = (mean_chosen - mean_rejected - 1 / (2 * beta)) ** 2
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def kto(
    chosen: Scored,
    rejected: Scored,
    *,
    beta: float,
    kl: Tensor | None = None,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> PreferenceLoss:
    """Kahneman-Tversky optimisation, for answers that are good or bad by themselves, in any proportion.

    ``w_d (1 - sigmoid(beta R(c) - beta z0))`` for a desirable answer and
    ``w_u (1 - sigmoid(beta z0 - beta R(r)))`` for an undesirable one, with the reference point
    ``z0 = max(0, mean R(y'))`` over mismatched rows: prompts of the batch with answers to other prompts.
    No gradient flows through z0. Ethayarajh et al. 2024, arXiv 2402.01306, equations 7 and 8.

    Args:
        chosen: (Bc, T) the desirable rows; may have no rows.
        rejected: (Br, T') the undesirable rows; may have no rows, and need not belong to the same prompts.
        beta: strength of the tie to the reference.
        kl: (Bk,) log-ratios R(y') of the mismatched rows; None takes z0 = 0.
        desirable: weight w_d.
        undesirable: weight w_u.
    """
    z0 = chosen.policy.new_zeros(()) if kl is None else kl.detach().mean().clamp(min=0)
    ratio_chosen, ratio_rejected = chosen.ratio(), rejected.ratio()
    # 1 - sigmoid(a) = sigmoid(-a), which keeps its digits where sigmoid(a) is close to 1
    loss = torch.cat(
        [
            desirable * torch.sigmoid(beta * (z0 - ratio_chosen)),
            undesirable * torch.sigmoid(beta * (ratio_rejected - z0)),
        ]
    )
    return PreferenceLoss(loss, beta * ratio_chosen.detach(), beta * ratio_rejected.detach())


def orpo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Odds-ratio preference optimisation: ``-m(c) - beta log sigmoid(log odds(c) - log odds(r))``.

    ``m(y) = log pi(y|x) / |y|`` and ``odds(y) = exp m(y) / (1 - exp m(y))``. It needs no reference. The first
    term is the likelihood of the chosen answer's own tokens, as in the paper; TRL takes it over the prompt's
    tokens as well. Hong et al. 2024, arXiv 2403.07691, equations 4 to 7; beta is the paper's lambda.
    """
    mean_chosen, mean_rejected = chosen.mean(), rejected.mean()
    log_odds = (mean_chosen - mean_rejected) - (_log1mexp(mean_chosen) - _log1mexp(mean_rejected))
    loss = -mean_chosen - beta * F.logsigmoid(log_odds)
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def nll(answers: Scored) -> Tensor:
    """(B,) mean negative log-likelihood a token: the anchor that holds up the chosen side's probability."""
    return -answers.mean()


def _log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp x)`` for x < 0, without loss of digits at either end; x is kept below -1e-7.

    Maechler 2012, "Accurately computing log(1 - exp(-|a|))".
    """
    x = x.clamp(max=-1e-7)
    near = x > -math.log(2)
    # the branch not taken gets a harmless argument, or its gradient would be 0 * inf
    safe_near, safe_far = torch.where(near, x, -0.5), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(safe_near)), torch.log1p(-torch.exp(safe_far)))


class Knobs(NamedTuple):
    """The numbers that objectives take; each reads those that it knows."""

    beta: float
    length_alpha: float = 0.0
    kl: Tensor | None = None
    """(Bk,) log-ratios of mismatched rows, for objectives with ``unpaired``."""


class Objective(NamedTuple):
    """An objective and what it needs."""

    loss: Callable[[Scored, Scored, Knobs], PreferenceLoss]
    reference: bool = True
    """Whether it reads the reference's log-probs."""
    unpaired: bool = False
    """Whether it takes single answers, and mismatched rows for its reference point."""


LOSSES: Mapping[str, Objective] = {
    "dpo": Objective(lambda c, r, k: dpo(c, r, beta=k.beta)),
    "lc-dpo": Objective(lambda c, r, k: lc_dpo(c, r, beta=k.beta, alpha=k.length_alpha)),
    "ipo": Objective(lambda c, r, k: ipo(c, r, beta=k.beta)),
    "kto": Objective(lambda c, r, k: kto(c, r, beta=k.beta, kl=k.kl), unpaired=True),
    "orpo": Objective(lambda c, r, k: orpo(c, r, beta=k.beta), reference=False),
}
