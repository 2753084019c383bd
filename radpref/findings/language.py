"""What is no English report: another language, a refusal, thinking aloud, a question.

Short texts of Latin and Greek terms look like any language to a detector of letter sequences, so words come first:
the commonest of English against the commonest of others. A detector (langid's model, offline) is asked only about
longer texts of which few words are known.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from radpref.findings.lexicon import lexicon
from radpref.findings.text import BREAK, plain

_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = 3
"""Letters from which on another script is told."""
_ENOUGH = 10
"""Words from which on the detector is asked."""
_TELLING = 4
"""Letters from which on one foreign word alone tells a language."""
_SHORT = 6
"""Words below which one foreign word weighs as much as an English one."""
_FEW = 0.34
"""Share of words known to be English below which it is."""
_SCRIPTS = (
    ("Chinese or Japanese", 0x3040, 0x30FF), ("Chinese or Japanese", 0x4E00, 0x9FFF), ("Korean", 0xAC00, 0xD7AF),
    ("Cyrillic", 0x0400, 0x04FF), ("Greek", 0x0370, 0x03FF), ("Arabic", 0x0600, 0x06FF), ("Hebrew", 0x0590, 0x05FF),
    ("Hindi", 0x0900, 0x097F), ("Thai", 0x0E00, 0x0E7F),
)  # fmt: skip


@lru_cache(maxsize=1 << 14)
def unreadable(text: str) -> str | None:
    """Why a text is no report in English that could be read; None where nothing speaks against it.

    A text without words, in another language, that declines the task, that only thinks aloud, or that only asks.
    Whether a finding can be read in it is another matter: ``The cat sat.`` is readable.
    """
    if not _WORD.search(text):
        return "it has no words"
    made = plain(text).text
    if not _WORD.search(made):
        return "it thinks aloud and reports nothing"
    if (reason := not_english(made)) is not None:
        return reason
    told = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+|" + BREAK, made) if part.strip()]
    return "it only asks" if told and all(_question(part) for part in told) else None


@lru_cache(maxsize=1 << 12)
def not_english(made: str) -> str | None:
    """Why nothing can be read in a text without layout: it declines, or is of another language; else None."""
    if _SPEAKER.search(made, 0, _BEGINNING) and (refused := _refusal().search(made[:_BEGINNING])):
        return f"it declines: {made[refused.start() :].strip().splitlines()[0][:60]!r}"
    if (language := language_of(made)) not in (None, "English"):
        return f"it is {language}, not English"
    return None


_SPEAKER = re.compile(r"\b(?:I|i)\b|[Ss]orry|[Aa]s an? |pologies|[Pp]lease|[Cc](?:an|ould) you|for me\b")
_BEGINNING = 400
"""Characters in which a refusal is looked for."""


def _question(part: str) -> bool:
    first = _WORD.search(part)
    return part.endswith("?") and first is not None and first[0].lower() in lexicon().asking


@cache
def _refusal() -> re.Pattern[str]:
    return re.compile(r"(?:(?<=\s)|(?<=^)|(?<=[.,!]))(?:" + "|".join(lexicon().refusals) + r")\b", re.IGNORECASE)


@lru_cache(maxsize=1 << 14)
def language_of(text: str) -> str | None:
    """The language of a text by its English name or code; None where too little speaks for any.

    Words decide: those that only other languages have against those that only English has. Telegram style and
    capitals (``LUNGS CLEAR. NAD.``) are English, or nothing is told.
    """
    if not text.isascii() and (script := _script(text)):
        return script
    if len(set(_PLAINLY.findall(text[:_BEGINNING]))) >= _SURE:
        return "English"
    words = [word.lower() for word in _WORD.findall(text)]
    book = lexicon()
    english = sum(word in _english() for word in words)
    foreign = {name: sum(word in known for word in words) for name, known in book.foreign.items()}
    name = max(foreign, key=lambda name: foreign[name])
    marks = [word for word in words if word in book.foreign[name]]
    if len(marks) == 1 and len(marks[0]) < _TELLING and marks[0].isascii():
        foreign[name] = 0  # "de novo", a name
    if foreign[name] > english or (foreign[name] == english == 1 and len(words) < _SHORT):
        return name
    if english > 0 and english >= _FEW * len(words):
        return "English"
    known = sum(word in _english() or word in book.vocabulary or set(word) == {"x"} for word in words)
    if len(words) >= _ENOUGH and known < _FEW * len(words):
        code = _detected(text)
        return "English" if code == "en" else code
    return "English" if english else None


_PLAINLY = re.compile(r"\b(?:the|is|are|of|there|with|and|without|has|been|The|There|THE|IS|ARE|OF|THERE|WITH|AND)\b")
_SURE = 3
"""Different words that only English has, from which on nothing else is looked at."""


@cache
def _english() -> frozenset[str]:
    """Words that only English has: its commonest, and those of the lexicon's cues and joins."""
    book = lexicon()
    telling = frozenset(
        word
        for (kind, _), terms in book.phrases.items()
        if kind not in ("finding", "structure", "place", "position")
        for term in terms
        for word in _WORD.findall(term)
        if len(word) > 2
    )
    others = frozenset(word for words in book.foreign.values() for word in words)
    return (telling | book.english) - others - _SHARED


_SHARED = frozenset({"no", "normal", "a", "as", "an", "in", "non", "normale", "stent", "negative", "general", "total"})
"""English words that other languages have too."""


def _script(text: str) -> str | None:
    for name, first, last in _SCRIPTS:
        if sum(first <= ord(sign) <= last for sign in text) >= _LETTERS * (1 if first > 0x2FFF else 2):
            return name
    return None


@lru_cache(maxsize=1 << 12)
def _detected(text: str) -> str:
    import py3langid

    code, _ = py3langid.classify(text.lower())
    return str(code)
