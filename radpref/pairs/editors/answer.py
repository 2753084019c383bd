"""A short answer set right, or made wrong: yes and no, sides, places, severities, changes, views, counts, findings.

Words of the answer's kind are exchanged, and what the sentence states is made to agree with them: ``Yes, there is a
left effusion`` becomes ``No, there is no effusion``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from radpref.config import EditSection
from radpref.findings import read
from radpref.findings.grammar import article, capital
from radpref.findings.rewrite import absent, contradictions, flips, present, turned
from radpref.pairs.edit import EMPTY, NO_COUNTERPART, NO_EDIT, UNREADABLE, EditCase, Edited, beyond
from radpref.pairs.spans import changes
from radpref.records import Finding
from radpref.tasks.answers import EXCLUSIVE, matches, normalise, polarity, related, statement, tokens
from radpref.tasks.comparison import OPENING

_POLAR = re.compile(
    r"(?:^|\banswer\s*(?:is)?\s*:?\s*)[\s\"'*]*(yes|no|yeah|nope|yep)\b(?=\s*(?:[^\w\s]|$))", re.IGNORECASE
)
"""A yes or no that stands by itself, at the beginning or behind the mark of an answer: not ``no effusion``."""
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|\d+")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SHORT = 6
"""Words of an answer that is exchanged as a whole where no part of it can be."""
_FEW = 3
"""Words of an answer to a yes-or-no question that is neither, exchanged for the one that is right."""
_OTHER_MODALITIES = frozenset({"CT scan", "MRI", "ultrasound"})
"""What an image is not, as an answer."""
_OPPOSITE = {
    "left": "right",
    "right": "left",
    "upper": "lower",
    "lower": "upper",
    "new": "unchanged",
    "unchanged": "new",
    "worse": "better",
    "better": "worse",
}
_KINDS: Mapping[frozenset[str], str] = {
    group: kind
    for group in EXCLUSIVE
    for kind, word in {
        "side": "left",
        "place": "upper",
        "severity": "mild",
        "change": "new",
        "answer": "normal",
    }.items()
    if word in group
}


def answer_edit(case: EditCase, section: EditSection) -> Edited:
    """The edit of one answer; see `Edited`. What is right is told by `tasks.answers.matches`."""
    if not case.words.split():
        return Edited(id=case.id, failed=EMPTY)
    if not normalise(case.answer):
        return Edited(id=case.id, failed=UNREADABLE)
    right = _right(case, case.words)
    clashes = contradictions(case.words)
    for text, name, attribute in (_spoilt if right else _mended)(case, section):
        if not right and beyond(case, text):
            continue
        if _mixed(case.words, text):
            continue
        if text.strip() and _right(case, text) != right and not contradictions(text) - clashes:
            return Edited(
                id=case.id,
                chosen=case.words if right else text,
                rejected=text if right else case.words,
                findings=(name,),
                attributes=(attribute,),
                was_right=right,
            )
    return Edited(id=case.id, was_right=right, failed=NO_COUNTERPART if right else NO_EDIT)


def _mixed(before: str, after: str) -> bool:
    """Whether words that exclude each other have come together: ``On the right: nodules in both lower zones``."""
    return any(len(group & set(tokens(after))) > max(1, len(group & set(tokens(before)))) for group in EXCLUSIVE[:4])


def _right(case: EditCase, text: str) -> bool:
    return matches(text, case.answer, case.closed, case.prompt)


Candidate = tuple[str, str, str]
"""(text, finding or kind of answer, attribute)."""


def _polar(case: EditCase) -> str | None:
    """``yes`` or ``no`` where that is what was asked for."""
    said = polarity(case.answer)
    return said if said and (case.closed or len(normalise(case.answer).split()) == 1) else None


def _mended(case: EditCase, section: EditSection) -> Iterator[Candidate]:
    text = case.words
    wanted = _polar(case)
    if wanted:
        yield from _polarised(text, wanted, case)
        return
    if _restated(case):
        return
    yield from _grouped(text, list(tokens(case.answer)))
    yield from _counted(text, case.answer)
    yield from _named(text, case.answer)
    yield from _whole(case, case.answer)


def _whole(case: EditCase, answer: str, longest: int = _SHORT) -> Iterator[Candidate]:
    """A short answer exchanged for another."""
    if len(case.words.split()) <= longest:
        stop = "." if case.words.rstrip().endswith(".") else ""
        yield _as(answer.strip().rstrip("."), case.words) + stop, case.kind or "answer", "answer"


def _restated(case: EditCase) -> bool:
    """Whether a yes says the reference in other words: to ``Is the trachea midline?``, when that is ``midline``."""
    said, asked = polarity(case.words), set(tokens(case.prompt))
    return said == "yes" and "or" not in case.prompt.lower().split() and asked >= set(tokens(case.answer))


def _spoilt(case: EditCase, section: EditSection) -> Iterator[Candidate]:
    text, chance = case.words, Random(case.id)
    said = _polar(case)
    if said:
        yield from _polarised(text, "no" if said == "yes" else "yes", case)
        return
    count = re.fullmatch(r"\d+", normalise(case.answer))
    if count:
        yield from _counted(text, str(int(count[0]) + chance.choice((1, 2))))
    asked = _asked(case)
    turns = sorted(flips(text, case.id, section.attributes), key=lambda flip: flip.finding not in asked)
    # a question of what, where or how presupposes that something is there: to deny it is the last resort
    yield from ((turn.text, turn.finding, turn.attribute) for turn in turns if turn.attribute != "presence")
    known = set(normalise(case.answer).split())
    for group in EXCLUSIVE:
        for word in sorted(group & known):
            others = sorted(group - {word, "resolved"})
            chance.shuffle(others)
            for other in sorted(others, key=lambda other: other != _OPPOSITE.get(word)):
                yield from _grouped(text, [other])
    if "radiograph" in known:
        yield from _whole(case, chance.choice(sorted(_OTHER_MODALITIES)))
    yield from ((turn.text, turn.finding, turn.attribute) for turn in turns if turn.attribute == "presence")


# ---------------------------------------------------------------- yes and no


def _polarised(text: str, wanted: str, case: EditCase) -> Iterator[Candidate]:
    """The answer with the other of yes and no, and with statements that agree with it."""
    words = list(_POLAR.finditer(text))
    if not words:
        if wanted == "yes" and (none := _NONE.match(text)):
            text = capital(text[none.end() :])
        for change in _agreeing(text, wanted, case, bare=True):
            yield change.text, change.name, "presence"
            yield _behind(f"{wanted.capitalize()}, ", change.text), change.name, "presence"
        # words of the question may be its answer (``PA`` to ``Is this a PA image?``)
        if case.closed and not (_VERB.search(text) or set(tokens(text)) & set(tokens(case.prompt))):
            yield from _whole(case, wanted, _FEW)
        return
    word = words[-1]
    new = _as(wanted, word[1])
    before, after = text[: word.start(1)], text[word.end(1) :]
    found = [
        (before + new + _behind(after, change.text), change.name, "presence")
        for change in _agreeing(after, wanted, case)
    ]
    found += [
        (_behind("", change.text.rstrip()) + before[len(before.rstrip()) :] + new + after, change.name, "presence")
        for change in _agreeing(before, wanted, case)
    ]
    said = after.lstrip(" ,.:;-")
    for body, name, attribute in [*_valued(said, wanted, case), *_renamed(said, wanted, case)]:
        yield before + new + _behind(after, body), name, attribute
    told = read(before + after)
    asked = _asked(case)
    elsewhere = bool(told and asked) and not any(related(mention.name, asked) for mention in told)
    other = _toggled(after)
    if other is not None and not elsewhere:
        found.append((before + new + other, told[0].name if told else case.kind or "answer", "presence"))
    elif not told and not _VERB.search(after):
        found.append((before + new + after, case.kind or "answer", "presence"))

    def order(one: Candidate) -> tuple[bool, bool, int]:
        # a denial leaves size and side out, however many words that takes: who denies a small one may mean a large
        return one[1] not in asked, not _says(one, wanted), changes(text, one[0]) if wanted == "yes" else 0

    yield from sorted(
        (one for one in found if wanted == "yes" or case.kind != "abnormality" or not _states(one[0])), key=order
    )


def _states(text: str) -> bool:
    """Whether something is still stated: ``No: a left effusion`` answers no question whether there is anything."""
    return any(mention.presence != "absent" for mention in read(statement(text)))


_VALUES = {"location": EXCLUSIVE[:2], "severity": EXCLUSIVE[2:3], "change": EXCLUSIVE[3:4]}
"""Of a kind of question the words that it asks for."""
_NONE = re.compile(r"^\s*(?:none|nothing)\s*[:,.]\s*", re.IGNORECASE)


def _valued(after: str, wanted: str, case: EditCase) -> Iterator[Candidate]:
    """What stands behind a yes or no with another side, place, severity or change, where that is what was asked.

    ``No, the effusion is mild`` to ``Is the effusion severe?`` becomes ``Yes, the effusion is severe``: the finding
    stays, and so does the rest of what is said of it.
    """
    question = case.prompt.removeprefix(OPENING)
    for group in _VALUES.get(case.kind, ()):
        asked, told = group & set(tokens(question)), group & set(tokens(after))
        if len(asked) != 1 or not told:
            continue
        (value,) = asked
        others = sorted(group - asked - {"resolved"})
        Random(case.id).shuffle(others)
        others.sort(key=lambda word, value=value: word != _OPPOSITE.get(value))  # type: ignore[misc]
        turned_to = ([value] if value not in told else []) if wanted == "yes" else (others if told == asked else [])
        for word in turned_to:
            yield from _grouped(after, [word])


def _renamed(after: str, wanted: str, case: EditCase) -> Iterator[Candidate]:
    """What a mark shows under another name: what was asked for, where it is to be there, else something near it."""
    if not _MARKS.search(after):
        return
    asked = frozenset(mention.name for mention in read(case.prompt, questions=True)) or _asked(case)
    told = [mention for mention in read(after) if mention.presence != "absent"]
    if wanted == "yes":
        for mention in told:
            for name in sorted(asked - {mention.name}):
                yield from ((body, name, "type") for body in turned(after, mention, "type", name))
    elif any(mention.name in asked for mention in told):
        yield from ((turn.text, turn.finding, "type") for turn in flips(after, case.id, ("type",)))


_MARKS = re.compile(r"\bmarks\b")
"""Of a region's answer: ``what it marks is``, ``the arrow marks``."""


