"""One attribute of one mention changed in its own sentence: side, place, severity, change, or what it is called.

Each function yields whole reports, the least changed first; whoever asks reads them and takes the first that says
what was wanted. What stands there may be wrong English only where no better one reads as wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from radpref.findings import grammar
from radpref.findings.rewrite import phrases
from radpref.findings.rewrite.sentences import Sentence, Word, replaced, sentence_of, words
from radpref.records import Finding

_SIDE_WORD = re.compile(r"\b(left|right|lt|rt|l|r)(?=(?:ward)?\b)", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "lt": "rt", "rt": "lt", "l": "r", "r": "l"}
_BOTH_TO_ONE = {
    "bilateral": "{}",
    "left and right": "{}",
    "right and left": "{}",
    "bibasilar": "{} basilar",
    "bibasal": "{} basal",
    "biapical": "{} apical",
    "bilaterally": "on the {}",
    "on both sides": "on the {}",
    "both": "the {}",
    "both lungs": "the {} lung",
}
_SIDED_PLACES = {
    "rul": "lul",
    "rll": "lll",
    "rml": "lingula",
    "lul": "rul",
    "lll": "rll",
    "lingula": "right middle lobe",
    "right middle lobe": "lingula",
    "lingular": "right middle lobe",
}
_CHANGE_WORDS = {
    "new": ("new", "new", "new"),
    "worse": ("worsening", "increased", "worse"),
    "better": ("improving", "decreased", "better"),
    "unchanged": ("unchanged", "unchanged", "unchanged"),
}
"""Change to the word before a noun, the word after a verb or comma, and the word before ``than``."""
_SINCE = (
    r"(?:\s+(?:from|since|than on|than|compared (?:to|with)|in comparison (?:to|with))\s+(?:the )?(?:prior|previous)"
    r"(?:\s+(?:study|exam|examination|film|radiograph))?)?"
)
_VERB = r"(?:is|are|has|have|appears?|remains?)\s+(?:again\s+)?"


def turned(text: str, mention: Finding, attribute: str, value: Any, *, rebuild: bool = True) -> Iterator[str]:
    """Reports in which ``mention``, a finding that was read from ``text``, has another value of an attribute.

    Args:
        attribute: ``side``, ``place``, ``severity``, ``change`` or ``type`` (then ``value`` is the other name).
        rebuild: last, write the sentence anew where it tells nothing but this finding.
    """
    ways = {"side": _side, "place": _place, "severity": _severity, "change": _change, "type": _type}
    sentence = sentence_of(text, mention)
    for body in ways[attribute](sentence, mention, value):
        if body != sentence.body:
            yield replaced(sentence, _agreed(body))
    if rebuild and attribute != "type" and _alone(sentence, mention):
        wanted = mention.model_copy(update={attribute: value})
        yield replaced(sentence, phrases.sentence(wanted, style_of(sentence.body), surface(text, mention)))


_ONE_OF_MANY = re.compile(
    r"(?:\b(This|It|There) is |\b)an? ((?:[\w-]+ ){0,3}"
    r"(?:opacities|nodules|masses|effusions|pneumothoraces|fractures|catheters|tubes|infiltrates)\b)",
    re.IGNORECASE,
)
_MANY = {"this": "These are", "it": "They are", "there": "There are"}


_SINGLE = re.compile(
    r"(?<=\bshows |\bmarks )(?=(?:(?:mild|moderate|severe|small|large|left|right|pleural|lung|rib)\s)*"
    r"(?:opacity|nodule|mass|effusion|pneumothorax|fracture)\b)",
    re.IGNORECASE,
)


def _agreed(body: str) -> str:
    """Articles and verbs that fit where one has become several, or several one: ``This is a nodules in both``."""

    def several(match: re.Match[str]) -> str:
        verb = _MANY[match[1].lower()] if match[1] else ""
        verb = verb if not match[1] or match[1][0].isupper() else grammar.uncapital(verb)
        return f"{verb} {match[2]}".strip()

    return _SINGLE.sub("a ", _ONE_OF_MANY.sub(several, body))


def _alone(sentence: Sentence, mention: Finding) -> bool:
    return all(other.name == mention.name for other in sentence.mentions)


def style_of(body: str) -> phrases.Style:
    """How a sentence states its finding."""
    if re.match(r"there\s", body, re.IGNORECASE):
        return "there"
    seen = re.search(r"\b(?:is|are)\s+(?:present|seen|noted|identified|visualized|demonstrated)\b", body, re.IGNORECASE)
    return "seen" if seen else "plain"


_ADJECTIVAL = re.compile(r"(?:ic|ous|ed|ive|ar)$")


def surface(text: str, mention: Finding) -> str | None:
    """The mention's own noun, where it is one: ``effusion``, but not ``enlarged`` or ``the heart is enlarged``."""
    if mention.span is None:
        return None
    said = text[mention.span.start : mention.span.end]
    if (
        _ADJECTIVAL.search(said)
        or any(w.kind in ("structure", "state") for w in words(said))
        or " " in said.strip()[20:]
    ):
        return None
    return grammar.uncapital(said)


