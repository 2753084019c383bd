"""The lexicon: ``lexicon.yaml`` read once, and its phrases found in a sentence with spaCy's PhraseMatcher."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

TOKEN = re.compile(r"[^\W\d_]+|_+|\d+(?:[.,:]\d+)*|(?<=\s)-(?=\s)|[^\w\s-]")
"""Words, numbers, runs of underscores (de-identified text) and punctuation. A hyphen inside a word separates two
words, so that air-space and air space read alike."""


class Item(NamedTuple):
    """A phrase of the lexicon found in a sentence."""

    start: int
    """Index of the first token."""
    end: int
    """Index after the last token."""
    kind: str
    """``finding``, ``structure``, ``state``, ``side``, ``place``, ``severity``, ``change``, ``join``, or a cue's."""
    value: str


@dataclass(frozen=True)
class Lexicon:
    """What ``lexicon.yaml`` says, by name."""

    chexpert: Mapping[str, str | None]
    """Finding name to its CheXpert class, None where it has none."""
    minor: frozenset[str]
    """Findings of no weight in a judgement."""
    benign: frozenset[str]
    """Findings that leave CheXpert's No Finding standing."""
    weak: frozenset[str]
    """Findings that are at most uncertain evidence of their CheXpert class."""
    midline: frozenset[str]
    """Findings that have no side."""
    covers: Mapping[str, tuple[str, ...]]
    """General statement to the findings that it denies when it is absent."""
    kin: tuple[frozenset[str], ...]
    """Groups of names that may stand for each other."""
    sizes: tuple[frozenset[str], ...]
    """Groups of names that differ by size alone."""
    general: Mapping[str, frozenset[str]]
    """General name to the names that it may stand for."""
    states: Mapping[tuple[str, str], Mapping[str, str]]
    """(structure, state) to finding name and presence."""
    bands: Mapping[str, frozenset[str]]
    """Place to the bands of the lung (upper, mid, lower) it lies in."""
    sided: Mapping[str, str]
    """Term of a place that tells a side, to that side."""
    other_sections: frozenset[str]
    sections: frozenset[str]
    phrases: Mapping[tuple[str, str], tuple[str, ...]]
    """(kind, value) to its terms."""
    digest: str
    """Hash of the file."""


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon."""
    text = (files(__package__) / "lexicon.yaml").read_text(encoding="utf-8")
    raw: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    findings, structures = raw["findings"], raw["structures"]
    phrases: dict[tuple[str, str], tuple[str, ...]] = {}
    for kind, table in (
        ("finding", {name: entry["terms"] for name, entry in findings.items()}),
        ("structure", {name: entry["terms"] for name, entry in structures.items()}),
        ("state", raw["states"]),
        ("side", raw["sides"]),
        ("place", {name: entry["terms"] for name, entry in raw["places"].items()}),
        ("severity", raw["severities"]),
        ("change", raw["changes"]),
        ("join", raw["joins"]),
    ):
        phrases |= {(kind, name): tuple(terms) for name, terms in table.items()}
    phrases |= {(cue, cue): tuple(terms) for cue, terms in raw["cues"].items()}
    return Lexicon(
        chexpert={name: entry.get("chexpert") for name, entry in findings.items()},
        minor=frozenset(name for name, entry in findings.items() if entry.get("minor")),
        benign=frozenset(name for name, entry in findings.items() if entry.get("benign")),
        weak=frozenset(name for name, entry in findings.items() if entry.get("weak")),
        midline=frozenset(name for name, entry in findings.items() if entry.get("midline")),
        covers={name: tuple(covered) for name, covered in raw["covers"].items()},
        kin=tuple(frozenset(group) for group in raw["kin"]),
        sizes=tuple(frozenset(group) for group in raw["sizes"]),
        general={name: frozenset(names) for name, names in raw["general"].items()},
        states={
            (structure, state): outcome
            for structure, entry in structures.items()
            for state, outcome in entry["states"].items()
        },
        bands={place: frozenset(entry["bands"]) for place, entry in raw["places"].items()},
        sided=raw["sided places"],
        other_sections=frozenset(raw["other sections"]),
        sections=frozenset(raw["sections"]),
        phrases=phrases,
        digest=sha256(text.encode()).hexdigest()[:12],
    )


@cache
def _matcher() -> tuple[Any, Any, dict[int, tuple[str, str]]]:
    """spaCy's vocabulary, its PhraseMatcher filled with the lexicon, and what each match means."""
    import spacy
    from spacy.matcher import PhraseMatcher
    from spacy.tokens import Doc

    vocab = spacy.blank("en").vocab
    matcher = PhraseMatcher(vocab, attr="ORTH")
    meaning: dict[int, tuple[str, str]] = {}
    for (kind, value), terms in lexicon().phrases.items():
        key = f"{kind}:{value}"
        forms = {form for term in terms for form in _forms(kind, term)}
        matcher.add(key, [Doc(vocab, words=TOKEN.findall(form)) for form in sorted(forms)])
        meaning[vocab.strings[key]] = (kind, value)
    return vocab, matcher, meaning


def _forms(kind: str, term: str) -> Iterator[str]:
    yield term
    if kind in ("finding", "structure", "place") and term[-1].isalpha() and not term.endswith("s"):
        yield f"{term}s"


def items(words: list[str]) -> list[Item]:
    """The phrases of the lexicon among lower-case words: the longest where they overlap, in order.

    A phrase that means several things (``large``: a severity, and the state of a heart) yields an item for each.
    """
    from spacy.tokens import Doc

    vocab, matcher, meaning = _matcher()
    found = sorted(
        ((start, end, *meaning[key]) for key, start, end in matcher(Doc(vocab, words=words))),
        key=lambda match: (match[0] - match[1], match[0]),
    )
    taken: dict[int, tuple[int, int]] = {}
    kept = []
    for start, end, kind, value in found:
        holders = {taken.get(index) for index in range(start, end)}
        if holders == {None}:
            taken.update(dict.fromkeys(range(start, end), (start, end)))
        elif holders != {(start, end)}:
            continue
        kept.append(Item(start, end, kind, value))
    return sorted(kept)
