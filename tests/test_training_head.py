"""The head read in chunks: values and gradients are those of plain logits, which are never kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from radpref.training.head import Against, Head, Read, read

TOKENS, WIDTH, WORDS = 9, 6, 23


class Case:
    """A head, a reference head, and hidden states of both; divergences at five of the nine tokens, in no order."""

    def __init__(self, bias: bool = False, frozen: bool = True, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.layer, self.other = (nn.Linear(WIDTH, WORDS, bias=bias) for _ in range(2))
        for layer in (self.layer, self.other):
            nn.init.normal_(layer.weight)
            layer.requires_grad_(not frozen and layer is self.layer)
        self.hidden, theirs = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randn(5, WIDTH)
        self.targets = torch.randint(0, WORDS, (TOKENS,))
        self.head = Head.of(self.layer)
        self.against = Against(torch.tensor([7, 0, 3, 8, 4]), theirs, Head.of(self.other))
        self.upstream = [torch.randn(TOKENS), torch.randn(5), torch.randn(5)]

    def read(self, **how: Any) -> Read:
        return read(self.head, self.hidden, self.targets, self.against, **how)

    def plain(self) -> Read:
        """Straight from the definitions."""
        own = self.layer(self.hidden).float().log_softmax(-1)
        theirs = self.other(self.against.hidden).float().log_softmax(-1)
        some = own[self.against.tokens]
        return Read(
            own[torch.arange(TOKENS), self.targets],
            (theirs.exp() * (theirs - some)).sum(-1),
            (some.exp() * (some - theirs)).sum(-1),
        )

    def gradients(self, found: Read, *wanted: Tensor) -> tuple[Tensor, ...]:
        """Of all three numbers at once, each with its own upstream gradient."""
        loss = sum(((value * up).sum() for value, up in zip(found, self.upstream, strict=True)), torch.zeros(()))
        return torch.autograd.grad(loss, wanted)


def close(ours: Any, theirs: Any, rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    return all(torch.allclose(a, b, rtol=rtol, atol=atol) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("bias", [False, True])
@settings(deadline=None, max_examples=15)
@given(chunk=st.integers(1, 300), seed=st.integers(0, 100))
def test_values_and_gradients_are_those_of_plain_logits(bias: bool, chunk: int, seed: int) -> None:
    """For any number of logits at a time, also fewer than the vocabulary has words."""
    case = Case(bias=bias, seed=seed)
    ours, theirs = case.read(chunk=chunk), case.plain()
    assert close(ours, theirs)
    assert close(case.gradients(ours, case.hidden), case.gradients(theirs, case.hidden))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_each_number_has_its_own_gradient(part: int) -> None:
    case = Case()
    for number in {0, 1, 2} - {part}:
        case.upstream[number].zero_()
    assert close(case.gradients(case.read(), case.hidden), case.gradients(case.plain(), case.hidden))


@pytest.mark.parametrize("chunk", [1, 50, 1 << 24])
def test_a_trained_head_gets_its_gradient(chunk: int) -> None:
    case = Case(bias=True, frozen=False)
    wanted = (case.hidden, case.layer.weight, case.layer.bias)
    ours, theirs = case.read(chunk=chunk), case.plain()
    assert close(ours, theirs)
    assert close(case.gradients(ours, *wanted), case.gradients(theirs, *wanted))


@pytest.mark.parametrize("frozen", [False, True])
def test_without_a_reference(frozen: bool) -> None:
    case = Case(frozen=frozen)
    ours = read(case.head, case.hidden, case.targets, chunk=50)
    assert torch.allclose(ours.logps, case.plain().logps, atol=1e-5)
    assert len(ours.forward_kl) == len(ours.reverse_kl) == 0
    ours_grad, theirs_grad = (
        torch.autograd.grad((found.logps * case.upstream[0]).sum(), case.hidden) for found in (ours, case.plain())
    )
    assert close(ours_grad, theirs_grad)


def test_without_gradients() -> None:
    case = Case()
    with torch.no_grad():
        found = case.read(chunk=50)
        assert close(found, case.plain())
    assert not any(value.requires_grad for value in found)


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_to_read(frozen: bool) -> None:
    case = Case(frozen=frozen)
    found = read(case.head, case.hidden[:0], case.targets[:0])
    assert len(found.logps) == 0
    everywhere = Against(torch.arange(TOKENS), torch.randn(TOKENS, WIDTH), case.against.head)
    whole = read(case.head, case.hidden, case.targets, everywhere)
    assert len(whole.forward_kl) == TOKENS
    assert torch.allclose(whole.logps, case.plain().logps, atol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.5, -0.5), (-3.0, 2.0), (30.0, -20.0)])
def test_a_vocabulary_of_two_words(a: float, b: float) -> None:
    """Logits (a, 0) and (b, 0), so p = s(a) and q = s(b): d KL(q || p) / da = p - q and d KL(p || q) / da =
    p (1 - p) (a - b)."""
    layer = nn.Linear(1, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[1.0], [0.0]]))
    hidden = torch.tensor([[a]], requires_grad=True)
    against = Against(torch.tensor([0]), torch.tensor([[b]]), Head.of(layer))
    found = read(Head.of(layer), hidden, torch.tensor([0]), against)
    p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
    log_p, log_q, log_no_p, log_no_q = (-math.log1p(math.exp(-x)) for x in (a, b, -a, -b))
    expected = (
        log_p,
        q * (log_q - log_p) + (1 - q) * (log_no_q - log_no_p),
        p * (log_p - log_q) + (1 - p) * (log_no_p - log_no_q),
    )
    slopes = (1 - p, p - q, p * (1 - p) * (a - b))
    for value, number, slope in zip(found, expected, slopes, strict=True):
        assert value.item() == pytest.approx(number, rel=1e-5, abs=1e-6)
        (gradient,) = torch.autograd.grad(value.sum(), hidden, retain_graph=True)
        assert gradient.item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_reference_itself_is_at_no_distance() -> None:
    case = Case()
    same = Against(torch.arange(TOKENS), case.hidden.detach(), case.head)
    found = read(case.head, case.hidden, case.targets, same, chunk=50)
    assert found.forward_kl.abs().max() < 1e-6
    assert found.reverse_kl.abs().max() < 1e-6
    for value in found[1:]:
        (gradient,) = torch.autograd.grad(value.sum(), case.hidden, retain_graph=True)
        assert gradient.abs().max() < 1e-6


def test_probabilities_that_underflow_leave_no_nan() -> None:
    """Where log(softmax) would be -inf, and 0 times -inf."""
    case = Case()
    loud = case.hidden.detach() * 1e3
    loud.requires_grad_()
    found = read(case.head, loud, case.targets, case.against)
    (gradient,) = torch.autograd.grad(sum((value.sum() for value in found), torch.zeros(())), loud)
    assert all(torch.isfinite(value).all() for value in (*found, gradient))
    assert found.forward_kl.max() > 500


def test_trls_kernel_agrees() -> None:
    kernels: Any = pytest.importorskip("trl.kernels.chunked_divergence")
    case = Case(bias=True)
    tokens, theirs = case.against.tokens, case.against.hidden
    ours = case.read(chunk=50)
    for value, beta in ((ours.forward_kl, 0.0), (ours.reverse_kl, 1.0)):
        other, _ = kernels.ChunkedDivergenceFunction.apply(
            case.hidden[tokens], case.layer.weight, case.layer.bias, theirs, case.other.weight, case.other.bias, beta
        )
        assert torch.allclose(value, other, atol=1e-5)
        mine, its = (
            torch.autograd.grad((part * case.upstream[1]).sum(), case.hidden, retain_graph=True)
            for part in (value, other)
        )
        assert close(mine, its)


def test_bfloat16_is_that_of_the_products_alone() -> None:
    """Under autocast the logits are bfloat16, sums over the vocabulary float32: within bfloat16's steps of exact."""
    case = Case()
    exact, right = case.plain(), case.gradients(case.plain(), case.hidden)
    with torch.autocast("cpu", torch.bfloat16):
        ours = case.read(chunk=50)
        rounded = case.plain()
    assert all(value.dtype == torch.float32 for value in ours)
    assert close(ours, rounded, rtol=1e-5)
    assert close(ours, exact, rtol=0.02, atol=0.05)
    found = case.gradients(ours, case.hidden)[0]
    assert found.dtype == torch.float32
    assert (found - right[0]).norm() / right[0].norm() < 0.02


