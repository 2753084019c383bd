"""Fill the page: from ``ReportData`` to one self-contained HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from radpref.evaluation import ERROR_KINDS, ERROR_METRICS, definition, headline
from radpref.images import ImageError, data_uri, thumbnail
from radpref.outside import shown
from radpref.records import Finding, ImageFile, Judgement, Metric, Pair, ReportError, Span
from radpref.report import charts, headroom
from radpref.report.data import PairView, ReportData, StudyView
from radpref.report.environment import asset, digest, environment
from radpref.report.marking import Mark, differing, marked
from radpref.report.verdict import direction, verdict

IMAGE_SIDE = 288
"""Pixels of an image's longer side in the page."""
IMAGE_BYTES = 3_500_000
"""Most bytes of all images in the page together, as they stand in it; images beyond are named, not shown."""
_MOST_DOTS = 1200
STUDY_KINDS = ("improved", "worse", "unchanged", "unscored")
PAIR_KINDS = ("chosen longer", "rejected longer", "same length")


@dataclass(frozen=True)
class Curve:
    """One chart of the training section: the log's keys that it draws, each with the class that colours it."""

    title: str
    keys: Mapping[str, tuple[str, str]]
    note: str = ""
    rule: float | None = None


CURVES: tuple[Curve, ...] = (
    Curve("Loss", {"loss": ("loss", "after")}),
    Curve("Reward", {"reward": ("reward", "after")}, "The judge's mean over the answers sampled in a step."),
    Curve(
        "Reward margin",
        {"reward_margin": ("margin", "after")},
        "Reward of the chosen minus that of the rejected side; 0 where the model is still the reference.",
        0.0,
    ),
    Curve(
        "Reward accuracy",
        {"reward_accuracy": ("accuracy", "after")},
        "Share of the pairs whose chosen side has the higher reward. Dashed: chance.",
        0.5,
    ),
    Curve(
        "Log-probability of both sides",
        {"chosen_logp": ("chosen", "chosen"), "rejected_logp": ("rejected", "rejected")},
        "The chosen side may fall too: the loss only asks that it falls less than the rejected side. A gentle fall "
        "is usual; a steep one of both means that the model leaves the language it knew. A smaller learning rate, a "
        "larger beta or the NLL anchor (align.nll) holds it.",
    ),
    Curve(
        "Order on the corrupted image",
        {"visual_accuracy": ("share of pairs in the wanted order", "after")},
        "The visual term's own accuracy. It can end below where it starts: what raises the chosen answer on the "
        "clean image raises it on the corrupted one too.",
        0.5,
    ),
    Curve("Margin on the corrupted image", {"visual_margin": ("margin", "after")}, "In rewards; 0 at the start.", 0.0),
    Curve(
        "Terms of the loss",
        {"term_visual": ("visual", "chosen"), "term_kl": ("KL", "rejected"), "term_nll": ("likelihood", "control")},
        "Before their weights.",
    ),
    Curve("KL to the reference", {"kl": ("KL", "after")}, "Per token, on the answers of the pairs."),
    Curve(
        "Length of both sides",
        {"chosen_tokens": ("chosen", "chosen"), "rejected_tokens": ("rejected", "rejected")},
        "Tokens. A standing gap is a preference that can be read off the length alone.",
    ),
    Curve("Gradient norm", {"grad_norm": ("norm", "after")}),
    Curve("Learning rate", {"learning_rate": ("rate", "after")}),
)
"""What the training section draws, where the log has it."""


