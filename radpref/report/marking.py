"""Mark parts of a text as HTML: what two texts do not share, and where a judge saw an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from radpref.records import Span

LONGEST = 4000
"""Characters of a text that are shown, and compared; the rest is cut, and the cut is stated."""
ALIKE = 0.34
"""Share of common words from which two sentences are compared word by word."""
_WORD_OR_STOP = re.compile(r"(?P<word>\w+(?:[.,'’-]\w+)*)|[.!?;:\n]")


class Mark(NamedTuple):
    """A stretch of a text with a CSS class and, where there is more to say, a title to show on hover."""

    span: Span
    css: str
    title: str = ""


def differing(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """The words of each text that the other has not; case does not count, neighbouring words are one span.

    Reports say the same sentences in another order, so sentences are put together by the words that they share,
    wherever they stand, and compared word by word. A sentence without a counterpart differs as a whole.
    """
    spans: tuple[list[Span], list[Span]] = ([], [])
    for mine, theirs in _counterparts(_sentences(first[:LONGEST]), _sentences(second[:LONGEST])):
        matcher = difflib.SequenceMatcher(None, _key(mine), _key(theirs), autojunk=False)
        for operation, start, end, other_start, other_end in matcher.get_opcodes():
            if operation != "equal" and end > start:
                spans[0].append(_stretch(mine[start:end]))
            if operation != "equal" and other_end > other_start:
                spans[1].append(_stretch(theirs[other_start:other_end]))
    return sorted(spans[0], key=lambda span: span.start), sorted(spans[1], key=lambda span: span.start)


_Sentence = list[re.Match[str]]
"""The words of a sentence, with their places in the text; punctuation is no word."""


def _sentences(text: str) -> list[_Sentence]:
    sentences: list[_Sentence] = [[]]
    for match in _WORD_OR_STOP.finditer(text):
        if match["word"]:
            sentences[-1].append(match)
        elif sentences[-1]:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _key(sentence: _Sentence) -> tuple[str, ...]:
    return tuple(word.group().casefold() for word in sentence)


def _counterparts(left: Sequence[_Sentence], right: Sequence[_Sentence]) -> Iterator[tuple[_Sentence, _Sentence]]:
    """Sentences put together, the most alike first (shared words over all words); empty where there is none."""
    keys = [_key(sentence) for sentence in left], [_key(sentence) for sentence in right]
    words = [set(key) for key in keys[0]], [set(key) for key in keys[1]]
    alike = sorted(
        (-len(mine & theirs) / len(mine | theirs), keys[0][i] != keys[1][j], abs(i - j), i, j)
        for i, mine in enumerate(words[0])
        for j, theirs in enumerate(words[1])
        if len(mine & theirs) / len(mine | theirs) >= ALIKE
    )
    partner: dict[int, int] = {}
    for *_, i, j in alike:
        if i not in partner and j not in partner.values():
            partner[i] = j
    for i, mine in enumerate(left):
        yield mine, right[partner[i]] if i in partner else []
    for j, theirs in enumerate(right):
        if j not in partner.values():
            yield [], theirs


def _stretch(words: _Sentence) -> Span:
    return Span(start=words[0].start(), end=words[-1].end())


def marked(text: str, marks: Iterable[Mark]) -> Markup:
    """The text, escaped, with each mark as a ``<span>``; where marks overlap, a piece carries all their classes.

    A mark that reaches beyond the text is cut; one that lies outside it is left out.
    """
    shown = text[:LONGEST]
    marks = [mark for mark in marks if mark.span.start < min(mark.span.end, len(shown))]
    edges = sorted({0, len(shown), *(min(e, len(shown)) for mark in marks for e in (mark.span.start, mark.span.end))})
    pieces = [
        _piece(shown[start:end], [mark for mark in marks if mark.span.start <= start < mark.span.end])
        for start, end in pairwise(edges)
    ]
    if len(text) > len(shown):
        pieces.append(Markup('<span class="cut"> … cut, {} characters in all</span>').format(len(text)))
    return Markup("").join(pieces)


def _piece(text: str, marks: Sequence[Mark]) -> Markup:
    if not marks:
        return escape(text)
    css = " ".join(dict.fromkeys(mark.css for mark in marks))
    titles = "; ".join(dict.fromkeys(mark.title for mark in marks if mark.title))
    attribute = Markup(' title="{}"').format(titles) if titles else ""
    return Markup('<span class="{}"{}>{}</span>').format(css, attribute, text)