def _near(sentence: Sentence, mention: Finding, *kinds: str) -> list[Word]:
    """The sentence's words of some kinds, the nearest to the mention first."""
    start, end = sentence.at(mention)
    found = [word for word in words(sentence.body) if word.kind in kinds]
    return sorted(found, key=lambda word: max(start - word.end, word.start - end, 0))


def _swap(body: str, start: int, end: int, new: str) -> str:
    """The words from ``start`` to ``end`` exchanged, their case and the article before them kept right."""
    old = body[start:end]
    if old[:1].isupper() and not old[1:2].isupper():
        new = grammar.capital(new)
    before = body[:start]
    told = re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE)
    if told and new:
        a = grammar.article(new)
        before = before[: told.start(1)] + (grammar.capital(a) if told[1][0].isupper() else a) + told[2]
    return before + new + body[end:]


# ---------------------------------------------------------------- side


def _side(sentence: Sentence, mention: Finding, value: str | None) -> Iterator[str]:
    body = sentence.body
    if value is None:
        return
    for word in _near(sentence, mention, "side", "place", "finding"):
        said = body[word.start : word.end]
        if word.kind != "side" and said.lower() in _SIDED_PLACES and value != "bilateral":
            new = _SIDED_PLACES[said.lower()]
            yield _swap(body, word.start, word.end, new.upper() if said.isupper() else new)
        if word.kind == "side":
            yield from _side_word(sentence, mention, word, value)
    if mention.side is None:
        yield from _side_added(sentence, mention, value)


def _side_word(sentence: Sentence, mention: Finding, word: Word, value: str) -> Iterator[str]:
    body, said = sentence.body, sentence.body[word.start : word.end]
    if value == "bilateral":
        yield from _to_both(sentence, mention, word)
    elif said.lower() in _BOTH_TO_ONE:
        yield from _to_one(sentence, mention, word, value)
    elif len(sides := _SIDE_WORD.findall(said)) == 1 and _full(sides[0]) != value:
        new = _SIDE_WORD.sub(lambda match: _cased(match[0], _OTHER_SIDE[match[0].lower()]), said)
        changed = body[: word.start] + new + body[word.end :]
        following = re.match(r"\s+(?:middle lobe|lingula)", body[word.end :], re.IGNORECASE)
        if following and value == "left":
            changed = _swap(body, word.start, word.end + following.end(), "lingula")
            changed = re.sub(r"\bthe lingula\b", "the lingula", changed)
        yield changed


def _full(side: str) -> str:
    return {"l": "left", "lt": "left", "r": "right", "rt": "right"}.get(side.lower(), side.lower())


def _cased(old: str, new: str) -> str:
    return new.upper() if old.isupper() and len(old) > 1 else grammar.capital(new) if old[0].isupper() else new


_ONE_PLACE = re.compile(
    r"\s+((?:upper|mid|middle|lower)\s+(?:lung\s+)?(?:zone|lobe|lung|field)|lung base|base|apex|hemithorax)\b",
    re.IGNORECASE,
)
_BOTH_PLACES = re.compile(
    r"\s+((?:[a-z]+\s+){0,2}?(?:zones|lobes|lungs|fields|bases|apices|hemithoraces))\b", re.IGNORECASE
)


