"""The English of findings: articles, plurals and verbs, from ``grammar.yaml``, for all that write about findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml

Kind = Literal["count", "plural", "mass"]


class Phrase(NamedTuple):
    """A noun phrase without its article."""

    text: str
    kind: Kind

    @property
    def be(self) -> str:
        """The verb that it takes."""
        return "are" if self.kind == "plural" else "is"

    def with_article(self) -> str:
        """The phrase as it stands after ``There is``."""
        return f"{article(self.text)} {self.text}" if self.kind == "count" else self.text


@cache
def _grammar() -> Mapping[str, Any]:
    text = (files(__package__) / "grammar.yaml").read_text(encoding="utf-8")
    raw: Mapping[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return raw


def _entry(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _grammar()["findings"].get(name, {"kind": "mass"})
    return found


def _by_place(key: str) -> dict[str, str]:
    return {place: entry[key] for place, entry in _grammar()["places"].items() if key in entry}


def _by_severity(key: str) -> dict[str, str]:
    return {severity: entry[key] for severity, entry in _grammar()["severities"].items()}


SIZES = _by_severity("size")
GRADES = _by_severity("grade")
ADVERBS = _by_severity("adverb")
ADJECTIVES = _by_place("adjective")
"""Place to the adjective that tells it before a finding."""
BOTH = _by_place("both")
"""Place to the adjective of both sides."""
NOUN_PLACES = _by_place("noun")
"""Places that are no noun by their name, to a noun."""
BEFORE = frozenset(_by_place("before"))
"""Places that always stand before the finding."""
_AT = frozenset(_by_place("at"))


def kind(name: str) -> Kind:
    """How a finding's name is counted; a name without an entry is taken as not counted."""
    found: Kind = _entry(name)["kind"]
    return found


def noun(name: str) -> str:
    """What a finding is called in a sentence."""
    return str(_entry(name).get("noun", name))


def noun_kind(name: str) -> Kind:
    """How that noun is counted."""
    found: Kind = _entry(name).get("noun kind", kind(name))
    return found


def sized(name: str) -> bool:
    """Whether a finding is small or large, rather than mild or severe."""
    return bool(_entry(name).get("sized"))


def article(text: str) -> str:
    """``a`` or ``an``."""
    articles = _grammar()["articles"]
    if text[:2].isupper():
        return "an" if text[0] in articles["an"] else "a"
    first = text.lower()
    if any(re.match(f"{start}(?![nm])" if start == "us" else start, first) for start in articles["a"]):
        return "a"
    return "an" if first[:1] in tuple("aeiou") else "a"


def plural(phrase: str) -> str:
    """The plural of a noun phrase, by its last word."""
    for word, many in _grammar()["plurals"].items():
        if phrase.endswith(word):
            return phrase[: -len(word)] + str(many)
    if re.search(r"[^aeiou]y$", phrase):
        return phrase[:-1] + "ies"
    return phrase + ("" if phrase.endswith("bases") else "es" if phrase.endswith(("ss", "x")) else "s")


def singular(phrase: str) -> str:
    """The singular of a noun phrase, by its last word."""
    for ending, instead in (("thoraces", "thorax"), ("apices", "apex"), ("bases", "base"), ("ies", "y"),
                            ("sses", "ss")):  # fmt: skip
        if phrase.endswith(ending):
            return phrase[: -len(ending)] + instead
    return phrase[:-1] if phrase.endswith("s") and not phrase.endswith(("ss", "is", "us")) else phrase


def many(name: str) -> Phrase:
    """Several of a finding by its name; what is not counted, or plural already, stays as it is."""
    how = kind(name)
    return Phrase(plural(name), "plural") if how == "count" else Phrase(name, how)


def many_places(place: str) -> str:
    """``bases``, ``apices``, ``lower zones``."""
    return str(_grammar()["places"].get(place, {}).get("plural") or plural(place))


def at(place: str) -> str:
    """The preposition of a place: ``at`` the base, ``in`` the lower zone."""
    return "at" if place in _AT else "in"


def tail(change: str | None) -> str:
    """What is put behind a sentence to tell a change."""
    return str(_grammar()["changes"].get(change or "", ""))


def capital(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """The first letter small again, but for abbreviations (``ET tube``)."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
