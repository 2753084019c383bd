"""The lexicon: ``lexicon.yaml`` read once, and its phrases found in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from importlib.resources import files
from itertools import product
from typing import Any, NamedTuple

import yaml

from radpref.findings.grammar import plural

TOKEN = re.compile(r"[^\W\d_]+|_+|\d+(?:[.,:]\d+)*|(?<=\s)--?(?=[\s;,.]|$)|(?<=\()-(?=\))|[^\w\s-]")
"""Words, numbers, runs of underscores (de-identified text) and punctuation. A hyphen inside a word separates two
words, so that air-space and air space read alike."""
_SHORTENED = re.compile(r"[^\W\d_]+?(?=n't\b)|n't\b|" + TOKEN.pattern, re.IGNORECASE)
"""The same with ``isn't`` as two words."""


class Token(NamedTuple):
    """A word of a text as the lexicon spells it, and where it stands."""

    word: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The words, numbers and marks of a text, in lower case and in the lexicon's spelling."""
    pattern = _SHORTENED if "'" in text else TOKEN
    found = [Token(_spelled(match[0].lower()), *match.span()) for match in pattern.finditer(text)]
    if "." in text:
        short = lexicon().abbreviated
        found = [
            token
            for index, token in enumerate(found)
            if token.word != "."
            or not index
            or text[found[index - 1].start : found[index - 1].end].lower() not in short
        ]
    return found


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
    drafts: frozenset[str]
    """Titles of readings that the final one replaces."""
    finals: frozenset[str]
    run_in: frozenset[str]
    """Titles in capitals that need no line and no colon of their own."""
    run_in_capitals: frozenset[str]
    """The same where the text is not all in capitals."""
    addenda: frozenset[str]
    """Titles of what corrects the report."""
    values: Mapping[str, str]
    """What stands behind the name of a finding (``Effusion: none``) to its presence; ``unknown`` says nothing."""
    list_headings: Mapping[str, str]
    """What heads a list of findings (``Absent: effusion, edema``) to their presence."""
    elsewhere: frozenset[str]
    """Parts of the body that are not of the chest."""
    general_findings: frozenset[str]
    """Findings that other parts of the body may have too."""
    abbreviated: frozenset[str]
    """Words written short, whose full stop ends no sentence."""
    asking: frozenset[str]
    """Words that begin a question."""
    openers: frozenset[str]
    """Words that begin a statement, whatever stands on the line before."""
    denied_change: Mapping[str, frozenset[str]]
    """Words that make up a denied change: ``negators``, ``fillers``, ``nouns``, ``verbs``."""
    short: Mapping[str, str]
    """Words written short or in another spelling, to the lexicon's."""
    common: frozenset[str]
    """English words near one of the lexicon's that are no slip of it."""
    english: frozenset[str]
    """The commonest words of English."""
    foreign: Mapping[str, frozenset[str]]
    """Language to its commonest words, those left out that English has too."""
    refusals: tuple[str, ...]
    """How a model declines, as regular expressions."""
    lists: Mapping[str, frozenset[str]]
    """Small words by what they are for."""
    phrases: Mapping[tuple[str, str], tuple[str, ...]]
    """(kind, value) to its terms."""
    digest: str
    """Hash of the file."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Every term of a finding, or of a part of the body."""
        return frozenset(
            t for (kind, _), terms in self.phrases.items() if kind in ("finding", "structure") for t in terms
        )

    @cached_property
    def structure_names(self) -> frozenset[str]:
        """Every term of a part of the body."""
        return frozenset(t for (kind, _), terms in self.phrases.items() if kind == "structure" for t in terms)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word of every term."""
        forms = (form for (kind, _), terms in self.phrases.items() for term in terms for form in _forms(kind, term))
        return frozenset(word for form in forms for word in TOKEN.findall(form)) | frozenset(self.short)

    @cached_property
    def _finding_words(self) -> frozenset[str]:
        return frozenset(
            w for (kind, _), terms in self.phrases.items() if kind == "finding" for t in terms for w in t.split()
        )

    @cached_property
    def _slips(self) -> dict[str, frozenset[str]]:
        """What a long word becomes by leaving a letter out, to the words that it may stand for."""
        found: dict[str, set[str]] = {}
        for word in self.vocabulary:
            if len(word) >= _LONG:
                for form in _without_a_letter(word):
                    found.setdefault(form, set()).add(word)
        return {form: frozenset(words) for form, words in found.items()}

    def knows(self, word: str) -> bool:
        """Whether a lower-case word stands in a term."""
        return word in self.vocabulary

    def spelled(self, word: str) -> str:
        """A lower-case word in the lexicon's spelling: British, written short, or off by one letter."""
        return _spelled(word)

    def slip_of(self, word: str) -> str | None:
        """The one word of the lexicon that ``word`` is a slip of: one letter too many, too few, wrong, or two swapped.

        The first letter is right in most slips. What differs in its last letter, or only lacks or adds an ending
        (``resolve``, ``resolved``), is a form of its own.
        """
        if len(word) < _LONG - 1 or word in self.common or word in self.english:
            return None
        near = {
            known
            for form in _without_a_letter(word)
            for known in self._slips.get(form, ())
            if known[0] == word[0] and known[:-1] != word[:-1] and not _grown(word, known) and _one_slip(word, known)
        }
        if len(near) > 1:  # a finding's word before others; a word and its plural are one
            near = near & self._finding_words or near
            near = {known for known in near if not (known.endswith("s") and known[:-1] in near)}
        return near.pop() if len(near) == 1 else None


