"""Every objective against values worked out by hand, its gradient, its symmetries, and what it refuses."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from radpref import config, losses
from radpref.config import AlignSection, RecipeError
from radpref.config.load import OBJECTIVE_KEYS
from radpref.losses import LOSSES, Evaluated, LossError, PreferenceLoss, Scored, Sides, evaluate, objective

LN2, LN4, LN5 = math.log(2), math.log(4), math.log(5)
TIED = {name for name, loss in LOSSES.items() if loss.reference}
"""Losses of log-ratios to the reference."""
PARTIAL = {name for name, loss in LOSSES.items() if not loss.whole}
"""Losses that can be taken over spans."""


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scored(policy: list[float], ratio: list[float], **more: list[float]) -> Scored:
    """One answer with the given log-ratios to the reference, and rubbish in the padding behind it."""
    reference = [p - r for p, r in zip(policy, ratio, strict=True)]
    padded = {name: rows([*values, 77.0]) for name, values in more.items()}
    mask = torch.tensor([[True] * len(policy) + [False]])
    return Scored(rows([*policy, -99.0]), rows([*reference, -7.0]), mask, **padded)


def of_ratio(ratio: float, tokens: int = 1) -> Scored:
    """One answer whose log-ratio is ``ratio`` in sum."""
    return scored([-1.0] * tokens, [ratio / tokens] * tokens)


# The toy pair: R(c) = ln 4 over 3 tokens and R(r) = -ln 4 over 2, so that with beta 1/2 the logistic function is 2/3
# of beta R(c), 1/3 of beta R(r), 4/5 of beta D. The policy gives a chosen token probability 1/2, a rejected one 1/5.
CHOSEN = scored([-LN2] * 3, [LN2, 0.0, LN2], forward_kl=[0.1, 0.2, 0.3])
REJECTED = scored([-LN5] * 2, [-LN2, -LN2], forward_kl=[0.1, 0.5 + LN4])
SHARE = 1 / (1 + 4**-20)  # DiscoPOP's s(ln 4 / .05)
BY_HAND: list[tuple[str, dict[str, float], float]] = [
    ("dpo", {}, math.log(5 / 4)),
    ("dpo", {"label_smoothing": 0.1}, 0.9 * math.log(5 / 4) + 0.1 * LN5),
    ("robust", {"label_smoothing": 0.1}, (0.9 * math.log(5 / 4) - 0.1 * LN5) / 0.8),
    ("hinge", {}, 0.0),
    ("hinge", {"beta": 0.25}, 1 - LN2),
    ("ipo", {}, (LN4 / 3 + LN4 / 2 - 1) ** 2),
    ("dpo-norm", {"beta": 1.2}, math.log(5 / 4)),  # 1.2 * (1/3 + 1/2) = 1
    ("lc-dpo", {"length_alpha": LN2}, math.log(9 / 8)),  # one token longer: s(ln 4 + ln 2)
    ("lc-dpo", {"length_alpha": LN2, "label_smoothing": 0.1}, 0.9 * math.log(9 / 8) + 0.1 * math.log(9)),
    ("ld-dpo", {"ld_alpha": 0.0, "beta": 1 / 3}, math.log(3 / 2)),  # the third chosen token is left out: D = 3 ln 2
    ("ld-dpo", {"ld_alpha": 0.5, "beta": 2 / 7}, math.log(3 / 2)),  # it counts half: D = 3.5 ln 2
    ("tdpo", {"tdpo_alpha": 1.0}, math.log(3 / 2)),  # K(r) - K(c) = ln 4: s(ln 4 - ln 2)
    ("exo", {"label_smoothing": 0.1}, 0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1)),
    ("nca", {}, math.log(3 / 2) + 0.5 * math.log(3) + 0.5 * math.log(3 / 2)),
    ("sppo", {}, 2 * (LN4 - 1) ** 2),
    ("apo-zero", {}, 1 / 3 + 1 / 3),
    ("apo-down", {}, 2 / 3 + 1 / 5),
    ("discopop", {}, (1 - SHARE) * math.log(5 / 4) + SHARE / 4),
    ("orpo", {"beta": 0.2}, LN2 + 0.2 * math.log(5 / 4)),  # odds 1 and 1/4
    ("sft", {}, LN2),  # of the chosen tokens alone
    ("simpo", {"beta": 2.0, "target_margin": math.log(25 / 16)}, math.log(5 / 4)),  # 2 ln(5/2) - ln(25/16) = ln 4
    ("cpo", {"beta": 1.0}, math.log(33 / 25)),  # ln(25/8)
    ("cpo", {"beta": 1.0, "label_smoothing": 0.1}, 0.9 * math.log(33 / 25) + 0.1 * math.log(33 / 8)),
]


def section(**values: Any) -> AlignSection:
    return AlignSection.model_validate({"beta": 0.5, **values})


def apply(name: str, chosen: Scored, rejected: Scored, kl: Tensor | None = None, **values: Any) -> PreferenceLoss:
    """A loss by its name, with what it needs to be defined."""
    if LOSSES[name].needs_smoothing:
        values = {"label_smoothing": 0.1, **values}
    return LOSSES[name].loss(chosen, rejected, section(**values), kl)


# ------------------------------------------------------------------------------------------ values by hand


def test_every_loss_has_a_value_by_hand() -> None:
    assert {name for name, _, _ in BY_HAND} | {"kto"} == set(LOSSES)


@pytest.mark.parametrize(("name", "values", "expected"), BY_HAND)
def test_by_hand(name: str, values: dict[str, float], expected: float) -> None:
    result = LOSSES[name].loss(CHOSEN, REJECTED, section(**values), None)
    assert result.loss.tolist() == pytest.approx([expected], abs=1e-12)


def test_kto_by_hand() -> None:
    """z0 = ln 4: s(0) for the chosen side, s(-ln 4) for the rejected one."""
    kl = torch.tensor([LN4 + 1, LN4 - 1], dtype=torch.float64)
    result = losses.kto(CHOSEN, REJECTED, beta=0.5, kl=kl, desirable=1.5, undesirable=0.5)
    assert result.loss.tolist() == pytest.approx([1.5 / 2, 0.5 / 5], abs=1e-12)


def test_kto_reference_point_is_clamped_and_has_no_gradient() -> None:
    kl = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    chosen = CHOSEN._replace(policy=CHOSEN.policy.clone().requires_grad_())
    clamped = losses.kto(chosen, REJECTED, beta=0.5, kl=kl)
    assert torch.equal(clamped.loss, losses.kto(chosen, REJECTED, beta=0.5).loss)
    (gradient,) = torch.autograd.grad(clamped.loss.sum(), [kl], allow_unused=True)
    assert gradient is None


def test_kto_takes_a_side_without_rows() -> None:
    empty = of_ratio(0.0).rows(torch.tensor([], dtype=torch.int64))
    assert losses.kto(of_ratio(0.0), empty, beta=0.1).loss.tolist() == [0.5]
    assert losses.kto(empty, of_ratio(0.0), beta=0.1).loss.tolist() == [0.5]


@pytest.mark.parametrize(
    ("name", "beta", "chosen", "rejected"),
    [
        *((name, 0.5, LN2, -LN2) for name in sorted(TIED - {"ipo", "dpo-norm"})),
        *((name, 6.0, 2 * LN4, -3 * LN4) for name in ("ipo", "dpo-norm")),  # averaged over tokens
        *((name, 2.0, -2 * LN2, -2 * LN5) for name in ("orpo", "simpo")),
        ("cpo", 2.0, -6 * LN2, -4 * LN5),
        ("sft", 2.0, -LN2, -LN5),  # what beta would scale is not there
    ],
)
def test_implied_rewards_by_hand(name: str, beta: float, chosen: float, rejected: float) -> None:
    result = apply(name, CHOSEN, REJECTED, beta=beta, ld_alpha=1.0)
    assert result.chosen_reward.tolist() == pytest.approx([chosen], abs=1e-12)
    assert result.rejected_reward.tolist() == pytest.approx([rejected], abs=1e-12)


def test_terms_by_hand() -> None:
    assert losses.nll(CHOSEN).tolist() == pytest.approx([LN2])
    assert losses.anchor(CHOSEN, beta=0.5).tolist() == pytest.approx([math.log(3 / 2)])
    diverged = scored([-1.0] * 3, [0.0] * 3, forward_kl=[1.0, 2.0, 4.0], reverse_kl=[8.0, 16.0, 32.0])
    for forward, expected in ((1.0, 7.0), (0.0, 56.0), (0.25, 43.75)):
        assert losses.divergence(diverged, forward=forward).tolist() == pytest.approx([expected])


def test_the_ranking_of_a_visual_term_by_hand() -> None:
    better, worse = of_ratio(LN4), of_ratio(-LN4)
    assert losses.ranked(better, worse, beta=0.5, hinged=False).loss.tolist() == pytest.approx([math.log(5 / 4)])
    assert losses.ranked(worse, better, beta=0.5, hinged=False).loss.tolist() == pytest.approx([LN5])
    assert losses.ranked(better, worse, beta=0.5, hinged=True).loss.tolist() == [0.0]
    assert losses.ranked(worse, better, beta=0.5, hinged=True).loss.tolist() == pytest.approx([LN4])


START = {
    **dict.fromkeys(("dpo", "robust", "dpo-norm", "lc-dpo", "ld-dpo", "tdpo"), LN2),
    "hinge": 1.0,
    "ipo": 1.0,  # 1 / (2 beta) squared
    "exo": 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1),
    "nca": 2 * LN2,
    "sppo": 2.0,
    "apo-zero": 1.0,
    "apo-down": 1.0,
    "discopop": LN2 / 2 + 0.5,
    "kto": 0.5,
}


@pytest.mark.parametrize("name", sorted(TIED))
def test_where_training_starts(name: str) -> None:
    """Policy = reference, answers of one length."""
    same = scored([-1.0, -2.0], [0.0, 0.0], forward_kl=[0.0, 0.0])
    for value in apply(name, same, same).loss.tolist():
        assert value == pytest.approx(START[name], abs=1e-12)


# --------------------------------------------------------------------------- relations between objectives


def test_limits_are_other_losses() -> None:
    pair = CHOSEN, REJECTED
    plain = losses.dpo(*pair, beta=0.5).loss
    assert torch.equal(losses.lc_dpo(*pair, beta=0.5, alpha=0.0).loss, plain)
    assert torch.equal(losses.ld_dpo(*pair, beta=0.5, alpha=1.0).loss, plain)
    assert torch.equal(losses.tdpo(*pair, beta=0.5, alpha=0.0).loss, plain)
    assert torch.equal(losses.robust(*pair, beta=0.5, label_smoothing=0.0).loss, plain)
    assert torch.allclose(losses.exo(*pair, beta=0.5, label_smoothing=0.2).loss, torch.zeros(1).double())  # p = 1 - e


@settings(deadline=None)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.01, 2), st.floats(0, 0.45))
def test_noisy_labels(good: float, bad: float, beta: float, noise: float) -> None:
    """Over labels flipped with probability e, the mean of robust DPO is the DPO of the true ones, and the mean of DPO
    the conservative DPO of the true ones."""
    pair = of_ratio(good), of_ratio(bad)
    there, back = losses.dpo(*pair, beta=beta).loss, losses.dpo(*pair[::-1], beta=beta).loss
    robust = [losses.robust(*both, beta=beta, label_smoothing=noise).loss for both in (pair, pair[::-1])]
    assert torch.allclose((1 - noise) * robust[0] + noise * robust[1], there, atol=1e-9)
    conservative = losses.dpo(*pair, beta=beta, label_smoothing=noise).loss
    assert torch.allclose((1 - noise) * there + noise * back, conservative)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 2))
def test_dpo_of_swapped_sides_is_the_other_odds(seed: int, beta: float) -> None:
    chosen, rejected = random_pair(seed)
    there, back = losses.dpo(chosen, rejected, beta=beta).loss, losses.dpo(rejected, chosen, beta=beta).loss
    assert torch.allclose((-there).exp() + (-back).exp(), torch.ones_like(there))


@pytest.mark.parametrize(
    "name", ["dpo", "robust", "hinge", "ipo", "dpo-norm", "lc-dpo", "ld-dpo", "tdpo", "cpo", "apo-zero"]
)
def test_a_loss_of_the_margin_falls_with_it(name: str) -> None:
    def value(x: float) -> float:
        chosen, rejected = (scored([side], [side], forward_kl=[0.0]) for side in (x, -x))
        return apply(name, chosen, rejected, beta=0.1).loss.item()

    assert value(-3.0) > value(0.0) > value(3.0)


def test_lc_dpo_pushes_less_where_the_chosen_side_is_longer() -> None:
    def push(length: int) -> float:
        chosen = of_ratio(0.0, length)
        policy = chosen.policy.clone().requires_grad_()
        loss = losses.lc_dpo(chosen._replace(policy=policy), of_ratio(0.0, 10), beta=0.1, alpha=0.05).loss
        (gradient,) = torch.autograd.grad(loss.sum(), policy)
        return -gradient[0, 0].item()

    assert push(20) < push(10) < push(5)
    assert push(10) == pytest.approx(0.05)


def test_tdpo_holds_the_rejected_side_alone() -> None:
    """The chosen side's KL has no gradient."""
    kls = [side.forward_kl.clone().requires_grad_() for side in (CHOSEN, REJECTED) if side.forward_kl is not None]
    pair = [side._replace(forward_kl=kl) for side, kl in zip((CHOSEN, REJECTED), kls, strict=True)]
    loss = losses.tdpo(pair[0], pair[1], beta=0.5, alpha=1.0).loss.sum()
    chosen, rejected = torch.autograd.grad(loss, kls, allow_unused=True)
    assert chosen is None
    assert (rejected[REJECTED.mask] > 0).all()


