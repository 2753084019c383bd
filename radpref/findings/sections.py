"""Which parts of a plain report tell findings of this study, and which of them the final word is.

History, indication, technique and comparison tell of something else. A preliminary reading gives way to the final
one; an addendum corrects what it speaks of.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, NamedTuple

from radpref.findings.lexicon import TOKEN, lexicon
from radpref.findings.text import BREAK

Role = Literal["body", "draft", "addendum"]


class Region(NamedTuple):
    """A stretch of a text between headings."""

    start: int
    end: int
    role: Role = "body"


class _Heading(NamedTuple):
    start: int
    end: int
    title: str


_COLON = re.compile(
    r"(?:(?<=\n)|(?<="
    + BREAK
    + r")|^|(?<=[.!?]\s)|(?<=[.!?]\s\s))[ \t]*(?P<title>[A-Za-z][A-Za-z ,/()&-]{1,60}?)[ \t]*:"
)
_LONE = re.compile(
    r"(?:(?<=\n)|(?<=" + BREAK + r")|^)[ \t]*(?P<title>[A-Z][A-Za-z ,/()&-]{3,40}?)[ \t]*(?=\n|" + BREAK + ")"
)
_CAPITALS = re.compile(r"[A-Z]{5}")
_BLANK_LINE = re.compile(r"\S[^\S\n]*\n\s*\n")
_STOP = re.compile(r"[.?!](?=\s)|" + BREAK)


def regions(text: str) -> list[Region]:
    """The text without headings of sections, and without sections about something else.

    Such a section ends at the next heading, or at the blank line after its text; where nothing else is left to
    read, at its first full stop. Headings that name a part of the body (``HEART: enlarged``) stay in the text.
    """
    headings = _headings(text)
    if not headings:
        return [Region(0, len(text))]
    return _between(text, headings, _BLANK_LINE) or _between(text, headings, _STOP)


def _between(text: str, headings: list[_Heading], other_ends: re.Pattern[str]) -> list[Region]:
    book = lexicon()
    found: list[Region] = []
    role: Role = "body"
    start = 0
    for index, heading in enumerate(headings):
        if text[start : heading.start].strip():
            found.append(Region(start, heading.start, role))
        start = heading.end
        told = any(region.role == "body" for region in found)
        role = _role(heading.title, role, headings[index + 1 :], told)
        if heading.title in book.other_sections:
            following = headings[index + 1].start if index + 1 < len(headings) else len(text)
            ended = other_ends.search(text, heading.end, following)
            start = ended.end() if ended else following
    if text[start:].strip():
        found.append(Region(start, len(text), role))
    if any(region.role == "body" for region in found):
        return [region for region in found if region.role != "draft"]
    return found


def _role(title: str, role: Role, following: list[_Heading], begun: bool) -> Role:
    book = lexicon()
    if title in book.drafts:
        return "draft"
    if title in book.addenda:
        return "addendum"
    if title in book.finals:
        return "body"
    if role == "draft" and any(later.title in book.finals for later in following):
        return "draft"  # the preliminary report's own sections
    return "addendum" if role == "addendum" and begun else "body"


def _headings(text: str) -> list[_Heading]:
    book = lexicon()
    known = book.sections | book.other_sections | book.drafts | book.finals | book.addenda
    found: dict[int, _Heading] = {}
    if ":" in text:
        for match in _COLON.finditer(text):
            title = _normal(match["title"])
            if title in known or (match["title"].isupper() and not _tells(title)):
                found[match.start("title")] = _Heading(match.start("title"), match.end(), title)
    if "\n" in text or BREAK in text:
        for match in _LONE.finditer(text):
            title = _normal(match["title"])
            if title in known and title not in _WEAK:
                found.setdefault(match.start("title"), _Heading(match.start("title"), match.end(), title))
    for match in _run_in(not text.isupper()).finditer(text) if _CAPITALS.search(text) else ():
        if not any(heading.start <= match.start() < heading.end for heading in found.values()):
            found[match.start()] = _Heading(match.start(), match.end(), _normal(match[0]))
    return [found[start] for start in sorted(found)]


_WEAK = frozenset({"chest", "portable chest", "study", "views", "view", "date", "final", "other", "others", "reason"})
"""Titles that need their colon."""


@cache
def _run_in(mixed: bool) -> re.Pattern[str]:
    titles = lexicon().run_in | (lexicon().run_in_capitals if mixed else frozenset())
    longest_first = sorted((title.upper() for title in titles), key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(longest_first) + r")\b(?!\s*(?:/|AND\b|and\b)):?")


def _normal(title: str) -> str:
    return " ".join(TOKEN.findall(title.lower())).replace("/ ", "").replace(", ", "")


@cache
def _tells(title: str) -> bool:
    """Whether a heading names a finding, or a part of the body whose state may follow."""
    names, words = lexicon().names, title.split()
    if title in lexicon().list_headings:
        return True
    return any(
        " ".join(words[start:end]) in names for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    )