def test_hidden_states_of_bfloat16_get_gradients_of_bfloat16() -> None:
    case = Case()
    right = case.gradients(case.plain(), case.hidden)[0]
    for layer in (case.layer, case.other):
        layer.to(torch.bfloat16)
    case.against = case.against._replace(hidden=case.against.hidden.bfloat16())
    hidden = case.hidden.detach().bfloat16().requires_grad_()
    found = case.gradients(read(case.head, hidden, case.targets, case.against), hidden)[0]
    assert found.dtype == torch.bfloat16
    assert (found.float() - right).norm() / right.norm() < 0.03


def test_no_logits_are_kept_and_no_more_are_made_than_asked_for() -> None:
    case = Case()
    made: list[int] = []

    def project(hidden: Tensor) -> Tensor:
        logits: Tensor = case.layer(hidden)
        made.append(logits.numel())
        return logits

    kept: list[torch.Size] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.shape)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        found = read(Head(project, case.layer.weight), case.hidden, case.targets, case.against, chunk=2 * WORDS)
    assert max(made) == 2 * WORDS
    assert sum(made) == TOKENS * WORDS
    assert all(WORDS not in shape for shape in kept)
    case.gradients(found, case.hidden)
    assert sum(made) == TOKENS * WORDS  # nothing is computed again


def test_a_head_that_is_more_than_a_projection_is_refused() -> None:
    with pytest.raises(TypeError, match="Sequential, not a linear layer"):
        Head.of(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))