@pytest.mark.parametrize("mean", [-1e-30, -1e-8, -LN2, -40.0, -1e4])
def test_orpo_stays_finite_at_the_ends(mean: float) -> None:
    policy = torch.tensor([[mean]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    chosen, rejected = (Scored(value, torch.zeros(1, 1), mask) for value in (policy, torch.tensor([[-1.0]])))
    loss = losses.orpo(chosen, rejected, beta=0.1).loss
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


@settings(deadline=None)
@given(st.floats(-60, -1e-6), st.floats(-60, -1e-6))
def test_orpo_is_trls_odds_ratio(chosen: float, rejected: float) -> None:
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    theirs, *_ = ORPOTrainer.odds_ratio_loss(trainer, torch.tensor([chosen]), torch.tensor([rejected]))
    pair = [Scored(torch.tensor([[x]]), torch.zeros(1, 1), torch.ones(1, 1).bool()) for x in (chosen, rejected)]
    ours = losses.orpo(pair[0], pair[1], beta=0.3)
    assert torch.allclose(ours.loss - losses.nll(pair[0]), -theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ batches


def random_side(random: torch.Generator, pairs: int, tokens: int) -> Scored:
    def draw(low: float, wide: float) -> Tensor:
        return low + wide * torch.rand(pairs, tokens, generator=random, dtype=torch.float64)

    mask = torch.arange(tokens)[None] < torch.randint(1, tokens + 1, (pairs, 1), generator=random)
    policy = draw(-3.05, 3.0).requires_grad_()
    return Scored(policy, draw(-3.05, 3.0), mask, None, draw(0, 1).requires_grad_(), draw(0, 1).requires_grad_())


def random_pair(seed: int, pairs: int = 3, tokens: int = 5) -> tuple[Scored, Scored]:
    random = torch.Generator().manual_seed(seed)
    return random_side(random, pairs, tokens), random_side(random, pairs, tokens)


def random_sides(seed: int, spans: bool = False, pairs: int = 4, tokens: int = 5) -> Sides:
    """A batch of pairs, of which the second and the last have corrupted images."""
    random = torch.Generator().manual_seed(seed)
    chosen, rejected = (random_side(random, pairs, tokens) for _ in range(2))
    grounded = torch.tensor([1, pairs - 1])
    # the same answers: the same tokens and spans
    corrupted = [random_side(random, 2, tokens)._replace(mask=side.mask[grounded]) for side in (chosen, rejected)]
    if spans:
        marks = [torch.randint(0, 2, (pairs, tokens), generator=random).double() for _ in range(2)]
        for mark in marks:
            mark[:, 0] = 1.0  # a pair has a token in a span on each side
        chosen, rejected = (side._replace(weight=mark) for side, mark in zip((chosen, rejected), marks, strict=True))
        corrupted = [side._replace(weight=mark[grounded]) for side, mark in zip(corrupted, marks, strict=True)]
    weight = torch.rand(pairs, generator=random, dtype=torch.float64) + 0.5
    return Sides(chosen, rejected, weight, None, grounded, corrupted[0], corrupted[1])


def leaves(sides: Sides) -> list[Tensor]:
    """The tensors of a batch that carry gradients."""
    present = [sides.chosen, sides.rejected, sides.corrupted_chosen, sides.corrupted_rejected]
    values = [value for side in present if side for value in (side.policy, side.forward_kl, side.reverse_kl)]
    return [value for value in values if value is not None]


def from_leaves(sides: Sides, values: tuple[Tensor, ...]) -> Sides:
    parts = [values[i : i + 3] for i in range(0, len(values), 3)]

    def put(side: Scored | None, part: tuple[Tensor, ...]) -> Scored:
        assert side is not None
        return side._replace(policy=part[0], forward_kl=part[1], reverse_kl=part[2])

    return sides._replace(
        chosen=put(sides.chosen, parts[0]),
        rejected=put(sides.rejected, parts[1]),
        corrupted_chosen=put(sides.corrupted_chosen, parts[2]),
        corrupted_rejected=put(sides.corrupted_rejected, parts[3]),
    )


def pairs_of(sides: Sides, index: Tensor) -> Sides:
    """The pairs of an index, in its order, with their corrupted images."""
    assert sides.grounded is not None
    where = {pair: number for number, pair in enumerate(sides.grounded.tolist())}
    found = [(new, where[old]) for new, old in enumerate(index.tolist()) if old in where]
    numbers = torch.tensor([number for _, number in found], dtype=torch.int64)
    return Sides(
        sides.chosen.rows(index),
        sides.rejected.rows(index),
        sides.weight[index],
        None,
        torch.tensor([new for new, _ in found]) if found else None,
        sides.corrupted_chosen.rows(numbers) if sides.corrupted_chosen and found else None,
        sides.corrupted_rejected.rows(numbers) if sides.corrupted_rejected and found else None,
    )


def padded(side: Scored) -> Scored:
    """The same answers with two more columns of rubbish."""

    def wider(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        rubbish = torch.full((len(value), 2), 50.0, dtype=torch.float64).to(value.dtype)
        return torch.cat([value, torch.zeros_like(rubbish) if value.dtype == torch.bool else rubbish], 1)

    return Scored(*(wider(value) for value in side))  # type: ignore[arg-type]


def same(one: Evaluated, other: Evaluated) -> bool:
    return torch.allclose(one.loss, other.loss, rtol=1e-12, atol=1e-12)


PAIRED = [name for name, values in config.objectives().items() if values["loss"] != "kto"]


def named(name: str, **changes: Any) -> losses.Objective:
    """A published objective, with changes."""
    return objective(AlignSection.model_validate({**config.objectives()[name], **changes}))


def batch_for(whole: losses.Objective, seed: int = 0) -> Sides:
    return random_sides(seed, spans=whole.section.spans)


@pytest.mark.parametrize("name", [name for name in PAIRED if name != "tdpo"])
def test_gradients_of_published_objectives_agree_with_finite_differences(name: str) -> None:
    """Through every term: policies on clean and corrupted images, and both divergences."""
    whole = named(name)
    sides = batch_for(whole)
    assert torch.autograd.gradcheck(lambda *values: evaluate(whole, from_leaves(sides, values)).loss, leaves(sides))


def test_gradients_of_tdpo_agree_with_finite_differences() -> None:
    """But for the chosen side's KL, which is held still on purpose."""
    chosen, rejected = random_pair(1)
    assert rejected.forward_kl is not None

    def loss(c: Tensor, r: Tensor, kl: Tensor) -> Tensor:
        return losses.tdpo(
            chosen._replace(policy=c), rejected._replace(policy=r, forward_kl=kl), beta=0.3, alpha=0.5
        ).loss

    assert torch.autograd.gradcheck(loss, (chosen.policy, rejected.policy, rejected.forward_kl))


@pytest.mark.parametrize("form", ["swap", "chosen", "cross"])
@pytest.mark.parametrize("hinged", [False, True])
def test_gradients_of_all_terms_together_agree_with_finite_differences(form: str, hinged: bool) -> None:
    whole = objective(
        section(
            loss="0.7 dpo + 0.3 ipo",
            spans=True,
            nll=0.3,
            anchor=0.2,
            kl={"weight": 0.1, "forward": 0.3},
            visual={"weight": 0.4, "form": form, "hinged": hinged},
        )
    )
    sides = batch_for(whole)
    assert torch.autograd.gradcheck(lambda *values: evaluate(whole, from_leaves(sides, values)).loss, leaves(sides))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_losses_agree_with_finite_differences(name: str) -> None:
    chosen, rejected = random_pair(1)
    kl = torch.tensor([0.4, -0.1], dtype=torch.float64)

    def loss(c: Tensor, r: Tensor) -> Tensor:
        return apply(name, chosen._replace(policy=c), rejected._replace(policy=r), kl, beta=0.3).loss

    assert torch.autograd.gradcheck(loss, (chosen.policy, rejected.policy))


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_outside_the_answer_or_into_the_rewards(name: str) -> None:
    chosen, rejected = random_pair(2)
    result = apply(name, chosen, rejected, beta=0.05)
    sides = (chosen, rejected)[: 1 if name == "sft" else 2]  # it is not pushed away from the rejected side
    gradients = torch.autograd.grad(result.loss.sum(), [side.policy for side in sides])
    for gradient, side in zip(gradients, sides, strict=True):
        assert (gradient[~side.mask] == 0).all()
        assert (gradient[side.mask] != 0).all()
    assert not result.chosen_reward.requires_grad
    assert not result.rejected_reward.requires_grad


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"apo-down", "discopop", "sft"}))
def test_loss_pulls_chosen_up_and_rejected_down(name: str) -> None:
    chosen, rejected = random_pair(3)
    loss = apply(name, chosen, rejected, beta=0.05).loss.sum()
    up, down = torch.autograd.grad(loss, (chosen.policy, rejected.policy))
    assert (up[chosen.mask] < 0).all()
    assert (down[rejected.mask] > 0).all()


def test_rejection_sampling_is_the_anchor_alone() -> None:
    chosen, rejected = random_pair(3)
    (up,) = torch.autograd.grad(apply("sft", chosen, rejected).loss.sum(), chosen.policy)
    (anchor,) = torch.autograd.grad(losses.nll(chosen).sum(), chosen.policy)
    assert torch.equal(up, anchor)


def test_apo_down_pulls_both_sides_down() -> None:
    start = scored([-1.0], [0.0])
    policies = [start.policy.clone().requires_grad_() for _ in range(2)]
    pair = [start._replace(policy=policy) for policy in policies]
    pushed = torch.autograd.grad(losses.apo_down(pair[0], pair[1], beta=0.5).loss.sum(), policies)
    # at the start the two halves on the chosen side cancel; once the order holds it falls as well
    assert [gradient[0, 0].item() for gradient in pushed] == pytest.approx([0.0, 0.125])
    ahead = CHOSEN._replace(policy=CHOSEN.policy.clone().requires_grad_())
    (down,) = torch.autograd.grad(losses.apo_down(ahead, REJECTED, beta=0.5).loss.sum(), ahead.policy)
    assert (down[CHOSEN.mask] > 0).all()


def test_discopop_rises_where_training_starts() -> None:
    """With beta = tau = .05 between D = -2.37 and 1.44: the loss pulls pairs out of there to both sides."""

    def slope(margin: float) -> float:
        policy = scored([margin], [margin]).policy.requires_grad_()
        loss = losses.discopop(scored([margin], [margin])._replace(policy=policy), of_ratio(0.0), beta=0.05).loss.sum()
        return float(torch.autograd.grad(loss, policy)[0][0, 0])

    assert [slope(margin) > 0 for margin in (-9.0, -2.38, -2.36, 0.0, 1.43, 1.45, 9.0)] == [False] * 2 + [True] * 3 + [
        False
    ] * 2


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(PAIRED), st.integers(0, 10_000), st.permutations(range(4)))
def test_order_of_pairs_and_padding_change_nothing(name: str, seed: int, order: list[int]) -> None:
    whole = named(name)
    sides = batch_for(whole, seed)
    before = evaluate(whole, sides)
    assert same(before, evaluate(whole, pairs_of(sides, torch.tensor(order))))
    assert sides.corrupted_chosen is not None
    assert sides.corrupted_rejected is not None
    wider = sides._replace(
        chosen=padded(sides.chosen),
        rejected=padded(sides.rejected),
        corrupted_chosen=padded(sides.corrupted_chosen),
        corrupted_rejected=padded(sides.corrupted_rejected),
    )
    assert same(before, evaluate(whole, wider))


