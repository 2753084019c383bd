"""Noun phrases and sentences for a finding: ``small left pleural effusion``, ``There is a nodule in the right apex.``

Words are chosen so that our own reader takes the finding out of them again; `tests/test_rewrite.py` holds that for
every name with every side, place and severity.
"""

from __future__ import annotations

from typing import Literal

from radpref.findings.grammar import (
    ADJECTIVES,
    BOTH,
    GRADES,
    SIZES,
    Phrase,
    at,
    capital,
    many_places,
    noun,
    noun_kind,
    plural,
    singular,
    sized,
    tail,
)
from radpref.findings.lexicon import lexicon
from radpref.records import Finding

Style = Literal["there", "seen", "plain"]


def phrase(finding: Finding, said: str | None = None) -> Phrase:
    """The noun phrase of a finding with its severity, side and place; its change comes with the sentence.

    ``said`` is the noun as a text has it (``effusion``), used in place of the finding's own.
    """
    what, how = said or noun(finding.name), noun_kind(finding.name)
    side, place = finding.side, finding.place
    if what == "opacity" and place is None:
        what = "lung opacity"
    if finding.name in lexicon().midline:
        side = place = None
    grade = ""
    if finding.severity and (finding.name, finding.severity) != ("nodule", "severe"):  # it would be a mass
        grade = (SIZES if sized(finding.name) else GRADES)[finding.severity] + " "
    if side == "bilateral" and how == "count":
        what, how = plural(singular(what)), "plural"
    elif how != "plural":
        what = singular(what)
    if finding.place is not None and finding.place not in lexicon().bands:  # where a device ends
        before, after = (f"{side} " if side else ""), f" ending {at(finding.place)} the {finding.place}"
    else:
        before, after = _where(side, place, what)
    return Phrase(f"{grade}{before}{what}{after}", how)


def _where(side: str | None, place: str | None, what: str) -> tuple[str, str]:
    """What stands before and after the noun to tell its side and place."""
    both = side == "bilateral"
    if place is None or place in what:
        return (f"{side} " if side else ""), ""
    if both and place in BOTH:
        return BOTH[place] + " ", ""
    if place == "lingula":
        return "", " in the lingula"
    if place in ADJECTIVES:
        return f"{side + ' ' if side else ''}{ADJECTIVES[place]} ", ""
    if both:
        return "", f" in both {many_places(place)}"
    return "", f" in the {side + ' ' if side else ''}{place}"


def sentence(finding: Finding, style: Style = "plain", said: str | None = None) -> str:
    """A sentence that states the finding, without its full stop. Absent findings are denied, doubted ones hedged."""
    if finding.presence == "absent":
        what = said or noun(finding.name)
        return f"There is no {what}" if style == "there" else f"No {what}"
    words = phrase(finding, said)
    if finding.change == "new":
        words = Phrase(f"new {words.text}", words.kind)
    behind = tail(finding.change)
    if finding.presence == "uncertain":
        return capital(f"possible {words.text}{behind}")
    if style == "there":
        return f"There {words.be} {words.with_article()}{behind}"
    if style == "seen":
        return capital(f"{words.with_article()} {words.be} seen{behind}")
    return capital(f"{words.text}{behind}")
