"""The output head at the positions that are scored, in chunks: log-probs and exact divergences without the logits.

A vocabulary of 150,000 makes 600 kB of float32 logits a token, and as much again for their gradient. What a loss
reads of them are at most three numbers a token, whose gradients with respect to the hidden state are vectors of the
model's width. So each chunk of tokens makes its logits, its numbers and these vectors, and forgets the logits; the
backward pass is a product with the upstream gradient. This needs the head frozen. Where it is trained, the chunks are
computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 23
"""Logits at a time: 32 MiB in float32, of which a handful of copies exist while they are read."""


class Head(NamedTuple):
    """An output projection."""

    project: Callable[[Tensor], Tensor]
    """(n, H) hidden states to (n, vocabulary) logits."""
    weight: Tensor
    """(vocabulary, H)."""
    adapted: bool = False
    """Whether an adapter stands on it, so that the projection is more than its weight."""

    def now(self, module: nn.Module) -> Head:
        """The same with the module's weight of now: under FSDP it is whole within a forward, and in parts outside."""
        weight: Any = getattr(module, "base_layer", module).weight
        return self._replace(weight=weight)

    @staticmethod
    def of(module: nn.Module) -> Head:
        """The projection of a module, whatever its ``forward`` is replaced by later, with the adapter on it.

        Raises TypeError for one whose gradient is not its weight alone.
        """
        base = getattr(module, "base_layer", module)
        if not isinstance(base, nn.Linear) or base.weight.shape != (base.out_features, base.in_features):
            raise TypeError(f"the head is a {type(base).__name__}, not a linear layer")
        return Head(module.forward, base.weight, base is not module)


class Against(NamedTuple):
    """What divergences are taken against, at some of the tokens."""

    tokens: Tensor
    """(K,) int64: which of the N tokens."""
    hidden: Tensor
    """(K, H): the reference's hidden states before the head at these tokens."""
    head: Head
    """The reference's head; the policy's own where that is frozen."""


class Read(NamedTuple):
    """What is read off the head."""

    logps: Tensor
    """(N,) float32 log-prob of each target."""
    forward_kl: Tensor
    """(K,) float32 KL(ref || pi) over the vocabulary at the tokens of ``Against``; empty without."""
    reverse_kl: Tensor
    """(K,) float32 KL(pi || ref)."""


def read(head: Head, hidden: Tensor, targets: Tensor, against: Against | None = None, chunk: int = CHUNK) -> Read:
    """Log-probs (and divergences) at N tokens from their hidden states.

    Args:
        head: the policy's output projection, (vocabulary, H).
        hidden: (N, H) the states that predict the targets; any float dtype.
        targets: (N,) int64.
        against: where divergences from the reference are wanted.
        chunk: most logits held at a time.
    """
    size = max(1, chunk // len(head.weight))
    if against is None:
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return Read(_over_chunks(head, hidden, targets, None, size)[0], empty, empty)
    other = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    other[against.tokens] = False
    rest = other.nonzero().squeeze(1)
    plain = _over_chunks(head, hidden[rest], targets[rest], None, size)[0]
    logps, forward, reverse = _over_chunks(head, hidden[against.tokens], targets[against.tokens], against, size)
    whole = plain.new_zeros(len(targets)).index_put((rest,), plain).index_put((against.tokens,), logps)
    return Read(whole, forward, reverse)


def _over_chunks(head: Head, hidden: Tensor, targets: Tensor, against: Against | None, size: int) -> tuple[Tensor, ...]:
    frozen = not (head.adapted or head.weight.requires_grad)
    parts = []
    for start in range(0, max(len(targets), 1), size):
        part = slice(start, start + size)
        some = (hidden[part], targets[part], None if against is None else against.hidden[part])
        reference = None if against is None else against.head
        if frozen and torch.is_grad_enabled():
            values = _Fused.apply(  # type: ignore[no-untyped-call]
                head, reference, *some
            )
        elif torch.is_grad_enabled():
            values = checkpoint(_numbers, head, reference, *some, use_reentrant=False)
        else:
            values = _numbers(head, reference, *some)
        parts.append(values)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _numbers(
    head: Head, reference: Head | None, hidden: Tensor, targets: Tensor, other: Tensor | None
) -> tuple[Tensor, ...]:
    """((n,) log-probs,), and with a reference ((n,) KL(ref || pi), (n,) KL(pi || ref))."""
    own = head.project(hidden).float().log_softmax(-1)
    logps = own.gather(-1, targets[:, None]).squeeze(-1)
    if reference is None:
        return (logps,)
    theirs = _frozen(reference, other)
    forward = (theirs.exp() * (theirs - own)).sum(-1)
    reverse = (own.exp() * (own - theirs)).sum(-1)
    return logps, forward, reverse


@torch.no_grad()
def _frozen(reference: Head, hidden: Tensor | None) -> Tensor:
    assert hidden is not None
    return reference.project(hidden).float().log_softmax(-1)


class _Fused(torch.autograd.Function):
    """``_numbers`` with the gradients with respect to the hidden state taken while the logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        reference: Head | None,
        hidden: Tensor,
        targets: Tensor,
        other: Tensor | None,
    ) -> tuple[Tensor, ...]:
        logits = head.project(hidden)
        weight = head.weight.to(logits.dtype)  # under autocast the product ran in bfloat16, and so do the gradients
        own = logits.float().log_softmax(-1)
        del logits
        logps = own.gather(-1, targets[:, None]).squeeze(-1)
        probabilities = own.exp()

        def back(logit_gradient: Tensor) -> Tensor:
            return (logit_gradient.to(weight.dtype) @ weight).to(hidden.dtype)

        # d log p(y) / d logits = onehot(y) - p
        values, gradients = [logps], [F.embedding(targets, weight).to(hidden.dtype) - back(probabilities)]
        if reference is not None:
            theirs = _frozen(reference, other)
            difference = own - theirs
            reverse = (probabilities * difference).sum(-1)
            expected = theirs.exp()
            values += [-(expected * difference).sum(-1), reverse]
            gradients.append(back(probabilities - expected))  # of KL(ref || pi)
            gradients.append(back(probabilities * (difference - reverse[:, None])))  # of KL(pi || ref)
        ctx.save_for_backward(*gradients)
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        total = sum(
            (up[:, None] * gradient for up, gradient in zip(upstream, ctx.saved_tensors, strict=True)),
            start=torch.zeros((), device=upstream[0].device),
        )
        assert isinstance(total, Tensor)
        return None, None, total.to(ctx.saved_tensors[0].dtype), None, None