@pytest.mark.parametrize("name", PAIRED)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(name: str) -> None:
    """So that 8 at once are 1 by 1, whichever pairs have corrupted images."""
    whole = named(name)
    sides = batch_for(whole)
    alone = [evaluate(whole, pairs_of(sides, torch.tensor([number]))).loss for number in range(4)]
    assert torch.allclose(torch.stack(alone).mean(), evaluate(whole, sides).loss)


def test_kto_batches_weigh_every_row() -> None:
    """One desirable row of weight 3, two undesirable ones: (3 a + b + c) / 3, and the terms of the chosen side."""
    whole = objective(section(loss="kto", nll=0.5))
    bad = Scored(*(None if v is None else torch.cat([v, v]) for v in REJECTED))  # type: ignore[arg-type]
    sides = Sides(CHOSEN, bad, torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64), rows([LN4])[0])
    assert evaluate(whole, sides).loss.item() == pytest.approx((3 * (0.5 + 0.5 * LN2) + 0.2 + 0.2) / 3)


def test_a_kto_batch_without_desirable_rows_has_no_terms_of_the_chosen_side() -> None:
    whole = objective(section(loss="kto", nll=1.0, anchor=1.0, kl={"weight": 1.0, "scope": "completion"}))
    none = CHOSEN.rows(torch.tensor([], dtype=torch.int64))._replace(forward_kl=None, reverse_kl=None)
    result = evaluate(whole, Sides(none, REJECTED, torch.ones(1, dtype=torch.float64), rows([LN4])[0]))
    assert result.loss.item() == pytest.approx(0.2)
    assert {name: len(value) for name, value in result.terms.items()} == {"kto": 1, "nll": 0, "anchor": 0, "kl": 0}


