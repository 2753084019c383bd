"""Grounding, measured: does a model look at the lesion, and does its answer depend on it?

``looks`` holds attention, layer by layer, against the lesion's mask; ``drops`` is the causal test, which removes the
lesion from the image; ``measure_grounding`` does both for a model and gives metrics with intervals and tests.
Equations, sources and traps: docs/grounding.md.
"""

from radpref.grounding.attention import attention_maps, watched
from radpref.grounding.causal import GroundingError, drops, token_logps
from radpref.grounding.evidence import locate
from radpref.grounding.geometry import Geometry, ImageTokens, image_tokens, inside, to_grid, to_image
from radpref.grounding.looking import GENERAL, looks
from radpref.grounding.measure import (
    Grounding,
    attention_table,
    causal_table,
    compare_effects,
    drop_metrics,
    drop_tests,
    ground_question,
    look_metrics,
    measure_grounding,
    pass_metrics,
)
from radpref.grounding.metrics import attention_ratio, js, kl, pass_at, pointing, relative, reward_share
from radpref.grounding.providers import providers_of
from radpref.grounding.summary import Value, mean_metric, paired_mean
from radpref.grounding.table import tabled
from radpref.grounding.targets import Target, targets

__all__ = [
    "GENERAL",
    "Geometry",
    "Grounding",
    "GroundingError",
    "ImageTokens",
    "Target",
    "Value",
    "attention_maps",
    "attention_ratio",
    "attention_table",
    "causal_table",
    "compare_effects",
    "drop_metrics",
    "drop_tests",
    "drops",
    "ground_question",
    "image_tokens",
    "inside",
    "js",
    "kl",
    "locate",
    "look_metrics",
    "looks",
    "mean_metric",
    "measure_grounding",
    "paired_mean",
    "pass_at",
    "pass_metrics",
    "pointing",
    "providers_of",
    "relative",
    "reward_share",
    "tabled",
    "targets",
    "to_grid",
    "to_image",
    "token_logps",
    "watched",
]
