"""Whether an answer claims more than its question and its reference confirm, or no more than a part of it.

A reference of *yes*, or of *left*, tells little: an answer that agrees with it may say other things that nothing here
can hold against the truth. Such an answer must not be the chosen side of a pair.
"""

from __future__ import annotations

import re

from radpref.findings import read
from radpref.tasks.answers import EXCLUSIVE, akin, polarity, related, statement, tokens

_GRADED = frozenset().union(*EXCLUSIVE[:4])
"""Words of sides, places, severities and changes."""
_PARTS = frozenset({"apex", "base", "lobe", "zone", "hilum", "periphery", "perihilar", "retrocardiac", "middle"})
_EMPTY = frozenset(
    {
        *("answer", "final", "yes", "no", "not", "none", "present", "seen", "visible", "noted", "image", "image"),
        *("show", "see", "lung", "side", "region", "area", "part"),
    }
)
"""Words that any answer may have."""
_VERB = re.compile(r"\b(?:is|are|was|were|does|do|has|have|lies?|shows?)\b", re.IGNORECASE)
_SHORT = 6
"""Words of an answer each of which has to be confirmed, if it has no verb."""


def unbacked(text: str, *, prompt: str, answer: str, reference: str) -> bool:
    """Whether ``text`` claims something that neither the question nor the reference says.

    Claims are sides, places, severities and changes of what is not denied; findings that are stated; beside a yes or
    no whatever has no finding, or else no word, in common with the question; in a few words without a verb all words.
    Without a ``prompt`` nothing is known of what was asked, and the answer is False.
    """
    if not prompt:
        return False
    given = f"{prompt} {answer} {reference}"
    words, told = set(tokens(text)) - _EMPTY, set(tokens(given))
    named = frozenset(mention.name for mention in read(given, questions=True))
    mentions = read(statement(text))
    own = [mention for mention in mentions if mention.name not in named and not akin(mention.name, named)]
    stated = [mention for mention in own if mention.presence != "absent"]
    beyond = words - told.union(*(group for group in EXCLUSIVE if group & set(tokens(answer))))
    closer = bool(beyond & (_GRADED | _PARTS))
    if polarity(answer):
        if named and mentions:
            aside = not any(related(mention.name, named) for mention in mentions)
        else:
            aside = bool(words) and not words & told
        # who denies more closely than was asked says nothing new
        denies = all(mention.presence == "absent" for mention in mentions) and polarity(text) == "no"
        return aside or bool(stated) or (closer and not denies)
    if stated and not any(mention.presence != "absent" for mention in read(answer)):
        return True  # where findings were asked for, `tasks.matches` has let none too many pass
    few = len(text.split()) <= _SHORT and not _VERB.search(text)
    return closer or (few and bool(beyond) and not stated)


def vaguer(text: str, other: str) -> bool:
    """Whether both can be true, and ``text`` says less: ``right`` beside ``right upper lobe`` or ``retrocardiac``."""
    less, more = set(tokens(text)) - _EMPTY, set(tokens(other)) - _EMPTY
    sides = EXCLUSIVE[0]
    beside = less <= sides and bool(more & (_PARTS | EXCLUSIVE[1])) and not more & sides
    return bool(less) and (less < more or beside) and not polarity(text)
