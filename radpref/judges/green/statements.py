"""A report as statements: what it asserts, what it denies, what it only mentions, and where it contradicts itself."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from radpref.findings import COVERS, lexicon, read
from radpref.findings.reader import sentence_bounds
from radpref.findings.text import BREAK
from radpref.judges.distances import off_place, unlike
from radpref.judges.green.weights import WHOLE, weights, words
from radpref.records import Finding, Side, Span

_SIDES: dict[Side | None, tuple[Side | None, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "bilateral": ("left", "right"),
    None: (None,),
}
_REMEMBERED = 1 << 12
"""Sentences with a disease that the lexicon does not know, kept as read."""
_BLANK = str.maketrans("[]*", "   ")
_STOP = re.compile(r"[.!?;](?=[\s<|\"]|$)|\n\s*(?:\n|(?:[-*•]|\d+[.)])\s)|\u2028|\s-\s|</?[a-z]|\||\"\s*[,}]")
"""Ends of sentences in running text, lists, tables, HTML and JSON."""
_LAYOUT = re.compile(r"[\n&]|\b\d{1,2}[.)]\s")
"""Without any of these a sentence ends where `_STOP` says."""
_INSIDE = re.compile(r"(?:\w|\b(?:not|cannot|can't) )$")
_LETTERS = re.compile(r"[a-z]+")
_STEM = re.compile(r"(?:us|i|ism|ic|es|s|ed|a|is)$")
_MENTION = "pneumoperitoneum"
"""A finding that stands in for a word of disease, so that the reader tells whether it is asserted. No other part of the
body can have it: what is claimed of the bowel is claimed."""


class Unit(NamedTuple):
    """One asserted (present or uncertain) finding at one side and place."""

    name: str
    sure: bool
    side: Side | None
    place: str | None
    severity: str | None
    change: str | None
    size: float | None
    number: int | str | None
    stage: str | None
    start: int
    """Offset in the text; -1 where there is none."""
    end: int
    finding: Finding
    """As it was read; of a unit on one side of two, both sides."""
    doubt: float = 1.0
    """Share of its credit that the report's own denials leave: 0 where it denies the very same."""

    @property
    def span(self) -> Span | None:
        return self.finding.span


class Denial(NamedTuple):
    """One finding, or one general kind of disease, that is said to be absent."""

    name: str
    """Empty where it speaks of no region of the chest."""
    side: Side | None
    finding: Finding
    text: str
    """The report, in lower case; empty for a truth."""

    @property
    def span(self) -> Span | None:
        return self.finding.span

    def qualified(self) -> bool:
        """Whether only a kind of it is denied: ``no large effusion``."""
        span = self.span
        if span is None:
            return False
        first, _ = _sentence(self.text, span.start, span.end)
        return words().qualified.search(self.text, first, span.start) is not None

    def otherwise(self) -> bool:
        """Whether it leaves out what was said before: ``the lungs are otherwise clear``."""
        span = self.span
        if span is None:
            return False
        return words().otherwise.search(self.text, *_sentence(self.text, span.start, span.end)) is not None


class Told(NamedTuple):
    """What a report says."""

    units: tuple[Unit, ...]
    denied: tuple[Denial, ...]
    asides: tuple[Unit, ...]
    """Findings that are only looked for: ``correlate for``, ``if there is concern for``."""
    text: str
    """In lower case."""

    @property
    def readable(self) -> bool:
        return bool(self.units or self.denied)


def unmasked(text: str) -> str:
    """The text without brackets and asterisks, at equal length: what stands in brackets is said."""
    return text.translate(_BLANK)


def told(text: str) -> Told:
    """The statements of a report (`unmasked`). Whatever a report says twice, it says once."""
    lower = _lowered(text)
    findings = read(text)
    normal = _all_normal(lower, findings)
    said = [*findings, *_claims(text, lower, findings), *normal]
    denied = tuple(_denial(lower, f) for f in said if f.presence == "absent")
    units = _united(_folded(_mentions(f for f in said if f.presence != "absent"), lower))
    return Told(
        units=tuple(_doubted(unit, denied) for unit in units) if denied else units,
        denied=denied,
        asides=_asides(text, lower, findings),
        text=lower,
    )


def _lowered(text: str) -> str:
    """The text in lower case, at equal length; `BREAK` stands where a sentence ends for the reader, by any sign."""
    lower = text.lower().replace("&nbsp;", "      ")
    if not _LAYOUT.search(lower) or len(lower) != len(text):
        return lower
    pieces, done = [], 0
    for (_, end), (start, _) in pairwise(sentence_bounds(text)):
        if done <= end < start:
            pieces += [lower[done:end], BREAK]
            done = end + 1
    return "".join((*pieces, lower[done:]))


