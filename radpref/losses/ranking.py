"""Ranking losses: each prefers one answer to another, as a function of their log-probs.

Notation: x a prompt with its images, y an answer, pi the policy, ref the frozen reference, c the chosen answer,
r the rejected one; ``R(y) = sum_t w_t [log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)]`` with w_t = 1, or 1 on
the rewarded spans and 0 beside them; ``|y|`` is the number of tokens that count, ``D = R(c) - R(r)`` and
``s`` the logistic function.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from radpref.losses.scored import PreferenceLoss, Scored


def dpo(chosen: Scored, rejected: Scored, *, beta: float, label_smoothing: float = 0.0) -> PreferenceLoss:
    """Direct preference optimisation: ``-(1 - e) log s(beta D) - e log s(-beta D)``; ln 2 where policy = reference.

    Rafailov et al. 2023, arXiv 2305.18290, equation 7; with e > 0 (a label is wrong with that probability, below
    .5) the conservative DPO of its authors' note. With weights on spans this is MASK-DPO.
    """
    return lc_dpo(chosen, rejected, beta=beta, alpha=0.0, label_smoothing=label_smoothing)


def lc_dpo(
    chosen: Scored, rejected: Scored, *, beta: float, alpha: float, label_smoothing: float = 0.0
) -> PreferenceLoss:
    """Length-controlled (regularised) DPO: DPO with ``beta D + alpha (|c| - |r|)`` in place of ``beta D``.

    Lengths are those of the whole answers in tokens. Where the chosen answer is the longer one, the argument is
    larger, hence the gradient smaller: a preference that length alone explains pushes less. With alpha = 0 this is
    DPO. R-DPO of Park et al. 2024, arXiv 2403.19159, equation 9; CheXalign's LC-DPO uses alpha 0.05.
    """
    margin = beta * (chosen.ratio() - rejected.ratio()) + alpha * (chosen.length() - rejected.length())
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return _with_rewards(loss, chosen, rejected, beta)


def robust(chosen: Scored, rejected: Scored, *, beta: float, label_smoothing: float) -> PreferenceLoss:
    """Robust DPO: ``[-(1 - e) log s(beta D) + e log s(-beta D)] / (1 - 2 e)``.

    Its mean over labels that are flipped with probability e is DPO's loss of the true ones.
    Chowdhury et al. 2024, arXiv 2403.00409.
    """
    margin = beta * (chosen.ratio() - rejected.ratio())
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) + label_smoothing * F.logsigmoid(-margin)
    return _with_rewards(loss / (1 - 2 * label_smoothing), chosen, rejected, beta)


def hinge(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """``max(0, 1 - beta D)``: no push beyond a margin of 1 / beta.

    SLiC's ranking term (Zhao et al. 2023, arXiv 2305.10425, equation 2) on log-ratios, as in RSO (Liu et al. 2023,
    arXiv 2309.06657).
    """
    return _with_rewards(F.relu(1 - beta * (chosen.ratio() - rejected.ratio())), chosen, rejected, beta)


def ipo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Identity preference optimisation: ``(R(c)/|c| - R(r)/|r| - 1/(2 beta))^2``.

    Azar et al. 2023, arXiv 2310.12036, equation 17, with log-ratios averaged over tokens: the authors' own
    convention and TRL's, without which the loss grows with the square of the length.
    """
    mean_chosen, mean_rejected = chosen.mean_ratio(), rejected.mean_ratio()
    loss = (mean_chosen - mean_rejected - 1 / (2 * beta)) ** 2
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def dpo_norm(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """DPO on log-ratios averaged over tokens: ``-log s(beta [R(c)/|c| - R(r)/|r|])``.

    Length-normalised DPO of Tulu 3 (Lambert et al. 2024, arXiv 2411.15124); TRL's ``sigmoid_norm``.
    """
    mean_chosen, mean_rejected = chosen.mean_ratio(), rejected.mean_ratio()
    loss = -F.logsigmoid(beta * (mean_chosen - mean_rejected))
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def exo(chosen: Scored, rejected: Scored, *, beta: float, label_smoothing: float) -> PreferenceLoss:
    """Exact optimisation over a pair: ``p log(p / (1 - e)) + (1 - p) log((1 - p) / e)`` with ``p = s(beta D)``.

    The KL from the policy's own preference to the label's, smoothed by e > 0.
    Ji et al. 2024, arXiv 2402.00856, equation 16; TRL's ``exo_pair``.
    """
    margin = beta * (chosen.ratio() - rejected.ratio())
    loss = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-label_smoothing))
    loss = loss + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(label_smoothing))
    return _with_rewards(loss, chosen, rejected, beta)


