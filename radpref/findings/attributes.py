"""Side, place, severity, change, size, count and stage of each mention, from the words around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from radpref.findings.lexicon import Item, Lexicon, lexicon
from radpref.findings.mentions import Mention

_SEPARATORS = frozenset(
    {"join", "break", "negation before", "uncertain before", "negation after", "uncertain after", "negation near"}
)


Described = dict[str, Any]
"""Attributes of a finding by their names in `Finding`."""
_GRADES = frozenset({"severity", "size"})
_TOLD = frozenset({"side", "place", "severity", "change", "size", "position", "stage"})


def attributes(mentions: Sequence[Mention], found: Sequence[Item], words: Sequence[str]) -> list[list[Described]]:
    """What the words around each mention tell of it; twice where it names two (``large left and small right``)."""
    own: list[list[Item]] = [[] for _ in mentions]
    once = lexicon().lists["once"]
    useful = [
        item
        for item in found
        if (item.kind in _TOLD and not (item.kind in _GRADES and words[item.start - 1] in once and item.start))
        or item.kind in _SEPARATORS
    ]
    bounds = _groups(mentions)
    for position, group in enumerate(bounds):
        start, end = mentions[group[0]].start, max(mentions[k].end for k in group)
        before = max(mentions[k].end for k in bounds[position - 1]) if position else 0
        after = mentions[bounds[position + 1][0]].start if position + 1 < len(bounds) else len(words)
        left = [i for i in useful if before <= i.start and i.end <= start]
        right = [i for i in useful if end <= i.start and i.end <= after]
        inside = [i for i in useful if start <= i.start and i.end <= end]
        if position:
            left = left[_split(left) :]
        left = left[_after_hard_break(left, words) :]
        if position + 1 < len(bounds):
            right = right[: _split(right)]
        for k in group:
            own[k] = [*left, *inside, *right]
    counts = [item for item in found if item.kind == "count"]
    result = []
    for mention, around in zip(mentions, own, strict=True):
        count = _count(mention, counts, found, words)
        halves = _halves(mention, around, found)
        result.append([{**_describe(mention, half, words), "count": count} for half in halves or [around]])
    return result


def sizes(words: Sequence[str]) -> list[Item]:
    """Measures of findings (``3.5 x 2.1 cm`` is 35 mm) as items; distances (``4 cm above the carina``) are none."""
    found = []
    for index, word in enumerate(words):
        if word in _MILLIMETRES and index and (first := _number(words[index - 1])) is not None:
            numbers, start = [first], index - 1
            while (
                start >= 2
                and words[start - 1] in ("x", "by", "-", "to")
                and (more := _number(words[start - 2])) is not None
            ):
                numbers.append(more)
                start -= 2
            if words[index + 1 : index + 2] and words[index + 1] in lexicon().lists["distance"]:
                continue
            found.append(Item(start, index + 1, "size", f"{max(numbers) * _MILLIMETRES[word]:g}"))
    return found


_MILLIMETRES = {"mm": 1.0, "cm": 10.0, "millimeter": 1.0, "millimeters": 1.0, "centimeter": 10.0, "centimeters": 10.0}


def _number(word: str) -> float | None:
    return float(word) if word.replace(".", "", 1).isdigit() and word[0] != "." else None


def numerals(words: Sequence[str]) -> list[Item]:
    """Counts that are written in figures (``3 nodules``) as items; ``1. Effusion`` and measures are none."""
    return [
        Item(index, index + 1, "count", word)
        for index, word in enumerate(words[:-1])
        if word.isdigit()
        and 1 < int(word[:4]) < _MANY
        and words[index + 1].isalpha()
        and words[index + 1] not in lexicon().lists["not counted"]
        and (not index or words[index - 1] not in lexicon().lists["labels"])
    ]


_MANY = 100


def _count(mention: Mention, counts: Sequence[Item], found: Sequence[Item], words: Sequence[str]) -> int | str | None:
    """How many: a number before the mention with nothing but its own adjectives between."""
    before = [item for item in counts if item.end <= mention.start] or [
        item for item in counts if mention.start <= item.start and item.end <= mention.end
    ]
    if not before:
        return None
    count = before[-1]
    counted = lexicon().lists["counted"]
    covered = {index for item in found if item.kind in _TOLD for index in range(item.start, item.end)}
    if any(index not in covered and words[index] not in counted for index in range(count.end, mention.start)):
        return None
    return count.value if count.value == "several" else int(count.value)


def _halves(mention: Mention, around: Sequence[Item], found: Sequence[Item]) -> list[list[Item]]:
    """``moderate right and small left``: what is told of either side, where it differs; empty where it does not."""
    before = [item for item in around if item.end <= mention.start and item.kind in _TOLD]
    sides = [item for item in before if item.kind == "side" and item.value != "bilateral"]
    if len(sides) < 2 or sides[-1].value == sides[-2].value:
        return []
    joins = [
        item
        for item in found
        if item.kind == "join" and item.value in ("and", "comma") and sides[-2].end <= item.start < sides[-1].start
    ]
    if not joins:
        return []
    first = [item for item in before if item.end <= joins[0].start]
    second = [item for item in before if item.start >= joins[0].end]
    rest = [item for item in around if item.start >= mention.start]
    grades = [[item.value for item in half if item.kind in ("severity", "change", "size")] for half in (first, second)]
    return [[*first, *rest], [*second, *rest]] if all(grades) and grades[0] != grades[1] else []


def _after_hard_break(left: Sequence[Item], words: Sequence[str]) -> int:
    """Where what belongs to a mention begins: ``increased markings; small nodule``."""
    hard = lexicon().lists["hard breaks"]
    return max((n + 1 for n, i in enumerate(left) if i.kind == "break" and words[i.start] in hard), default=0)


def _groups(mentions: Sequence[Mention]) -> list[list[int]]:
    """Mentions that overlap (one state of several structures) share their attributes."""
    groups: list[list[int]] = []
    reach = -1
    for index, mention in enumerate(mentions):
        if mention.start < reach:
            groups[-1].append(index)
        else:
            groups.append([index])
        reach = max(reach, mention.end)
    return groups


def _split(gap: Sequence[Item]) -> int:
    """Where, in the words between two mentions, those of the second begin."""
    for index, item in enumerate(gap):
        if item.kind == "join" and item.value in ("in", "verb", "verbs"):
            continue
        if item.kind in _SEPARATORS:
            if item.kind == "join" and item.value in ("and", "or", "either") and _coordinated(gap, index):
                continue
            return index
    if gap and gap[0].kind == "join" and gap[0].value in ("in", "verb", "verbs"):
        return len(gap)
    return 0


def _coordinated(gap: Sequence[Item], index: int) -> bool:
    """``in the left and right lower lobes``: the join stands between two sides or places, not two findings."""
    return (
        0 < index < len(gap) - 1
        and gap[0].kind == "join"
        and gap[0].value == "in"
        and gap[index - 1].kind in ("side", "place")
        and gap[index + 1].kind in ("side", "place")
        and any(item.kind in _SEPARATORS for item in gap[index + 2 :])
    )


_NOTHING_TOLD: Described = dict.fromkeys(("side", "place", "severity", "change", "size_mm", "stage"))


def _describe(mention: Mention, around: Sequence[Item], words: Sequence[str]) -> dict[str, Any]:
    book = lexicon()
    state = mention.state
    # A state's own word tells no severity ("a large heart" is not a severe one), but borderline is mild.
    mine = [
        i
        for i in around
        if state is None or (i.start, i.end) != (state.start, state.end) or state.value == "borderline"
    ]

    if not mine:
        return dict(_NOTHING_TOLD)

    def nearest(kind: str) -> Item | None:
        of_kind = [i for i in mine if i.kind == kind]
        if len(of_kind) < 2:
            return of_kind[0] if of_kind else None
        return min(of_kind, key=lambda i: max(mention.anchor - i.end, i.start - mention.end, 0))

    place, severity, change, stage = nearest("place"), nearest("severity"), nearest("change"), nearest("stage")
    sides = {i.value for i in mine if i.kind == "side"}
    if not sides and place is not None:
        told = book.sided.get(" ".join(words[place.start : place.end]))
        sides = {told} if told else set()
    side = None if not sides else (sides.pop() if len(sides) == 1 else "bilateral")
    midline = mention.name in book.midline
    if _is_device(mention.name, book):
        position = nearest("position")
        where = position.value if position else (None if midline or place is None else place.value)
        size = None
    else:
        where = None if midline or place is None else place.value
        size = nearest("size")
    return {
        "side": None if midline else side,
        "place": where,
        "severity": severity.value if severity else None,
        "change": change.value if change else None,
        "size_mm": float(size.value) if size else None,
        "stage": stage.value if stage else None,
    }


def _is_device(name: str, book: Lexicon) -> bool:
    return book.chexpert[name] == "Support Devices"
