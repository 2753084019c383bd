"""Objectives put together: weighted ranking losses, and the terms beside them, as a recipe's section says.

``LOSSES`` is the one place that names the ranking losses; an entry there is all that a new one needs to be trained
with. ``objective`` checks that what a section combines makes sense, and ``evaluate`` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from radpref.config import AlignSection, nearest
from radpref.errors import RadprefError
from radpref.losses import ranking, terms
from radpref.losses.scored import PreferenceLoss, Scored
from radpref.plugins import Extended


class LossError(RadprefError, ValueError):
    """Objectives that cannot be combined as a recipe asks; the message says why and what to do."""


class Ranking(NamedTuple):
    """A ranking loss and what it needs."""

    loss: Callable[[Scored, Scored, AlignSection, Tensor | None], PreferenceLoss]
    """Of the chosen side, the rejected side, the section's numbers and (KTO) the mismatched rows' log-ratios."""
    reference: bool = True
    """Whether it reads the reference's log-probs."""
    unpaired: bool = False
    """Whether it takes single answers, and mismatched rows for its reference point."""
    smooths: bool = False
    """Whether it knows ``label_smoothing``."""
    needs_smoothing: bool = False
    """Whether it is not defined at ``label_smoothing`` 0."""
    whole: str = ""
    """Why it cannot be taken over spans; empty where it can."""
    both_kl: bool = False
    """Whether it reads KL(ref || pi) at every token of both sides."""


_OURS: Mapping[str, Ranking] = {
    "dpo": Ranking(lambda c, r, s, _: ranking.dpo(c, r, beta=s.beta, label_smoothing=s.label_smoothing), smooths=True),
    "robust": Ranking(
        lambda c, r, s, _: ranking.robust(c, r, beta=s.beta, label_smoothing=s.label_smoothing), smooths=True
    ),
    "hinge": Ranking(lambda c, r, s, _: ranking.hinge(c, r, beta=s.beta)),
    "ipo": Ranking(lambda c, r, s, _: ranking.ipo(c, r, beta=s.beta)),
    "dpo-norm": Ranking(lambda c, r, s, _: ranking.dpo_norm(c, r, beta=s.beta)),
    "lc-dpo": Ranking(
        lambda c, r, s, _: ranking.lc_dpo(c, r, beta=s.beta, alpha=s.length_alpha, label_smoothing=s.label_smoothing),
        smooths=True,
    ),
    "ld-dpo": Ranking(
        lambda c, r, s, _: ranking.ld_dpo(c, r, beta=s.beta, alpha=s.ld_alpha),
        whole="it discounts an answer's tokens by their place behind the other answer's length",
    ),
    "tdpo": Ranking(
        lambda c, r, s, _: ranking.tdpo(c, r, beta=s.beta, alpha=s.tdpo_alpha),
        whole="its sequential KL is one of whole answers",
        both_kl=True,
    ),
    "exo": Ranking(
        lambda c, r, s, _: ranking.exo(c, r, beta=s.beta, label_smoothing=s.label_smoothing),
        smooths=True,
        needs_smoothing=True,
    ),
    "nca": Ranking(lambda c, r, s, _: ranking.nca(c, r, beta=s.beta)),
    "sppo": Ranking(lambda c, r, s, _: ranking.sppo(c, r, beta=s.beta)),
    "apo-zero": Ranking(lambda c, r, s, _: ranking.apo_zero(c, r, beta=s.beta)),
    "apo-down": Ranking(lambda c, r, s, _: ranking.apo_down(c, r, beta=s.beta)),
    "discopop": Ranking(lambda c, r, s, _: ranking.discopop(c, r, beta=s.beta)),
    "kto": Ranking(
        lambda c, r, s, kl: ranking.kto(c, r, beta=s.beta, kl=kl, desirable=s.desirable, undesirable=s.undesirable),
        unpaired=True,
        whole="its reference point is the log-ratio of whole answers",
    ),
    "sft": Ranking(
        lambda c, r, s, _: ranking.sft(c, r), reference=False, whole="it is the likelihood of whole answers"
    ),
    "orpo": Ranking(
        lambda c, r, s, _: ranking.orpo(c, r, beta=s.beta),
        reference=False,
        whole="the odds of a span are not those of an answer",
    ),
    "simpo": Ranking(lambda c, r, s, _: ranking.simpo(c, r, beta=s.beta, margin=s.target_margin), reference=False),
    "cpo": Ranking(
        lambda c, r, s, _: ranking.cpo(c, r, beta=s.beta, label_smoothing=s.label_smoothing),
        reference=False,
        smooths=True,
    ),
}
LOSSES: Mapping[str, Ranking] = Extended("objectives", _OURS)
"""Name to a ranking loss; other packages add to it (``radpref.plugins``)."""