# -------------------------------------------------------------------------------------- spans and weights


def test_a_span_by_hand() -> None:
    """Of the toy pair the first and last chosen token and the first rejected one: R = ln 4 and -ln 2."""
    chosen, rejected = CHOSEN._replace(weight=rows([1, 0, 1, 1])), REJECTED._replace(weight=rows([1, 0, 1]))
    assert losses.dpo(chosen, rejected, beta=1.0).loss.item() == pytest.approx(math.log(9 / 8))
    ipo = losses.ipo(chosen, rejected, beta=0.5).loss.item()
    assert ipo == pytest.approx((LN2 + LN2 - 1) ** 2)  # averaged over the tokens that count
    lc = losses.lc_dpo(chosen, rejected, beta=1.0, alpha=LN2).loss.item()
    assert lc == pytest.approx(math.log(17 / 16))  # lengths are those of the whole answers
    assert losses.nll(chosen).item() == pytest.approx(LN2)
    assert losses.anchor(chosen, beta=0.5).item() == pytest.approx(math.log(3 / 2))


@pytest.mark.parametrize("name", sorted(PARTIAL - {"lc-dpo"}))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_span_is_an_answer_of_its_own(name: str, seed: int) -> None:
    """What lies beside a span does not matter: the loss is that of an answer which consists of the span."""
    random = torch.Generator().manual_seed(seed)
    sides = [side.rows(torch.tensor([0])) for side in random_pair(seed)]
    marks = [torch.rand(1, 5, generator=random) < 0.5 for _ in sides]
    for mark in marks:
        mark[:, 0] = True
    spans = [side._replace(weight=mark.double()) for side, mark in zip(sides, marks, strict=True)]
    alone = []
    for side, mark in zip(sides, marks, strict=True):
        kept = mark & side.mask
        alone.append(Scored(side.policy[kept][None], side.reference[kept][None], kept[kept][None]))
    ours, theirs = (apply(name, pair[0], pair[1], beta=0.3) for pair in (spans, alone))
    assert torch.allclose(ours.loss, theirs.loss)
    assert torch.allclose(ours.chosen_reward, theirs.chosen_reward)