def render(data: ReportData) -> str:
    """One HTML page that needs no other file and no network: styles, script, charts and images are inside.

    All text of the data is escaped. A Content-Security-Policy lets run only the page's own script, by its hash,
    and load nothing. Images are read from their files; one that cannot be read is shown as its reason.
    """
    style, script = asset("style.css"), asset("page.js")
    images = _Images(IMAGE_BYTES)
    template = environment().get_template("page.html.j2")
    studies = [_study(view, images) for view in data.studies]
    pairs = [_pair(view, images) for view in data.pairs]
    html = template.render(
        data=data,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        verdict=verdict(data),
        forest=_forest(data),
        headline=_table(data, headline(metric.name for metric in data.metrics)),
        everything=_table(data, list(dict.fromkeys(metric.name for metric in data.metrics))),
        tests=_tests(data),
        test_chart=_test_chart(data),
        labels=_labels(data),
        errors=_errors(data),
        training=[(log.name, _curves(log.rows)) for log in data.training],
        mining=_mining(data),
        headroom=headroom.shown(data.headroom) if data.headroom else None,
        length=_score_against_length(data.candidates),
        pair_charts=_pair_charts(data.scored_pairs),
        quarantined=Counter((row.stage, row.reason) for row in data.quarantined).most_common(),
        recipe=_recipe(data),
        choices=_choices(data),
        studies=studies,
        study_kinds=_counted(STUDY_KINDS, studies),
        pairs=pairs,
        pair_kinds=_counted(PAIR_KINDS, pairs),
        headline_title=definition(data.main).title,
        systems={data.before: "before", data.after: "after", data.control: "control"},
    )
    return shown(html)


def _words(text: str) -> int:
    return len(text.split())


# ------------------------------------------------------------------------------------------ results


def _systems(data: ReportData) -> tuple[list[str], list[str]]:
    """Systems in the order they come, models first and trivial baselines apart."""
    every = list(dict.fromkeys(metric.system for metric in data.metrics))
    return [name for name in every if name not in data.baselines], [name for name in every if name in data.baselines]


def _css(data: ReportData, system: str) -> str:
    known = {data.before: "before", data.after: "after", data.control: "control"}
    return known.get(system, "baseline" if system in data.baselines else "other")


def _forest(data: ReportData) -> Markup:
    models, trivial = _systems(data)
    metrics = {metric.system: metric for metric in data.metrics if metric.name == data.main}
    rows = [
        charts.Estimate(system, _css(data, system), value, metrics[system].low, metrics[system].high)
        for system in models + trivial
        if system in metrics and (value := metrics[system].value) is not None
    ]
    return charts.forest(rows, label=f"{definition(data.main).title} of each system with its interval")


def _table(data: ReportData, names: Sequence[str]) -> dict[str, Any]:
    """Metrics down, systems across; a metric that no system has is left out."""
    models, trivial = _systems(data)
    cells = {(metric.system, metric.name): metric for metric in data.metrics}
    tests = {row.name: row for row in data.comparisons if (row.before, row.after) == (data.before, data.after)}
    rows = []
    for name in names:
        row: list[Metric | None] = [cells.get((system, name)) for system in models + trivial]
        if not any(cell is not None and cell.value is not None for cell in row):
            continue
        about = definition(name)
        rows.append(
            {
                "name": name,
                "title": about.title,
                "rule": about.rule,
                "better": {"higher": "↑", "lower": "↓", "neither": ""}[about.better],
                "cells": row,
                "change": direction(tests[name]) if name in tests else "none",
                "n": max(cell.n for cell in row if cell is not None),
                "main": name == data.main,
            }
        )
    return {"systems": [(name, _css(data, name)) for name in models + trivial], "rows": rows, "after": data.after}


