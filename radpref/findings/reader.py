"""Radiology text to findings: sections, sentences, cues and attributes.

The rules are ConText's (Harkema et al., 2009): a cue reaches forwards or backwards over the clause it stands in,
until a word that breaks it. Beside findings that are named, the states of structures are read ("the heart is not
enlarged"). Whatever a sentence says is read once and remembered: reports repeat their sentences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from radpref.findings.lexicon import TOKEN, Item, items, lexicon
from radpref.records import Finding, Span

_SENTENCE_END = re.compile(r"(?<=[^\W\d_]{2})[.!?](?=[^\W\d_])|[.!?](?=\s|$)|\n\s*\n|\n(?=\s*(?:\d+[.)]|[-*•]))")
_HEADING = re.compile(r"(?:(?<=\n)|^|(?<=[.!?]\s)|(?<=[.!?]\s\s))[ \t]*([A-Za-z][A-Za-z ,/()&-]{2,60}):")
_BLANK_LINE = re.compile(r"\S[^\S\n]*\n\s*\n")
_REMEMBERED = 1 << 15
"""Sentences kept in memory; at about a kilobyte each, some 30 MB."""


@dataclass(frozen=True)
class _Mention:
    """A finding named in a sentence, before its cues and attributes are known."""

    name: str
    presence: str
    start: int
    end: int
    anchor: int
    """The token that cues reach: a finding's first, a state's first."""
    state: Item | None = None


def read(text: str) -> tuple[Finding, ...]:
    """Every statement of a report about a finding, in the order of the text, with its character span.

    Sections that are not about this study's findings (history, indication, technique, comparison) are left out,
    and so is what is said to be history, or only looked for. A general statement is one finding of its own:
    ``lungs are clear`` is the absence of ``lung disease``, and ``COVERS`` tells what that denies. De-identified
    words (XXXX, ___) are words like any other unknown word. Never raises on a string.
    """
    found: list[Finding] = []
    for start, end in sentence_bounds(text):
        for finding, first, last in _read_sentence(text[start:end]):
            span = Span(start=start + first, end=start + last)
            found.append(finding.model_copy(update={"span": span}))
    return tuple(found)


def sentence_bounds(text: str) -> list[tuple[int, int]]:
    """Offsets of the sentences of those sections that tell findings."""
    sentences = []
    for start, end in _regions(text):
        for match in _SENTENCE_END.finditer(text, start, end):
            sentences.append((start, match.start()))
            start = match.end()
        sentences.append((start, end))
    return [(start, end) for start, end in sentences if start < end]


def _regions(text: str) -> list[tuple[int, int]]:
    """The text without its headings, and without sections about something else.

    Such a section ends at the next heading, or at the blank line after its text.
    """
    book = lexicon()
    regions, start = [], 0
    for match in _HEADING.finditer(text):
        title = " ".join(TOKEN.findall(match[1].lower())).replace("/ ", "")
        other = title in book.other_sections
        if not other and title not in book.sections and not match[1].isupper():
            continue
        if start < match.start(1):
            regions.append((start, match.start(1)))
        start = match.end()
        if other:
            ended = _BLANK_LINE.search(text, match.end())
            start = ended.end() if ended else len(text)
    regions.append((start, len(text)))
    return regions


@lru_cache(maxsize=_REMEMBERED)
def _read_sentence(text: str) -> tuple[tuple[Finding, int, int], ...]:
    """The findings of a sentence, each with the character offsets of its mention."""
    tokens = [(match[0].lower(), match.start(), match.end()) for match in TOKEN.finditer(text)]
    if not tokens:
        return ()
    found = items([word for word, _, _ in tokens])
    mentions = _states(found)
    told = {(mention.state.start, mention.state.end) for mention in mentions if mention.state}
    mentions += [
        _Mention(item.value, "present", item.start, item.end, item.start)
        for item in found
        if item.kind == "finding" and (item.start, item.end) not in told
    ]
    mentions.sort(key=lambda mention: (mention.start, mention.end))
    if not mentions:
        return ()
    presences = _presences(mentions, found)
    attributes = _attributes(mentions, found, tokens)
    return tuple(
        (
            Finding(name=m.name, presence=presence, **(extra if presence != "absent" else _denied(extra))),
            tokens[m.start][1],
            tokens[m.end - 1][2],
        )
        for m, presence, extra in zip(mentions, presences, attributes, strict=True)
        if presence is not None
    )


def _denied(extra: dict[str, Any]) -> dict[str, Any]:
    """What is absent has a place, but no severity and no change."""
    return {"side": extra["side"], "place": extra["place"]}


def _states(found: Sequence[Item]) -> list[_Mention]:
    """Mentions told by the state of a structure: ``heart is enlarged``, ``enlarged heart``, ``clear lungs``."""
    book = lexicon()
    mentions: list[_Mention] = []

    def link(structure: Item, state: Item) -> None:
        for name, presence in book.states.get((structure.value, state.value), {}).items():
            start, end = min(structure.start, state.start), max(structure.end, state.end)
            mentions.append(_Mention(name, presence, start, end, state.start, state))

    waiting: list[Item] = []  # structures whose state is still to come
    held: list[Item] = []  # states whose structure is still to come
    linked: Item | None = None  # the last structure that took a held state
    states = {(item.start, item.end) for item in found if item.kind == "state"}
    findings = {(item.start, item.end) for item in found if item.kind == "finding"}
    for index, item in enumerate(found):
        place = (item.start, item.end)
        if item.kind == "break" or (item.kind == "finding" and place not in states):
            waiting, held, linked = [], [], None
        elif item.kind == "structure" and place not in findings:
            near = held and item.start - (linked or held[-1]).end <= _NOUN_PHRASE
            if near and not (linked and _state_follows(found, index)):
                for state in held:
                    link(item, state)
                linked = item
            else:
                # "Heart: the heart is enlarged" names its subject twice.
                waiting = [*(other for other in waiting if other.value != item.value), item]
                held, linked = [], None
        elif item.kind == "state":
            if waiting and not _of(found, item):
                for structure in waiting:
                    link(structure, item)
                if not _state_next(found, index):
                    waiting = []
            else:
                held, linked = [*(() if linked else held), item], None
    return mentions


_NOUN_PHRASE = 4
"""Most words between a state and the structure after it: ``enlargement of the left`` cardiac silhouette."""


def _of(found: Sequence[Item], state: Item) -> bool:
    """Whether a structure follows the state with a preposition: ``enlargement of the heart``."""
    return any(item.kind == "join" and item.value == "in" and item.start == state.end for item in found) and any(
        item.kind == "structure" and 0 < item.start - state.end <= _NOUN_PHRASE for item in found
    )


def _state_next(found: Sequence[Item], index: int) -> bool:
    """Whether the same subject is told another state: ``the aorta is tortuous and heavily calcified``."""
    after = [i for i in found if i.start >= found[index].end and i.kind in ("join", "state", "structure", "break")][:2]
    return [item.value if item.kind == "join" else item.kind for item in after] == ["and", "state"]


def _state_follows(found: Sequence[Item], index: int) -> bool:
    """Whether the structure at ``index`` is told its own state after it."""
    for item in found[index + 1 :]:
        if item.kind in ("finding", "break") or (item.kind == "join" and item.value == "comma"):
            return False
        if item.kind == "state":
            return True
    return False


def _presences(mentions: Sequence[_Mention], found: Sequence[Item]) -> list[str | None]:
    """Present, absent or uncertain for each mention; None for what is not said of this study."""
    result: list[str | None] = [mention.presence for mention in mentions]
    negated = doubted = history = False
    near = -_NEAR - 1  # end of the last cue that reaches only a few words
    told = {(m.state.start, m.state.end) for m in mentions if m.state} | {(m.start, m.end) for m in mentions}
    events: list[tuple[int, int, Item | None]] = sorted(
        [(item.start, -1, item) for item in found if item.kind not in ("finding", "place", "side")]
        + [(mention.anchor, index, None) for index, mention in enumerate(mentions)],
        key=lambda event: event[:2],
    )
    mentioned = [mention.anchor for mention in mentions]
    cues = {(item.start, item.kind) for item in found}
    clause = 0  # first token of the clause
    joined: Item | None = None
    verb = -1  # end of the last verb
    for _, index, item in events:
        if item is None:
            if history:
                result[index] = None
            elif (negated or mentions[index].anchor - near <= _NEAR) and mentions[index].presence != "absent":
                result[index] = "absent"
            elif doubted and mentions[index].presence == "present":
                result[index] = "uncertain"
            continue
        if item.kind.endswith(("before", "near")):
            joined = None  # "..., question small effusion": the cue begins the new statement
        match item.kind:
            case "break":
                negated = doubted = history = False
                clause = item.end
            case "negation before":
                if (item.start, "negation after") in cues and not _ahead(mentioned, item, found):
                    continue
                negated, doubted = True, False
            case "negation near":
                near = item.end
            case "uncertain before":
                if (item.start, "uncertain after") in cues and not _ahead(mentioned, item, found):
                    continue
                doubted = True
            case "history before":
                history = True
            case "negation after" | "uncertain after":
                other = item.kind.replace("after", "before")
                if (item.start, other) in cues and _ahead(mentioned, item, found):
                    continue
                value = "absent" if item.kind == "negation after" else "uncertain"
                _reach_back(item, value, mentions, found, result, clause)
            case "join":
                if item.value in ("verb", "verbs"):
                    verb = item.end
                if item.value in ("and", "comma", "with", "or", "either"):
                    joined = item
            case "severity" | "change" | "structure" | "state":
                if item.kind == "state" and (item.start, item.end) not in told:
                    if item.value == "normal" and verb == item.start:
                        _reach_back(item, "absent", mentions, found, result, clause)
                    continue
                # "no pneumothorax, small effusion": a new statement begins, unless the list goes on with an "or".
                fresh = joined is not None and joined.value not in ("or", "either") and item.start - joined.end <= 1
                if fresh and not (item.kind == "change" and item.value == "new") and not _or_ahead(item, found):
                    negated = False
                    doubted = doubted and item.kind == "severity" and joined is not None and joined.value == "and"
    _alternatives(mentions, found, result)
    return result


def _ahead(mentioned: Sequence[int], item: Item, found: Sequence[Item]) -> bool:
    """Whether a mention follows in the same clause."""
    end = next((i.start for i in found if i.kind == "break" and i.start >= item.end), None)
    return any(anchor >= item.end and (end is None or anchor < end) for anchor in mentioned)


def _or_ahead(item: Item, found: Sequence[Item]) -> bool:
    for other in found:
        if other.start >= item.end:
            if other.kind == "break":
                return False
            if other.kind == "join" and other.value in ("or", "either"):
                return True
    return False


def _reach_back(
    cue: Item,
    value: str,
    mentions: Sequence[_Mention],
    found: Sequence[Item],
    result: list[str | None],
    clause: int,
) -> None:
    """Let a cue that stands after its findings reach the nearest, and those listed with it."""
    before = [i for i, mention in enumerate(mentions) if clause <= mention.start and mention.end <= cue.start]
    following = None
    for index in reversed(before):
        if following is not None:
            between = [
                item
                for item in found
                if item.kind == "join" and mentions[index].end <= item.start < mentions[following].start
            ]
            if not between or any(item.value in ("with", "in", "verb", "verbs") for item in between):
                break
        if mentions[index].presence == "present" and result[index] != "absent":
            result[index] = value
        following = index


def _alternatives(mentions: Sequence[_Mention], found: Sequence[Item], result: list[str | None]) -> None:
    """``atelectasis or pneumonia``: of two alternatives, neither is certain."""
    book = lexicon()
    for (i, first), (j, second) in pairwise(enumerate(mentions)):
        if result[i] in ("present", "uncertain") and result[j] in ("present", "uncertain"):
            if first.state or second.state or {first.name, second.name} & book.minor:
                continue
            if book.chexpert[first.name] and book.chexpert[first.name] == book.chexpert[second.name]:
                continue  # "pacemaker/ICD" names one thing twice
            between = [item for item in found if first.end <= item.start and item.end <= second.start]
            kinds = {item.kind for item in found if item.kind in ("break", "pseudo") and item.end <= second.start}
            if any(i.kind == "join" and i.value == "or" for i in between) and not kinds:
                result[i] = result[j] = "uncertain"


_NEAR = 3
"""Words between ``not`` and what it negates."""

_SEPARATORS = frozenset(
    {"join", "break", "negation before", "uncertain before", "negation after", "uncertain after", "negation near"}
)


def _attributes(
    mentions: Sequence[_Mention], found: Sequence[Item], tokens: Sequence[tuple[str, int, int]]
) -> list[dict[str, Any]]:
    """Side, place, severity and change of each mention, from the words around it."""
    book = lexicon()
    own: list[list[Item]] = [[] for _ in mentions]
    useful = [
        item for item in found if item.kind in ("side", "place", "severity", "change") or item.kind in _SEPARATORS
    ]
    bounds = _groups(mentions)
    for position, group in enumerate(bounds):
        start, end = mentions[group[0]].start, max(mentions[k].end for k in group)
        before = max(mentions[k].end for k in bounds[position - 1]) if position else 0
        after = mentions[bounds[position + 1][0]].start if position + 1 < len(bounds) else len(tokens)
        left = [i for i in useful if before <= i.start and i.end <= start]
        right = [i for i in useful if end <= i.start and i.end <= after]
        inside = [i for i in useful if start <= i.start and i.end <= end]
        if position:
            left = left[_split(left) :]
        if position + 1 < len(bounds):
            right = right[: _split(right)]
        for k in group:
            own[k] = [*left, *inside, *right]
    return [_describe(mention, around, found, book, tokens) for mention, around in zip(mentions, own, strict=True)]


def _groups(mentions: Sequence[_Mention]) -> list[list[int]]:
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


def _describe(
    mention: _Mention,
    around: Sequence[Item],
    found: Sequence[Item],
    book: Any,
    tokens: Sequence[tuple[str, int, int]],
) -> dict[str, Any]:
    state = mention.state
    # A state's own word tells no severity ("a large heart" is not a severe one), but borderline is mild.
    mine = [
        i
        for i in around
        if state is None or (i.start, i.end) != (state.start, state.end) or state.value == "borderline"
    ]

    def nearest(kind: str) -> Item | None:
        of_kind = [i for i in mine if i.kind == kind]
        return min(of_kind, key=lambda i: max(mention.anchor - i.end, i.start - mention.end, 0), default=None)

    place, severity, change = nearest("place"), nearest("severity"), nearest("change")
    sides = {i.value for i in mine if i.kind == "side"}
    if not sides and place is not None:
        told = book.sided.get(" ".join(word for word, _, _ in tokens[place.start : place.end]))
        sides = {told} if told else set()
    side = None if not sides else (sides.pop() if len(sides) == 1 else "bilateral")
    return {
        "side": None if mention.name in book.midline else side,
        "place": None if mention.name in book.midline or place is None else place.value,
        "severity": severity.value if severity else None,
        "change": change.value if change else None,
    }
