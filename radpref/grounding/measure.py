"""A model's grounding as metrics, tests and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from radpref.config import CorruptSection
from radpref.grounding.causal import SCOPES, drops
from radpref.grounding.looking import SOURCES, Query, looks
from radpref.grounding.metrics import over_layers, pass_at
from radpref.grounding.summary import Value, mean_metric, paired_mean
from radpref.grounding.targets import targets
from radpref.images import read_image
from radpref.models import Vlm
from radpref.records import Comparison, Drop, Grounded, ImageFile, Look, Metric, Quarantined, Question, Scope

Measure = Literal["ratio", "kl", "js", "hit"]
MEASURES: dict[Measure, str] = {
    "ratio": "attention ratio",
    "kl": "KL(mask || attention)",
    "js": "JS divergence",
    "hit": "pointing game",
}
INPAINT = CorruptSection(operator="inpaint")


@dataclass(frozen=True)
class Grounding:
    """What was measured of one model."""

    metrics: list[Metric]
    tests: list[Comparison]
    looks: list[Look] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    """Targets that could not be measured, and marked findings that the answers do not state; ids may stand twice,
    once for attention and once for the causal test."""


def measure_grounding(
    vlm: Vlm,
    questions: Sequence[Question],
    *,
    system: str,
    answers: Mapping[str, str] | None = None,
    attention: bool = True,
    query: Query = "words",
    section: CorruptSection = INPAINT,
    placements: int = 4,
    batch: int = 32,
    resamples: int = 1000,
    seed: int = 17,
    known: Sequence[Look | Drop] = (),
    keep: Callable[[Look | Drop], None] = lambda row: None,
    read: Callable[[ImageFile], Image.Image] = read_image,
) -> Grounding:
    """Attention and the causal test for every finding that an image marks and the answer states.

    ``answers`` (question id to text) are the reference reports where they are left out: the same words for every
    model. ``attention`` False leaves attention out: the causal test needs no knowledge of a family's geometry.
    ``keep`` is called with each row as soon as it is there, and ``known`` are rows that an earlier, cut-off call gave
    to it: their targets are not computed again. ``looks`` and ``drops`` say what the other arguments are.

    Raises ModelError for a family whose attention cannot be read or mapped to the image.
    """
    wanted, quarantined = targets(questions, answers)
    seen = {row.id: row for row in known if isinstance(row, Look) and row.system == system}
    dropped = {row.id: row for row in known if isinstance(row, Drop) and row.system == system}
    looked = {row.target for row in seen.values()}
    for look in looks(vlm, wanted if attention else [], system=system, query=query, read=read, done=looked):
        if isinstance(look, Quarantined):
            quarantined.append(look)
            continue
        keep(look)
        seen[look.id] = look
    scopes = [{row.target for row in dropped.values() if row.scope == scope} for scope in SCOPES]
    whole = set.intersection(*scopes)  # a target whose rows were cut apart is computed again, with the same ids
    for rows in drops(
        vlm, wanted, system=system, section=section, placements=placements, batch=batch, read=read, done=whole
    ):
        if isinstance(rows, Quarantined):
            quarantined.append(rows)
            continue
        for row in rows:
            if row.id not in dropped:
                keep(row)
            dropped[row.id] = row
    order = {target.id: place for place, target in enumerate(wanted)}
    all_looks = sorted((row for row in seen.values() if row.target in order), key=lambda row: order[row.target])
    all_drops = sorted(
        (row for row in dropped.values() if row.target in order), key=lambda row: (order[row.target], row.scope)
    )
    return Grounding(
        [
            *look_metrics(all_looks, resamples=resamples, seed=seed),
            *drop_metrics(all_drops, resamples=resamples, seed=seed),
        ],
        drop_tests(all_drops, resamples=resamples, seed=seed),
        all_looks,
        all_drops,
        quarantined,
    )


def ground_question(
    vlm: Vlm,
    question: Question,
    *,
    system: str,
    among: Sequence[Question],
    attention: bool = True,
    section: CorruptSection = INPAINT,
    placements: int = 4,
    batch: int = 32,
) -> Grounded:
    """Attention and the causal test for every finding that the images of one question mark and its reference states.

    The words are the reference's, the same for every system. ``among`` are all questions that are measured: another
    patient's mask is taken from them. ``looks`` and ``drops`` say what the other arguments are.

    Raises ModelError for a family whose attention cannot be read or mapped to the image.
    """
    wanted, lost = targets([question])
    others = targets(among)[0]
    ids = {target.id for target in wanted}
    done = {target.id for target in others} - ids
    seen = list(looks(vlm, others, system=system, done=done)) if attention else []
    dropped = list(drops(vlm, wanted, system=system, section=section, placements=placements, batch=batch))
    lost += [row for row in (*seen, *dropped) if isinstance(row, Quarantined)]
    return Grounded(
        id=f"{system}:{question.id}",
        system=system,
        looks=tuple(row for row in seen if isinstance(row, Look)),
        drops=tuple(row for rows in dropped if not isinstance(rows, Quarantined) for row in rows),
        lost=tuple(lost),
    )


def look_metrics(rows: Sequence[Look], *, resamples: int = 1000, seed: int = 17) -> list[Metric]:
    """Every measure for every source: by layer (``ratio_layer-3``) and as the mean over layers (``ratio_mean``).

    The system is ``{system}: {source}`` (``SOURCES``). Targets count alike; intervals are over
    patients.
    """
    found: list[Metric] = []
    for system in dict.fromkeys(row.system for row in rows):
        mine = [row for row in rows if row.system == system]
        shares = [Value(row.patient, over_layers(row.share)) for row in mine]
        found.append(mean_metric(system, "image_share_mean", shares, resamples=resamples, seed=seed))
        for source in SOURCES:
            some = [row for row in mine if source in row.agreement]
            name = f"{system}: {source}"
            for measure in MEASURES:
                table = [(row.patient, [getattr(layer, measure) for layer in row.agreement[source]]) for row in some]
                means = [Value(patient, over_layers(layers)) for patient, layers in table]
                found.append(mean_metric(name, f"{measure}_mean", means, resamples=resamples, seed=seed))
                depth = max((len(layers) for _, layers in table), default=0)
                for layer in range(depth if depth > 1 else 0):
                    values = [Value(patient, layers[layer]) for patient, layers in table]
                    found.append(mean_metric(name, f"{measure}_layer-{layer}", values, resamples=resamples, seed=seed))
    return found


def drop_metrics(rows: Sequence[Drop], *, resamples: int = 1000, seed: int = 17) -> list[Metric]:
    """Mean nats by scope: ``drop_words`` (lesion removed), ``control_words`` (elsewhere), ``effect_words``.

    ``won_words`` is the share of targets that lose more by the lesion than by the patch elsewhere (.5 is chance).
    """
    found: list[Metric] = []
    for system in dict.fromkeys(row.system for row in rows):
        for scope in SCOPES:
            some = [row for row in rows if row.system == system and row.scope == scope]
            columns = {
                "drop": [row.drop for row in some],
                "control": [row.control for row in some],
                "effect": [row.effect for row in some],
                "won": [0.5 + 0.5 * ((row.effect > 0) - (row.effect < 0)) for row in some],
                "changed": [row.changed for row in some],
                "changed_elsewhere": [row.changed_elsewhere for row in some],
            }
            for name, values in columns.items():
                pairs = [Value(row.patient, value) for row, value in zip(some, values, strict=True)]
                found.append(mean_metric(system, f"{name}_{scope}", pairs, resamples=resamples, seed=seed))
    return found


def drop_tests(rows: Sequence[Drop], *, resamples: int = 1000, seed: int = 17) -> list[Comparison]:
    """For each system and scope the paired test of the lesion's removal against that of an equal patch elsewhere."""
    found = []
    for system in dict.fromkeys(row.system for row in rows):
        for scope in SCOPES:
            some = {row.target: row for row in rows if row.system == system and row.scope == scope}
            test = paired_mean(
                f"drop_{scope}",
                (f"{system}: elsewhere", {key: row.control for key, row in some.items()}),
                (f"{system}: lesion", {key: row.drop for key, row in some.items()}),
                {key: row.patient for key, row in some.items()},
                resamples=resamples,
                seed=seed,
            )
            found += [test] if test else []
    return found