def known(truth: Sequence[Finding]) -> Told:
    """The statements of a truth, and all that is there: what it does not name is absent."""
    asserted = [f for f in truth if f.presence != "absent"]
    denied = [f for f in truth if f.presence == "absent"]
    if not asserted and not denied:
        denied = [Finding(name=name, presence="absent") for name in COVERS]
    return Told(_units(asserted), tuple(_denial("", f) for f in denied), (), "")


# ---------------------------------------------------------------- what is said


def _all_normal(lower: str, findings: Sequence[Finding]) -> list[Finding]:
    """``Normal.``, ``Unremarkable.``: a sentence without a subject speaks of everything."""
    found = []
    for match in words().normal.finditer(lower):
        start, end = match.span(1)
        if not any(f.span and f.span.start < end and start < f.span.end for f in findings):
            found.append(Finding(name="acute disease", presence="absent", span=Span(start=start, end=end)))
    return found


def _claims(text: str, lower: str, findings: Sequence[Finding]) -> list[Finding]:
    """Diseases that the lexicon does not know, named by their stem."""
    found = []
    for start, end in _diseases(lower):
        if any(f.span and f.span.start < end and start < f.span.end for f in findings):
            continue
        first, last = _sentence(lower, start, end)
        mention = _presence(text[first:start], text[end:last])
        if mention is not None:
            name = _stem(lower[start:end])
            found.append(mention.model_copy(update={"name": name, "span": Span(start=start, end=end)}))
    return found


def _diseases(lower: str) -> list[tuple[int, int]]:
    """Where words of disease stand."""
    book = words()
    found = [match.span() for match in book.diseases.finditer(lower)]
    return found + [match.span() for match in _LETTERS.finditer(lower) if _is_disease(match[0])]


@lru_cache(maxsize=1 << 14)
def _is_disease(word: str) -> bool:
    book = words()
    return word in book.disease or (len(word) > 6 and word.endswith(book.endings) and word not in book.no_disease)


@lru_cache(maxsize=_REMEMBERED)
def _presence(before: str, after: str) -> Finding | None:
    """How a disease is spoken of in its sentence: read with a known finding in its place."""
    place = len(before)
    found = (f for f in read(f"{before}{_MENTION}{after}") if f.span and f.span.start <= place < f.span.end)
    return next(found, None)


def _stem(word: str) -> str:
    """``embolus``, ``emboli``, ``embolism`` are one disease."""
    last = " ".join(word.split())
    return _STEM.sub("", last) if len(last) > 5 else last


def _asides(text: str, lower: str, findings: Sequence[Finding]) -> tuple[Unit, ...]:
    """What is only looked for: read with the cue in the place of a plain hedge, less what is read without."""
    hedged = words().looked_for.sub(_as_hedge, lower)
    if hedged == lower:
        return ()
    plain = {f.span.start for f in findings if f.span}
    found = [f for f in read(hedged) if f.span and f.span.start not in plain]
    known = {f.span.start for f in _claims(text, lower, findings) if f.span}
    claims = [f for f in _claims(hedged, hedged, [*findings, *found]) if f.span and f.span.start not in known]
    return _units(f for f in (*found, *claims) if f.presence != "absent")


def _as_hedge(cue: re.Match[str]) -> str:
    """A plain hedge of the cue's length; what is only the end of a word, or denied (``cannot rule out``), stays."""
    before = cue.string[max(0, cue.start() - 7) : cue.start()]
    if _INSIDE.search(before):
        return cue[0]
    return ("possible" if len(cue[0]) > 7 else "may").ljust(len(cue[0]))


def _denial(lower: str, finding: Finding) -> Denial:
    name = finding.name
    if finding.span is not None and weights().general.get(name) == WHOLE:
        first, last = _sentence(lower, finding.span.start, finding.span.end)
        name = _narrowed(lower[first:last], name)
    return Denial(name, finding.side, finding, lower)


@lru_cache(maxsize=_REMEMBERED)
def _narrowed(sentence: str, name: str) -> str:
    """What a general denial speaks of: ``the bones are without acute abnormality`` of the bones alone."""
    named = [general for general, words_of in words().subjects if words_of.search(sentence)]
    return named[0] if len(named) == 1 and named[0] != WHOLE else name


def _sentence(lower: str, start: int, end: int) -> tuple[int, int]:
    """Offsets of the sentence around a place."""
    stops = _stops(lower)
    index = bisect_right(stops, (start, start))
    return (stops[index - 1][1] if index else 0), (stops[index][0] if index < len(stops) else len(lower))


@lru_cache(maxsize=64)
def _stops(lower: str) -> list[tuple[int, int]]:
    """Ends of sentences, in order."""
    return [match.span() for match in _STOP.finditer(lower)]


