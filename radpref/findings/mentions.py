"""Findings named in a sentence: by name, by the state of a part of the body, by a word that stands for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from radpref.findings.lexicon import Item, lexicon


@dataclass(frozen=True)
class Mention:
    """A finding named in a sentence, before its cues and attributes are known."""

    name: str
    presence: str
    start: int
    end: int
    anchor: int
    """The token that cues reach: a finding's first, a state's own first."""
    state: Item | None = None


def mentions(words: Sequence[str], found: Sequence[Item]) -> list[Mention]:
    """Every mention of a finding, in the order of the words."""
    told = _states(_without_key(found, words))
    states = {(mention.state.start, mention.state.end) for mention in told if mention.state}
    named = [
        Mention(item.value, "present", item.start, item.end, item.start)
        for item in found
        if item.kind == "finding" and (item.start, item.end) not in states and not _elsewhere(item, words, found)
    ]
    every = sorted([*told, *named], key=lambda mention: (mention.start, mention.end))
    if not every:
        return _all_normal(words, found)
    return _with_anaphors(every, words, found)


def _all_normal(words: Sequence[str], found: Sequence[Item]) -> list[Mention]:
    """``Normal.``, said of the whole image."""
    return [
        Mention("acute disease", "absent", item.start, item.end, item.start)
        for item in found
        if item.kind == "state" and item.value == "normal" and item.end - item.start == len(words)
    ]


def _with_anaphors(every: list[Mention], words: Sequence[str], found: Sequence[Item]) -> list[Mention]:
    """With the words that stand for a finding named before them.

    ``one`` in ``not a large effusion, but a small one``; ``the left`` in ``the right effusion has grown, the left
    has shrunk`` and in ``on the left it is small``.
    """
    result, lists = list(every), lexicon().lists
    for item in found:
        following = words[item.end] if item.end < len(words) else "."
        one_side = item.kind == "side" and words[item.start] in ("left", "right")
        if (item.kind == "anaphor" and following in lists["after anaphors"]) or (
            one_side and (following == "it" or (following in lists["verbs"] and _begins_clause(item.start, words)))
        ):
            before = [mention for mention in every if mention.end <= item.start and mention.state is None]
            if before:
                result.append(replace(before[-1], start=item.start, end=item.end, anchor=item.start))
    return sorted(result, key=lambda mention: (mention.start, mention.end)) if len(result) > len(every) else every


def _begins_clause(at: int, words: Sequence[str]) -> bool:
    before = words[at - 2] if at > 1 and words[at - 1] == "the" else words[at - 1] if at else ""
    return before in lexicon().lists["begin a clause"]


def _elsewhere(item: Item, words: Sequence[str], found: Sequence[Item]) -> bool:
    """Whether the finding is one of another part of the body: ``knee effusion``, ``mass in the left breast``."""
    book = lexicon()
    if words[item.start] == "cm":  # cardiomegaly, or a measure
        return item.start > 0 and (
            words[item.start - 1][0].isdigit() or words[item.start - 1] in ("few", "several", "x")
        )
    if words[item.end - 1] == "valve" and not book.lists["own valve"].isdisjoint(words):
        return True
    if item.value not in book.general_findings:
        return False
    between = book.lists["of a part"]
    before = item.start - 1
    while before > 0 and words[before] in between:
        before -= 1
    if before >= 0 and (
        words[before] in book.elsewhere or " ".join(words[max(before - 1, 0) : before + 1]) in book.elsewhere
    ):
        return words[item.start] not in ("pleural", "lung", "pulmonary")
    after = item.end
    if after < len(words) and words[after] in ("contour", "appearance", "margin", *book.elsewhere):
        if words[after] in book.elsewhere:
            return True
        after += 1
    if after < len(words) and words[after] in ("of", "in", "within", "at"):
        after += 1
        while after < len(words) and words[after] in between:
            after += 1
        return after < len(words) and (
            words[after] in book.elsewhere or " ".join(words[after : after + 2]) in book.elsewhere
        )
    return after < len(words) and words[after] in book.lists["other names"]


def _without_key(found: Sequence[Item], words: Sequence[str]) -> Sequence[Item]:
    """The items without the name of a body part that only heads the statement: ``heart: the lungs are clear``.

    It stays where what follows is its own state: ``heart: mildly enlarged``.
    """
    if ":" not in words:
        return found
    colon = words.index(":")
    behind = [item for item in found if item.start > colon]
    before = {index for item in found if item.end <= colon for index in range(item.start, item.end)}
    if len(before) < colon or not any(item.kind == "structure" for item in found if item.end <= colon):
        return found
    state = next((item for item in behind if item.kind == "state"), None)
    structure = next((item for item in behind if item.kind == "structure"), None)
    if state is None:
        return behind
    covered = {index for item in behind for index in range(item.start, item.end)}
    small = lexicon().lists["before states"]
    near = all(index in covered or words[index] in small for index in range(colon + 1, state.start))
    if structure is not None and (structure.start < state.start or _of_one_phrase(state, structure, behind)):
        return behind
    return found if near else behind


def _of_one_phrase(state: Item, structure: Item, found: Sequence[Item]) -> bool:
    """Whether the structure is that of the state before it: ``normal heart size``, not ``normal, the aorta``."""
    between = [item for item in found if state.end <= item.start and item.end <= structure.start]
    parted = any(item.kind == "break" or (item.kind == "join" and item.value != "in") for item in between)
    return structure.start - state.end <= _NOUN_PHRASE and not parted


def _states(found: Sequence[Item]) -> list[Mention]:
    """Mentions told by the state of a structure: ``heart is enlarged``, ``enlarged heart``, ``clear lungs``."""
    book = lexicon()
    mentions: list[Mention] = []

    def link(structure: Item, state: Item) -> None:
        for name, presence in book.states.get((structure.value, state.value), {}).items():
            start, end = min(structure.start, state.start), max(structure.end, state.end)
            mentions.append(Mention(name, presence, start, end, state.start, state))

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
            reach = _TOLD_IN if held and held[-1].value in ("fluid", "air") else _NOUN_PHRASE
            near = held and item.start - (linked or held[-1]).end <= reach
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


_TOLD_IN = 7
"""The same for what is told in a clause: ``fluid is seen in the left`` pleural space."""
_NOUN_PHRASE = 4
"""Most words between a state and the structure after it: ``enlargement of the left`` cardiac silhouette."""


def _of(found: Sequence[Item], state: Item) -> bool:
    """Whether a structure follows the state with a preposition: ``enlargement of the heart``."""
    if not any(item.kind == "join" and item.value == "in" and item.start == state.end for item in found):
        return False
    for item in found:
        if item.start >= state.end:
            if item.kind == "break":
                return False
            if item.kind == "structure":
                return 0 < item.start - state.end <= _NOUN_PHRASE
    return False


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