def compare_effects(
    before: Sequence[Drop], after: Sequence[Drop], scope: Scope = "words", *, resamples: int = 1000, seed: int = 17
) -> Comparison | None:
    """The paired difference in ``effect`` between two systems, over the targets that both were measured on."""
    old, new = ({row.target: row for row in rows if row.scope == scope} for rows in (before, after))
    if not (old and new):
        return None
    return paired_mean(
        f"effect_{scope}",
        (next(iter(old.values())).system, {key: row.effect for key, row in old.items()}),
        (next(iter(new.values())).system, {key: row.effect for key, row in new.items()}),
        {key: row.patient for key, row in old.items()},
        resamples=resamples,
        seed=seed,
    )


def pass_metrics(
    system: str,
    right: Mapping[str, Sequence[bool | None]],
    patients: Mapping[str, str],
    ks: Sequence[int] = (1, 4),
    *,
    resamples: int = 1000,
    seed: int = 17,
) -> list[Metric]:
    """``pass@k`` over judged samples: question id to whether each sample is right, None where it was not judged.

    Unjudged samples count neither way; a question with fewer than k judged ones has no pass@k and lowers its n.
    """
    judged = {key: [bool(value) for value in samples if value is not None] for key, samples in right.items()}
    return [
        mean_metric(
            system,
            f"pass@{k}",
            [
                Value(patients[key], pass_at(len(samples), sum(samples), k) if len(samples) >= k else None)
                for key, samples in judged.items()
            ],
            resamples=resamples,
            seed=seed,
        )
        for k in ks
    ]