def _says(one: Candidate, wanted: str) -> bool:
    """Whether our reader takes from a candidate what its yes or no claims of the finding that it is about."""
    text, name, _ = one
    said = [mention.presence != "absent" for mention in read(text) if mention.name == name]
    return bool(said) and all(here == (wanted == "yes") for here in said)


class _Statement(NamedTuple):
    text: str
    name: str


_VERB = re.compile(r"\b(?:is|are|does|do|has|have)\b")
_ANSWER = re.compile(r"\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is)?\s*:?\s*$", re.IGNORECASE)


def _agreeing(text: str, wanted: str, case: EditCase, *, bare: bool = False) -> Iterator[_Statement]:
    """What stands beside a yes or no, denied or stated: first of what the question names."""
    mark = _ANSWER.search(text)
    body, tail = (text[: mark.start()], text[mark.start() :]) if mark else (text, "")
    body = body.lstrip(" ,.:;")
    asked = _asked(case)
    told = sorted(read(body), key=lambda m: m.name not in asked)
    if bare:  # a statement about something else is no answer, and denying it makes none
        told = [mention for mention in told if not asked or mention.name in asked]
    for mention in told:
        if wanted == "no" and mention.presence != "absent":
            changed = absent(body, mention.name)
        elif wanted == "yes" and mention.presence == "absent":
            changed = present(body, Finding(name=mention.name, side=mention.side, place=mention.place))
        else:
            continue
        if changed is not None:
            yield _Statement(changed + tail, mention.name)


