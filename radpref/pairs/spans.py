"""What differs between two answers, as character spans: minimal, balanced, and enough to turn one into the other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from radpref.records import Span

_WORD = re.compile(r"\d+(?:[.,:]\d+)+|\w+(?:['’-]\w+)*|[^\w\s]")


class Marked(NamedTuple):
    """Spans of both sides, equally many: the n-th of one stands for the n-th of the other."""

    before: tuple[Span, ...]
    after: tuple[Span, ...]


def marked(before: str, after: str) -> Marked:
    """The smallest spans of words in which two texts differ.

    Words and punctuation marks are compared (difflib), white space is not. Differences with nothing but punctuation
    between them are one. Where one side has nothing (an insertion), both spans take the next word or mark with them,
    which is where a model that writes one text departs from the other; at the end of a text the one before. So no
    span is empty, and putting the words of the one side's spans in the place of the other's gives the other text
    (`spliced`), unless one text has no words at all, which gives no spans. Offsets are characters, ends exclusive.
    """
    ours, theirs = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    if not ours or not theirs:
        return Marked((), ())
    blocks = _blocks([m[0] for m in ours], [m[0] for m in theirs])
    return Marked(
        tuple(Span(start=ours[i].start(), end=ours[j - 1].end()) for i, j, _, _ in blocks),
        tuple(Span(start=theirs[i].start(), end=theirs[j - 1].end()) for _, _, i, j in blocks),
    )


def _blocks(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Differing runs of words (first, last, first, last), none empty."""
    codes = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    blocks: list[tuple[int, int, int, int]] = []
    for tag, i, j, k, m in codes:
        if tag == "equal":
            continue
        if blocks and not any(word[0].isalnum() for word in ours[blocks[-1][1] : i]):
            blocks[-1] = (blocks[-1][0], j, blocks[-1][2], m)
        else:
            blocks.append((i, j, k, m))
    widened: list[tuple[int, int, int, int]] = []
    for i, j, k, m in blocks:
        if i == j or k == m:
            if j < len(ours) and m < len(theirs):
                j, m = j + 1, m + 1
            else:
                i, k = i - 1, k - 1
        if widened and (i < widened[-1][1] or k < widened[-1][3]):
            widened[-1] = (widened[-1][0], j, widened[-1][2], m)
        else:
            widened.append((i, j, k, m))
    return widened


def spliced(before: str, after: str, spans: Marked) -> str:
    """``before`` with the words of ``after``'s spans in the place of its own.

    Raises:
        ValueError: the spans are not balanced (`fault`).
    """
    if reason := fault(before, after, spans):
        raise ValueError(f"the spans cannot be used: {reason}")
    text, end = "", 0
    for ours, theirs in zip(spans.before, spans.after, strict=True):
        text = _joined(text, before[end : ours.start])
        text = _joined(text, after[theirs.start : theirs.end])
        end = ours.end
    return _joined(text, before[end:])


def _joined(text: str, more: str) -> str:
    """Two pieces, and a blank where two words would run into one."""
    return f"{text} {more}" if text[-1:].isalnum() and more[:1].isalnum() else text + more


def fault(before: str, after: str, spans: Marked) -> str | None:
    """Why spans cannot be those of two texts, or None: unlike numbers, an empty, overlapping or outlying span."""
    if len(spans.before) != len(spans.after):
        return f"{len(spans.before)} on one side and {len(spans.after)} on the other"
    for text, side in ((before, spans.before), (after, spans.after)):
        end = 0
        for span in side:
            if span.start < end or span.end <= span.start or span.end > len(text):
                return f"the span {span.start} to {span.end} is empty, overlaps another or lies outside its text"
            end = span.end
    return None


def same_words(one: str, other: str) -> bool:
    """Whether two texts are the same words and marks, whatever the white space between them."""
    return _WORD.findall(one) == _WORD.findall(other)


def distance(before: str, after: str) -> float:
    """Levenshtein distance over words and punctuation marks, as a share of the longer text's: 0 alike, 1 all other.

    Case counts, white space does not. Two texts without words are alike.
    """
    return changes(before, after) / max(size(before), size(after), 1)


def size(text: str) -> int:
    """Words and punctuation marks of a text."""
    return len(_WORD.findall(text))


def changes(before: str, after: str) -> int:
    """Levenshtein distance over words and punctuation marks: the fewest put in, taken out or exchanged."""
    ours, theirs = _WORD.findall(before), _WORD.findall(after)
    row = list(range(len(theirs) + 1))
    for i, word in enumerate(ours, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(theirs, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != other))
    return row[-1]
