"""Where a judge can be fooled: a battery of corruptions and tricks, and how each judge scores them.

The references are anybody's reports. That a corrupted reference scores below the untouched one says little: whatever
compares words manages that. So each corruption is also held against the reference told in other words, which says the
same (`reword`): a judge of content ranks it above the corruption, a judge of words below. An exploit is held against
the honest report that it was played on, and passes where it gains nothing (`exploits.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from radpref.judges.auditing.corruptions import CORRUPTIONS, reword, told
from radpref.judges.auditing.exploits import EXPLOITS, SHORT, TRUE_OF_NORMALS, halved
from radpref.judges.case import Case
from radpref.judges.contract import Judge

REFERENCE = "reference"
HALF = "half-told report"
WHOLE = "whole report, reworded"
"""What a corruption or an exploit is made from."""
REWORDING = "honest rewording"
_RESAMPLES = 2000
_TIE = 1e-9


@dataclass(frozen=True)
class Trial:
    """One corrupted report, and the honest ones that it should not outrank."""

    corruption: str
    made_from: str
    reference: str
    honest: str
    """What it was made from."""
    corrupted: str
    reworded: str | None = None
    """The same as ``honest`` in other words."""


@dataclass(frozen=True)
class Row:
    """What one judge makes of one corruption."""

    judge: str
    corruption: str
    made_from: str
    n: int
    """Trials in which both reports were scored."""
    mean: float
    """Mean score of the corrupted reports, 0 to 1."""
    low: float
    high: float
    """Bootstrap interval of 95 % of the mean, over reports."""
    honest: float
    """Mean score of the honest reports."""
    below: float
    """Share of the corrupted reports scored below the honest one."""
    above: float
    """Share scored above it: of an exploit, where it gains. One that is unscored does not gain."""
    below_reworded: float | None
    """Share scored below the honest one told in other words; None where there is no such text."""
    unscored: int


def battery(references: Iterable[str], seed: int = 0) -> list[Trial]:
    """Every corruption and exploit that applies to each reference. Chance follows from the seed and the text alone."""
    trials = []
    for reference in references:
        reworded = reword(reference, _chance(seed, REWORDING, reference))
        if reworded is not None:
            trials.append(Trial(REWORDING, REFERENCE, reference, reference, reworded))
        for name, corrupt in CORRUPTIONS.items():
            corrupted = corrupt(reference, _chance(seed, name, reference))
            if corrupted is not None:
                trials.append(Trial(name, REFERENCE, reference, reference, corrupted, reworded))
        trials += _exploits(reference, reworded, seed)
    return trials


def _exploits(reference: str, reworded: str | None, seed: int) -> list[Trial]:
    trials = []
    half = halved(reference, _chance(seed, HALF, reference))
    if half is not None:
        for name, play in EXPLOITS.items():
            played = play(half, reference, _chance(seed, name, half))
            if played is not None and played.strip():
                trials.append(Trial(name, HALF, reference, half, played))
    weighty = bool(told(reference))
    honest = half if weighty else reworded
    if honest is not None:
        for name, play in SHORT.items():
            if name == TRUE_OF_NORMALS and not weighty:
                continue
            played = play(honest, reference, _chance(seed, name, honest))
            if played is not None and played != reference:
                trials.append(Trial(name, HALF if weighty else WHOLE, reference, honest, played))
    return trials


def _chance(seed: int, name: str, text: str) -> Random:
    return Random(hashlib.blake2b(f"{seed}\0{name}\0{text}".encode(), digest_size=8).digest())


def audit(
    judges: Mapping[str, Judge],
    trials: Sequence[Trial],
    *,
    seed: int = 0,
    chunk: int = 256,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Scores of every judge on every corruption of the battery: judge by judge, in the order of the battery."""
    order = [REWORDING, *CORRUPTIONS, *EXPLOITS, *SHORT]
    rows = []
    for name, judge in judges.items():
        outcomes: dict[tuple[str, str], list[tuple[Trial, Scores]]] = {}
        for start in range(0, len(trials), chunk):
            some = trials[start : start + chunk]
            for trial, scores in zip(some, _scored(judge, some, start), strict=True):
                outcomes.setdefault((trial.corruption, trial.made_from), []).append((trial, scores))
            progress(len(some))
        rows += [_row(name, outcomes[key], seed) for key in sorted(outcomes, key=lambda key: order.index(key[0]))]
    return rows


Scores = tuple[float | None, float | None, float | None]
"""Of the honest, the corrupted and the reworded report."""


def _scored(judge: Judge, trials: Sequence[Trial], start: int) -> list[Scores]:
    cases = [
        Case(f"{start + i}/{k}", str(start + i), trial.reference, text)
        for i, trial in enumerate(trials)
        for k, text in enumerate((trial.honest, trial.corrupted, trial.reworded or trial.honest))
    ]
    found = [judgement.score for judgement in judge(cases)]
    return list(zip(found[::3], found[1::3], found[2::3], strict=True))


def _row(judge: str, outcomes: Sequence[tuple[Trial, Scores]], seed: int) -> Row:
    pairs = [(honest, corrupted) for _, (honest, corrupted, _) in outcomes]
    both = [(honest, corrupted) for honest, corrupted in pairs if honest is not None and corrupted is not None]
    reworded = [
        corrupted < other - _TIE
        for trial, (_, corrupted, other) in outcomes
        if trial.reworded is not None and corrupted is not None and other is not None
    ]
    honest, corrupted = np.array(both, dtype=np.float64).reshape(-1, 2).T
    n = len(both)
    low = high = math.nan
    if n:
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        low, high = np.quantile(draws @ corrupted / n, [0.025, 0.975])
    return Row(
        judge=judge,
        corruption=outcomes[0][0].corruption,
        made_from=outcomes[0][0].made_from,
        n=n,
        mean=float(corrupted.sum() / n) if n else math.nan,
        low=float(low),
        high=float(high),
        honest=float(honest.sum() / n) if n else math.nan,
        below=float((corrupted < honest - _TIE).sum() / n) if n else math.nan,
        above=float((corrupted > honest + _TIE).sum() / len(pairs)),
        below_reworded=sum(reworded) / len(reworded) if reworded else None,
        unscored=len(pairs) - n,
    )


HEADER = (
    "corruption",
    "made from",
    "n",
    "mean score",
    "95 % interval",
    "mean of what it was made from",
    "ranked below that",
    "ranked above that",
    "ranked below an honest rewording",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row of a table under ``HEADER``; what could not be scored at all has no numbers."""
    count = f"{row.n}" + (f" ({row.unscored} unscored)" if row.unscored else "")
    if not row.n:
        return (row.corruption, row.made_from, count, "", "", "", "", f"{row.above:.1%}", "")
    return (
        row.corruption,
        row.made_from,
        count,
        f"{row.mean:.3f}",
        f"{row.low:.3f} to {row.high:.3f}",
        f"{row.honest:.3f}",
        f"{row.below:.1%}",
        f"{row.above:.1%}",
        "" if row.below_reworded is None else f"{row.below_reworded:.1%}",
    )


def markdown(rows: Sequence[Row]) -> str:
    """One table a judge."""
    blocks = []
    for judge in dict.fromkeys(row.judge for row in rows):
        lines = [f"**{judge}**", "", f"| {' | '.join(HEADER)} |", "|---|---|---:|---:|---|---:|---:|---:|---:|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in rows if row.judge == judge]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