def nca(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Noise-contrastive alignment: ``-log s(a) - log s(-a) / 2 - log s(-b) / 2`` ``a = beta R(c), b = beta R(r)``.

    It holds up the chosen side's probability rather than the margin alone.
    Chen et al. 2024, arXiv 2402.05369; TRL's ``nca_pair``.
    """
    good, bad = beta * chosen.ratio(), beta * rejected.ratio()
    loss = -F.logsigmoid(good) - 0.5 * F.logsigmoid(-good) - 0.5 * F.logsigmoid(-bad)
    return _with_rewards(loss, chosen, rejected, beta)


def sppo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Self-play preference optimisation with hard labels: ``(R(c) - 1/(2 beta))^2 + (R(r) + 1/(2 beta))^2``.

    Wu et al. 2024, arXiv 2405.00675, equation 4.7 with P = 1 for the winner; TRL's ``sppo_hard``.
    """
    loss = (chosen.ratio() - 0.5 / beta) ** 2 + (rejected.ratio() + 0.5 / beta) ** 2
    return _with_rewards(loss, chosen, rejected, beta)


def apo_zero(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Anchored preference optimisation for answers better than the model's: ``1 - s(beta R(c)) + s(beta R(r))``.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, equation 7.
    """
    loss = torch.sigmoid(-beta * chosen.ratio()) + torch.sigmoid(beta * rejected.ratio())
    return _with_rewards(loss, chosen, rejected, beta)


def apo_down(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """The same for answers worse than the model's: ``s(beta R(c)) + 1 - s(beta D)``; both sides fall.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, equation 8.
    """
    margin = beta * (chosen.ratio() - rejected.ratio())
    return _with_rewards(torch.sigmoid(beta * chosen.ratio()) + torch.sigmoid(-margin), chosen, rejected, beta)


def discopop(chosen: Scored, rejected: Scored, *, beta: float, tau: float = 0.05) -> PreferenceLoss:
    """The log-ratio modulated loss that a search found: ``(1 - m) (-log s(u)) + m exp(-u)``.

    ``u = beta D`` and ``m = s(u / tau)``. Lu et al. 2024, arXiv 2406.08414, equation 5.
    """
    margin = beta * (chosen.ratio() - rejected.ratio())
    share = torch.sigmoid(margin / tau)
    loss = -F.logsigmoid(margin) * (1 - share) + torch.exp(-margin) * share
    return _with_rewards(loss, chosen, rejected, beta)


def ld_dpo(chosen: Scored, rejected: Scored, *, beta: float, alpha: float) -> PreferenceLoss:
    """Length-desensitised DPO: of the longer answer, tokens beyond the other's length count alpha (0 to 1).

    With alpha = 1 this is DPO. Liu et al. 2024, arXiv 2409.06411.
    """
    shared = torch.minimum(chosen.length(), rejected.length())[:, None]

    def desensitised(side: Scored) -> Scored:
        weight = torch.where(side.mask.cumsum(-1) <= shared, 1.0, alpha).to(side.policy.dtype)
        return side._replace(weight=weight if side.weight is None else weight * side.weight)

    return dpo(desensitised(chosen), desensitised(rejected), beta=beta)


def tdpo(chosen: Scored, rejected: Scored, *, beta: float, alpha: float) -> PreferenceLoss:
    """Token-level DPO: ``-log s(beta D - alpha beta [K(r) - stop K(c)])``, ``K(y) = sum_t KL(ref || pi)``.

    The sequential KL of the rejected answer is let grow no faster than the chosen one's, which has no gradient.
    TDPO2 of Zeng et al. 2024, arXiv 2404.11999. Both sides carry ``forward_kl``.
    """
    assert chosen.forward_kl is not None
    assert rejected.forward_kl is not None
    grown = (rejected.forward_kl * rejected.mask).sum(-1) - (chosen.forward_kl * chosen.mask).sum(-1).detach()
    margin = beta * (chosen.ratio() - rejected.ratio()) - alpha * beta * grown
    return _with_rewards(-F.logsigmoid(margin), chosen, rejected, beta)


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

    ``w_d (1 - s(beta R(c) - beta z0))`` for a desirable answer and ``w_u (1 - s(beta z0 - beta R(r)))`` for an
    undesirable one, with the reference point ``z0 = max(0, mean R(y'))`` over mismatched rows: prompts of the
    batch with answers to other prompts. No gradient flows through z0.
    Ethayarajh et al. 2024, arXiv 2402.01306, equations 7 and 8.

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
    # 1 - s(a) = s(-a), which keeps its digits where s(a) is close to 1
    loss = torch.cat(
        [
            desirable * torch.sigmoid(beta * (z0 - ratio_chosen)),
            undesirable * torch.sigmoid(beta * (ratio_rejected - z0)),
        ]
    )
    return _with_rewards(loss, chosen, rejected, beta)


def sft(chosen: Scored, rejected: Scored) -> PreferenceLoss:
    """Rejection-sampling fine-tuning: ``-m(c)``, m the mean log-prob a token; the rejected side is only watched.

    It needs no reference. With the best of n sampled answers as the chosen side: Dong et al. 2023 (RAFT), arXiv
    2304.06767, section 3.
    """
    mean_chosen, mean_rejected = chosen.mean(), rejected.mean()
    return PreferenceLoss(-mean_chosen, mean_chosen.detach(), mean_rejected.detach())


def orpo(chosen: Scored, rejected: Scored, *, beta: float) -> PreferenceLoss:
    """Odds-ratio preference optimisation: ``-m(c) - beta log s(log odds(c) - log odds(r))``.

    ``m(y) = log pi(y|x) / |y|`` and ``odds(y) = exp m(y) / (1 - exp m(y))``. It needs no reference. The first
    term is the likelihood of the chosen answer's own tokens, as in the paper; TRL takes it over the prompt's
    tokens as well. Hong et al. 2024, arXiv 2403.07691, equations 4 to 7; beta is the paper's lambda.
    """
    mean_chosen, mean_rejected = chosen.mean(), rejected.mean()
    log_odds = (mean_chosen - mean_rejected) - (_log1mexp(mean_chosen) - _log1mexp(mean_rejected))
    loss = -mean_chosen - beta * F.logsigmoid(log_odds)
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def simpo(chosen: Scored, rejected: Scored, *, beta: float, margin: float) -> PreferenceLoss:
    """Simple preference optimisation: ``-log s(beta [m(c) - m(r)] - margin)``, m the mean log-prob a token.

    It needs no reference. Meng et al. 2024, arXiv 2405.14734, equation 6; published beta 2 to 10, margin beta / 2.
    """
    mean_chosen, mean_rejected = chosen.mean(), rejected.mean()
    loss = -F.logsigmoid(beta * (mean_chosen - mean_rejected) - margin)
    return PreferenceLoss(loss, beta * mean_chosen.detach(), beta * mean_rejected.detach())


def cpo(chosen: Scored, rejected: Scored, *, beta: float, label_smoothing: float = 0.0) -> PreferenceLoss:
    """Contrastive preference optimisation, its ranking half: DPO without a reference, on ``log pi(c) - log pi(r)``.

    Xu et al. 2024, arXiv 2401.08417; the paper adds the chosen side's likelihood (``nll``).
    """
    total_chosen, total_rejected = chosen.total(), rejected.total()
    margin = beta * (total_chosen - total_rejected)
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return PreferenceLoss(loss, beta * total_chosen.detach(), beta * total_rejected.detach())


def _with_rewards(loss: Tensor, chosen: Scored, rejected: Scored, beta: float) -> PreferenceLoss:
    """The loss with the rewards that it implies, ``beta R(y)``."""
    return PreferenceLoss(loss, beta * chosen.ratio().detach(), beta * rejected.ratio().detach())


def _log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp x)`` for x < 0, without loss of digits at either end; x is kept below -1e-7.

    Maechler 2012, "Accurately computing log(1 - exp(-|a|))".
    """
    x = x.clamp(max=-1e-7)
    near = x > -math.log(2)
    # the branch not taken gets a harmless argument, or its gradient would be 0 * inf
    safe_near, safe_far = torch.where(near, x, -0.5), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(safe_near)), torch.log1p(-torch.exp(safe_far)))
