"""Radiology text to findings: plain text, sections, sentences, mentions, scopes and attributes, in that order.

Beside findings that are named, the states of structures are read ("the heart is not enlarged"). Whatever a sentence
says is read once and remembered: reports repeat their sentences.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from radpref.findings.attributes import attributes, numerals, sizes
from radpref.findings.language import not_english
from radpref.findings.lexicon import items, lexicon, tokens
from radpref.findings.mentions import mentions
from radpref.findings.scopes import presences, with_denied_changes
from radpref.findings.sentences import sentences
from radpref.findings.text import plain
from radpref.records import Finding, Span

_REMEMBERED = 1 << 14
"""Sentences kept in memory; at about a kilobyte each, some 30 MB."""

_TEXTS = 1 << 12
"""Texts whose sentences' bounds are kept."""


def read(text: str, *, questions: bool = False) -> tuple[Finding, ...]:
    """Every statement of a report about a finding, in the order of the text, with its character span.

    Sections that are not about this study's findings (history, indication, technique, comparison) are left out,
    and so is what is said to be history, or only looked for. A general statement is one finding of its own:
    ``lungs are clear`` is the absence of ``lung disease``, and ``COVERS`` tells what that denies. De-identified
    words (XXXX, ___) are words like any other unknown word. A preliminary reading gives way to the final one, and
    what an addendum says takes the place of what the report said of the same finding. Nothing is read in a text
    of another language or one that declines the task (`unreadable`), nor in a question; with ``questions``, what is
    asked about is read as if it were said. Never raises on a string.
    """
    made = plain(text)
    if not_english(made.text):
        return ()
    body: list[Finding] = []
    corrected: list[Finding] = []
    for region, start, end in sentences(made.text):
        mark = end + 1 if made.text[end : end + 1] == "?" and not questions else end
        for statement, first, last in _read_sentence(made.text[start:mark]):
            begin, stop = made.span(start + first, start + last)
            span = Span.of_checked({"start": begin, "end": stop})
            found = Finding.of_checked({**statement.__dict__, "span": span})
            (corrected if region.role == "addendum" else body).append(found)
    if corrected:
        body = [found for found in body if not any(_corrects(later, found) for later in corrected)]
        return tuple(sorted([*body, *corrected], key=lambda found: found.span.start if found.span else 0))
    return tuple(body)


def sentence_bounds(text: str) -> list[tuple[int, int]]:
    """Offsets of the sentences of those sections that tell findings."""
    made = plain(text)
    return [made.span(start, end) for _, start, end in sentences(made.text)]


def in_one_sentence(text: str, first: Finding, second: Finding) -> bool:
    """Whether two findings read from ``text`` stand in one sentence, however the text is laid out."""
    if first.span is None or second.span is None:
        return False
    start, end = min(first.span.start, second.span.start), max(first.span.end, second.span.end)
    return any(begin <= start and end <= stop for begin, stop in _bounds(text))


@lru_cache(maxsize=_TEXTS)
def _bounds(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(sentence_bounds(text))


def _corrects(later: Finding, found: Finding) -> bool:
    """Whether an addendum's statement takes the place of one in the report."""
    return later.name == found.name and {later.side, found.side} != {"left", "right"}


@lru_cache(maxsize=_REMEMBERED)
def _read_sentence(text: str) -> tuple[tuple[Finding, int, int], ...]:
    """The findings of a sentence without their spans, each with the character offsets of its mention."""
    told = tokens(text)
    if not told:
        return ()
    words = _with_keys([token.word for token in told])
    found = with_denied_changes(items(words), words)
    named = mentions(words, found)
    if not named:
        return ()
    said = presences(named, found, words)
    more = [*sizes(words), *numerals(words)]
    described = attributes(named, sorted([*found, *more]) if more else found, words)
    return tuple(
        (
            Finding(name=m.name, presence=presence, **(extra if presence != "absent" else _denied(extra))),
            told[m.start].start,
            told[m.end - 1].end,
        )
        for m, presence, extras in zip(named, said, described, strict=True)
        if presence is not None
        for extra in extras
    )


def _with_keys(words: list[str]) -> list[str]:
    """``heart - normal`` as ``heart: normal``."""
    if "-" in words and " ".join(words[: (at := words.index("-"))]) in lexicon().names:
        words[at] = ":"
    return words


def _denied(extra: Any) -> dict[str, Any]:
    """What is absent has a place and a stage, but no severity, size, count and change."""
    return {"side": extra["side"], "place": extra["place"], "stage": extra["stage"]}
