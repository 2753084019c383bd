"""A report as sentences that can be replaced: where each begins and ends, what it says, and its words' meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from radpref.findings.grammar import capital
from radpref.findings.lexicon import TOKEN, items, lexicon
from radpref.findings.reader import read, sentence_bounds
from radpref.records import Finding, Span

_LEAD = re.compile(r"\s*(?:[-*•]\s+|\d+[.)]\s+)?(?:[A-Z][A-Za-z/ ]{2,30}:\s*)?")
_NEXT_LEAD = re.compile(r"[.!?]?\s*(?:$|\n|[-*•]\s|[A-Z][A-Za-z/ ]{2,30}:\s)")


class Word(NamedTuple):
    """A phrase of the lexicon in a sentence, by characters."""

    start: int
    end: int
    kind: str
    value: str


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report; offsets are the report's."""

    text: str
    """The whole report."""
    start: int
    """Of its first word: white space, bullet and heading come before."""
    end: int
    """After its last word: the full stop comes after."""
    lead: int
    """Where its bullet or heading begins."""
    mentions: tuple[Finding, ...]
    """What our reader finds in it; spans are the report's."""

    @property
    def body(self) -> str:
        """Its words."""
        return self.text[self.start : self.end]

    def at(self, mention: Finding) -> tuple[int, int]:
        """Where a mention stands within the body."""
        span = where(mention)
        return span.start - self.start, span.end - self.start


def where(mention: Finding) -> Span:
    """A mention's span; what was read from a text has one."""
    if mention.span is None:
        raise ValueError(f"the finding {mention.name} has no span: it was not read from a text")
    return mention.span


def sentences(text: str) -> list[Sentence]:
    """The sentences of those sections that tell findings, in order."""
    return list(_sentences(text))


@lru_cache(maxsize=1 << 10)
def _sentences(text: str) -> tuple[Sentence, ...]:
    found = read(text)
    result = []
    for first, last in sentence_bounds(text):
        lead = _LEAD.match(text, first, last)
        start = lead.end() if lead else first
        end = start + len(text[start:last].rstrip())
        if start < end:
            mine = tuple(f for f in found if f.span and first <= f.span.start and f.span.end <= last)
            blank = len(text[first:start]) - len(text[first:start].lstrip())
            result.append(Sentence(text, start, end, first + blank, mine))
    return tuple(result)


def sentence_of(text: str, mention: Finding) -> Sentence:
    """The sentence that a mention of ``text`` stands in. ValueError where it stands in none."""
    span = where(mention)
    for sentence in _sentences(text):
        if sentence.lead <= span.start and span.end <= sentence.end:
            return sentence
    raise ValueError(f"no sentence of the text holds the span {span.start} to {span.end}")


def replaced(sentence: Sentence, *bodies: str) -> str:
    """The report with other sentences in the place of this one; with none, without it and its full stop."""
    text = sentence.text
    kept = [body.strip() for body in bodies if body.strip()]
    if kept:
        mark = text[sentence.end] if text[sentence.end : sentence.end + 1] in (".", "!", "?") else "."
        first = kept[0] if text[sentence.start].islower() else capital(kept[0])
        joined = f"{mark} ".join([first, *map(capital, kept[1:])])
        return text[: sentence.start] + joined + text[sentence.end :]
    alone = sentence.lead < sentence.start and _NEXT_LEAD.match(text, sentence.end)
    start = sentence.lead if alone else sentence.start
    after = text[sentence.end :].lstrip(".!?")
    before = text[:start]
    if not after.strip():
        return before.rstrip()
    if not before.strip():
        return after.lstrip()
    if alone and before.endswith("\n"):  # a line of its own
        return before + after.lstrip()
    return before.rstrip(" ") + (" " if not after.startswith("\n") else "") + after.lstrip(" ")


@lru_cache(maxsize=1 << 12)
def words(body: str) -> tuple[Word, ...]:
    """The phrases of the lexicon in a sentence, by characters of the sentence."""
    tokens = [(match[0].lower(), match.start(), match.end()) for match in TOKEN.finditer(body)]
    found = items([word for word, _, _ in tokens])
    return tuple(Word(tokens[i.start][1], tokens[i.end - 1][2], i.kind, i.value) for i in found)


def statements(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without their spans."""
    return [finding.model_copy(update={"span": None}) for finding in findings]


def contradictions(text: str) -> frozenset[str]:
    """Names of findings that a text both states and denies, in their own name or in a general statement.

    ``The lungs are otherwise clear`` and ``no other abnormality`` contradict nothing.
    """
    covers = lexicon().covers
    stated, denied = [], []
    for sentence in _sentences(text):
        for mention in sentence.mentions:
            if mention.presence != "absent":
                stated.append(mention)
            elif not of_the_rest(sentence, mention):
                denied.append(mention)
    return frozenset(
        one.name
        for one in stated
        for other in denied
        if (one.name == other.name or one.name in covers.get(other.name, ())) and not _elsewhere(one, other)
    )


_REST = re.compile(r"\b(?:other|new|additional|further|remaining|elsewhere)\b", re.IGNORECASE)


def of_the_rest(sentence: Sentence, denial: Finding) -> bool:
    """Whether a denial speaks of what is left: ``no other nodule``, or, in general words, ``otherwise clear``."""
    general = denial.name in lexicon().covers and re.search(r"\botherwise\b", sentence.body, re.IGNORECASE)
    return bool(general or _REST.search(sentence.body))


def _elsewhere(stated: Finding, denied: Finding) -> bool:
    """Whether a denial speaks of another side or place than what is stated."""
    if {denied.side, stated.side} == {"left", "right"}:
        return True
    bands = lexicon().bands
    here, there = bands.get(stated.place or ""), bands.get(denied.place or "")
    return bool(here and there and not here & there)