def _to_both(sentence: Sentence, mention: Finding, word: Word) -> Iterator[str]:
    """``in the left lower zone`` to ``in both lower zones``, ``a left effusion`` to ``bilateral effusions``."""
    body = sentence.body
    tail = body[word.end :]
    place = _ONE_PLACE.match(tail)
    adjective = re.match(r"\s+(basilar|basal|apical)\b", tail, re.IGNORECASE)
    before = body[: word.start]
    if not place and (re.search(r"\bthe\s+$", before) or re.search(r"\b(?:area|focus|foci|region|patch)\b", body)):
        return  # "overlying the left fourth rib", "an area of density"
    if place and re.search(r"\b(?:in|at|within|the)\s+$", before, re.IGNORECASE):
        changed = (
            re.sub(r"\bthe\s+$", "", before, flags=re.I) + "both " + grammar.plural(place[1]) + tail[place.end() :]
        )
    elif adjective:
        changed = _swap(body, word.start, word.end + adjective.end(), "bi" + adjective[1].lower())
    else:
        changed = _swap(body, word.start, word.end, "bilateral")
    yield _many(changed, sentence, mention)
    yield changed


def _to_one(sentence: Sentence, mention: Finding, word: Word, value: str) -> Iterator[str]:
    body = sentence.body
    said = body[word.start : word.end].lower()
    new = _BOTH_TO_ONE[said].format(value)
    changed = _swap(body, word.start, word.end, new)
    if said == "both":  # "both lower zones"
        end = word.start + len(new)
        place = _BOTH_PLACES.match(changed[end:])
        if place:
            changed = changed[:end] + " " + grammar.singular(place[1]) + changed[end + place.end() :]
    yield _one(changed, sentence, mention)
    yield changed


_UNCOUNTED = ("disease", "process", "change", "opacification", "haziness", "density")
_SEVERAL = re.compile(r"\b(?:numerous|innumerable|multiple|several|scattered|few|many|two|three|\d+)\b", re.IGNORECASE)


def _many(body: str, sentence: Sentence, mention: Finding) -> str:
    """A sentence about a counted thing on one side made to speak of two."""
    said = sentence.text[mention.span.start : mention.span.end] if mention.span else ""
    if grammar.noun_kind(mention.name) != "count" or not _alone(sentence, mention) or said.endswith(_UNCOUNTED):
        return body
    body = body.replace(said, grammar.plural(grammar.singular(said)), 1)
    body = re.sub(r"^(There) is an? ", r"\1 are ", body)
    body = re.sub(r"^An? (\w)", lambda match: match[1].upper(), body)
    return re.sub(
        r"\b(is|has)\b(?= (?:present|seen|noted|identified|suspected|increased|decreased|unchanged))", "are", body
    )


def _one(body: str, sentence: Sentence, mention: Finding) -> str:
    """The reverse of `_many`."""
    said = sentence.text[mention.span.start : mention.span.end] if mention.span else ""
    if grammar.noun_kind(mention.name) != "count" or not _alone(sentence, mention) or _SEVERAL.search(body):
        return body
    body = body.replace(said, grammar.singular(said), 1)
    body = re.sub(r"^There are (\w)", lambda match: f"There is {grammar.article(match[1])} {match[1]}", body)
    return re.sub(r"\bare\b(?= (?:present|seen|noted|identified|suspected|increased|decreased|unchanged))", "is", body)


def _side_added(sentence: Sentence, mention: Finding, value: str) -> Iterator[str]:
    body = sentence.body
    start, _ = sentence.at(mention)
    for word in _near(sentence, mention, "place"):
        if word.end <= start or re.search(r"\b(?:the|at|in)\s+$", body[: word.start]):
            yield _swap(body, word.start, word.start, f"{value} ")
    before = body[start : start + 1]
    lowered = body[:start] + (grammar.uncapital(body[start:]) if start == 0 else body[start:])
    yield _swap(lowered, start, start, f"{grammar.capital(value) if before.isupper() else value} ")


# ---------------------------------------------------------------- place