class Objective(NamedTuple):
    """A section's objective, checked: what it is made of and what it reads."""

    section: AlignSection
    losses: Mapping[str, float]
    """Name in ``LOSSES`` to weight."""

    @property
    def needs(self) -> str:
        """What it reads of the reference, in words; numbers may change without computing that again."""
        sides = ", ".join(self.corrupted_sides)
        of = "single answers" if self.unpaired else "pairs"
        words = "spans" if self.section.spans else "answers"
        return f"{of}, {words}; KL: {self.kl}; corrupted: {sides}; log-probs: {self.reference}"

    @property
    def unpaired(self) -> bool:
        """Whether it takes single answers (KTO)."""
        return any(LOSSES[name].unpaired for name in self.losses)

    @property
    def reference(self) -> bool:
        """Whether it reads the reference's log-probs."""
        terms_read = bool(self.section.anchor or self.section.visual.weight)
        return terms_read or any(LOSSES[name].reference for name in self.losses)

    @property
    def kl(self) -> str:
        """Where the reference's distribution is needed: ``""`` nowhere, ``span`` or ``completion`` of the chosen
        side, ``both`` at every token of both sides."""
        if any(LOSSES[name].both_kl for name in self.losses):
            return "both"
        return self.section.kl.scope if self.section.kl.weight else ""

    @property
    def corrupted_sides(self) -> tuple[str, ...]:
        """The sides that are scored on the corrupted images as well."""
        if not self.section.visual.weight:
            return ()
        return {"swap": ("chosen", "rejected"), "chosen": ("chosen",), "cross": ("rejected",)}[self.section.visual.form]


def objective(section: AlignSection) -> Objective:
    """The objective of a section.

    Raises LossError for an unknown loss, and for a combination that does not make sense, with the reason.
    """
    whole = Objective(section, weights(section.loss))
    for problem in _problems(whole):
        raise LossError(problem)
    return whole


def weights(loss: str) -> dict[str, float]:
    """The losses of ``align.loss`` with their weights: ``dpo``, or ``0.8 dpo + 0.2 ipo`` (also ``0.8*dpo``).

    Raises LossError for a loss that there is not (naming the nearest), one named twice, or a weight that is not
    a positive number.
    """
    found: dict[str, float] = {}
    for part in loss.split("+"):
        words = part.replace("*", " ").split()
        try:
            *number, name = words
            weight = float(*number) if number else 1.0
        except (ValueError, TypeError):
            raise LossError(
                f"align.loss is {loss!r}; write one loss, or a sum of them with weights such as `0.8 dpo + 0.2 ipo`"
            ) from None
        if name not in LOSSES:
            raise LossError(f"align.loss names `{name}`{nearest(name, LOSSES) or '.'} There are {', '.join(LOSSES)}.")
        if name in found or not 0 < weight < math.inf:
            raise LossError(f"align.loss is {loss!r}: give each loss once, with a weight above 0")
        found[name] = weight
    return found


def _problems(whole: Objective) -> list[str]:
    section, losses = whole.section, whole.losses
    named = {name: LOSSES[name] for name in losses}
    free = [name for name, loss in named.items() if not loss.reference]
    problems = []
    if whole.unpaired and len(losses) > 1:
        problems.append("kto takes single answers, the other losses pairs: they cannot be summed; use kto alone")
    if section.visual.weight and whole.unpaired:
        problems.append(
            "a visual term ranks the two answers of a pair, and kto has single ones; set align.visual.weight 0"
        )
    if section.visual.weight and free:
        problems.append(
            f"a visual term ranks log-ratios to the reference, and {free[0]} has no reference; set "
            "align.visual.weight 0, or use a loss with one"
        )
    if section.anchor and free:
        problems.append(
            f"align.anchor holds up a log-ratio to the reference, and {free[0]} has no reference; use align.nll"
        )
    if section.spans:
        for name, loss in named.items():
            if loss.whole:
                problems.append(f"{name} cannot be taken over spans, since {loss.whole}; set align.spans false")
    elif section.kl.weight and section.kl.scope == "span":
        problems.append(
            "align.kl.scope is span, but align.spans is false: set align.spans true, or align.kl.scope completion"
        )
    if section.label_smoothing and not any(loss.smooths for loss in named.values()):
        smoothing = [name for name, loss in LOSSES.items() if loss.smooths]
        problems.append(
            f"align.label_smoothing is {section.label_smoothing:g}, which {', '.join(losses)} does not know; the "
            f"losses that do are {', '.join(smoothing)}"
        )
    problems += [
        f"{name} needs align.label_smoothing above 0 (its authors take 1e-3)"
        for name, loss in named.items()
        if loss.needs_smoothing and not section.label_smoothing
    ]
    return problems


