"""How sure a model was of an answer, and the four cells that this and its correctness make.

The CheXPO paper mines "failures by token confidence"; how tokens are aggregated and where the cut lies is in no
public source, so that both are settings here. Cuts are quantiles of the answers at hand: a probability of 0.9 means
different things in different models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp
from statistics import fmean
from typing import get_args

import numpy as np

from radpref.records import Cell, Judgement, Record, Span, TokenScores
from radpref.tasks.answers import polarity, stated

CELLS: tuple[Cell, ...] = get_args(Cell)
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Where the sensitivity to the quantile is looked at."""

_WORD = re.compile(r"[^\W_]+")

RULES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "mean": lambda logps, margins: fmean(map(exp, logps)),
    "minimum": lambda logps, margins: exp(min(logps)),
    "geometric": lambda logps, margins: exp(fmean(logps)),
    "margin": lambda logps, margins: fmean(margins),
}
"""Rule to (log-probs, margins) of the tokens that count -> confidence in [0, 1]."""


def confidence(scores: TokenScores, rule: str, over: Span | None = None) -> float | None:
    """The confidence of an answer, in [0, 1]; None where no token counts.

    ``rule`` is a key of ``RULES``. ``over`` keeps the tokens that write at least one of its characters; without it
    all tokens count, the end token included.
    """
    starts = (0, *scores.ends)[: len(scores.ends)]
    kept = [
        t
        for t, (start, end) in enumerate(zip(starts, scores.ends, strict=True))
        if over is None or (start < over.end and end > over.start)
    ]
    if not kept:
        return None
    return RULES[rule]([scores.logps[t] for t in kept], [scores.margins[t] for t in kept])


def answer_span(text: str, reference: str) -> Span | None:
    """Where in ``text`` the model's own short answer stands, whether it is right or not; None where there is none.

    It is found as ``tasks.matches`` finds it: to a reference of yes or no the first word that says either, else what
    the text states (after its last mark of an answer, or its first sentence).
    """
    said = stated(text)
    start = text.rfind(said) if said else -1
    if start < 0:
        return None
    first = _WORD.search(reference)
    if first and polarity(first[0]):
        for word in _WORD.finditer(text, start):
            if polarity(word[0]):
                return Span(start=word.start(), end=word.end())
    return Span(start=start, end=start + len(said))


def correct_reports(judgements: Iterable[Judgement], rule: str, quantile: float = 0.5) -> dict[str, bool]:
    """Question id to whether its report counts as right; reports without a score are left out.

    ``rule`` ``errors``: a report with any significant error is wrong. ``score``: one below the ``quantile`` of the
    scores is. A judge that names no errors knows only the second rule.
    """
    if rule == "errors":
        scored = (row for row in judgements if row.score is not None)
        return {row.question: not any(error.significant for error in row.errors) for row in scored}
    scores = {row.question: row.score for row in judgements if row.score is not None}
    low = float(np.quantile(list(scores.values()), quantile)) if scores else 0.0
    return {question: score >= low for question, score in scores.items()}


def cut(confidences: Sequence[float], quantile: float) -> float:
    """The confidence below which that share of the answers lies (linear between neighbours); NaN for no answers."""
    return float(np.quantile(confidences, quantile)) if len(confidences) else float("nan")


def cell(correct: bool, confidence: float, cut: float) -> Cell:
    """The cell of an answer; at the cut it is confident."""
    sure = confidence >= cut
    if correct:
        return "right-confident" if sure else "right-unsure"
    return "wrong-confident" if sure else "wrong-unsure"


def cells(
    correct: Mapping[str, bool],
    confidences: Mapping[str, float],
    quantile: float,
    groups: Mapping[str, str] | None = None,
) -> tuple[dict[str, Cell], dict[str, float]]:
    """The cell of every answer that has both, and the cut of each group of answers that are compared (all: one)."""
    known = [id for id in confidences if id in correct]
    group = {id: groups[id] if groups else "" for id in known}
    cuts = {
        name: cut([confidences[id] for id in known if group[id] == name], quantile)
        for name in sorted(set(group.values()))
    }
    return {id: cell(correct[id], confidences[id], cuts[group[id]]) for id in known}, cuts


class Moved(Record):
    """What another quantile would make of the answers."""

    quantile: float
    cuts: dict[str, float]
    """By group of answers that are compared."""
    counts: dict[str, int]
    """Answers in each cell."""
    hard: int
    overlap: float
    """Jaccard index with the hard set at the quantile in use; 1 for two empty sets."""


def sensitivity(
    correct: Mapping[str, bool],
    confidences: Mapping[str, float],
    quantile: float,
    hard: Sequence[Cell],
    groups: Mapping[str, str] | None = None,
    quantiles: Sequence[float] = QUANTILES,
) -> list[Moved]:
    """How cells and hard set (the answers in the cells ``hard``) change when the quantile moves."""

    def at(q: float) -> tuple[dict[str, Cell], dict[str, float], set[str]]:
        found, cuts = cells(correct, confidences, q, groups)
        return found, cuts, {id for id, name in found.items() if name in hard}

    here = at(quantile)[2]
    rows = []
    for q in sorted({*quantiles, quantile}):
        found, cuts, own = at(q)
        union = len(here | own)
        names = list(found.values())
        rows.append(
            Moved(
                quantile=q,
                cuts=cuts,
                counts={name: names.count(name) for name in CELLS},
                hard=len(own),
                overlap=len(here & own) / union if union else 1.0,
            )
        )
    return rows
