"""A second reading of reports, plain and independent of the one that judges use; see ``plain.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import yaml

_END = re.compile(r"[.!?](?:\s|$)|\n")
_ALL_NORMAL = re.compile(r"\W*(?:normal|unremarkable|negative|clear)\W*")
_WHOLE = ("airspace", "effusion", "edema", "pneumothorax", "cardiomegaly", "fracture", "mediastinum")
Reading = Mapping[str, float]
"""Concept to what is said of it: 1 present, -1 absent, 0.5 suspected; what is not spoken of is not there."""


@dataclass(frozen=True)
class _Words:
    concepts: tuple[tuple[str, re.Pattern[str]], ...]
    normal: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]
    healthy: re.Pattern[str]
    deny: re.Pattern[str]
    hedge: re.Pattern[str]
    turn: re.Pattern[str]
    also: Mapping[str, str]
    """Another source's name to the concept."""


@cache
def _words() -> _Words:
    raw: dict[str, Any] = yaml.safe_load((files(__package__) / "plain.yaml").read_text(encoding="utf-8"))
    return _Words(
        concepts=tuple((name, re.compile(rf"\b(?:{'|'.join(forms)})")) for name, forms in raw["concepts"].items()),
        normal=tuple((re.compile(rf"\b{entry['of']}\b"), tuple(entry["denies"])) for entry in raw["normal"]),
        healthy=re.compile(raw["healthy"]),
        deny=re.compile(raw["deny"]),
        hedge=re.compile(raw["hedge"]),
        turn=re.compile(raw["turn"]),
        also={name: concept for concept, names in raw["also"].items() for name in names},
    )


@lru_cache(maxsize=1 << 15)
def _sentence(text: str) -> dict[str, float]:
    book, found = _words(), dict[str, float]()
    for concept, pattern in book.concepts:
        for match in pattern.finditer(text):
            start = max((turn.end() for turn in book.turn.finditer(text, 0, match.start())), default=0)
            before = text[start : match.start()]
            value = -1.0 if book.deny.search(before) else 0.5 if book.hedge.search(text) else 1.0
            if value == 1.0 and re.match(r"[\w\s]{0,30}\b(?:not|absent|resolved|none)\b", text[match.end() :]):
                value = -1.0
            found[concept] = max(found.get(concept, -1.0), value)
    if _ALL_NORMAL.fullmatch(text):
        return dict.fromkeys(_WHOLE, -1.0)
    if book.healthy.search(text):
        for pattern, denied in book.normal:
            if pattern.search(text):
                for concept in denied:
                    found.setdefault(concept, -1.0)
    return found


def plain(text: str) -> dict[str, float]:
    """What a report says, read plainly: what it asserts anywhere counts before what it denies."""
    found: dict[str, float] = {}
    for part in _END.split(text.lower()):
        for concept, value in _sentence(part).items():
            found[concept] = max(found.get(concept, -1.0), value)
    return found


def of_labels(labels: Mapping[str, Any]) -> dict[str, float]:
    """Labels of another source (1 present, 0 absent; any other value is not known) as a reading."""
    found: dict[str, float] = {}
    for name, value in labels.items():
        concept = _words().also.get(name)
        if concept is not None and value in (0, 1):
            found[concept] = max(found.get(concept, -1.0), 1.0 if value else -1.0)
    return found


def of_names(names: Iterable[str]) -> dict[str, float]:
    """All that is there, by the phantoms' names: every other concept that they can have is absent."""
    there = {concept for name in names if (concept := _words().also.get(name))}
    return {concept: 1.0 if concept in there else -1.0 for concept in set(_words().also.values())}


def agreement(said: Reading, told: Reading) -> float:
    """How much of what is so a report says, less what it says wrongly: a sum over concepts.

    A concept that ``told`` does not know costs 1 where it is asserted, and nothing where it is denied.
    """
    total = 0.0
    for concept, value in said.items():
        known = told.get(concept)
        total += value * known if known is not None else -max(value, 0.0)
    return total
