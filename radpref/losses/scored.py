"""What objectives read: per-token log-probs of one answer a row, and what they give back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scored(NamedTuple):
    """Log-probs of one answer a row; entries outside the mask do not matter, unless they are not finite."""

    policy: Tensor
    """(B, T) float: log pi of every answer token; carries the gradient."""
    reference: Tensor
    """(B, T) float: log ref of the same tokens; zeros where an objective needs no reference."""
    mask: Tensor
    """(B, T) bool: True where there is a token of the answer."""
    weight: Tensor | None = None
    """(B, T) float or bool: how much each token counts in sums and means, 1 on a rewarded span and 0 beside it;
    None counts every token of the answer once."""
    forward_kl: Tensor | None = None
    """(B, T) float: KL(ref || pi) over the vocabulary at each token; 0 where it is not asked for."""
    reverse_kl: Tensor | None = None
    """(B, T) float: KL(pi || ref) over the vocabulary at each token; 0 where it is not asked for."""

    def counted(self) -> Tensor:
        """(B, T) what each token counts, in the dtype of the log-probs."""
        counted = self.mask.to(self.policy.dtype)
        return counted if self.weight is None else counted * self.weight

    def size(self) -> Tensor:
        """(B,) the sum of the weights: the number of tokens that count."""
        return self.counted().sum(-1)

    def total(self) -> Tensor:
        """(B,) log pi, summed over the tokens that count."""
        return (self.policy * self.counted()).sum(-1)

    def mean(self) -> Tensor:
        """(B,) log pi, averaged over the tokens that count; 0 for a row without any."""
        return self.total() / self.size().clamp(min=1)

    def ratio(self) -> Tensor:
        """(B,) the log-ratio R(y), summed over the tokens that count."""
        return ((self.policy - self.reference) * self.counted()).sum(-1)

    def mean_ratio(self) -> Tensor:
        """(B,) the log-ratio, averaged over the tokens that count."""
        return self.ratio() / self.size().clamp(min=1)

    def length(self) -> Tensor:
        """(B,) number of the answer's tokens, whatever they count, in the dtype of the log-probs."""
        return self.mask.sum(-1).to(self.policy.dtype)

    def whole(self) -> Scored:
        """The same answers with every token counting once."""
        return self._replace(weight=None)

    def rows(self, index: Tensor) -> Scored:
        """The rows of an index (n,) int64."""
        optional = (None if value is None else value[index] for value in self[3:])
        return Scored(self.policy[index], self.reference[index], self.mask[index], *optional)


class PreferenceLoss(NamedTuple):
    """What a ranking loss says of a batch."""

    loss: Tensor
    """(B,) one loss a pair; for KTO (Bc + Br,) one a row, the desirable rows first."""
    chosen_reward: Tensor
    """(B,) implied reward of the chosen side, without gradient."""
    rejected_reward: Tensor
    """(B,) implied reward of the rejected side, without gradient."""