def _tests(data: ReportData) -> list[tuple[tuple[str, str], list[dict[str, Any]]]]:
    """The paired tests by pair of systems, in the order they come."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in data.comparisons:
        about = definition(row.name)
        cells = {"row": row, "title": about.title, "rule": about.rule, "change": direction(row)}
        groups.setdefault((row.before, row.after), []).append(cells)
    return list(groups.items())


def _test_chart(data: ReportData) -> Markup:
    """Differences after minus before of the metrics that share a scale."""
    heading = headline(row.name for row in data.comparisons)
    rows = [
        charts.Estimate(definition(row.name).title, direction(row), row.difference, row.low, row.high)
        for row in data.comparisons
        if (row.before, row.after) == (data.before, data.after) and row.name in heading
        if definition(row.name).better != "neither"
    ]
    return charts.forest(rows, label="Paired differences with their intervals", zero=True)


def _labels(data: ReportData) -> list[dict[str, Any]]:
    """One row a CheXpert class, most frequent first: positives, and F1 of each model."""
    systems = [name for name in (data.before, data.after, data.control) if name in data.labels]
    if not systems:
        return []
    by_name = {system: {score.name: score for score in data.labels[system]} for system in systems}
    rows = [
        {
            "name": score.name,
            "positives": score.positives,
            "scores": [(s, by_name[s].get(score.name)) for s in systems],
        }
        for score in data.labels[systems[0]]
    ]
    return sorted(rows, key=lambda row: -row["positives"])


def _errors(data: ReportData) -> dict[str, Any]:
    """GREEN's error kinds of each model, as totals and as bars per report."""
    systems = [name for name in (data.before, data.control, data.after) if name in data.errors]
    per_report = {(metric.system, metric.name): metric.value for metric in data.metrics}
    css = {system: _css(data, system) for system in systems}
    rows = []
    for name in ERROR_METRICS:
        values = {system: value for system in systems if (value := per_report.get((system, name))) is not None}
        rows.append((definition(name).title, values))
    chart = charts.bars(rows, css, label="Significant errors per report by kind", form=lambda value: f"{value:.2f}")
    totals = [
        (definition(name).title, [data.errors[system].get(kind, 0) for system in systems])
        for kind, name in zip(ERROR_KINDS, ERROR_METRICS, strict=True)
    ]
    return {"systems": list(css.items()), "chart": chart, "totals": totals if systems else []}


# ------------------------------------------------------------------------------------------ training and pairs


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    drawn = []
    for curve in CURVES:
        series = [
            charts.Series(
                name, css, [(float(row["step"]), float(row[key])) for row in rows if key in row and "step" in row]
            )
            for key, (name, css) in curve.keys.items()
        ]
        chart = charts.lines(series, x="step", label=curve.title, rule=curve.rule)
        if chart:
            legend = [(one.name, one.css) for one in series if one.points] if len(series) > 1 else []
            drawn.append({"title": curve.title, "chart": chart, "note": curve.note, "legend": legend})
    return drawn


def _mining(data: ReportData) -> dict[str, Any] | None:
    """The charts of mining, and its strata, those with the most hard questions first."""
    if data.mining is None:
        return None
    from radpref.report import mining

    found = data.mining
    drawn = [
        (
            "How hard is what was found?",
            mining.hits(found),
            "Share of wrong answers. Random: the whole pool. Unsure and confident: below and above the cut. "
            "Neighbours of hard questions stand beside random draws for the same questions; what was taken is wrong "
            "by choice, neighbours aside.",
        ),
        (
            "Rare findings",
            mining.tail(found),
            f"Share of the questions about {', '.join(found.tail) or 'rare findings (there are none)'}: in the pool, "
            "among hard questions, with their neighbours, and of what the budget takes without and with quotas.",
        ),
        ("Cells", mining.cells(found), f"A confidence below its {found.quantile:g} quantile counts as unsure."),
    ]
    if found.calibration:
        note = "Bins of equal mass. Dashed: confidence equals accuracy. The model saw these questions in training."
        drawn.append(("Calibration", mining.calibration(found.calibration), note))
    note = (
        "Were the cut elsewhere: the share of the answers that would be hard (brown), and how far these would be the "
        "same questions (blue, Jaccard)."
    )
    drawn.append(("Sensitivity to the cut", mining.sensitivity(found), note))
    return {
        "summary": found,
        "wrong": sum(n for name, n in found.cells.items() if name.startswith("wrong")),
        "charts": [(title, chart, note) for title, chart, note in drawn if chart],
        "strata": sorted(found.strata, key=lambda row: (-row.hard, -row.pool)),
    }


