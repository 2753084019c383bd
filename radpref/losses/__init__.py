"""Losses: every preference objective as a pure function of per-token log-probs.

The functions know nothing of models, tokenisers or trainers: they take the log-probs of the answers' tokens
under the policy and under the frozen reference, and return one loss a row with the implied rewards. ``LOSSES``
is the one place that names them; an entry there is all that a new objective needs to be trained with.
"""

from radpref.losses.preference import (
    LOSSES,
    Knobs,
    Objective,
    PreferenceLoss,
    Scored,
    dpo,
    ipo,
    kto,
    lc_dpo,
    nll,
    orpo,
)

__all__ = [
    "LOSSES",
    "Knobs",
    "Objective",
    "PreferenceLoss",
    "Scored",
    "dpo",
    "ipo",
    "kto",
    "lc_dpo",
    "nll",
    "orpo",
]