def _place(sentence: Sentence, mention: Finding, value: str | None) -> Iterator[str]:
    body = sentence.body
    if value is None or value == "diffuse":
        return
    adjective = grammar.ADJECTIVES.get(value, value)
    noun = grammar.NOUN_PLACES.get(value, value)
    for word in _near(sentence, mention, "place", "side"):
        said = body[word.start : word.end].lower()
        if said in ("bibasilar", "bibasal", "biapical", "bi basilar", "bibasally", "biapically"):
            both = {"apex": "biapical", "base": "bibasilar"}.get(value, f"bilateral {adjective}")
            yield _swap(body, word.start, word.end, both)
        elif word.kind == "place":
            if said in (
                "apical",
                "basilar",
                "basal",
                "perihilar",
                "parahilar",
                "retrocardiac",
                "peripheral",
                "lingular",
            ):
                yield _swap(body, word.start, word.end, adjective)
                continue
            many = said.endswith("s") and not said.endswith(("ss", "us"))
            changed = _swap(body, word.start, word.end, grammar.plural(noun) if many else noun)
            wrong, right = ("in", "at") if value in ("base", "apex") else ("at", "in")
            yield re.sub(rf"\b{wrong}(?= (?:the |both )?(?:left |right )?{re.escape(noun)})", right, changed, count=1)


# ---------------------------------------------------------------- severity


def _severity(sentence: Sentence, mention: Finding, value: str | None) -> Iterator[str]:
    if value is None:
        return
    body = sentence.body
    changes = {w.start for w in words(body) if w.kind == "change"}
    for word in _near(sentence, mention, "severity"):
        said = body[word.start : word.end].lower()
        if word.end + 1 in changes or said == "borderline":  # "slightly improved", "borderline enlarged"
            continue
        if said.split()[-1].endswith("ly") and said != "early":
            new = grammar.ADVERBS[value]
        elif _sized(said, mention.name):
            new = grammar.SIZES[value]
        else:
            new = grammar.GRADES[value]
        yield _swap(body, word.start, word.end, new)
    start, _ = sentence.at(mention)
    if any(word.kind == "state" and word.start >= start and word.value == "borderline" for word in words(body)):
        yield re.sub(
            r"\bborderline(?: in size| enlarged)?\b", f"{grammar.ADVERBS[value]} enlarged", body, flags=re.IGNORECASE
        )


def _sized(said: str, name: str) -> bool:
    if said in ("small", "tiny", "trace", "large", "very small", "very large", "minute", "small to moderate"):
        return True
    return grammar.sized(name) and said not in ("mild", "severe", "minimal", "marked")


# ---------------------------------------------------------------- change


def _change(sentence: Sentence, mention: Finding, value: str | None) -> Iterator[str]:
    body = sentence.body
    found = _near(sentence, mention, "change")
    for word in found:
        yield from _change_word(body, word, value, alone=_alone(sentence, mention))
    if value is None or found:
        return
    start, _ = sentence.at(mention)
    if value == "new":
        np = noun_phrase_start(body, start)
        rest = grammar.uncapital(body[np:]) if np == 0 else body[np:]
        yield _swap(body[:np] + rest, np, np, "new " if np else "New ")
    if _alone(sentence, mention):
        yield body + (grammar.tail(value) or ", new from the prior")


def _change_word(body: str, word: Word, value: str | None, *, alone: bool) -> Iterator[str]:
    """A word of change exchanged, or taken out with what hangs on it."""
    before, said, after = body[: word.start], body[word.start : word.end], body[word.end :]
    graded = re.search(r"\b(?:slightly|mildly|markedly|significantly|moderately)\s+$", before, re.IGNORECASE)
    verbal = re.match(r"(?:less$|ha(?:s|ve)\b|(?:interval )?development)", said, re.IGNORECASE)
    if verbal or (graded and value in (None, "new")):
        return  # "has developed", "slightly improved": more would have to change than a word
    if graded and value == "unchanged":
        before = before[: graded.start()]
    since = re.match(_SINCE, after, re.IGNORECASE)
    end = word.end + (since.end() if since else 0)
    comma = re.search(r",\s*$", before)
    verb = re.search(rf"\b{_VERB}$", before, re.IGNORECASE)
    if value is None:
        if comma:
            yield before[: comma.start()] + body[end:]
        joined = re.search(r"\s+and\s+$", before)
        if joined:
            yield before[: joined.start()] + body[end:]
        if verb and alone:
            yield before[: verb.start()] + "is present" + body[end:]
        yield re.sub(r"\s{2,}", " ", _swap(body, word.start, min(end + 1, len(body)), "")).strip(" ,")
        return
    attributive, predicative, comparative = _CHANGE_WORDS[value]
    than = bool(re.match(r"\s+than\b", after))
    if than and comparative not in ("worse", "better"):
        yield before + comparative + " from the prior" + body[end:]
    elif than:
        yield _swap(body, word.start, word.end, comparative)
    elif comma or verb or not after.strip() or (since and since.end()):
        kept = {"since": value in ("worse", "better")}
        new = predicative
        if re.match(r"\s+since\b", after) and kept["since"]:
            new = {"worse": "worsened", "better": "improved"}[value]
        yield _swap(body, word.start, word.end, new)
    else:
        yield _swap(body, word.start, word.end, attributive)
        yield _swap(body, word.start, word.end, predicative)


