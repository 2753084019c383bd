"""An attacker that searches: greedy edits of an honest report that raise its score and tell nothing more.

It begins with a report that tells half of the reference, and takes, step by step, the edit that a judge rewards most
among those by which a second, independent reading (`plain`) sees no more of the truth told than before. Whatever it
gains is a hole in the judge, or in that second reading: the edits are kept, to be looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import numpy as np

from radpref.judges.auditing.corruptions import pieces
from radpref.judges.auditing.exploits import EVERYTHING, GRAVE, MINOR, UNKNOWN, halved
from radpref.judges.auditing.plain import Reading, agreement, plain
from radpref.judges.case import Case
from radpref.judges.contract import Judge

STEPS = 4
TEMPLATES = 40
"""Sentences of the corpus, the most frequent ones, that the attacker may append."""
_CHUNK = 4096
_LEAST = 1e-6
_SPECIFIC = re.compile(
    r"\b(?:consolidations?|pneumonias?|atelectasis|nodules?|mass(?:es)?|infiltrates?|scarring|edema|granulomas?)\b",
    re.IGNORECASE,
)
_DETAIL = re.compile(
    r"\b(?:left|right|bilateral|upper|lower|middle|basilar|apical|mild(?:ly)?|moderate(?:ly)?|severe(?:ly)?|small|large|"
    r"minimal|acute|new|stable|unchanged)\s",
    re.IGNORECASE,
)


class Target(NamedTuple):
    """A reference, and what is so by another source than the judge's reading."""

    reference: str
    truth: Reading
    """Gold labels or the phantom's truth; what they do not know is read plainly from the reference."""


@dataclass
class Attack:
    """What became of one report."""

    reference: str
    start: str
    text: str
    before: float
    after: float
    edits: list[str] = field(default_factory=list)

    @property
    def gain(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Summary:
    """What the attacker gained from one judge."""

    judge: str
    n: int
    mean: float
    low: float
    high: float
    """Bootstrap interval of 95 % of the mean gain, over reports."""
    share: float
    """Share of the reports in which anything was gained."""
    most: float
    edits: tuple[tuple[str, int], ...]
    """The edits that gained, most frequent first."""


def templates(references: Iterable[str], most: int = TEMPLATES) -> tuple[str, ...]:
    """The most frequent sentences of a corpus, and the sentences of the exploits."""
    counted = Counter(part.strip() for reference in references for part in pieces(reference) if part.strip())
    frequent = [sentence for sentence, _ in counted.most_common(most)]
    made = [f"{words[:1].upper()}{words[1:]}." for _, words in GRAVE]
    hidden = [f"[{line}]" for line in made[:2]] + [f"Correlate for {words}." for _, words in GRAVE[:2]]
    return tuple(dict.fromkeys((*frequent, *MINOR, *UNKNOWN, *made, *hidden, EVERYTHING, "Lung disease.", "Normal.")))


def attack(
    judge: Judge,
    targets: Sequence[Target],
    pool: Sequence[str],
    *,
    most: int | None = None,
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Attack]:
    """Attack the first ``most`` targets that can be half told and whose honest half the judge can score."""
    begun: list[tuple[Attack, Mapping[str, float]]] = []
    for target in targets:
        if most is not None and len(begun) >= most:
            break
        digest = hashlib.blake2b(f"{seed}\0attack\0{target.reference}".encode(), digest_size=8).digest()
        start = halved(target.reference, Random(digest))
        if start and start.strip():
            begun.append((Attack(target.reference, start, start, 0.0, 0.0), _whole(target)))
    scores = _scores(judge, [(attack.reference, attack.start) for attack, _ in begun])
    open_ = []
    for (one, truth), score in zip(begun, scores, strict=True):
        if score is not None:
            one.before = one.after = score
            open_.append((one, truth))
    attacks = [one for one, _ in open_]
    for _ in range(steps):
        tried = [(one, truth, *edit) for one, truth in open_ for edit in _edits(one.text, pool)]
        tried = [entry for entry in tried if _tells_no_more(entry[3], entry[0].text, entry[1])]
        best: dict[int, tuple[float, str, str]] = {}
        for first in range(0, len(tried), _CHUNK):
            some = tried[first : first + _CHUNK]
            found = _scores(judge, [(one.reference, text) for one, _, _, text in some])
            for (one, _, name, text), score in zip(some, found, strict=True):
                known = best.get(id(one), (one.after + _LEAST, "", ""))
                if score is not None and score > known[0]:
                    best[id(one)] = (score, name, text)
            progress(len(some))
        open_ = [(one, truth) for one, truth in open_ if id(one) in best]
        for one, _ in open_:
            one.after, name, one.text = best[id(one)]
            one.edits.append(name)
        if not open_:
            break
    return attacks


def summary(judge: str, attacks: Sequence[Attack], seed: int = 0) -> Summary:
    """Mean gain with its interval, and the edits that gained."""
    gains = np.array([one.gain for one in attacks])
    n = len(gains)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=2000) @ gains / n if n else [0.0]
    low, high = np.quantile(draws, [0.025, 0.975])
    edits = Counter(edit for one in attacks for edit in one.edits)
    return Summary(
        judge=judge,
        n=n,
        mean=float(gains.mean()) if n else float("nan"),
        low=float(low),
        high=float(high),
        share=float((gains > _LEAST).mean()) if n else float("nan"),
        most=float(gains.max()) if n else float("nan"),
        edits=tuple(edits.most_common(8)),
    )