@pytest.mark.parametrize("name", sorted(PARTIAL))
def test_no_gradient_beside_the_spans(name: str) -> None:
    sides = random_sides(4, spans=True)
    result = apply(name, sides.chosen, sides.rejected, beta=0.05)
    gradients = torch.autograd.grad(result.loss.sum(), (sides.chosen.policy, sides.rejected.policy))
    for gradient, side in zip(gradients, (sides.chosen, sides.rejected), strict=True):
        counts = side.counted() > 0
        assert (gradient[~counts] == 0).all()
        assert (gradient[counts] != 0).all()


def test_pairs_count_by_their_weights() -> None:
    """Relevance weights (MMedPO) multiply every term of a pair; the mean is over pairs, not over weights."""
    whole = named("mdpo", beta=0.5)
    sides = random_sides(5)
    one = torch.ones(1, dtype=torch.float64)
    alone = [evaluate(whole, pairs_of(sides, torch.tensor([n]))._replace(weight=one)) for n in range(4)]
    expected = sum(weight * pair.loss for weight, pair in zip(sides.weight, alone, strict=True)) / 4
    assert torch.allclose(evaluate(whole, sides).loss, torch.as_tensor(expected))
    none = sides._replace(weight=torch.zeros(4, dtype=torch.float64))
    assert evaluate(whole, none).loss.item() == 0


