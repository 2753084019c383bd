"""A question as a source or a maker asks it, turned into a row that a model can be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from radpref.records import Asked, ImageFile, Question, Study
from radpref.tasks.answers import matches, polarity
from radpref.tasks.comparison import OPENING

_IS_THERE = re.compile(
    r"^(is|are) there (?:any |an? )?(?:evidence of |signs? of )?(?:any |an? )?(.+?)\s*\?*$", re.IGNORECASE
)


def question_of(
    study: Study, asked: Asked, images: Sequence[ImageFile] | None = None, *, max_images: int = 2
) -> Question:
    """The row of one question; its id is ``{study}:{asked}``.

    Without ``images`` the study's first ``max_images`` are shown, and two for a comparison, which says before the
    question which image is which. The reference is the rationale, where the source has one that gives the answer; else
    the answer in a sentence.
    """
    prompt = asked.question
    if images is None:
        images = study.images[: max(max_images, 2) if asked.task == "comparison" else max_images]
        prompt = OPENING + prompt if asked.task == "comparison" else prompt
    given = asked.rationale if matches(asked.rationale, asked.answer, asked.closed) else ""
    return Question(
        id=f"{study.id}:{asked.id}",
        study=study.id,
        patient=study.patient,
        split=study.split,
        images=tuple(images),
        prompt=prompt,
        reference=given or in_sentence(asked.question, asked.answer, asked.closed),
        task=asked.task,
        answer=asked.answer,
        kind=asked.kind,
        closed=asked.closed,
        about=asked.about,
        truth=study.truth,
    )


def in_sentence(question: str, answer: str, closed: bool) -> str:
    """The answer as a sentence: ``Yes, there is a pneumothorax.`` where *is there* asks for it, else by itself."""
    text = " ".join(answer.split()).rstrip(".")
    text = text[:1].upper() + text[1:]
    asked = _IS_THERE.match(" ".join(question.split()))
    plain = text.lower() in ("yes", "no")
    if closed and plain and asked and "?" not in asked[2] and " or " not in asked[2]:
        verb, what = asked[1].lower(), asked[2]
        if polarity(text) == "yes":
            rest = re.sub(r"^(?:is|are) there ", "", " ".join(question.split()), flags=re.IGNORECASE).rstrip(" ?")
            return f"Yes, there {verb} {re.sub('^any ', '', rest)}."
        return f"No, there {verb} no {what}."
    return f"{text}."
