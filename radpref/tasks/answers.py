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

Synonyms: those of the findings' lexicon for findings, sides, places, severities and changes; ``SYNONYMS`` for views,
modalities, sexes, numbers and spelling. Case, punctuation, articles and the plural's s make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache

from radpref.findings import lexicon, read

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
)

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "pa": ("posteroanterior", "posterior anterior", "postero anterior", "posterior to anterior", "p a"),
    "ap": ("anteroposterior", "anterior posterior", "antero posterior", "anterior to posterior", "a p"),
    "radiograph": (
        *(
            "x ray",
            "x rays",
            "xray",
            "xrays",
            "xr",
            "cxr",
            "chest x ray",
            "chest xray",
            "chest radiograph",
            "chest image",
            "plain image",
        ),
        *("plain radiograph", "plain image x ray", "plain image xray", "x ray plain image", "radiography"),
    ),
    "male": ("man", "men", "boy"),
    "female": ("woman", "women", "girl"),
    "lateral image": ("lateral view",),
    "frontal image": ("frontal view",),
    "edema": ("oedema",),
    "esophagus": ("oesophagus",),
    "esophageal": ("oesophageal",),
    "hemorrhage": ("haemorrhage",),
    "tumor": ("tumour",),
    "none": ("nothing", "none seen"),
    "worse": ("bigger", "larger than before", "has grown", "gotten worse", "got worse"),
    "better": ("smaller than before", "gotten better", "got better"),
    "resolved": ("gone", "disappeared", "has cleared", "no longer seen", "no longer present", "no longer there"),
    "right upper lobe": ("rul",),
    "right middle lobe": ("rml",),
    "right lower lobe": ("rll",),
    "left upper lobe": ("lul",),
    "left lower lobe": ("lll",),
    **{str(number): (word,) for number, word in enumerate(_NUMBERS)},
}
"""Canonical word to what stands for it, beside the findings' lexicon."""

EXCLUSIVE: tuple[frozenset[str], ...] = (
    frozenset({"left", "right", "bilateral"}),
    frozenset({"upper", "mid", "lower"}),
    frozenset({"mild", "moderate", "severe"}),
    frozenset({"new", "worse", "better", "unchanged", "resolved"}),
    frozenset({"pa", "ap"}),
    frozenset({"frontal", "lateral"}),
    frozenset({"male", "female"}),
    frozenset({"normal", "abnormal"}),
)
"""Groups of words of which a thing has one."""

_YES = frozenset({"yes", "yeah", "yep"})
_NO = frozenset({"no", "nope", "none", "nothing"})
_NOISE = frozenset(
    {
        *("a", "an", "the", "of", "in", "on", "at", "to", "is", "are", "was", "were", "be", "been", "it", "its"),
        *("there", "this", "that", "these", "those", "with", "by", "for", "from", "within", "into", "and", "has"),
        *("have", "had", "as", "side", "sided", "aspect"),
    }
)
"""Words of grammar, which neither question nor answer turns on."""
_VAGUE = frozenset({"remains", "remain", "again", "less", "greater"})
"""Words of the lexicon's changes that mean too much else to stand for one."""
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
    """
    first = _polarity(reference)
    if first and (closed or (len(_words(reference)) == 1)):
        return polarity(answer) == first
    wanted = _things(reference)
    if not wanted:
        return False
    denying = any(_NOT & set(thing.split()) for thing in wanted)
    said = stated(answer)
    if len(wanted) == 1:
        text = _canonical(said)
        text = text if denying else _DENIED.sub(" ", text)
        return _covers(text, wanted[0]) and not _extra(text, wanted)
    given = _things(said, keep_denied=denying)
    return all(any(_covers(thing, item) for thing in given) for item in wanted) and not _extra(
        " , ".join(given), wanted
    )


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


def normalise(text: str) -> str:
    """The text in canonical words: lower case, no punctuation, articles or plural s, synonyms replaced.

    ``The right-sided pleural effusions.`` becomes ``right pleural effusion``; ``Both lungs`` ``bilateral``.
    """
    return " ".join(_content(_canonical(text)))


def tokens(text: str) -> tuple[str, ...]:
    """The words of ``normalise(text)``, in order."""
    return tuple(normalise(text).split())


def answer_set(text: str) -> frozenset[str]:
    """The normalised things of a list (``a, b and c``)."""
    return frozenset(" ".join(_content(thing)) for thing in _things(text)) - {""}


# ---- words


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _polarity(text: str) -> str | None:
    return next(("yes" if word in _YES else "no" for word in _words(text) if word in _YES | _NO), None)


def _marked(text: str) -> str:
    marks = list(_MARKER.finditer(text))
    return text[marks[-1].end() :] if marks and text[marks[-1].end() :].strip() else text


@lru_cache(maxsize=1 << 14)
def _canonical(text: str) -> str:
    """Lower case, synonyms replaced; commas, semicolons and slashes stay, other punctuation is blank."""
    text = unicodedata.normalize("NFKC", text).lower().replace("\t", ",")
    text = re.sub(r"['’]s\b", "", text)
    text = re.sub(r"(?<=\d)[.](?=\d)", "\0", text)
    text = re.sub(r"[^\w\0,;/&+<>%]|_", " ", text).replace("\0", ".")
    pattern, meaning = _synonyms()
    text = pattern.sub(lambda match: meaning[" ".join(match[0].split())], text)
    return " ".join(text.split())


@cache
def _synonyms() -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern of all synonyms, the longest first, and what each stands for."""
    meaning: dict[str, str] = {}
    for (kind, value), terms in lexicon().phrases.items():
        if kind in ("side", "place", "severity", "change"):
            for term in set(terms) - _VAGUE:
                meaning.setdefault(term.replace("-", " "), value)
                if kind == "place" and not term.endswith("s"):
                    meaning.setdefault(f"{term}s", value)
    # a lobe's abbreviation tells its side too
    meaning |= {word: canonical for canonical, others in SYNONYMS.items() for word in others}
    forms = sorted(meaning, key=lambda form: (-len(form), form))
    body = "|".join(r"\s+".join(map(re.escape, form.split())) for form in forms)
    return re.compile(rf"(?<![\w.])(?:{body})(?![\w.])"), meaning


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _content(canonical: str) -> list[str]:
    """The words without grammar; all of them where nothing else stands there."""
    words = [_singular(word) for word in re.findall(r"[\w.%<>]+", canonical)]
    return [word for word in words if word not in _NOISE] or words


def _things(text: str, *, keep_denied: bool = True) -> list[str]:
    """The things of a list, in canonical words."""
    text = _canonical(text)
    text = text if keep_denied else _DENIED.sub(" ", text)
    return [thing for part in _BETWEEN.split(text) if (thing := part.strip())]


# ---- comparison


@lru_cache(maxsize=1 << 14)
def _findings(canonical: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of the findings that a text claims, and the words outside their mentions."""
    found = [finding for finding in read(canonical) if finding.presence != "absent" and finding.span]
    left, at = [], 0
    for start, end in sorted((f.span.start, f.span.end) for f in found if f.span):
        left.append(canonical[at:start])
        at = max(at, end)
    left.append(canonical[at:])
    rest = " ".join(left)
    words = _content(rest) if re.search(r"\w", rest) else []
    return frozenset(finding.name for finding in found), tuple(word for word in words if word not in _NOISE)


def _covers(answer: str, reference: str) -> bool:
    """Whether the answer names the reference's findings, all its other words, and none that excludes them."""
    names, rest = _findings(reference)
    wanted, given = set(rest if names else _content(reference)), set(_content(answer))
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
