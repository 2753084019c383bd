"""Findings in words: noun phrases, places, lists. What is written here is read back alike by ``findings.read``."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.findings import lexicon
from radpref.findings.grammar import BEFORE, Phrase, at, kind, many, many_places
from radpref.records import Finding

DEVICES = frozenset(name for name, label in lexicon().chexpert.items() if label == "Support Devices")
"""Tubes and lines: what was put in, not what ails."""


def is_position(place: str | None) -> bool:
    """Whether a place is where a device ends, which has no side of its own."""
    return place is not None and place not in lexicon().bands


def place_of(finding: Finding) -> str:
    """Side and place as an answer: ``left lower zone``, ``both bases``, ``left``, ``both sides``; may be empty."""
    side, place = finding.side, finding.place
    if side == "bilateral":
        both = f"both {many_places(place)}" if place and place not in BEFORE else "both sides"
        return f"{both} {place}" if place in BEFORE else both
    if is_position(place):
        return str(place)
    return " ".join(filter(None, (side, place)))


def where(finding: Finding) -> str:
    """Side and place in a sentence: ``at the left base``, ``in both lower zones``, ``on the right``; may be empty."""
    side, place = finding.side, finding.place
    if is_position(place):
        return f"{at(str(place))} the {place}"
    if place and place not in BEFORE:
        if side == "bilateral":
            return f"{at(place)} both {many_places(place)}"
        return f"{at(place)} the {' '.join(filter(None, (side, place)))}"
    return {"left": "on the left", "right": "on the right", "bilateral": "on both sides", None: ""}[side]


def noun(finding: Finding) -> str:
    """The finding with all that is known of it: ``a mild consolidation in the left lower zone``."""
    return _phrase(finding).with_article() + (f" {where(finding)}" if _stands_behind(finding) else "")


def bare(finding: Finding) -> str:
    """The finding's name alone, with its article: ``a pleural effusion``."""
    return Phrase(finding.name, kind(finding.name)).with_article()


def is_many(finding: Finding) -> bool:
    """Whether ``noun`` is a plural, so that the verb is ``are``."""
    return _phrase(finding).kind == "plural"


def _stands_behind(finding: Finding) -> bool:
    """Whether the place follows the finding: ``in the lower zone``."""
    return bool(finding.place) and finding.place not in BEFORE


def _phrase(finding: Finding) -> Phrase:
    behind = _stands_behind(finding)
    both = finding.side == "bilateral" and not behind
    name = many(finding.name) if both else Phrase(finding.name, kind(finding.name))
    side = None if behind and not is_position(finding.place) else finding.side
    words = [finding.severity, side, finding.place if finding.place in BEFORE else None]
    return Phrase(" ".join(filter(None, (*words, name.text))), name.kind)


def listed(phrases: Sequence[str]) -> str:
    """``a, b and c``."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