# ------------------------------------------------------------------------------------- objectives put together


def toy_sides(**more: Any) -> Sides:
    return Sides(CHOSEN, REJECTED, torch.ones(1, dtype=torch.float64), **more)


def test_a_weighted_sum_of_losses_by_hand() -> None:
    result = evaluate(objective(section(loss="0.8 dpo + 0.2 ipo")), toy_sides())
    dpo, ipo = math.log(5 / 4), (LN4 / 3 + LN4 / 2 - 1) ** 2
    assert result.loss.item() == pytest.approx(0.8 * dpo + 0.2 * ipo)
    assert {name: value.item() for name, value in result.terms.items()} == pytest.approx({"dpo": dpo, "ipo": ipo})
    assert result.chosen_reward.item() == pytest.approx(LN2)  # of the heavier loss


@pytest.mark.parametrize("text", ["0.8 dpo + 0.2 ipo", "0.8*dpo+0.2*ipo", " .8 dpo  +  2e-1 * ipo "])
def test_ways_to_write_a_sum(text: str) -> None:
    assert objective(section(loss=text)).losses == {"dpo": 0.8, "ipo": 0.2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dppo", "did you mean `dpo`"),
        ("dpo + simpoo", "did you mean `simpo`"),
        ("2 3 dpo", "write one loss, or a sum"),
        ("dpo 0.5", "write one loss, or a sum"),
        ("dpo +", "write one loss, or a sum"),
        ("", "write one loss, or a sum"),
        ("0 dpo + ipo", "weight above 0"),
        ("-1 dpo", "weight above 0"),
        ("inf dpo", "weight above 0"),
        ("nan dpo", "weight above 0"),
        ("dpo + 2 dpo", "each loss once"),
    ],
)
def test_sums_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(LossError, match=words):
        objective(section(loss=text))


VISUAL = {
    # R(v', c) = ln 2 and R(v', r) = -ln 8; with beta 1/2 and R(c) = ln 4, R(r) = -ln 4 on the clean image
    "swap": -0.5 * math.log(8) - 0.5 * LN2,
    "chosen": 0.5 * LN4 - 0.5 * LN2,
    "cross": 0.5 * LN4 + 0.5 * math.log(8),
}


@pytest.mark.parametrize(("form", "margin"), VISUAL.items())
@pytest.mark.parametrize("hinged", [False, True])
def test_visual_terms_by_hand(form: str, margin: float, hinged: bool) -> None:
    whole = objective(section(visual={"weight": 0.1, "form": form, "hinged": hinged}))
    on_corrupted = {"chosen": of_ratio(LN2), "rejected": of_ratio(-math.log(8))}
    given = {f"corrupted_{side}": on_corrupted[side] for side in whole.corrupted_sides}
    result = evaluate(whole, toy_sides(grounded=torch.tensor([0]), **given))
    term = max(0.0, -margin) if hinged else math.log1p(math.exp(-margin))
    assert result.loss.item() == pytest.approx(math.log(5 / 4) + 0.1 * term)
    assert result.terms["visual"].tolist() == pytest.approx([term])
    assert result.visual_margin is not None
    assert result.visual_margin.tolist() == pytest.approx([margin])


