"""Mark parts of a text as HTML: what two texts do not share, and where a judge saw an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from radpref.records import Span

LONGEST = 6000
"""Characters of a text that are shown, and compared; the rest is cut, and the cut is stated."""
_WORD = re.compile(r"\w+|[^\w\s]")


class Mark(NamedTuple):
    """A stretch of a text with a CSS class and, where there is more to say, a title to show on hover."""

    span: Span
    css: str
    title: str = ""


def differing(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """The words of each text that the other has not at that place; case does not count, neighbours are one span."""
    first, second = first[:LONGEST], second[:LONGEST]
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    keys = [[word.group().casefold() for word in side] for side in words]
    spans: tuple[list[Span], list[Span]] = ([], [])
    for operation, *bounds in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if operation == "equal":
            continue
        for side, (start, end) in enumerate((bounds[:2], bounds[2:])):
            if end > start:
                spans[side].append(Span(start=words[side][start].start(), end=words[side][end - 1].end()))
    return spans


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
