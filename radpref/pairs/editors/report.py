"""A report set right finding by finding, or made wrong in one attribute.

The judge's own pairing says what is wrong with which finding; a rewriting is taken where it leaves fewer errors than
before, contradicts nothing new, and (first of all) changes what any other sentence says in no way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from radpref.config import EditSection
from radpref.findings import lexicon, read
from radpref.findings.rewrite import absent, changed, contradictions, denied, flips, present, stated, turned
from radpref.judges import pairing, pairing_of_labels
from radpref.pairs.edit import EMPTY, NO_COUNTERPART, NO_EDIT, UNREADABLE, EditCase, Edited, errors, judged
from radpref.records import Finding

_STEPS = 24
"""Most findings that are set right in one report."""


class _Wish(NamedTuple):
    """One thing that is wrong: a finding of the truth, one of the report, and which attribute of it."""

    ours: Finding | None
    theirs: Finding | None
    attribute: str
    value: Any

    @property
    def name(self) -> str:
        finding = self.theirs or self.ours
        assert finding is not None
        return finding.name


def report_edit(case: EditCase, section: EditSection) -> Edited:
    """The edit of one report; see `Edited`."""
    if not case.words.split():
        return Edited(id=case.id, failed=EMPTY)
    verdict = judged(case, case.words)
    if verdict.score is None:
        return Edited(id=case.id, failed=UNREADABLE)
    return _mended(case, section) if errors(verdict, section) else _spoilt(case, section)


# ---------------------------------------------------------------- right to wrong


def _spoilt(case: EditCase, section: EditSection) -> Edited:
    """The counterpart of a right report: ``section.flips`` findings wrong, each in one attribute."""
    text = case.words
    done: list[tuple[str, str]] = []
    for number in range(section.flips):
        wrong = len(errors(judged(case, text), section))
        for flip in flips(text, f"{case.id}/{number}", section.attributes):
            if flip.finding not in dict(done) and len(errors(judged(case, flip.text), section)) > wrong:
                text = flip.text
                done.append((flip.finding, flip.attribute))
                break
    if not done:
        return Edited(id=case.id, was_right=True, failed=NO_COUNTERPART)
    names, attributes = zip(*done, strict=True)
    return Edited(id=case.id, chosen=case.words, rejected=text, findings=names, attributes=attributes, was_right=True)


# ---------------------------------------------------------------- wrong to right


def _mended(case: EditCase, section: EditSection) -> Edited:
    """The report with every significant error mended."""
    text = case.words
    done: list[tuple[str, str]] = []
    for _ in range(_STEPS):
        left = len(errors(judged(case, text), section))
        if not left:
            names, attributes = zip(*done, strict=True)
            return Edited(
                id=case.id, chosen=text, rejected=case.words, findings=names, attributes=attributes, was_right=False
            )
        step = _step(case, text, left, section)
        if step is None:
            break
        wish, text = step
        done.append((wish.name, wish.attribute))
    return Edited(id=case.id, was_right=False, failed=NO_EDIT)


def _step(case: EditCase, text: str, left: int, section: EditSection) -> tuple[_Wish, str] | None:
    """The first wish that a rewriting grants, and the report then."""
    clashes = contradictions(text)
    for wish in _wishes(case, text, section):
        for candidate in _rewritings(text, wish):
            fewer = len(errors(judged(case, candidate), section)) < left
            if fewer and candidate.strip() and not contradictions(candidate) - clashes:
                return wish, candidate
    return None


def _wishes(case: EditCase, text: str, section: EditSection) -> Iterator[_Wish]:
    """What is wrong: first attributes, which leave the finding there, then what is false, then what is missing."""
    told = case.truth if case.truth is not None else case.reference
    pairs, missing, false = pairing_of_labels(case.labels, text) if case.bare else pairing(told, text)
    minor = lexicon().minor | lexicon().covers.keys()  # "there is disease" says nothing
    for ours, theirs in pairs:
        if ours.name in minor or theirs.name in minor:
            continue
        for attribute in ("name", "side", "place", "severity", "change"):
            value = getattr(ours, attribute)
            if value == getattr(theirs, attribute) or (attribute == "change" and not section.comparisons):
                continue
            if value is not None or attribute == "change":
                yield _Wish(ours, theirs, "type" if attribute == "name" else attribute, value)
    for theirs in false:
        if theirs.name not in minor:
            yield _Wish(None, theirs, "presence", None)
    sides = {(unit.name, unit.place, unit.side) for unit in missing}
    for ours in missing:
        if ours.name not in minor and ours.presence == "present":
            wanted = ours if section.comparisons else ours.model_copy(update={"change": None})
            if {(ours.name, ours.place, side) for side in ("left", "right")} <= sides:
                wanted = wanted.model_copy(update={"side": "bilateral"})
            yield _Wish(wanted, None, "presence", wanted)


def _rewritings(text: str, wish: _Wish) -> Iterator[str]:
    """Reports that may grant a wish: those that change nothing besides, then freer ones."""
    ours, theirs = wish.ours, wish.theirs
    if ours and theirs:
        mentions = _mentions(text, theirs)
        for mention in mentions:
            if strict := changed(text, mention, wish.attribute, wish.value):  # type: ignore[arg-type]
                yield strict
            yield from turned(text, mention, wish.attribute, wish.value)
        for mention in mentions:
            for without in denied(text, mention):
                yield from stated(without, ours)
    elif theirs:
        yield from _unsaid(text, theirs)
    elif ours:
        yield from _said(text, ours)


def _unsaid(text: str, false: Finding) -> Iterator[str]:
    mentions = _mentions(text, false)
    other = {"left": "right", "right": "left"}.get(false.side or "")
    for mention in mentions:
        if mention.side == "bilateral" and other and (one := changed(text, mention, "side", other)):
            yield one
    if gone := absent(text, false.name):
        yield gone
    for mention in mentions:
        yield from denied(text, mention)


def _said(text: str, missing: Finding) -> Iterator[str]:
    for mention in read(text):
        twin = mention.name == missing.name and mention.presence != "absent"
        twin = twin and {mention.side, missing.side} == {"left", "right"}
        if twin and (both := changed(text, mention, "side", "bilateral")):
            yield both
    if told := present(text, missing):
        yield told
    yield from stated(text, missing)


def _mentions(text: str, unit: Finding) -> list[Finding]:
    """Where the text tells a unit: mentions of its name on its side, or on none."""
    return [
        m
        for m in read(text)
        if m.name == unit.name
        and m.presence != "absent"
        and (m.side in (unit.side, "bilateral", None) or not unit.side)
    ]
