"""Terms that stand beside a ranking loss: likelihood, anchor, divergence from the reference, corrupted images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from radpref.losses.scored import PreferenceLoss, Scored


def nll(answers: Scored) -> Tensor:
    """(B,) mean negative log-likelihood a token: it holds up the chosen side's probability.

    DPO with this term: Pang et al. 2024, arXiv 2404.19733, equation 1. All tokens of the answer count.
    """
    return -answers.whole().mean()


def anchor(chosen: Scored, *, beta: float) -> Tensor:
    """(B,) ``-log s(beta R(c))``: the chosen answer's reward is kept above 0.

    mDPO, Wang et al. 2024, arXiv 2406.11839, with the anchor at 0.
    """
    return -F.logsigmoid(beta * chosen.ratio())


def divergence(chosen: Scored, *, forward: float) -> Tensor:
    """(B,) ``sum_t [l KL(ref || pi) + (1 - l) KL(pi || ref)]`` over the vocabulary, l = ``forward`` in 0 to 1.

    The sum runs over the positions for which ``chosen`` carries divergences: the rewarded spans (FiRe-MPO, with
    l = .5, equation 4 of its thesis) or the whole answer (RRPO with l = 1, Sarkar and Etemad 2025, arXiv 2504.12083).
    """
    assert chosen.forward_kl is not None
    assert chosen.reverse_kl is not None
    return ((forward * chosen.forward_kl + (1 - forward) * chosen.reverse_kl) * chosen.mask).sum(-1)


def ranked(better: Scored, worse: Scored, *, beta: float, hinged: bool) -> PreferenceLoss:
    """The ranking of a visual term: ``-log s(beta [R - R'])``, or ``max(0, -beta [R - R'])`` where ``hinged``.

    The hinged form stops pushing once the order holds, for answers that share most of what raises them.
    """
    better_reward, worse_reward = beta * better.ratio(), beta * worse.ratio()
    margin = better_reward - worse_reward
    loss = F.relu(-margin) if hinged else -F.logsigmoid(margin)
    return PreferenceLoss(loss, better_reward.detach(), worse_reward.detach())