def test_pairs_without_corrupted_images_have_no_visual_term_and_still_count() -> None:
    whole = named("firempo", beta=0.5)
    plain = named("firempo", beta=0.5, visual={"weight": 0.0})
    sides = random_sides(6, spans=True)
    none = sides._replace(grounded=None, corrupted_chosen=None, corrupted_rejected=None)
    found = evaluate(whole, none)
    assert torch.equal(found.loss, evaluate(plain, none).loss)
    assert found.visual_margin is not None
    assert len(found.visual_margin) == len(found.terms["visual"]) == 0
    some = evaluate(whole, sides)
    assert torch.allclose(some.loss - found.loss, 0.1 * some.terms["visual"].sum() / 4)


def test_what_an_objective_reads() -> None:
    read = {name: named(name) for name in config.objectives()}
    assert {name for name, whole in read.items() if not whole.reference} == {"orpo", "simpo", "cpo", "rft"}
    assert {name for name, whole in read.items() if whole.unpaired} == {"kto"}
    assert {name: whole.kl for name, whole in read.items() if whole.kl} == {
        "tdpo": "both",
        "rrpo": "completion",
        **dict.fromkeys(("rrpo-span", "firempo", "firempo-v1", "firempo-v2"), "span"),
    }
    assert {name: whole.corrupted_sides for name, whole in read.items() if whole.corrupted_sides} == {
        "firempo": ("chosen", "rejected"),
        "mdpo": ("chosen",),
        "firempo-v1": ("chosen",),
        "firempo-v2": ("rejected",),
    }
    assert objective(section(loss="simpo")).reference is False
    assert objective(section(loss="simpo + dpo")).reference is True


def test_published_objectives_are_what_their_papers_say() -> None:
    sides = random_sides(7, spans=True)
    chosen, rejected = sides.chosen, sides.rejected
    assert chosen.forward_kl is not None
    assert chosen.reverse_kl is not None
    assert sides.corrupted_chosen is not None
    assert sides.corrupted_rejected is not None

    def mean(value: Tensor, over: Tensor = sides.weight) -> Tensor:
        return (value * over).sum() / 4

    ranked = losses.dpo(chosen, rejected, beta=0.1).loss
    assert torch.allclose(evaluate(named("mask-dpo"), sides).loss, mean(ranked))
    everywhere = (chosen.forward_kl * chosen.mask).sum(-1)
    assert torch.allclose(evaluate(named("rrpo"), sides).loss, mean(ranked + 0.01 * everywhere))
    both = ((chosen.forward_kl + chosen.reverse_kl) / 2 * chosen.mask).sum(-1)
    # the order on corrupted images is turned round
    seen = losses.dpo(sides.corrupted_rejected, sides.corrupted_chosen, beta=0.1).loss
    expected = mean(ranked + 0.01 * both) + 0.1 * mean(seen, sides.weight[sides.grounded])
    assert torch.allclose(evaluate(named("firempo"), sides).loss, expected)
    # mDPO: whole answers
    plain = losses.dpo(chosen.whole(), rejected.whole(), beta=0.1).loss - torch.log(
        torch.sigmoid(0.1 * chosen.whole().ratio())
    )
    given = losses.dpo(chosen.whole().rows(torch.tensor([1, 3])), sides.corrupted_chosen.whole(), beta=0.1).loss
    unmarked = sides._replace(
        chosen=chosen.whole(), rejected=rejected.whole(), corrupted_chosen=sides.corrupted_chosen.whole()
    )
    expected = mean(plain) + mean(given, sides.weight[sides.grounded])
    assert torch.allclose(evaluate(named("mdpo"), unmarked).loss, expected)


def test_the_family_of_firempo() -> None:
    """Its trainer's baselines are its own limits: MASK-DPO is gamma 0, alpha 0; its "RRPO" gamma 0, lambda 1."""
    sides = random_sides(8, spans=True)
    off = {"visual": {"weight": 0.0}}
    mask = named("firempo", kl={"weight": 0.0}, **off)
    assert torch.equal(evaluate(mask, sides).loss, evaluate(named("mask-dpo"), sides).loss)
    forward = named("firempo", kl={"weight": 0.01, "forward": 1.0, "scope": "span"}, **off)
    assert torch.equal(evaluate(forward, sides).loss, evaluate(named("rrpo-span"), sides).loss)


