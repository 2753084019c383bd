"""The model card of a checkpoint: README.md as hubs read it, from what a run knows and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from radpref.config import Recipe, flatten
from radpref.records import Metric

LIMITS = (
    "For research only. This is no medical device: it has been cleared by no authority, and nothing that it says may "
    "be used in the care of a patient.",
    "It writes fluent reports that may be wrong, leave findings out, or name findings that are not there, and it does "
    "not say when it is unsure.",
    "Its preferences come from automatic judges and not from radiologists. A judge's mistakes are learnt with its "
    "verdicts.",
    "What it saw in training is listed above. On other machines, views, ages or places it has not been measured.",
)
"""What holds for every model that radpref trains."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says. Empty fields are left out of it."""

    name: str
    base: str
    """Name of the model that training started from."""
    adapter: bool = False
    """Whether the folder holds an adapter of the base and no model of its own."""
    method: str = ""
    """What was done, in a sentence."""
    data: Mapping[str, int] = field(default_factory=dict)
    """Counts: studies, patients, pairs, quarantined rows ... by their names."""
    source: str = ""
    """Where the data come from, and whether they are synthetic."""
    metrics: Sequence[Metric] = ()
    """Measured on the test split; each with its interval."""
    recipe: str = ""
    """The recipe as YAML, without paths of the machine."""
    license: str = ""
    """An identifier of the hub, such as apache-2.0; the base's own holds where it is empty."""
    limits: Sequence[str] = ()
    """What holds for this model besides ``LIMITS``."""


def facts_of_recipe(name: str, recipe: Recipe, data: Mapping[str, int], metrics: Sequence[Metric]) -> CardFacts:
    """What a recipe tells of the model that it made; paths of the machine are nobody's business."""
    drawn = " (drawn patients, who do not exist)" if recipe.data.source == "phantom" else ""
    plain = {key: value for key, value in flatten(recipe.model_dump(mode="json")) if not str(value).startswith("/")}
    return CardFacts(
        name=name,
        base=Path(recipe.model.path).name,
        method=f"Aligned with preferences by the method {recipe.method} ({recipe.align.loss}).",
        data=data,
        source=f"Source of the data: {recipe.data.source}{drawn}.",
        metrics=metrics,
        recipe="\n".join(f"{key}: {value}" for key, value in plain.items()),
    )


def model_card(facts: CardFacts) -> str:
    """README.md in Markdown with the hub's YAML head: data counts, metrics with intervals, recipe, limits."""
    head = {
        "base_model": facts.base,
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": facts.license,
        "tags": "[radiology, chest-x-ray, preference-alignment, research-only]",
    }
    lines = ["---", *(f"{key}: {value}" for key, value in head.items() if value), "---", "", f"# {facts.name}", ""]
    kind = "An adapter (PEFT) of" if facts.adapter else "A model trained from"
    lines += [f"{kind} `{facts.base}`, made with radpref. **Research only.**"]
    if facts.method:
        lines += ["", facts.method]
    if facts.data or facts.source:
        lines += ["", "## Data", ""]
        lines += [facts.source, ""] if facts.source else []
        lines += _table(("", "n"), [(name, f"{count:,}") for name, count in facts.data.items()])
    lines += ["", "## Measured", ""]
    if facts.metrics:
        known = [metric for metric in facts.metrics if metric.value is not None]
        lines += _table(("who", "metric", "value", "95 % interval", "n"), [_measured(metric) for metric in known])
    else:
        lines += ["Nothing was measured."]
    lines += ["", "## Limits", "", *(f"- {text}" for text in (*LIMITS, *facts.limits))]
    if facts.recipe:
        lines += ["", "## Recipe", "", "```yaml", facts.recipe.strip(), "```"]
    return "\n".join(lines) + "\n"


def _measured(metric: Metric) -> tuple[str, ...]:
    interval = "not computed" if metric.low is None or metric.high is None else f"{metric.low:.3g} to {metric.high:.3g}"
    return metric.system, metric.name, f"{metric.value:.3g}", interval, f"{metric.n:,} {metric.unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines]
