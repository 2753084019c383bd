"""Findings in words: noun phrases, places, lists. What is written here is read back alike by ``findings.read``."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.findings import lexicon
from radpref.records import Finding

_UNCOUNTED = frozenset(
    {
        *("aspiration", "atelectasis", "bronchial thickening", "bronchiectasis", "bronchitis", "cardiomegaly"),
        *("chamber enlargement", "consolidation", "costophrenic blunting", "edema", "emphysema", "fibrosis"),
        *("heart failure", "hemorrhage", "hyperinflation", "infection", "lymphadenopathy", "mediastinal shift"),
        *("obstructive disease", "pleural thickening", "pneumomediastinum", "pneumonia", "pneumoperitoneum"),
        *("pulmonary hypertension", "scarring", "scoliosis", "soft tissue edema", "subcutaneous emphysema"),
        *("tracheal deviation", "tuberculosis", "vascular congestion", "volume loss", "osteopenia"),
    }
)
"""Findings that take no article and no plural."""
_PLURALS = {"pneumothorax": "pneumothoraces", "enlarged mediastinum": "enlarged mediastinum"}
_BEFORE = frozenset({"perihilar", "retrocardiac", "peripheral", "diffuse"})
"""Places that stand before the finding."""
_AT = frozenset({"apex", "base", "costophrenic angle"})
_MANY = {"apex": "apices", "lingula": "lingula"}

DEVICES = frozenset(name for name, label in lexicon().chexpert.items() if label == "Support Devices")
"""Tubes and lines: what was put in, not what ails."""


def plural(name: str) -> str:
    """``pleural effusions``; what is not counted stays as it is."""
    if name in _UNCOUNTED:
        return name
    if name in _PLURALS:
        return _PLURALS[name]
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x")) else f"{name}s"


def with_article(words: str, name: str = "") -> str:
    """``a mild pleural effusion``, ``an endotracheal tube``; no article for what ``name`` does not take one."""
    if (name or words) in _UNCOUNTED:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def place_of(finding: Finding) -> str:
    """Side and place as an answer: ``left lower zone``, ``both bases``, ``left``, ``both sides``; may be empty."""
    side, place = finding.side, finding.place
    if side == "bilateral":
        return (
            f"both {_many(place)}" if place and place not in _BEFORE else " ".join(filter(None, ("both sides", place)))
        )
    return " ".join(filter(None, (side, place)))


def where(finding: Finding) -> str:
    """Side and place in a sentence: ``at the left base``, ``in both lower zones``, ``on the right``; may be empty."""
    side, place = finding.side, finding.place
    if place and place not in _BEFORE:
        preposition = "at" if place in _AT else "in"
        if side == "bilateral":
            return f"{preposition} both {_many(place)}"
        return f"{preposition} the {' '.join(filter(None, (side, place)))}"
    return {"left": "on the left", "right": "on the right", "bilateral": "on both sides", None: ""}[side]


def noun(finding: Finding) -> str:
    """The finding with all that is known of it: ``a mild consolidation in the left lower zone``."""
    name, side, place = finding.name, finding.side, finding.place
    behind = bool(place) and place not in _BEFORE
    many = side == "bilateral" and not behind
    words = [finding.severity, None if behind else side, place if place in _BEFORE else None]
    words.append(plural(name) if many else name)
    phrase = " ".join(filter(None, words))
    if not many:
        phrase = with_article(phrase, name)
    return f"{phrase} {where(finding)}" if behind else phrase


def bare(finding: Finding) -> str:
    """The finding's name alone, with its article: ``a pleural effusion``."""
    return with_article(finding.name)


def is_many(finding: Finding) -> bool:
    """Whether ``noun`` is a plural, so that the verb is ``are``."""
    behind = bool(finding.place) and finding.place not in _BEFORE
    return finding.side == "bilateral" and not behind and finding.name not in _UNCOUNTED


def listed(phrases: Sequence[str]) -> str:
    """``a, b and c``."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _many(place: str | None) -> str:
    return "sides" if place is None else _MANY.get(place, f"{place}s")