def _asked(case: EditCase) -> frozenset[str]:
    """Names of the findings that a question is about."""
    return frozenset(finding.name for finding in case.about or read(case.prompt, questions=True))


def _behind(after: str, statement: str) -> str:
    """A statement with the mark before it that stood there, and the capital that goes with it."""
    mark = after if after.endswith(", ") else after[: len(after) - len(after.lstrip(" ,.:;"))]
    first = after[len(mark) :][:1] if mark.strip() else ""
    lower = (mark.strip().endswith(",") or first.islower()) and not statement[1:2].isupper()
    return f"{mark}{statement[:1].lower() if lower else statement[:1].upper()}{statement[1:]}"


_MASS = re.compile(
    r"(?:air|gas|fluid|blood|tissue|evidence|bowel|lucency|\w+(?:ing|(?<!effus)(?<!les)ion|ment|ness|ity|pathy|emia|edema|osis|ia|s))$",
    re.IGNORECASE,
)
"""Nouns, by their ends, that take no article, many because there are several."""
_AFTER = re.compile(r"\W*$|\W*\b(?:of|in|on|at|near|under|within|with|present|seen|visible|noted|identified)\b")
"""What ends the noun phrase of *there is*."""


def _toggled(text: str) -> str | None:
    """What a sentence states denied, or what it denies stated; None where it offers nothing to turn.

    ``there is no fracture`` and ``there is a fracture``, ``nothing`` and ``something``, ``is not`` and ``is``.
    """
    if thing := re.search(r"\b(?:no|some)thing\b", text, re.IGNORECASE):
        other = "something" if thing[0].lower() == "nothing" else "nothing"
        return text[: thing.start()] + _as(other, thing[0]) + text[thing.end() :]
    if denied := re.search(r"\b(is|are|has|have) no\b ?", text):
        rest = text[denied.end() :]
        phrase = rest[: end.start()] if (end := _AFTER.search(rest)) else rest
        many = denied[1] == "are" or not phrase or _MASS.search(phrase)
        return text[: denied.end(1)] + " " + ("" if many else f"{article(phrase)} ") + rest
    if re.search(r"\b(?:is|are|does|do|has|have) not\b", text):
        return re.sub(r"\b(is|are|does|do|has|have) not\b", r"\1", text, count=1)
    if re.search(r"\bthere (?:is|are)\b", text, re.IGNORECASE):
        return re.sub(r"\b(there (?:is|are)) (?:an? )?", r"\1 no ", text, count=1, flags=re.IGNORECASE)
    if re.search(r"\b(?:is|are|has|have)\b", text):
        return re.sub(r"\b(is|are|has|have)\b", r"\1 not", text, count=1)
    return None


