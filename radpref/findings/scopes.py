"""What is said of each mention: present, absent, uncertain, or nothing of this study.

The rules are ConText's (Harkema et al., 2009): a cue reaches forwards or backwards over the clause it stands in,
until a word that breaks it. Negation, doubt, history and the denial of a change are scopes of their own: ``no
worsening of the effusion`` denies the worsening, not the effusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from radpref.findings.lexicon import Item, lexicon
from radpref.findings.mentions import Mention

NEAR = 3
"""Words between ``not`` and what it negates."""
_FAR = 5
"""Words between an earlier study and the verb that says what it showed."""


# ---------------------------------------------------------------- denied changes


def with_denied_changes(found: Sequence[Item], words: Sequence[str]) -> list[Item]:
    """The items of a sentence with each denied change as one: ``no interval improvement in``, ``has not resolved``."""
    parts = lexicon().denied_change
    if parts["nouns"].isdisjoint(words) and parts["verbs"].isdisjoint(words):
        return list(found)
    denied = [item for start in range(len(words)) if (item := _denied_change(start, words, found))]
    if not denied:
        return list(found)
    kept = [item for item in found if not any(item.start < d.end and d.start < item.end for d in denied)]
    marks = [item._replace(kind="pseudo") for item in denied]
    return sorted([*kept, *denied, *marks])


def _denied_change(start: int, words: Sequence[str], found: Sequence[Item]) -> Item | None:
    parts, lists = lexicon().denied_change, lexicon().lists
    negator = next((n for n in (3, 2, 1) if " ".join(words[start : start + n]) in parts["negators"]), 0)
    if not negator:
        return None
    at = start + negator
    while at < len(words) and words[at] in parts["fillers"]:
        at += 1
    between = set(words[start + negator : at])
    if at >= len(words):
        return None
    end = at + 1
    if words[start] not in ("not", "never") and words[at] in parts["nouns"]:
        if (
            words[end : end + 1] in (["or"], ["nor"], ["and"], ["/"])
            and words[end + 1 : end + 2]
            and words[end + 1] in parts["nouns"]
        ):
            end += 2
        following = words[end] if end < len(words) else "."
        if following not in lists["after denied changes"] or "disease" in words[end : end + 3]:
            return None  # "no progression of disease" says nothing of a finding
        if (
            words[at] in lists["states too"]
            and not between & lists["over time"]
            and "known" not in words[end : end + 3]
        ):
            return None
        if words[at].startswith("change") and following not in ("of", "in") and not between & lists["over time"]:
            return None
    elif words[at] in parts["verbs"] and (words[start] in lists["denying verbs"] or words[at] in lists["comparatives"]):
        # "the vascularity is not increased" is a normal state
        before = [item for item in found if item.end <= start and item.kind in ("structure", "finding")]
        if words[at] == "increased" and before and before[-1].kind == "structure":
            return None
        if words[at].startswith("enlarge") and words[start - 1 : start] not in (["has"], ["have"], ["had"]):
            return None
    else:
        return None
    return Item(start, end, "change", "unchanged")


# ---------------------------------------------------------------- presence


def presences(mentions: Sequence[Mention], found: Sequence[Item], words: Sequence[str]) -> list[str | None]:
    """Present, absent or uncertain for each mention; None for what is not said of this study."""
    if words[-1] == "?" and words[0] in lexicon().asking:
        return [None] * len(mentions)
    result = _cued(mentions, found, words)
    _alternatives(mentions, found, result)
    _preferred(mentions, found, result)
    if not _VALUE_SIGNS.isdisjoint(words):
        _valued(mentions, found, words, result)
    return result


def _cued(mentions: Sequence[Mention], found: Sequence[Item], words: Sequence[str]) -> list[str | None]:
    result: list[str | None] = [mention.presence for mention in mentions]
    negated = doubted = history = clausal = False
    near = -NEAR - 1  # end of the last cue that reaches only a few words
    earlier = -_FAR - 1  # end of the last word for an earlier study
    told = {(m.state.start, m.state.end) for m in mentions if m.state} | {(m.start, m.end) for m in mentions}
    events: list[tuple[int, int, Item | None]] = sorted(
        [(item.start, -1, item) for item in found if item.kind not in _NO_CUE]
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
            if negated and joined is not None and _begins_anew(joined, mentions[index], words):
                negated = False
            if history:
                result[index] = None
            elif (negated or mentions[index].anchor - near <= NEAR) and mentions[index].presence != "absent":
                result[index] = "absent"
            elif doubted and mentions[index].presence == "present":
                result[index] = "uncertain"
            continue
        if item.kind.endswith(("before", "near")):
            joined = None  # "..., question small effusion": the cue begins the new statement
        match item.kind:
            case "break":
                if item.start and words[item.start - 1] in ("that", "if", "whether"):
                    continue  # "no evidence that there is"
                negated = doubted = history = clausal = False
                near = -NEAR - 1
                clause = item.end
            case "negation clause":
                negated, doubted, clausal = True, False, True
            case "negation before":
                if (item.start, "negation after") in cues and not _ahead(mentioned, item, found):
                    continue
                # "we cannot say that there is no effusion": neither is known
                negated, doubted = not clausal, clausal
            case "negation near":
                near = item.end
            case "uncertain before":
                if (item.start, "uncertain after") in cues and not _ahead(mentioned, item, found):
                    continue
                doubted = True
            case "history before":
                history = True
            case "earlier":
                earlier = item.end
            case "told then":
                history = history or item.start - earlier <= _FAR
            case "negation after" | "uncertain after":
                other = item.kind.replace("after", "before")
                if (item.start, other) in cues and _ahead(mentioned, item, found):
                    continue
                value = "absent" if item.kind == "negation after" else "uncertain"
                if words[item.start - 1] == "(" and any(i.kind == "value" and i.start == item.start for i in found):
                    continue  # "effusion (left), pneumothorax (none)": of the one alone
                if not item.start:  # "absent pneumothorax": there is nothing to reach back to
                    negated, doubted = value == "absent", value == "uncertain"
                    continue
                over = not lexicon().lists["over"].isdisjoint(words[item.start : item.end])
                listed = joined is not None and joined.value == "comma" and joined.end > mentioned[0]
                doubly = clausal or (negated and over and not listed)
                _reach_back(item, value, mentions, found, result, clause, doubly=doubly)
            case "join":
                if item.value in ("verb", "verbs"):
                    verb = item.end
                if item.value in ("and", "comma", "with", "or", "either"):
                    joined = item
            case "severity" | "change" | "structure" | "state" | "anaphor":
                if item.kind == "change" and (item.start, "pseudo") in cues:
                    doubted = False  # "suggesting no progression of"
                if item.kind == "state" and (item.start, item.end) not in told:
                    if item.value == "normal" and verb == item.start:
                        _reach_back(item, "absent", mentions, found, result, clause)
                    continue
                # "no pneumothorax, small effusion": a new statement begins, unless the list goes on with an "or".
                fresh = joined is not None and joined.value not in ("or", "either") and item.start - joined.end <= 1
                if fresh and not (item.kind == "change" and item.value == "new") and not _or_ahead(item, found):
                    negated = False
                    doubted = doubted and item.kind == "severity" and joined is not None and joined.value == "and"
    return result


_NO_CUE = frozenset(
    {"finding", "place", "side", "position", "stage", "count", "size", "value", "preference", "contrast"}
)


def _begins_anew(comma: Item, mention: Mention, words: Sequence[str]) -> bool:
    """Whether the comma before a mention begins a statement: ``without pneumothorax, the left effusion is stable``."""
    return (
        comma.value == "comma"
        and words[comma.end : comma.end + 1] == ["the"]
        and mention.state is None
        and words[mention.end : mention.end + 1] != []
        and words[mention.end] in lexicon().lists["verbs"]
    )


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
    mentions: Sequence[Mention],
    found: Sequence[Item],
    result: list[str | None],
    clause: int,
    *,
    doubly: bool = False,
) -> None:
    """Let a cue that stands after its findings reach the nearest, and those listed with it.

    ``doubly``: they stand in a clause that is denied itself (``no evidence that it has resolved``).
    """
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
        if doubly and value == "absent" and result[index] == "absent":
            result[index] = "present"
        elif mentions[index].presence == "present" and result[index] not in ("absent", None):
            result[index] = value
        following = index


def _alternatives(mentions: Sequence[Mention], found: Sequence[Item], result: list[str | None]) -> None:
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


def _preferred(mentions: Sequence[Mention], found: Sequence[Item], result: list[str | None]) -> None:
    """``favors atelectasis over pneumonia``: the second is at most uncertain."""
    contrasts = [item for item in found if item.kind == "contrast"]
    if not contrasts:
        return
    preferences = [item for item in found if item.kind == "preference"]
    for contrast in contrasts:
        if any(item.end <= contrast.start for item in preferences):
            before = [m for m in mentions if m.end <= contrast.start]
            after = next((i for i, m in enumerate(mentions) if m.start >= contrast.end), None)
            if before and after is not None and result[after] == "present":
                result[after] = "uncertain"


# ---------------------------------------------------------------- names with values


_VALUE_SIGNS = frozenset({":", "=", "(", "-", "?"})


def _valued(mentions: Sequence[Mention], found: Sequence[Item], words: Sequence[str], result: list[str | None]) -> None:
    """``effusion: none``, ``effusion (+)``, ``evidence of edema: yes``, ``is there an effusion? No.``"""
    values = {item.start: item for item in found if item.kind == "value"}
    settled = False
    for index, mention in enumerate(mentions):
        sign = words[mention.end] if mention.end < len(words) else ""
        value = values.get(mention.end + 1)
        if sign in _VALUE_SIGNS and value is not None and _stands_alone(sign, value, words):
            result[index] = None if value.value == "unknown" else value.value
            settled = True
    if settled:
        return
    if ":" in words and (told := lexicon().list_headings.get(" ".join(words[: words.index(":")]))):
        result[:] = [told if said == "present" else said for said in result]
        return
    sign_at = next((i for i, word in enumerate(words) if word in (":", "?")), None)
    if sign_at is None or sign_at + 1 >= len(words):
        return
    keys = [i for i, mention in enumerate(mentions) if mention.end <= sign_at]
    if not keys or not _is_key(words[:sign_at], found):
        return
    value = values.get(sign_at + 1)
    later = [i for i, mention in enumerate(mentions) if mention.start > sign_at]
    for key in keys:
        if value is not None:
            result[key] = None if value.value == "unknown" else value.value
        elif later:
            if all(result[i] in ("absent", None) or _akin(mentions[key].name, mentions[i].name) for i in later):
                result[key] = None
        else:
            kinds = {item.kind for item in found if item.start > sign_at}
            if kinds & {"negation before", "negation near", "negation after"}:
                result[key] = "absent"
            elif kinds & {"uncertain before", "uncertain after"}:
                result[key] = "uncertain"
            elif "structure" in kinds and lexicon().chexpert[mentions[key].name] == "Support Devices":
                result[key] = None  # "devices: the trachea is midline"


def _stands_alone(sign: str, value: Item, words: Sequence[str]) -> bool:
    following = words[value.end] if value.end < len(words) else "."
    if sign == "(":
        return following in (")", ",")
    return sign != "-" or following in (".", ",", ";")


def _is_key(words: Sequence[str], found: Sequence[Item]) -> bool:
    covered = {index for item in found if item.kind in _KEY_KINDS for index in range(item.start, item.end)}
    return all(index in covered or word in lexicon().lists["keys"] for index, word in enumerate(words))


_KEY_KINDS = frozenset({"finding", "side", "place", "severity", "join", "structure", "stage"})


def _akin(first: str, second: str) -> bool:
    return first == second or any(first in group and second in group for group in lexicon().kin)