_ADJECTIVE = re.compile(
    r"(?:an?|the|some|few|several|multiple|scattered|focal|acute|chronic|definite|displaced|linear|patchy|streaky|hazy|"
    r"discrete|visible|suspicious|prior|old|healed|healing|adjacent|associated|underlying|other|otherwise|confluent|"
    r"calcified|noncalcified|rounded|round|ill-defined|ill|defined|well-defined|subtle|vague|bandlike|platelike|"
    r"discoid|subsegmental|segmental|lobar|free|possible|probable|likely|questionable|single|interval|layering|"
    r"loculated|residual|nondisplaced|non-displaced|posterior|anterior|lateral|medial|dual|lead|chest|wall|large)",
    re.IGNORECASE,
)


def noun_phrase_start(body: str, start: int) -> int:
    """Where the noun phrase begins whose noun begins at ``start``, with its adjectives, grades and articles."""
    known = {
        w.end: w.start for w in words(body) if w.kind in ("side", "severity", "change", "place") and w.end <= start
    }
    while True:
        end = len(body[:start].rstrip(" "))
        if end == start and start:
            if body[start - 1] == "-":  # "left-sided"
                end = start - 1
            else:
                return start
        if end in known:
            start = known[end]
            continue
        last = re.search(r"[A-Za-z-]+$", body[:end])
        if last is None or not _ADJECTIVE.fullmatch(last[0]):
            return start
        start = last.start()


# ---------------------------------------------------------------- type


def _type(sentence: Sentence, mention: Finding, value: str) -> Iterator[str]:
    body = sentence.body
    start, end = sentence.at(mention)
    said = body[start:end]
    if any(word.kind == "structure" for word in words(said)) and " " in said:
        return
    many = grammar.noun_kind(mention.name) == "count" and grammar.singular(said) != said
    how = grammar.noun_kind(value)
    new = grammar.noun(value)
    if many and how != "count" and _SEVERAL.search(body):
        return  # "two effusions" are no two thickenings
    if many and how == "count":
        new = grammar.plural(grammar.singular(new))
    np = noun_phrase_start(body, start)
    changed = _swap(body, start, end, new)
    counted = re.match(r"(an?)\s+", body[np:], re.IGNORECASE)
    if counted and how == "mass":
        rest = changed[np + counted.end() :] if changed[np:].startswith(counted[0]) else changed[np:]
        rest = re.sub(r"^an?\s+", "", rest, flags=re.IGNORECASE)
        changed = changed[:np] + (grammar.capital(rest) if np == 0 else rest)
    elif not counted and how == "count" and not many and re.search(r"\b(?:is|are|was)\s+$", body[:np], re.IGNORECASE):
        changed = changed[:np] + f"{grammar.article(changed[np:])} " + changed[np:]
    elif many and how == "mass":
        changed = re.sub(r"^There are\b", "There is", changed)
        changed = re.sub(r"\bare\b(?= (?:present|seen|noted|identified|suspected))", "is", changed)
    yield changed
    if sized_word := _graded(changed, mention.name, value):
        yield sized_word


def _graded(body: str, old: str, new: str) -> str | None:
    """``small atelectasis`` is ``mild``, ``mild effusion`` is ``small``."""
    if grammar.sized(old) == grammar.sized(new):
        return None
    table = dict(zip(grammar.SIZES.values(), grammar.GRADES.values(), strict=True))
    if grammar.sized(new):
        table = {grade: size for size, grade in table.items()}
    return re.sub(
        rf"\b({'|'.join(table)})\b",
        lambda match: _cased(match[0], table[match[0].lower()]),
        body,
        count=1,
        flags=re.IGNORECASE,
    )
