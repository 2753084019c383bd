"""Rows that are of one study, gathered into it: its images, its questions, the texts that stand with one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from radpref.data.disk import Groups
from radpref.data.source import quarantine
from radpref.records import Quarantined, Study

TEXTS = ("findings", "impression", "indication", "comparison")


def gathered(studies: Iterable[Study | Quarantined]) -> Iterator[Study | Quarantined]:
    """Studies of one id as one, in the order of their first; rows in quarantine come first."""
    with Groups[Study]() as groups:
        for study in studies:
            if isinstance(study, Quarantined):
                yield study
            else:
                groups.add(study.id, study)
        for _, rows in groups:
            joined, refused = join([(row, "") for row in rows])
            yield from refused
            yield joined


def join(rows: Sequence[tuple[Study, str]]) -> tuple[Study, list[Quarantined]]:
    """One study of all rows that carry its id, and the rows that are not of it, each with its reason.

    ``rows``: what each row says, and its place, which stands in the reason. The first row says who the patient is; a
    text may stand with any of them, and with all.
    """
    study = rows[0][0]
    images = {image.path: image for image in study.images}
    questions = list(study.questions)
    asked = {(one.question, one.answer) for one in questions}
    refused: list[Quarantined] = []
    for other, place in rows[1:]:
        reason = _other(study, other)
        new = [image for image in other.images if image.path not in images]
        more = [one for one in other.questions if (one.question, one.answer) not in asked]
        if reason is None and not new and not more:
            reason = "duplicate id: an earlier row says the same"
        if reason is not None:
            refused.append(quarantine(study.id, f"{reason} ({place})" if place else reason))
            continue
        study = study.model_copy(
            update={name: getattr(other, name) for name in TEXTS if getattr(other, name) and not getattr(study, name)}
        )
        images |= {image.path: image for image in new}
        questions += more
        asked |= {(one.question, one.answer) for one in more}
    if len(rows) - len(refused) == 1:
        return study, refused
    return study.model_copy(update={"images": tuple(images.values()), "questions": tuple(questions)}), refused


def _other(study: Study, other: Study) -> str | None:
    """Why two rows of one id cannot be of one study; None where they can."""
    if other.patient != study.patient:
        return "duplicate id: an earlier row has it with another patient"
    if other.split != study.split:
        return "duplicate id: an earlier row has it with another split"
    for name in ("findings", "impression"):
        if getattr(study, name) and getattr(other, name) not in ("", getattr(study, name)):
            return "duplicate id: an earlier row has it with another report"
    return None