def _whole(target: Target) -> Mapping[str, float]:
    return {**plain(target.reference), **target.truth}


def _tells_no_more(text: str, before: str, truth: Reading) -> bool:
    return agreement(plain(text), truth) <= agreement(plain(before), truth) + 1e-9


def _scores(judge: Judge, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    cases = [Case(str(i), str(i), reference, candidate) for i, (reference, candidate) in enumerate(pairs)]
    return [judgement.score for judgement in judge(cases)]


def _edits(text: str, pool: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, edited report): every append, and every sentence left out, hedged, denied, bracketed, made general."""
    whole = text.rstrip()
    stopped = whole if whole.endswith((".", "!", "?", "]")) else f"{whole}."
    for sentence in pool:
        yield f"append: {sentence[:60]}", f"{stopped} {sentence}"
    parts = [part.strip() for part in pieces(text) if part.strip()]
    for index, part in enumerate(parts):
        lower = part[:1].lower() + part[1:]
        plainer, general = _DETAIL.sub("", part), _SPECIFIC.sub("opacity", part)
        for name, new in (
            ("delete", ""),
            ("hedge", f"Possible {lower}"),
            ("hedge behind", f"{part.rstrip('.')} cannot be excluded."),
            ("deny", f"No {lower}"),
            ("bracket", f"[{part}]"),
            ("correlate", f"Correlate for {lower}"),
            ("history", f"History of {lower}"),
            ("repeat", f"{part} {part}"),
            ("leave out details", plainer if plainer != part else None),
            ("generalise", general if general != part else None),
        ):
            if new is not None and (new or len(parts) > 1):
                yield name, " ".join(p for p in (*parts[:index], new, *parts[index + 1 :]) if p)


ATTACK_HEADER = ("judge", "n", "mean gain", "95 % interval", "reports with a gain", "most", "edits that gained")


def attack_cells(row: Summary) -> tuple[str, ...]:
    """A row of a table under ``ATTACK_HEADER``."""
    return (
        row.judge,
        f"{row.n}",
        f"{row.mean:.3f}",
        f"{row.low:.3f} to {row.high:.3f}",
        f"{row.share:.1%}",
        f"{row.most:.3f}",
        "; ".join(f"{name} ({times})" for name, times in row.edits[:3]),
    )


def attack_markdown(rows: Sequence[Summary]) -> str:
    """One table of all judges."""
    lines = [f"| {' | '.join(ATTACK_HEADER)} |", "|---|---:|---:|---|---:|---:|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(attack_cells(row))} |" for row in rows)]) + "\n"
