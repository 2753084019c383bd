"""The words of answers in canonical form: synonyms, spelling, plurals, and words that exclude each other.

Synonyms are those of the findings' lexicon for sides, places, severities and changes; ``SYNONYMS`` for views,
modalities, states, sexes, numbers and spelling. Case, punctuation, articles and the plural's s make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache

from radpref.findings import lexicon

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
    "heart": ("cardiac",),
    "normal": ("unremarkable", "within normal limits", "not enlarged", "normal limits", "not abnormal"),
    "midline": ("central", "centered", "not deviated", "in the midline", "in the middle", "undeviated", "not shifted"),
    "deviated": ("shifted", "displaced", "not midline", "not in the midline", "not central"),
    "enlarged": ("enlargement", "bigger than normal"),
    "ct": ("computed tomography", "computerized tomography", "ct scan", "cat scan"),
    "mri": ("magnetic resonance imaging", "magnetic resonance", "mr", "mri scan", "mr imaging"),
    "ultrasound": ("sonography", "ultrasonography"),
    "posterior": ("behind", "dorsal", "posteriorly"),
    "anterior": ("in front of", "ventral", "anteriorly"),
    "bilateral base": ("bibasilar", "bibasal", "bi basilar", "bi basal"),
    "bilateral apex": ("biapical", "bi apical"),
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

NOISE = frozenset(
    {
        *("a", "an", "the", "of", "in", "on", "at", "to", "is", "are", "was", "were", "be", "been", "it", "its"),
        *("there", "this", "that", "these", "those", "with", "by", "for", "from", "within", "into", "and", "has"),
        *("have", "had", "as", "side", "sided", "aspect"),
    }
)
"""Words of grammar, which neither question nor answer turns on."""
_VAGUE = frozenset({"remains", "remain", "again", "less", "greater"})
"""Words of the lexicon's changes that mean too much else to stand for one."""


def normalise(text: str) -> str:
    """The text in canonical words: lower case, no punctuation, articles or plural s, synonyms replaced.

    ``The right-sided pleural effusions.`` becomes ``right pleural effusion``; ``Both lungs`` ``bilateral``.
    """
    return " ".join(content(canonical(text)))


def tokens(text: str) -> tuple[str, ...]:
    """The words of ``normalise(text)``, in order."""
    return tuple(normalise(text).split())


def plain_words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


@lru_cache(maxsize=1 << 14)
def canonical(text: str) -> str:
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


def content(canonical: str) -> list[str]:
    """The words without grammar; all of them where nothing else stands there."""
    words = [_singular(word) for word in re.findall(r"[\w.%<>]+", canonical)]
    return [word for word in words if word not in NOISE] or words
