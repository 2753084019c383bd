"""The definition of any metric by its name, and which of them head a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from radpref.evaluation import metrics, vqa_metrics
from radpref.evaluation.metrics import Array, Definition, Sums
from radpref.plugins import found


def _not_of_counts(sums: Sums) -> Array:
    """Grounding and style are measured with models and images, and others' metrics by themselves."""
    raise NotImplementedError("it is not summed from the counts of texts")


def _grounding(title: str, rule: str, better: Literal["higher", "lower", "neither"] = "higher") -> Definition:
    return Definition(title, f"{rule}; mean over findings with a mask, interval over patients", _not_of_counts, better)


GROUNDING = {
    "effect_words": _grounding(
        "Lesion effect, nats", "drop of the finding's words when their lesion is removed minus that of equal patches"
    ),
    "won_words": _grounding("Lesion before patch", "share of findings that lose more by the lesion's removal"),
    "drop_words": _grounding("Drop, lesion removed", "nats that the finding's words lose", "neither"),
    "control_words": _grounding("Drop, patch elsewhere", "nats that the same words lose", "neither"),
    "attention_ratio": _grounding("Attention ratio", "relative attention inside the mask over outside, all layers"),
    "attention_hit": _grounding("Pointing game", "share of layers whose strongest relative attention hits the mask"),
}
"""Metrics of ``radpref.grounding`` that head a table."""
STYLE = "style_nats_mean"
"""What the answers cost under the model before alignment."""
WORDING = {
    STYLE: Definition(
        "Style, nats a token",
        "-log p a token of an answer, end of turn included, under the model before alignment; mean over answers",
        _not_of_counts,
        "neither",
    )
}


def definition(name: str) -> Definition:
    """What a metric is called, how it averages, which direction is better. Raises KeyError for an unknown name."""
    known = {**metrics.METRICS, **GROUNDING, **WORDING, **added()}
    return known[name] if name in known else vqa_metrics.vqa_definition(name)


def added() -> dict[str, Definition]:
    """The metrics that other packages add, which are measured by them (``stages.evaluate``)."""
    rule = "mean over the questions that have a value, each alike; added by another package"
    return {name: Definition(name, rule, _not_of_counts, "neither") for name in found("metrics")}


def kept(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` whose counts a run keeps by patient: all but those under the second uncertain rule."""
    return tuple(name for name in dict.fromkeys(names) if not name.endswith("uncertain-negative"))


def headline(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that head a table, in its order: of reports, or of questions by task and by kind."""
    there = dict.fromkeys(names)
    by_group = [name for name in there if str(vqa_metrics.group_of(name)).startswith(("task=", "kind="))]
    ordered = (*metrics.HEADLINE, *vqa_metrics.HEADLINE, *GROUNDING, *WORDING, *added())
    fixed = [name for name in ordered if name in there]
    return (*fixed, *by_group)
