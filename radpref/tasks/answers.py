"""Whether an answer says what the reference answer says: by words and sets of words, never by substrings.

A published script takes an answer as right where the reference is a substring of it, so that ``abnormal`` and
``it is not`` contain ``no``. Here:

- A reference of yes or no is met by the first yes or no *word* of the answer. Other words of agreement do not count.
- Any other reference is looked for in what the answer states: what follows its last ``Answer:``, ``the answer is`` or
  ``<answer>``, else its first sentence. Phrases that are denied there (``not left``, ``without edema``) say nothing.
- A reference that names findings is met where the same findings are read there (``findings.read``, with all synonyms
  of the lexicon) and no others, save a more general name or a near one (lung opacity beside pneumonia).
- The remaining words of a reference, grammar aside, must all be among the answer's, in any order; but ``right lung``
  is met by ``right`` or ``right lower lobe``.
- Of words that exclude each other (``EXCLUSIVE``: left, right, bilateral; upper, mid, lower ...), where the reference
  names one the answer names the same one and no other: ``left`` is not met by ``left and right``.
- A reference of several things (``a, b and c``) is a set: the answer names each, with its own side and place.

With the question in view, a reference of yes or no is also met by an answer without either (`polar`), and a state
(``enlarged``) by the finding that it means of what was asked about. Synonyms and spelling: `words`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from radpref.findings import lexicon, read
from radpref.tasks.polar import answered
from radpref.tasks.words import EXCLUSIVE, NOISE, canonical, content, normalise, plain_words, tokens

_YES = frozenset({"yes", "yeah", "yep"})
_NO = frozenset({"no", "nope", "none", "nothing"})
_MARKER = re.compile(r"<answer>|\banswer\s*(?:is\s*:?|:)\s*|\bconclusion\s*:\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|</answer>", re.IGNORECASE)
_BETWEEN = re.compile(r"[,;/&+\t]|\band\b|\bplus\b|\bas well as\b")
_DENIED = re.compile(r"\b(?:not|no|without|rather than|instead of|neither|nor|never)\b[^,;]*?(?=[,;]|\bbut\b|$)")
_NOT = frozenset({"not", "no", "without", "never"})


def matches(answer: str, reference: str, closed: bool, question: str = "") -> bool:
    """Whether ``answer`` (a model's text, of any length) gives the short reference answer.

    Args:
        answer: what was answered; an empty text matches nothing.
        reference: as in ``Question.answer``: ``yes``, ``left lower lobe``, ``cardiomegaly, edema``.
        closed: whether the question names or implies its few answers. A closed reference that *starts* with yes or no
            is one of yes or no (``Yes, mild``); an open one only where nothing else stands in it.
        question: what was asked. With it, an answer without a yes or no is held against what was asked (`polar`), and
            one that names a finding against what question and reference say together (``enlarged`` of the heart).
    """
    first = _polarity(reference)
    if first and (closed or (len(plain_words(reference)) == 1)):
        if question:
            return answered(_marked(answer), question) == first
        return polarity(answer) == first
    return _gives(answer, reference) or (bool(question) and _gives_of(answer, reference, question))


_ASKED_OF = re.compile(
    r"^\W*(?:what|how|which|where|is|are|does|do)\b(?:\s+(?:is|are|does|do|can|the|size|of|kind|type|appearance|look|about))*\s*",
    re.IGNORECASE,
)


def _gives_of(answer: str, reference: str, question: str) -> bool:
    """Whether the answer states the finding that the reference states of what the question is about."""
    subject = _ASKED_OF.sub("", question).split(" or ")[0].strip(" ?.")
    wanted = {(f.name, f.presence) for f in read(f"{subject} is {reference}")}
    told_by_itself = {(f.name, f.presence) for f in read(subject)}
    if not subject or wanted <= told_by_itself or len(plain_words(reference)) > _FEW:
        return False
    said = stated(answer)
    return {(f.name, f.presence) for f in read(said) or read(f"{subject} is {said}")} == wanted


_FEW = 4
"""Words of a reference that may be a state of what was asked about."""


def _gives(answer: str, reference: str) -> bool:
    """Whether the words of the answer give the reference; see the module's docstring."""
    wanted = _things(reference)
    if not wanted:
        return False
    denying = any(_NOT & set(thing.split()) for thing in wanted)
    said = stated(answer)
    if len(wanted) == 1:
        text = canonical(said)
        text = text if denying else _DENIED.sub(" ", text)
        return _covers(text, wanted[0]) and not _extra(text, wanted)
    given = _things(said, keep_denied=denying)
    return all(any(_covers(thing, item) for thing in given) for item in wanted) and not _extra(
        " , ".join(given), wanted
    )


__all__ = [
    "EXCLUSIVE",
    "akin",
    "answer_set",
    "matches",
    "normalise",
    "polarity",
    "related",
    "stated",
    "statement",
    "tokens",
]


def polarity(text: str) -> str | None:
    """``yes`` or ``no``: the first word of the answer that is either; None where there is none.

    ``none`` and ``nothing`` say no. Where the answer is marked (``Answer: no``) it begins there.
    """
    return _polarity(_marked(text))


_OPENING = re.compile(r"^\s*[\"'*]*(?:yes|no|yeah|nope|yep)\b\s*[,.:;-]+\s*(?=\w)", re.IGNORECASE)


def statement(text: str) -> str:
    """What follows a yes or no at the beginning: ``no, the effusion is mild`` does not deny the effusion."""
    return _OPENING.sub("", text)


def stated(text: str) -> str:
    """The part of a longer text that gives the answer: after the last mark of an answer, else the first sentence."""
    text = _marked(text).strip(" \t\n\r*#>\"'`")
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def answer_set(text: str) -> frozenset[str]:
    """The normalised things of a list (``a, b and c``)."""
    return frozenset(" ".join(content(thing)) for thing in _things(text)) - {""}


# ---- words


def _polarity(text: str) -> str | None:
    return next(("yes" if word in _YES else "no" for word in plain_words(text) if word in _YES | _NO), None)


def _marked(text: str) -> str:
    marks = list(_MARKER.finditer(text))
    return text[marks[-1].end() :] if marks and text[marks[-1].end() :].strip() else text


def _things(text: str, *, keep_denied: bool = True) -> list[str]:
    """The things of a list, in canonical words."""
    text = canonical(text)
    text = text if keep_denied else _DENIED.sub(" ", text)
    return [thing for part in _BETWEEN.split(text) if (thing := part.strip())]


# ---- comparison


@lru_cache(maxsize=1 << 14)
def _findings(text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of the findings that a text claims, and the words outside their mentions."""
    found = [finding for finding in read(text) if finding.presence != "absent" and finding.span]
    left, at = [], 0
    for start, end in sorted((f.span.start, f.span.end) for f in found if f.span):
        left.append(text[at:start])
        at = max(at, end)
    left.append(text[at:])
    rest = " ".join(left)
    words = content(rest) if re.search(r"\w", rest) else []
    return frozenset(finding.name for finding in found), tuple(word for word in words if word not in NOISE)


def _covers(answer: str, reference: str) -> bool:
    """Whether the answer names the reference's findings, all its other words, and none that excludes them."""
    names, rest = _findings(reference)
    wanted, given = set(rest if names else content(reference)), set(content(answer))
    missing = wanted - _GROUPED - given
    if wanted & _SIDES and given <= _GROUPED | _LUNG:
        missing -= {"lung"}  # the right, or its lower lobe, is the right lung on a chest image
    if not names <= _findings(answer)[0] or missing:
        return False
    return all(_of(group, given) == _of(group, wanted) for group in EXCLUSIVE if _of(group, wanted))


_GROUPED = frozenset().union(*EXCLUSIVE)
_SIDES = frozenset({"left", "right", "bilateral"})
_LUNG = frozenset({"lung", "lobe", "zone", "field", "base", "apex", "middle"})
"""Words of the lungs' parts."""


def _of(group: frozenset[str], words: set[str]) -> frozenset[str]:
    """The group's members among the words; left and right together are bilateral."""
    found = group & words
    return frozenset({"bilateral"}) if {"left", "right"} <= found else found


def _extra(answer: str, wanted: list[str]) -> bool:
    """Whether the answer claims a finding that is neither wanted nor akin to one that is."""
    names = frozenset().union(*(_findings(thing)[0] for thing in wanted))
    return bool(names) and any(not akin(name, names) for name in _findings(answer)[0] - names)


def akin(name: str, names: frozenset[str]) -> bool:
    """A near name (the lexicon's kin), or a more general one, of any of ``names``."""
    book = lexicon()
    return any(name in group and group & names for group in book.kin) or bool(
        book.general.get(name, frozenset()) & names
    )


def related(name: str, names: frozenset[str]) -> bool:
    """Whether a finding is one of ``names``, near one, or more or less general than one."""
    return name in names or akin(name, names) or any(akin(other, frozenset({name})) for other in names)
