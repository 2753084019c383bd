"""What the readers of question data sets share: rows of questions gathered into studies, images inside the root.

A reader turns its files into ``Row``s; ``streamed`` makes one study of all rows that ask about the same images, so that
a split by study is a split by image. Findings stay empty: such a source has questions instead of reports.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radpref.data.disk import Groups
from radpref.data.rows import Entry
from radpref.data.source import RowError, inside, quarantine, text_of
from radpref.records import Asked, ImageFile, Quarantined, QuestionTask, Split, Study

MAX_CHARACTERS = 4_000
"""Longest question or answer; more is an unclosed quote or another column."""

YES_NO = re.compile(r"(?:yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One question about one study."""

    study: str
    patient: str
    images: tuple[ImageFile, ...]
    asked: Asked
    split: Split = "train"


def streamed(
    name: str, rows: Iterable[Row | Quarantined], notes: list[str], what: str = "images or studies"
) -> Iterator[Study | Quarantined]:
    """Studies in the order of their first question, and the rows that could not be used.

    Questions of one study that carry the same id are numbered: the second ends in ``~2``. How many there are is added
    to ``notes`` at the end.
    """
    questions = 0
    with Groups[Row]() as studies:
        for row in rows:
            if isinstance(row, Quarantined):
                yield row
            else:
                studies.add(row.study, row)
                questions += 1
        notes.append(f"{name}: {questions:,} questions about {len(studies):,} {what}")
        for identifier, group in studies:
            times: Counter[str] = Counter()
            asked = []
            for row in group:
                times[row.asked.id] += 1
                number = times[row.asked.id]
                again = row.asked.model_copy(update={"id": f"{row.asked.id}~{number}"})
                asked.append(row.asked if number == 1 else again)
            first = group[0]
            yield Study(
                id=identifier,
                patient=first.patient,
                images=first.images,
                findings="",
                questions=tuple(asked),
                split=first.split,
            )


def ask(
    identifier: Any,
    question: Any,
    answer: Any,
    *,
    kind: str = "",
    closed: bool | None = None,
    task: QuestionTask = "basic",
) -> Asked:
    """A question out of cells. ``closed`` None: where the answer begins with yes or no. Raises RowError.

    A list of answers becomes a set in words: ``a, b``; an empty list ``none``.
    """
    said = ", ".join(text_of(part) for part in answer) or "none" if isinstance(answer, list) else text_of(answer)
    asked = " ".join(text_of(question).split())
    said = said.strip()
    if not any(letter.isalnum() for letter in asked):
        raise RowError("no question: the cell is empty")
    if not any(letter.isalnum() for letter in said):
        raise RowError("no answer: the cell is empty")
    if max(len(asked), len(said)) > MAX_CHARACTERS:
        raise RowError(f"question or answer too long: at most {MAX_CHARACTERS:,} characters")
    if closed is None:
        closed = bool(YES_NO.match(said))
    return Asked(id=text_of(identifier), question=asked, answer=said, kind=kind, closed=closed, task=task)


def refused(entry: Entry, file: Path, reason: str | None = None) -> Quarantined:
    """A row in quarantine, named by its file and place."""
    return quarantine(f"{file.name} {entry.place}", reason or entry.reason)


def cell(cells: Mapping[str, Any], name: str) -> str:
    """A cell as text; empty where it is absent. Raises RowError for what is no text."""
    return text_of(cells.get(name))


def image(root: Path, folders: Iterable[str], given: str) -> str:
    """The path of an image that lies in one of ``folders`` below ``root``, whichever has it first. Raises RowError."""
    paths = [inside(root, f"{folder}/{given}") for folder in folders]
    for path in paths:
        if path.is_file():
            return str(path)
    raise RowError("image missing: named in the row, not under data.root")