# ---------------------------------------------------------------- words of one group


def _grouped(text: str, wanted: list[str]) -> Iterator[Candidate]:
    """Words that exclude a wanted one exchanged for it: first by the finding that they belong to, then as words."""
    for word in wanted:
        group = next((g for g in EXCLUSIVE if word in g), None)
        if group is None:
            continue
        kind = _KINDS.get(group, "answer")
        for mention in read(text):
            graded = kind in ("side", "severity", "change") and mention.presence != "absent"
            if graded and getattr(mention, kind) not in (None, word):
                for body in turned(text, mention, kind, word):
                    yield body, mention.name, kind
        for match in _WORD.finditer(text):
            said = normalise(match[0])
            if said in group and said != word:
                name = next((m.name for m in read(text)), kind)
                yield _article(_exchanged(text, match, word)), name, kind
    swapped = text
    for match in reversed(list(_WORD.finditer(text))):
        said = normalise(match[0])
        for group in EXCLUSIVE:
            target = next((w for w in wanted if w in group), None)
            if said in group and target and said != target:
                swapped = swapped[: match.start()] + _as(target, match[0]) + swapped[match.end() :]
    if swapped != text:
        yield swapped, "answer", "answer"


_NOUN = re.compile(
    r"(\W+(?:(?:upper|mid|middle|lower) )?)(lung|lobe|side|base|zone|field|hemidiaphragm)s?\b", re.IGNORECASE
)


def _exchanged(text: str, match: re.Match[str], word: str) -> str:
    """One word of a group exchanged, in the form and with the number of the noun that its place asks for."""
    before, old, after = text[: match.start()], match[0], text[match.end() :]
    if old.lower().endswith("ly") and word in _OPPOSITE:
        return f"{before}on the {word}{after}"
    noun = _NOUN.match(after)
    if noun and "bilateral" in (word, normalise(old)):
        after = f"{noun[1]}{noun[2]}{'s' if word == 'bilateral' else ''}{after[noun.end() :]}"
    if word == "mid" and noun and noun[2].lower() == "lobe":
        word = "middle"
    return f"{before}{word.upper() if old.isupper() and len(old) > 1 else _as(word, old)}{after}"


def _counted(text: str, wanted: str) -> Iterator[Candidate]:
    number = re.fullmatch(r"\d+", normalise(wanted))
    if number is None:
        return
    for match in _WORD.finditer(text):
        said = match[0].lower()
        if said in _NUMBERS and int(number[0]) < len(_NUMBERS):
            new = _as(_NUMBERS[int(number[0])], match[0])
        elif said.isdigit():
            new = number[0]
        else:
            continue
        yield text[: match.start()] + new + text[match.end() :], "count", "answer"


def _named(text: str, wanted: str) -> Iterator[Candidate]:
    """The finding that the answer names exchanged for the reference's."""
    named = [m for m in read(wanted) if m.presence != "absent"]
    for target in named[:1]:
        for mention in read(text):
            if mention.presence != "absent" and mention.name != target.name:
                for body in turned(text, mention, "type", target.name):
                    yield body, target.name, "type"
            elif mention.name == target.name and (told := present(text, target)) is not None:
                yield told, target.name, "presence"


def _article(text: str) -> str:
    """``a`` and ``an`` before the names of views: ``an AP view``, ``a PA view``."""
    return re.sub(r"\b(a)n?(?= PA\b)", r"\1", re.sub(r"\b(a)n?(?= AP\b)", r"\1n", text, flags=re.I), flags=re.I)


def _as(new: Any, old: str) -> str:
    """A word with the capital of the one that it replaces."""
    word = str(new)
    return word[:1].upper() + word[1:] if old[:1].isupper() else word
