"""What is measured: answers that name a finding whose place in the image is known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from radpref.findings import read
from radpref.images import marked
from radpref.records import Quarantined, Question, Span

STAGE = "ground"
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n\s*\n")


class Target(NamedTuple):
    """A finding that an answer says is there, and that an image of the question shows."""

    id: str
    """``{question}/{finding}``."""
    question: Question
    finding: str
    images: tuple[int, ...]
    """Numbers of the images with a mask or box of it."""
    answer: str
    words: Span
    """The words that name it, the first time that the answer says it is there."""
    sentence: Span
    """The sentence around them, its full stop included."""


def targets(
    questions: Sequence[Question], answers: Mapping[str, str] | None = None
) -> tuple[list[Target], list[Quarantined]]:
    """A target for every finding that an image of the question marks and the answer says is there.

    ``answers`` maps question ids to texts; without it the references are taken, so that several models are measured
    on the same words. A marked finding that the answer leaves out, denies or doubts has no words to measure and comes
    back with that reason. Questions without masks or boxes give neither.
    """
    found: list[Target] = []
    without: list[Quarantined] = []
    for question in questions:
        text = question.reference if answers is None else answers.get(question.id, "")
        stated = read(text)
        for name in dict.fromkeys(name for image in question.images for name in marked(image)):
            spans = [f.span for f in stated if f.name == name and f.presence == "present" and f.span is not None]
            if not spans:
                reason = "finding not in the answer: it has a mask, but the answer does not say that it is there"
                without.append(Quarantined(id=f"{question.id}/{name}", stage=STAGE, reason=reason))
                continue
            words = min(spans, key=lambda span: span.start)
            images = tuple(number for number, image in enumerate(question.images) if name in marked(image))
            found.append(Target(f"{question.id}/{name}", question, name, images, text, words, sentence_of(text, words)))
    return found, without


def sentence_of(text: str, span: Span) -> Span:
    """The sentence that a span lies in: from the end of the sentence before to its own full stop."""
    start, end = 0, len(text)
    for match in _SENTENCE_END.finditer(text):
        if match.end() <= span.start:
            start = match.end()
        elif match.start() >= span.end:
            end = match.end()
            break
    return Span(start=start + len(text[start:end]) - len(text[start:end].lstrip()), end=end)