_LONG = 7
"""Letters of a word from which on a slip is mended; shorter words have too many neighbours."""
_BRITISH = (("ae", "e"), ("oe", "e"), ("our", "or"), ("is", "iz"), ("ys", "yz"), ("tre", "ter"), ("re", "er"))


def _without_a_letter(word: str) -> Iterator[str]:
    yield word
    for index in range(len(word)):
        yield word[:index] + word[index + 1 :]


def _grown(word: str, known: str) -> bool:
    return known.startswith(word) or word.startswith(known)


def _one_slip(word: str, known: str) -> bool:
    """Whether one letter more, less or other, or two neighbours swapped, make the words equal."""
    start = 0
    while start < min(len(word), len(known)) and word[start] == known[start]:
        start += 1
    first, second = word[start:], known[start:]
    if len(first) == len(second):
        swapped = first[:2] == second[1::-1] and len(first) > 1
        return first[1:] == second[1:] or (swapped and first[2:] == second[2:])
    return first[1:] == second or first == second[1:]


@lru_cache(maxsize=1 << 14)
def _spelled(word: str) -> str:
    book = lexicon()
    if word in book.short:
        return book.short[word]
    if len(word) < 4 or not word.isalpha() or word in book.vocabulary:
        return word
    for british, american in _BRITISH:
        if british in word and (same := word.replace(british, american)) in book.vocabulary:
            return same
    return book.slip_of(word) or word


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
        ("stage", raw["stages"]),
        ("count", raw["counts"]),
        ("position", raw["positions"]),
        ("join", raw["joins"]),
    ):
        phrases |= {
            (kind, str(name)): tuple(form for term in terms for form in _expanded(term))
            for name, terms in table.items()
        }
    phrases |= {(cue, cue): tuple(f for term in terms for f in _expanded(term)) for cue, terms in raw["cues"].items()}
    phrases |= {("value", presence): tuple(terms) for presence, terms in raw["values"].items()}
    english = frozenset(raw["english"])
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
        drafts=frozenset(raw["drafts"]),
        finals=frozenset(raw["finals"]),
        run_in=frozenset(raw["run in"]),
        run_in_capitals=frozenset(raw["run in capitals"]),
        addenda=frozenset(raw["addenda"]),
        values={term: presence for presence, terms in raw["values"].items() for term in terms},
        list_headings={title: presence for presence, titles in raw["list headings"].items() for title in titles},
        elsewhere=frozenset(raw["elsewhere"]["parts"]),
        general_findings=frozenset(raw["elsewhere"]["findings"]),
        abbreviated=frozenset(raw["abbreviated"]),
        asking=frozenset(raw["asking"]),
        openers=frozenset(raw["openers"]),
        denied_change={name: frozenset(words) for name, words in raw["denied change"].items()},
        short={form: word for word, forms in raw["short"].items() for form in forms},
        common=frozenset(raw["common"]),
        english=english,
        foreign={name: frozenset(words) - english for name, words in raw["foreign"].items()},
        refusals=tuple(raw["refusals"]),
        lists={name: frozenset(words) for name, words in raw["word lists"].items()},
        phrases=phrases,
        digest=sha256(text.encode()).hexdigest()[:12],
    )


def _expanded(term: str) -> Iterator[str]:
    """``(is|are|) not seen`` as each of the phrases it stands for."""
    parts = [part.split("|") for part in re.split(r"[()]", term)]
    for chosen in product(*parts):
        yield " ".join("".join(chosen).split())


class _Step:
    """A word of a phrase: the words that may follow, and what the phrase means if it ends here."""

    __slots__ = ("following", "meanings")

    def __init__(self) -> None:
        self.following: dict[str, _Step] = {}
        self.meanings: list[tuple[str, str]] = []


@cache
def _phrases() -> dict[str, _Step]:
    """Every phrase of the lexicon by its words, those that begin alike together."""
    start = _Step()
    for (kind, value), terms in lexicon().phrases.items():
        for form in {form for term in terms for form in _forms(kind, term)}:
            step = start
            for word in TOKEN.findall(f" {form} "):
                step = step.following.setdefault(word, _Step())
            if (kind, value) not in step.meanings:
                step.meanings.append((kind, value))
    return start.following


def _forms(kind: str, term: str) -> Iterator[str]:
    yield term
    if kind in ("finding", "structure", "place") and term[-1].isalpha() and not term.endswith("s"):
        yield plural(term)


def items(words: list[str]) -> list[Item]:
    """The phrases of the lexicon among lower-case words: the longest where they overlap, in order.

    A phrase that means several things (``large``: a severity, and the state of a heart) yields an item for each.
    """
    found = []
    first = _phrases()
    for start, word in enumerate(words):
        step, end = first.get(word), start + 1
        while step is not None:
            if step.meanings:
                found.append((start, end, step.meanings))
            step = step.following.get(words[end]) if end < len(words) else None
            end += 1
    if len(found) > 1:
        found.sort(key=lambda match: (match[0] - match[1], match[0]))
    taken: set[int] = set()
    kept: list[Item] = []
    for start, end, meanings in found:
        span = range(start, end)
        if taken.isdisjoint(span):
            taken.update(span)
            kept += [Item(start, end, kind, value) for kind, value in meanings]
    return sorted(kept)