def _score_against_length(candidates: Sequence[Judgement]) -> dict[str, Any] | None:
    """The judge's score of the sampled candidates against their length relative to the reference."""
    points = [
        (row.words / row.reference_words, row.score)
        for row in candidates
        if row.score is not None and row.reference_words
    ]
    if not points:
        return None
    shown = points[:: -(-len(points) // _MOST_DOTS)]
    chart = charts.scatter(
        [charts.Series("candidates", "after", shown)],
        x="words / reference words",
        y="score",
        label="Judge score of each candidate against its length",
        rule_x=1.0,
    )
    return {"chart": chart, "n": len(points), "shown": len(shown), "correlation": _rank_correlation(np.array(points))}


def _rank_correlation(points: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    """Spearman's rho; None where one side does not vary."""
    if len(points) < 3 or np.ptp(points[:, 0]) == 0 or np.ptp(points[:, 1]) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(points[:, 0], points[:, 1]).statistic)


def _pair_charts(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Distributions of both sides' scores and lengths."""
    scores = [(pair.chosen_score, pair.rejected_score) for pair in pairs]
    scored = [(chosen, rejected) for chosen, rejected in scores if chosen is not None and rejected is not None]
    lengths = [(_words(pair.chosen), _words(pair.rejected)) for pair in pairs]
    drawn = []
    for title, x, values in (("Scores of both sides", "score", scored), ("Lengths of both sides", "words", lengths)):
        series = [
            charts.Series(name, name, [(float(value[side]), 0.0) for value in values])
            for side, name in enumerate(("chosen", "rejected"))
        ]
        chart = charts.histogram(series, x=x, label=title)
        if chart:
            means = [float(np.mean([value[side] for value in values])) for side in (0, 1)]
            drawn.append({"title": title, "chart": chart, "chosen": means[0], "rejected": means[1]})
    return drawn


def _recipe(data: ReportData) -> list[tuple[str, list[Any]]]:
    """The settings by section, in their order."""
    sections: dict[str, list[Any]] = {}
    for setting in data.recipe:
        sections.setdefault(setting.key.partition(".")[0], []).append(setting)
    return list(sections.items())


def _choices(data: ReportData) -> dict[str, Any]:
    names = list(dict.fromkeys(name for choice in data.selection for name in choice.scores))
    return {"names": names, "rows": data.selection}


# ------------------------------------------------------------------------------------------ browsers


def _counted(kinds: Sequence[str], items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many items there are of each kind, in the order of ``kinds``, those without any left out."""
    counts = Counter(item["kind"] for item in items)
    return {kind: counts[kind] for kind in kinds if counts[kind]}


class _Images:
    """Images as data URIs, each file once, until the page has enough of them."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._made: dict[tuple[str, int | None, int | None], dict[str, str]] = {}

    def show(self, images: Sequence[ImageFile]) -> list[dict[str, str]]:
        """Each image as ``{view, uri, problem}``; without ``uri`` it cannot be shown, and ``problem`` says why."""
        shown = []
        for image in images:
            key = (image.path, image.rows, image.cols)
            if key not in self._made:
                self._made[key] = self._read(image)
            shown.append(self._made[key])
        return shown

    def _read(self, image: ImageFile) -> dict[str, str]:
        try:
            uri = data_uri(thumbnail(image, IMAGE_SIDE), quality=72)
        except ImageError as error:
            return {"view": image.view, "uri": "", "problem": error.reason}
        if len(uri) > self._left:
            return {"view": image.view, "uri": "", "problem": "left out to keep this page small"}
        self._left -= len(uri)
        return {"view": image.view, "uri": uri, "problem": ""}


def _study(view: StudyView, images: _Images) -> dict[str, Any]:
    question = view.question
    removed, added = differing(view.before, view.after)
    wanted = {finding.name for finding in view.reference_findings if finding.presence != "absent"}
    columns = [
        {
            "title": "Reference",
            "css": "reference",
            "text": marked(question.reference, _error_marks(view.after_judgement, "reference")),
            "words": _words(question.reference),
            "score": None,
            "unscored": None,
            "findings": [
                _chip(finding, "plain") for finding in view.reference_findings if finding.presence != "absent"
            ],
            "denied": _denied(view.reference_findings),
            "errors": [],
        }
    ]
    for title, css, text, spans, judgement, findings in (
        ("Before", "before", view.before, removed, view.before_judgement, view.before_findings),
        ("After", "after", view.after, added, view.after_judgement, view.after_findings),
    ):
        marks = [Mark(span, f"differs {css}") for span in spans] + _error_marks(judgement, "candidate")
        columns.append(
            {
                "title": title,
                "css": css,
                "text": marked(text, marks),
                "words": _words(text),
                "score": judgement.score if judgement else None,
                "unscored": judgement.unscored if judgement else None,
                "findings": _chips(findings, wanted),
                "denied": _denied(findings),
                "errors": [_error(error) for error in judgement.errors] if judgement else [],
            }
        )
    change = _change(view)
    return {
        "id": question.study,
        "prompt": question.prompt,
        "asked": bool(question.answer),
        "images": images.show(question.images),
        "columns": columns,
        "truth": None if question.truth is None else [_chip(finding, "plain") for finding in question.truth],
        "change": change,
        "kind": "unscored"
        if change is None
        else "unchanged"
        if abs(change) < 1e-9
        else "improved"
        if change > 0
        else "worse",
    }


def _pair(view: PairView, images: _Images) -> dict[str, Any]:
    pair = view.pair
    chosen, rejected = differing(pair.chosen, pair.rejected)
    return {
        "id": pair.id,
        "prompt": pair.prompt,
        "images": images.show(pair.images),
        "corrupted": images.show(pair.corrupted),
        "corruption": pair.provenance.get("corruption_path", ""),
        "reference": marked(view.reference, ()),
        "reference_words": _words(view.reference),
        "chosen": marked(pair.chosen, [Mark(span, "differs chosen") for span in chosen]),
        "rejected": marked(pair.rejected, [Mark(span, "differs rejected") for span in rejected]),
        "chosen_words": _words(pair.chosen),
        "rejected_words": _words(pair.rejected),
        "chosen_score": pair.chosen_score,
        "rejected_score": pair.rejected_score,
        "kind": _longer_side(_words(pair.chosen), _words(pair.rejected)),
    }


def _longer_side(chosen: int, rejected: int) -> str:
    return "same length" if chosen == rejected else "chosen longer" if chosen > rejected else "rejected longer"


def _change(view: StudyView) -> float | None:
    scores = [judgement.score if judgement else None for judgement in (view.before_judgement, view.after_judgement)]
    return None if scores[0] is None or scores[1] is None else scores[1] - scores[0]


def _error_marks(judgement: Judgement | None, side: str) -> list[Mark]:
    """Where the judge saw errors: in the candidate's text, or what it misses in the reference's."""
    marks = []
    for error in judgement.errors if judgement else ():
        span: Span | None = error.candidate_span if side == "candidate" else error.reference_span
        if span is not None:
            marks.append(Mark(span, f"error {error.kind}", _error(error)["said"]))
    return marks


def _error(error: ReportError) -> dict[str, Any]:
    kind = error.kind.replace("_", " ")
    said = f"{kind}: {error.finding}" + (f" ({error.note})" if error.note else "")
    return {"kind": error.kind, "said": said, "significant": error.significant}


def _chips(findings: Sequence[Finding], wanted: set[str]) -> list[dict[str, str]]:
    """What a model claims, each against the reference by name, and what it leaves out."""
    claims = [finding for finding in findings if finding.presence != "absent"]
    missing = sorted(wanted - {finding.name for finding in claims})
    return [_chip(finding, "matched" if finding.name in wanted else "false") for finding in claims] + [
        {"text": name, "css": "missing", "title": "in the reference, not here"} for name in missing
    ]


def _chip(finding: Finding, css: str) -> dict[str, str]:
    titles = {"matched": "in the reference too", "false": "not in the reference", "plain": ""}
    words = (finding.severity, finding.side, finding.name)
    parts = [" ".join(word for word in words if word), finding.place, finding.change]
    hedge = "possible " if finding.presence == "uncertain" else ""
    return {"text": hedge + ", ".join(part for part in parts if part), "css": css, "title": titles[css]}


def _denied(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.name for finding in findings if finding.presence == "absent"))