# ---------------------------------------------------------------- contradictions


def _doubted(unit: Unit, denied: Sequence[Denial]) -> Unit:
    """The unit with the share of its credit that the denials of its own report leave."""
    doubt = min((_left(unit, denial) for denial in denied), default=1.0)
    return unit if doubt == 1.0 else unit._replace(doubt=doubt)


def _left(unit: Unit, denial: Denial) -> float:
    if denial.name == unit.name:
        left = 0.0
    elif unit.name in COVERS.get(denial.name, ()) or unlike(unit.name, denial.name) in (1, 2):
        if unit.name not in weights().grave or denial.otherwise():
            return 1.0
        left = float(weights().credit["self-doubted"])
    else:
        return 1.0
    place = denial.finding.place
    elsewhere = (denial.side and unit.side and denial.side != unit.side) or (
        place and unit.place and place != unit.place
    )
    return 1.0 if elsewhere or denial.qualified() else left


# ---------------------------------------------------------------- units


def _unit(finding: Finding, side: Side | None) -> Unit:
    span = finding.span
    return Unit(
        finding.name,
        finding.presence == "present",
        side,
        finding.place,
        finding.severity,
        finding.change,
        finding.size_mm,
        finding.count,
        finding.stage,
        span.start if span else -1,
        span.end if span else -1,
        finding,
    )


def _units(asserted: Iterable[Finding]) -> tuple[Unit, ...]:
    """One unit per name, side and place."""
    return _united(_mentions(asserted))


def _mentions(asserted: Iterable[Finding]) -> list[Unit]:
    """What is asserted, a unit for each time and side."""
    return [_unit(finding, side) for finding in asserted for side in _SIDES[finding.side]]


def _united(mentions: Sequence[Unit]) -> tuple[Unit, ...]:
    """One unit per name, side and place; a vaguer mention of the same thing is part of the fuller one."""
    if len(mentions) < 2:
        return tuple(mentions)
    units: list[Unit] = []
    # Those that tell their side and place come first, so that the vaguer find what they belong to.
    for unit in sorted(mentions, key=lambda unit: (unit.side is None, unit.place is None)):
        same = [index for index, other in enumerate(units) if _same(other, unit)]
        for index in same:
            units[index] = _merged(units[index], unit)
        if not same:
            units.append(unit)
    return tuple(units)


def _same(unit: Unit, vaguer: Unit) -> bool:
    return (
        unit.name == vaguer.name
        and (vaguer.side is None or unit.side == vaguer.side)
        and (vaguer.place is None or unit.place == vaguer.place or not off_place(unit.place, vaguer.place))
    )


def _merged(unit: Unit, other: Unit) -> Unit:
    """Both mentions as one; where they disagree the first holds, but what is present is not uncertain."""
    return unit._replace(
        sure=unit.sure or other.sure,
        place=unit.place or other.place,
        severity=unit.severity or other.severity,
        change=unit.change or other.change,
        size=unit.size or other.size,
        number=unit.number or other.number,
        stage=unit.stage or other.stage,
    )


def _folded(mentions: list[Unit], lower: str) -> list[Unit]:
    """Without general names that their sentence makes particular: ``left opacity, likely atelectasis`` is one.

    Mentions, and not what they come to together: what is named in another sentence too is named here all the same.
    """
    general = lexicon().general
    if not any(unit.name in general for unit in mentions):
        return mentions
    kept = list(mentions)
    for unit in mentions:
        for index, particular in enumerate(kept):
            if particular.name in general.get(unit.name, ()) and particular.sure and alike(unit, particular, lower):
                side = None if particular.name in lexicon().midline else particular.side or unit.side
                kept[index] = _merged(particular, unit)._replace(side=side)
                kept.remove(unit)
                break
    return kept


def alike(first: Unit, second: Unit, lower: str) -> bool:
    """Whether two units of one text, left alone, are one thing under two names."""
    kind = unlike(first.name, second.name)
    if kind is None or (first.side and second.side and first.side != second.side):
        return False
    if off_place(first.place, second.place):
        return False
    return kind == 1 or (kind in (2, 3) and in_one_sentence(first, second, lower))


def in_one_sentence(first: Unit, second: Unit, lower: str) -> bool:
    if first.start < 0 or second.start < 0:
        return False
    start, end = sorted((first.start, second.start))
    return _sentence(lower, start, start) == _sentence(lower, end, end)


def region_of(name: str) -> str | None:
    """The region that a general statement speaks of, or that a finding lies in; None for a claim."""
    book = weights()
    return book.general.get(name) or book.region.get(name)


__all__ = ["WHOLE", "Denial", "Told", "Unit", "alike", "in_one_sentence", "known", "region_of", "told", "unmasked"]
