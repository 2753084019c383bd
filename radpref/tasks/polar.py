"""What an answer says to a question of yes or no where it does not say yes or no.

``Midline.`` to *Is the trachea midline?* is a yes, ``No pneumothorax.`` to *Is there no pneumothorax?* too. What is
asked is read as a statement, and so is the answer: where both speak of one finding, their presence agrees or not; else
their words do, or exclude each other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from radpref.findings import COVERS, lexicon, read
from radpref.records import Finding
from radpref.tasks.words import EXCLUSIVE, normalise

Polarity = Literal["yes", "no"]

OPPOSITES: tuple[frozenset[str], ...] = (
    *EXCLUSIVE,
    frozenset({"midline", "deviated"}),
    frozenset({"axial", "coronal", "sagittal"}),
    frozenset({"ct", "mri", "radiograph", "ultrasound"}),
    frozenset({"normal", "enlarged"}),
    frozenset({"clear", "opaque"}),
    frozenset({"anterior", "posterior"}),
    frozenset({"acute", "chronic"}),
    frozenset({"single", "multiple"}),
)
"""Groups of words of which a thing has one, beside those that answers are compared by."""

_ASKING = re.compile(
    r"^\W*(?:is|are|was|were|does|do|did|has|have|had|can|could|would|should|will)(?:n['’]t)?\b\s*"
    r"(?:you\s+(?:see|identify|detect)\b|(?:the|this|that)\s+(?:image|x-?ray|radiograph|film|scan|study|patient|picture)\s+"
    r"(?:show|shows|have|has|demonstrate|contain|reveal|suffer from|exhibit)\b)?\s*",
    re.IGNORECASE,
)
_SHORT_NOT = re.compile(r"n['’]t\b", re.IGNORECASE)
_YES = re.compile(r"\b(?:yes|yeah|yep)\b", re.IGNORECASE)
_BARE_NO = re.compile(r"\b(?:no|nope)\b\s*(?=[,.:;!-]|$|\b(?:there|it|this|that|i|they|he|she|the)\b)", re.IGNORECASE)
_SEEN = re.compile(
    r"^\W*(?:it\s|they\s|there\s)?(?:is|are|was)?\s*(not\s)?"
    r"(?:(present|seen|visible|positive|likely|probably|probable|noted|identified|evident|there)|"
    r"(absent|unlikely|negative|none|nothing|never|excluded))\b\W*(?:seen|present|visible)?\W*$",
    re.IGNORECASE,
)
_NOT = frozenset({"not", "no", "without", "never", "nor", "neither", "non"})


def answered(answer: str, question: str) -> Polarity | None:
    """``yes`` or ``no``; None where the answer says neither, or speaks of something else.

    Args:
        answer: a model's words, from the mark of its answer on.
        question: what was asked, a question of yes or no.
    """
    explicit = [match for match in (_YES.search(answer), _BARE_NO.search(answer)) if match]
    if explicit:
        first = min(explicit, key=lambda match: match.start())
        return "yes" if _YES.fullmatch(first[0]) else "no"
    asked, denied = _proposition(question)
    wanted = [finding for finding in read(asked) if finding.name]
    seen = _SEEN.match(answer)
    if seen:
        there = bool(seen[2]) != bool(seen[1])
        return _say(there != (denied or any(finding.presence == "absent" for finding in wanted)))
    found = _by_findings(read(answer), wanted, denied)
    return found or _by_words(answer, asked, denied)


def _say(agrees: bool) -> Polarity:
    return "yes" if agrees else "no"


@lru_cache(maxsize=1 << 12)
def _proposition(question: str) -> tuple[str, bool]:
    """What is asked as a statement, and whether ``n't`` or ``not`` denies it (*Is the lung not clear?*).

    ``Isn't it enlarged?`` asks whether it is.
    """
    asked = _ASKING.sub("", question.strip()).strip(" ?.")
    asked = re.sub(r"^there\s+", "", asked, flags=re.IGNORECASE)
    denied = re.search(r"\bnot\b", asked, re.IGNORECASE) is not None
    return re.sub(r"\bnot\b\s*", "", asked, flags=re.IGNORECASE) if denied else asked, denied


def _by_findings(said: tuple[Finding, ...], wanted: list[Finding], denied: bool) -> Polarity | None:
    """Whether the answer's findings agree with what is asked; None where it speaks of others."""
    for theirs in said:
        for ours in wanted:
            if not _speaks_of(theirs, ours):
                continue
            if (
                theirs.presence != "absent"
                and ours.side
                and theirs.side
                and ours.side not in (theirs.side, "bilateral")
            ):
                return _say(denied)
            same = (theirs.presence == "absent") == (ours.presence == "absent")
            return _say(same != denied)
    return None


def _speaks_of(theirs: Finding, ours: Finding) -> bool:
    """One name, kin, or what a general statement covers."""
    if theirs.name == ours.name or any({theirs.name, ours.name} <= group for group in lexicon().kin):
        return True
    if theirs.presence == "absent":
        return ours.name in COVERS.get(theirs.name, ())
    return theirs.name in COVERS.get(ours.name, ()) or theirs.name in lexicon().general.get(ours.name, ())


def _by_words(answer: str, asked: str, denied: bool) -> Polarity | None:
    """Whether the words are among those asked, or exclude one of them; ``not`` turns either round."""
    told, words = set(normalise(asked).split()), normalise(answer).split()
    negated = bool(_NOT & set(words)) or _SHORT_NOT.search(answer) is not None
    said = set(words) - _NOT
    if not said:
        return None
    for group in OPPOSITES:
        ours, theirs = group & told, group & said
        if ours and theirs:
            return _say((ours == theirs) != (negated != denied))
    return _say(negated == denied) if said <= told else None
