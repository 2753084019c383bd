"""Altered questions that show what an accuracy rests on: negated twins, another patient's image, no image.

Each keeps what it was made from in its id: ``X~negated``, ``X~swapped``, ``X~blank``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from radpref.files import content_key
from radpref.images import image_hash, read_image
from radpref.records import ImageFile, Question
from radpref.tasks.answers import polarity
from radpref.tasks.comparison import OPENING

NEGATED, SWAPPED, BLANK = "~negated", "~swapped", "~blank"
GREY = 96
"""Value of a blank image's pixels, 0 to 255: about the mean of a chest image."""

_FORMS = (
    (re.compile(r"^(?:is|are)(?:/are)? there (?:any |an? )?(.+)$", re.IGNORECASE), "Is this image free of {}?"),
    (re.compile(r"^does the image show (?:any |an? )?(.+)$", re.IGNORECASE), "Does the image lack {}?"),
    (re.compile(r"^can (?:any |an? )?(.+) be seen$", re.IGNORECASE), "Is {} absent?"),
    (re.compile(r"^is (?:any |an? )?(.+) present on this image$", re.IGNORECASE), "Is {} absent from this image?"),
)
"""A question of presence, without its question mark, and how its negation is asked."""


def twins(questions: Sequence[Question], wanted: Collection[str], folder: Path, seed: int) -> list[Question]:
    """The altered twins that are asked for: ``negated``, ``swapped``, ``blank``, whose images go into ``folder``."""
    rows: list[Question] = []
    if "negated" in wanted:
        rows += [twin for question in questions if (twin := negated(question)) is not None]
    if "swapped" in wanted:
        rows += swapped(questions, seed)
    if "blank" in wanted:
        rows += blanked(questions, folder)
    return rows


def negated(question: Question) -> Question | None:
    """The same question asked for the opposite, with the opposite answer; None where it is not of yes or no.

    Questions of presence are turned into ones of absence, which *yes* and *no* answer without doubt (``Is this image
    free of ...?``); any other is asked for the truth of its denial.
    """
    said = polarity(question.answer) if question.closed else None
    if said is None:
        return None
    opening, text = ("", question.prompt)
    if text.startswith(OPENING):
        opening, text = OPENING, text[len(OPENING) :]
    first, _, rest = text.strip().partition("? ")
    first = first.rstrip(" ?")
    turned = next((form.format(match[1]) for pattern, form in _FORMS if (match := pattern.match(first))), None)
    turned = turned or f'Is "no" the right answer to the question "{first}?"'
    answer = "no" if said == "yes" else "yes"
    return question.model_copy(
        update={
            "id": question.id + NEGATED,
            "prompt": f"{opening}{turned}{' ' + rest if rest else ''}",
            "answer": answer,
            "reference": answer.capitalize() + ".",
        }
    )


def swapped(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions with the images of another patient, who is asked a question with as many images.

    The images come from questions of the same task where another patient has one, so that a region question keeps a
    marked image. A question for which nobody else has images is left out. Answers stay: what is still answered right
    did not need the image, or both patients have the same answer.
    """
    by_shape: defaultdict[tuple[str, int], dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        by_shape[question.task, len(question.images)][question.patient].append(question)
    rows = []
    for question in questions:
        others = by_shape[question.task, len(question.images)]
        patients = sorted(patient for patient in others if patient != question.patient)
        if not patients:
            continue
        chance = Random(f"{seed}:{question.study}:{question.task}")  # one study's questions meet one other study
        donor = chance.choice(others[chance.choice(patients)])
        rows.append(question.model_copy(update={"id": question.id + SWAPPED, "images": donor.images}))
    return rows


def blanked(questions: Sequence[Question], folder: Path) -> list[Question]:
    """The questions with grey images of the same size in the place of theirs; the grey PNGs lie in ``folder``."""
    grey: dict[tuple[int, int], ImageFile] = {}
    sizes: dict[str, tuple[int, int]] = {}

    def blank(image: ImageFile) -> ImageFile:
        if image.path not in sizes:
            sizes[image.path] = read_image(image).size
        size = sizes[image.path]
        if size not in grey:
            path = folder.resolve() / f"{content_key('blank', GREY, size)}.png"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
                Image.new("L", size, GREY).save(beside, format="PNG")
                beside.replace(path)
            grey[size] = ImageFile(path=str(path), digest=image_hash(ImageFile(path=str(path))))
        return grey[size].model_copy(update={"view": image.view})

    return [
        question.model_copy(
            update={"id": question.id + BLANK, "images": tuple(blank(image) for image in question.images)}
        )
        for question in questions
    ]
