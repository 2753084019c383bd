"""Every objective against values worked out by hand, its gradient, and TRL's formula where TRL has one."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from trl.experimental.orpo import ORPOTrainer

from radpref.losses import LOSSES, Knobs, Scored, dpo, ipo, kto, lc_dpo, nll, orpo
from radpref.recipe import AlignSection


def side(policy: list[list[float]], reference: list[list[float]], lengths: list[int]) -> Scored:
    values = torch.tensor(policy, dtype=torch.float64)
    mask = torch.arange(values.shape[1])[None] < torch.tensor(lengths)[:, None]
    return Scored(values, torch.tensor(reference, dtype=torch.float64), mask)


def one(ratio: float, length: int = 1) -> Scored:
    """One row whose summed log-ratio is ``ratio`` over ``length`` tokens, with rubbish behind them."""
    policy = [-1.0 + ratio / length] * length + [-99.0]
    return side([policy], [[-1.0] * length + [-7.0]], [length])


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_sums_leave_out_what_is_masked() -> None:
    row = side([[-1.0, -2.0, -50.0]], [[-1.5, -1.0, -9.0]], [2])
    assert row.total().item() == -3.0
    assert row.mean().item() == -1.5
    assert row.ratio().item() == -0.5
    assert row.length().item() == 2
    assert nll(row).item() == 1.5


def test_dpo_by_hand() -> None:
    result = dpo(one(0.7, 3), one(-0.4, 2), beta=0.5)
    assert result.loss.item() == pytest.approx(-log_sigmoid(0.5 * 1.1), abs=1e-12)
    assert result.chosen_reward.item() == pytest.approx(0.35)
    assert result.rejected_reward.item() == pytest.approx(-0.2)


def test_lc_dpo_by_hand() -> None:
    loss = lc_dpo(one(0.7, 3), one(-0.4, 8), beta=0.5, alpha=0.05).loss.item()
    assert loss == pytest.approx(-log_sigmoid(0.5 * 1.1 + 0.05 * (3 - 8)), abs=1e-12)


def test_lc_dpo_pushes_less_where_the_chosen_side_is_longer() -> None:
    def push(length: int) -> float:
        chosen = one(0.0, length)
        policy = chosen.policy.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            lc_dpo(chosen._replace(policy=policy), one(0.0, 10), beta=0.1, alpha=0.05).loss.sum(), policy
        )
        return -gradient[0, 0].item()

    assert push(20) < push(10) < push(5)
    assert push(10) == pytest.approx(0.05)


def test_ipo_by_hand_averages_over_tokens() -> None:
    loss = ipo(one(0.6, 3), one(-0.4, 2), beta=0.25).loss.item()
    assert loss == pytest.approx((0.6 / 3 + 0.4 / 2 - 2.0) ** 2, abs=1e-12)


def test_kto_by_hand() -> None:
    kl = torch.tensor([0.3, 0.1], dtype=torch.float64)
    result = kto(one(0.7, 3), one(-0.4, 2), beta=0.5, kl=kl, desirable=1.5, undesirable=0.5)
    good, bad = result.loss.tolist()
    assert good == pytest.approx(1.5 * (1 - 1 / (1 + math.exp(-0.5 * (0.7 - 0.2)))), abs=1e-12)
    assert bad == pytest.approx(0.5 * (1 - 1 / (1 + math.exp(-0.5 * (0.2 + 0.4)))), abs=1e-12)


def test_kto_reference_point_is_clamped_and_has_no_gradient() -> None:
    kl = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    chosen = one(0.7)
    chosen = chosen._replace(policy=chosen.policy.requires_grad_())
    clamped = kto(chosen, one(-0.4), beta=0.5, kl=kl)
    assert torch.equal(clamped.loss, kto(chosen, one(-0.4), beta=0.5).loss)
    assert torch.autograd.grad(clamped.loss.sum(), [kl], allow_unused=True) == (None,)


def test_kto_takes_a_side_without_rows() -> None:
    empty = Scored(*(value[:0] for value in one(0.0)))
    assert kto(one(0.0), empty, beta=0.1).loss.tolist() == [0.5]
    assert kto(empty, one(0.0), beta=0.1).loss.tolist() == [0.5]


def test_orpo_by_hand() -> None:
    chosen, rejected = side([[-0.5, -0.3]], [[0.0, 0.0]], [2]), side([[-1.0, -9.0]], [[0.0, 0.0]], [1])

    def odds(mean: float) -> float:
        return math.exp(mean) / (1 - math.exp(mean))

    expected = 0.4 - 0.2 * log_sigmoid(math.log(odds(-0.4)) - math.log(odds(-1.0)))
    assert orpo(chosen, rejected, beta=0.2).loss.item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.floats(-60, -1e-6), st.floats(-60, -1e-6))
def test_orpo_is_trls_odds_ratio(chosen: float, rejected: float) -> None:
    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    theirs, *_ = ORPOTrainer.odds_ratio_loss(trainer, torch.tensor([chosen]), torch.tensor([rejected]))
    rows = [
        Scored(torch.tensor([[x]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)) for x in (chosen, rejected)
    ]
    ours = orpo(rows[0], rows[1], beta=0.3)
    assert torch.allclose(ours.loss - nll(rows[0]), -theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean", [-1e-30, -1e-8, -math.log(2), -40.0, -1e4])
def test_orpo_stays_finite_at_the_ends(mean: float) -> None:
    policy = torch.tensor([[mean]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    chosen = Scored(policy, torch.zeros(1, 1), mask)
    loss = orpo(chosen, Scored(torch.tensor([[-1.0]]), torch.zeros(1, 1), mask), beta=0.1).loss
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_the_recipe_names_every_objective() -> None:
    assert AlignSection.model_fields["loss"].description == ", ".join(LOSSES)
    assert AlignSection().loss in LOSSES


def random_sides(seed: int, rows: int = 3, tokens: int = 5) -> tuple[Tensor, Tensor, Scored, Scored]:
    random = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return -torch.rand(rows, tokens, generator=random, dtype=torch.float64) * 3 - 0.05

    policies = draw().requires_grad_(), draw().requires_grad_()
    masks = [torch.arange(tokens)[None] < torch.randint(1, tokens + 1, (rows, 1), generator=random) for _ in range(2)]
    chosen, rejected = (Scored(p, draw(), m) for p, m in zip(policies, masks, strict=True))
    return *policies, chosen, rejected


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    chosen_policy, rejected_policy, chosen, rejected = random_sides(1)
    kl = torch.tensor([0.4, -0.1], dtype=torch.float64)

    def loss(c: Tensor, r: Tensor) -> Tensor:
        knobs = Knobs(beta=0.3, length_alpha=0.05, kl=kl)
        return LOSSES[name].loss(chosen._replace(policy=c), rejected._replace(policy=r), knobs).loss

    assert torch.autograd.gradcheck(loss, (chosen_policy, rejected_policy))


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_flows_outside_the_answer_or_into_the_rewards(name: str) -> None:
    chosen_policy, rejected_policy, chosen, rejected = random_sides(2)
    result = LOSSES[name].loss(chosen, rejected, Knobs(beta=0.3))
    gradients = torch.autograd.grad(result.loss.sum(), (chosen_policy, rejected_policy))
    for gradient, scored in zip(gradients, (chosen, rejected), strict=True):
        assert (gradient[~scored.mask] == 0).all()
        assert (gradient[scored.mask] != 0).all()
    assert not result.chosen_reward.requires_grad
    assert not result.rejected_reward.requires_grad


@pytest.mark.parametrize("name", LOSSES)
def test_loss_pulls_chosen_up_and_rejected_down(name: str) -> None:
    chosen_policy, rejected_policy, chosen, rejected = random_sides(3)
    loss = LOSSES[name].loss(chosen, rejected, Knobs(beta=0.05)).loss.sum()
    up, down = torch.autograd.grad(loss, (chosen_policy, rejected_policy))
    assert (up[chosen.mask] < 0).all()
    assert (down[rejected.mask] > 0).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 2))
def test_dpo_of_swapped_sides_is_the_other_odds(seed: int, beta: float) -> None:
    _, _, chosen, rejected = random_sides(seed)
    there, back = dpo(chosen, rejected, beta=beta).loss, dpo(rejected, chosen, beta=beta).loss
    assert torch.allclose((-there).exp() + (-back).exp(), torch.ones_like(there))


def test_dpo_starts_at_ln_2() -> None:
    assert dpo(one(0.0, 3), one(0.0, 5), beta=0.1).loss.item() == pytest.approx(math.log(2))