def test_firempo_starts_at_its_rankings_alone() -> None:
    """ln 2 of the ranking and gamma ln 2 of the visual term; the divergence is 0."""
    here = scored([-1.0, -2.0], [0.0, 0.0], forward_kl=[0.0, 0.0], reverse_kl=[0.0, 0.0], weight=[1.0, 0.0])
    sides = Sides(here, here, torch.ones(1).double(), None, torch.tensor([0]), here, here)
    result = evaluate(named("firempo"), sides)
    assert result.loss.item() == pytest.approx(1.1 * LN2)
    assert result.visual_margin is not None
    assert result.visual_margin.item() == 0


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": "kto + dpo"}, "kto takes single answers.*use kto alone"),
    ({"loss": "kto", "visual": {"weight": 0.1}}, "kto has single ones; set align.visual.weight 0"),
    *(
        ({"loss": name, "visual": {"weight": 0.1}}, f"{name} has no reference; set align.visual.weight 0")
        for name in ("orpo", "simpo", "cpo")
    ),
    ({"loss": "dpo + 0.1 simpo", "anchor": 1.0}, "simpo has no reference; use align.nll"),
    ({"loss": "orpo", "anchor": 1.0}, "orpo has no reference; use align.nll"),
    *(
        ({"loss": name, "spans": True}, f"{name} cannot be taken over spans, since .*set align.spans false")
        for name in sorted(set(LOSSES) - PARTIAL)
    ),
    ({"loss": "dpo + ld-dpo", "spans": True}, "ld-dpo cannot be taken over spans"),
    ({"kl": {"weight": 0.1, "scope": "span"}}, "align.spans is false: set align.spans true, or align.kl.scope"),
    *(
        ({"loss": name, "label_smoothing": 0.1}, f"{name} does not know; the losses that do are dpo, robust")
        for name, loss in LOSSES.items()
        if not loss.smooths
    ),
    ({"loss": "exo"}, "exo needs align.label_smoothing above 0"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_combinations_that_make_no_sense_are_refused_with_the_reason(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LossError, match=words):
        objective(section(**values))


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "simpo", "spans": True},
        {"loss": "cpo", "kl": {"weight": 0.1, "scope": "completion"}},
        {"loss": "tdpo", "visual": {"weight": 0.1}, "nll": 1.0},
        {"loss": "kto", "nll": 1.0, "anchor": 1.0, "kl": {"weight": 0.1, "scope": "completion"}},
        {"loss": "apo-zero", "spans": True, "visual": {"weight": 0.1, "form": "cross"}},
        {"loss": "dpo + hinge", "label_smoothing": 0.1},  # one of them knows it
    ],
)
def test_unusual_combinations_that_make_sense_are_taken(values: dict[str, Any]) -> None:
    whole = objective(section(**values))
    if not whole.unpaired:
        assert torch.isfinite(evaluate(whole, batch_for(whole)).loss)


# ----------------------------------------------------------------------------------- objectives of recipes


@pytest.mark.parametrize("name", config.objectives())
def test_every_published_objective_loads_by_its_name(name: str) -> None:
    """It sets all keys that an objective consists of, whatever the recipe had there, and says so."""
    loaded = config.load("chexalign", overrides=[f"align.objective={name}"])
    found = loaded.recipe.align.model_dump(include=set(OBJECTIVE_KEYS))
    assert found == config.objectives()[name]
    for key, where in loaded.provenance.items():
        section, _, rest = key.partition(".")
        if section == "align" and rest.partition(".")[0] in OBJECTIVE_KEYS:
            assert where == f"objective {name}", key
    assert loaded.provenance["align.objective"] == "the command line"
    assert loaded.provenance["align.lr"] == "chexalign.yaml"
    objective(loaded.recipe.align)


def test_the_file_names_each_loss_and_the_objective_keys_are_all_there_are() -> None:
    text = (Path(losses.__file__).parent.parent / "recipes" / "parts" / "objectives.yaml").read_text("utf-8")
    assert {values["loss"] for values in yaml.safe_load(text).values()} == set(LOSSES)
    training = {
        *("objective", "lora", "train_tower", "train_projector", "lr", "warmup", "epochs", "batch", "accumulate"),
        *("weight_decay", "max_length", "save_steps", "gradient_checkpointing", "shared_prefix", "cache_features"),
        *("optimizer", "schedule", "dropout", "rounds"),
    }
    assert set(AlignSection.model_fields) == training | set(OBJECTIVE_KEYS)


def test_an_objective_takes_back_an_earlier_one_and_gives_way_to_what_is_said_after(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "align: {objective: firempo, kl: {weight: 0.5}}\npresets: {other: {align: {objective: kto, desirable: 2.0}}}\n",
        encoding="utf-8",
    )
    mine = config.load(str(path))
    assert (mine.recipe.align.kl.weight, mine.provenance["align.kl.weight"]) == (0.5, "mine.yaml")
    assert (mine.recipe.align.kl.forward, mine.provenance["align.kl.forward"]) == (0.5, "objective firempo")
    assert mine.recipe.align.spans
    other = config.load(str(path), preset="other", overrides=["align.beta=0.3"])
    align = other.recipe.align
    assert (align.loss, align.beta, align.desirable, align.spans) == ("kto", 0.3, 2.0, False)
    assert align.kl.weight == align.visual.weight == 0
    assert other.provenance["align.beta"] == "the command line"
    assert other.provenance["align.desirable"] == "preset other"
    assert other.provenance["align.spans"] == "objective kto"
    again = config.override(other, ["align.objective=rrpo", "align.kl.weight=0.05"])
    assert (again.recipe.align.loss, again.recipe.align.beta, again.recipe.align.desirable) == ("dpo", 0.1, 1.0)
    assert (again.recipe.align.kl.scope, again.recipe.align.kl.weight) == ("completion", 0.05)
    assert again.provenance["align.spans"] == "objective rrpo"
    kept = config.override(mine, ["align.lr=1e-4"])
    assert kept.recipe.align.model_copy(update={"lr": 1e-5}) == mine.recipe.align
    assert kept.provenance["align.kl.weight"] == "mine.yaml"


def test_an_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'fierempo', which is none; did you mean `firempo`\? There are: dpo, "):
        config.load("chexalign", overrides=["align.objective=fierempo"])


def test_the_page_of_objectives_names_all_of_them() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "objectives.md").read_text("utf-8")
    rows = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    for name in (*LOSSES, *config.objectives()):
        assert f"`{name}`" in rows, name
    for key in OBJECTIVE_KEYS:
        assert key in page, key
