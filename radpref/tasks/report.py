"""The report task (CheXalign): images and indication in, the findings section out."""

from __future__ import annotations

import re

from radpref.config import TaskSection
from radpref.findings.labelled import labelled
from radpref.records import Question, Study

MAX_INDICATION = 300
"""Most characters of an indication in the prompt; a longer one is cut at a word."""

_REMOVED = r"(?:X{3,}|\bx{3,}\b|_{2,}|\[\*\*.*?\*\*\])"
_AGE = re.compile(rf"{_REMOVED}[\s-]*(?:years?[\s-]*olds?|y/?o)\b[\s,]*")
# words that joined something removed to the rest, and now hang before "and", a full stop or the end
_JOIN = r"with|of|in|on|to|by|for|from|since"
_LOOSE = re.compile(rf"\b(?:{_JOIN}|and|or|the|an?)\s*(?=[.,;:?]|$)", re.IGNORECASE)
_LOOSE_AND = re.compile(rf"\b({_JOIN})\s+(?:and|or)\b", re.IGNORECASE)
_LOOSE_START = re.compile(r"^(?:[\s.,;:/-]|(?:with|and|or|of|who|for)\b)+", re.IGNORECASE)
_HEADING = re.compile(
    r"^\s*(?:(?:clinical\s+)?(?:indications?|history|reason for (?:exam|study))\s*:\s*)+", re.IGNORECASE
)


def report_question(study: Study, task: TaskSection, max_images: int) -> Question:
    """The question that asks for the findings of ``study``; its id is ``{study.id}:report``.

    The images are the study's first ``max_images``; ``load_studies`` puts frontal ones first. The prompt is
    ``task.prompt``, followed by a line with the indication where ``task.indication`` is on and the study has one.
    The reference is the findings section, its whitespace joined to single blanks and otherwise unchanged; it is empty
    for a study that has none. ``labels`` are what labels and boxes say, report or not.
    """
    indication = clean_indication(study.indication) if task.indication else ""
    return Question(
        id=f"{study.id}:report",
        study=study.id,
        patient=study.patient,
        split=study.split,
        images=study.images[:max_images],
        prompt=f"{task.prompt}\nIndication: {indication}" if indication else task.prompt,
        reference=" ".join(study.findings.split()),
        task="report",
        truth=study.truth,
        labels=labelled(study.labels, study.marked),
    )


def clean_indication(text: str) -> str:
    """The indication on one line without marks of removed text (XXXX, ___); empty where nothing is left of it.

    ``XXXX-year-old XXXX with chest pain.`` becomes ``chest pain.``; ages and names that were removed say nothing.
    """
    text = re.sub(_REMOVED, "", _AGE.sub("", _HEADING.sub("", " ".join(text.split()))))
    before = None
    while text != before:  # what hangs loose after one word is gone may leave the next one loose
        before, text = text, _LOOSE.sub("", _LOOSE_AND.sub(r"\1", " ".join(text.split())))
        text = re.sub(r"\s+([.,;:?!])", r"\1", text)
        text = re.sub(r"(?:[.,;:]\s*)+([.,;:])", r"\1", text)
    text = _LOOSE_START.sub("", text).rstrip(" ,;:/-")
    if sum(letter.isalpha() for letter in text) < 2:
        return ""
    if len(text) > MAX_INDICATION:
        text = text[:MAX_INDICATION].rsplit(" ", 1)[0].rstrip(" ,;:") + " ..."
    return text