def causal_table(metrics: Sequence[Metric], tests: Sequence[Comparison]) -> str:
    """The causal test as Markdown: a line a system and scope, nats with 95 % intervals over patients."""
    cells = {(metric.system, metric.name): metric for metric in metrics}
    p = {(test.after.removesuffix(": lesion"), test.name): test.p for test in tests}
    lines = [
        "| model | of | lesion removed | patch elsewhere | difference | share lost more | p | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system in dict.fromkeys(metric.system for metric in metrics if metric.name == "effect_words"):
        for scope in SCOPES:
            row = [cells.get((system, f"{name}_{scope}")) for name in ("drop", "control", "effect", "won")]
            test = p.get((system, f"drop_{scope}"))
            n = max((cell.n for cell in row if cell), default=0)
            shown = " | ".join(_cell(cell) for cell in row)
            lines.append(f"| {system} | {scope} | {shown} | {'' if test is None else f'{test:.3f}'} | {n} |")
    return "\n".join(lines)


def attention_table(metrics: Sequence[Metric], layer: str = "mean") -> str:
    """Attention against masks as Markdown: systems and their trivial maps down, measures across.

    ``layer`` is ``mean`` or ``layer-3``; maps without layers show their only value.
    """
    cells = {(metric.system, metric.name): metric for metric in metrics}
    systems = dict.fromkeys(metric.system for metric in metrics if metric.name == "ratio_mean")
    names = [name.replace("||", "\\|\\|") for name in MEASURES.values()]
    lines = ["| map | " + " | ".join(names) + " | n |", "|---" * (len(names) + 2) + "|"]
    shown: dict[str, str] = {}
    for system in systems:
        row = [cells.get((system, f"{name}_{layer}")) or cells.get((system, f"{name}_mean")) for name in MEASURES]
        n = max((cell.n for cell in row if cell), default=0)
        shown[system] = " | ".join(_cell(cell) for cell in row) + f" | {n} |"
    trivial = {name: name.rpartition(": ")[2] for name in shown if name.endswith((": uniform", ": centre"))}
    once = {(label, shown[name]) for name, label in trivial.items()}  # several models on the same targets share them
    lines += [f"| {name} | {row}" for name, row in shown.items() if name not in trivial]
    return "\n".join([*lines, *(f"| *{label}* | {row}" for label, row in sorted(once))])


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "none"
    limits = f" ({metric.low:.3f} to {metric.high:.3f})" if metric.low is not None else ""
    return f"{metric.value:.3f}{limits}"
