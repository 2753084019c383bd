"""Losses: every preference objective as a pure function of per-token log-probs.

``ranking`` holds the losses that prefer one answer to another, ``terms`` what can stand beside them, and
``objective`` puts them together as a recipe says. The functions know nothing of models, tokenisers or trainers:
they take the log-probs (and divergences) of the answers' tokens under the policy and under the frozen reference.
"""

from radpref.losses.objective import (
    LOSSES,
    Evaluated,
    LossError,
    Objective,
    Ranking,
    Sides,
    evaluate,
    objective,
)
from radpref.losses.ranking import (
    apo_down,
    apo_zero,
    cpo,
    discopop,
    dpo,
    dpo_norm,
    exo,
    hinge,
    ipo,
    kto,
    lc_dpo,
    ld_dpo,
    nca,
    orpo,
    robust,
    simpo,
    sppo,
    tdpo,
)
from radpref.losses.scored import PreferenceLoss, Scored
from radpref.losses.terms import anchor, divergence, nll, ranked

__all__ = [
    "LOSSES",
    "Evaluated",
    "LossError",
    "Objective",
    "PreferenceLoss",
    "Ranking",
    "Scored",
    "Sides",
    "anchor",
    "apo_down",
    "apo_zero",
    "cpo",
    "discopop",
    "divergence",
    "dpo",
    "dpo_norm",
    "evaluate",
    "exo",
    "hinge",
    "ipo",
    "kto",
    "lc_dpo",
    "ld_dpo",
    "nca",
    "nll",
    "objective",
    "orpo",
    "ranked",
    "robust",
    "simpo",
    "sppo",
    "tdpo",
]
