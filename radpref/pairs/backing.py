"""Whether an answer claims more than its question and its reference confirm, or no more than a part of it.

A reference of *yes*, or of *left*, tells little: an answer that agrees with it may say other things that nothing here
can hold against the truth. Such an answer must not be the chosen side of a pair.
"""

from __future__ import annotations

import re

from radpref.findings import read
from radpref.tasks.answers import EXCLUSIVE, polarity, tokens

_GRADED = frozenset().union(*EXCLUSIVE[:4])
"""Words of sides, places, severities and changes."""
_PARTS = frozenset({"apex", "base", "lobe", "zone", "hilum", "periphery", "perihilar", "retrocardiac", "middle"})
_EMPTY = frozenset(
    {
        *("answer", "final", "yes", "no", "not", "none", "present", "seen", "visible", "noted", "film", "image"),
        *("show", "see", "lung", "side", "region", "area", "part"),
    }
)
"""Words that any answer may have."""
_VERB = re.compile(r"\b(?:is|are|was|were|does|do|has|have|lies?|shows?)\b", re.IGNORECASE)
_SHORT = 6
"""Words of an answer each of which has to be confirmed, if it has no verb."""


def unbacked(text: str, *, prompt: str, answer: str, reference: str) -> bool:
    """Whether ``text`` claims something that neither the question nor the reference says.

    Claims are sides, places, severities and changes of what is not denied, beside a yes or no the findings that are
    stated too, and whatever shares no word with the question, and in a few words without a verb all words. Without a
    ``prompt`` nothing is known of what was asked, and the answer is False.
    """
    if not prompt:
        return False
    given = f"{prompt} {answer} {reference}"
    words, told = set(tokens(text)) - _EMPTY, set(tokens(given))
    named = {mention.name for mention in read(given)}
    mentions = read(text)
    stated = {mention.name for mention in mentions if mention.presence != "absent"}
    beyond = words - told.union(*(group for group in EXCLUSIVE if group & set(tokens(answer))))
    if polarity(answer):
        aside = bool(words) and not (words & told or named & {mention.name for mention in mentions})
        # who denies more closely than was asked says nothing new
        return aside or bool(stated - named) or (polarity(text) == "yes" and bool(beyond & (_GRADED | _PARTS)))
    few = len(text.split()) <= _SHORT and not _VERB.search(text)
    return bool(beyond & (_GRADED | _PARTS)) or (few and bool(beyond) and not stated)


def vaguer(text: str, other: str) -> bool:
    """Whether ``text`` says a part of what ``other`` says, and nothing else: ``right`` and ``right upper lobe``."""
    less, more = set(tokens(text)) - _EMPTY, set(tokens(other)) - _EMPTY
    return bool(less) and less < more and not polarity(text)