class Sides(NamedTuple):
    """The scored answers of a batch of pairs, or (KTO) of single answers."""

    chosen: Scored
    rejected: Scored
    weight: Tensor
    """(B,) weight of each pair; for unpaired objectives of each row, the desirable ones first."""
    kl: Tensor | None = None
    """(Bk,) log-ratios of mismatched rows (KTO)."""
    grounded: Tensor | None = None
    """(G,) int64: the pairs that have corrupted images; None without a visual term."""
    corrupted_chosen: Scored | None = None
    """(G, T) the chosen answers of those pairs on the corrupted images."""
    corrupted_rejected: Scored | None = None
    """(G, T) the rejected answers on them."""


class Evaluated(NamedTuple):
    """An objective's value on a batch."""

    loss: Tensor
    """Scalar: the mean over pairs (rows for KTO) of the weighted sum of all terms."""
    chosen_reward: Tensor
    """(Bc,) of the heaviest ranking loss, without gradient."""
    rejected_reward: Tensor
    """(Br,)."""
    terms: dict[str, Tensor]
    """Each term by its name before its weight, without gradient: a value for each row that has one."""
    visual_margin: Tensor | None
    """(G,) reward of what the visual term ranks higher minus the other's; None without such a term."""


def evaluate(whole: Objective, sides: Sides) -> Evaluated:
    """The value of an objective on a batch, its mean over pairs weighted by ``sides.weight``."""
    section = whole.section
    parts: dict[str, tuple[float, Tensor]] = {}
    results: dict[str, PreferenceLoss] = {}
    for name, weight in whole.losses.items():
        results[name] = LOSSES[name].loss(sides.chosen, sides.rejected, section, sides.kl)
        parts[name] = weight, results[name].loss * sides.weight
    first = results[max(whole.losses, key=lambda name: whole.losses[name])]
    good = sides.weight[: len(sides.chosen.mask)]  # all pairs; of unpaired rows the desirable ones
    if section.nll:
        parts["nll"] = section.nll, terms.nll(sides.chosen) * good
    if section.anchor:
        parts["anchor"] = section.anchor, terms.anchor(sides.chosen, beta=section.beta) * good
    if section.kl.weight:
        # rows of KTO that are all undesirable have no chosen side to take a divergence of
        held = terms.divergence(sides.chosen, forward=section.kl.forward) * good if len(good) else good
        parts["kl"] = section.kl.weight, held
    margin = None
    if section.visual.weight:
        value = margin = first.chosen_reward.new_zeros(0)
        if sides.grounded is not None:
            better, worse = _visual(section.visual.form, sides, sides.grounded)
            seen = terms.ranked(better, worse, beta=section.beta, hinged=section.visual.hinged)
            value = seen.loss * sides.weight[sides.grounded]
            margin = seen.chosen_reward - seen.rejected_reward
        parts["visual"] = section.visual.weight, value
    # means over all rows: a pair without corrupted images has no visual term (h = 0), and still counts
    rows = len(sides.weight)
    loss = torch.stack([weight * value.sum() / rows for weight, value in parts.values()]).sum()
    values = {name: value.detach() for name, (_, value) in parts.items()}
    return Evaluated(loss, first.chosen_reward, first.rejected_reward, values, margin)


def _visual(form: str, sides: Sides, grounded: Tensor) -> tuple[Scored, Scored]:
    """What a visual term ranks higher, and what lower, over the pairs that have corrupted images."""
    if form == "swap":  # (v', r) over (v', c)
        assert sides.corrupted_rejected is not None
        assert sides.corrupted_chosen is not None
        return sides.corrupted_rejected, sides.corrupted_chosen
    lower = sides.corrupted_chosen if form == "chosen" else sides.corrupted_rejected
    assert lower is not None
    return sides.chosen.rows(grounded), lower
