"""Conversations about images: as LLaVA and RadVLM keep them, and as TRL does.

``data.file`` (or the one table of ``data.root``) is a JSON list, JSONL or Parquet file, or any other that tables come
in. A row has its images (``image``, ``images``) and either ``conversations`` (``from`` human or gpt, ``value``) or
``messages`` (``role`` user or assistant, ``content`` a text or a list of parts), or ``prompt`` and ``completion``. Each
turn and its answer become a question about the images. A turn that rests on an earlier one loses it: such dialogues are
counted in a note.

The patient is a column (``data.options.patient``, or one by a usual name), or stands in the path as MIMIC-CXR and
CheXpert have it; else ``data.options.patient: image`` must say that each image is of another patient.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from radpref.config import DataSection, Section, TableSection
from radpref.data.columns import USUAL
from radpref.data.image_cells import images_of
from radpref.data.rows import Entry
from radpref.data.source import DataError, Found, RowError, Source, quarantine, row_errors, text_of
from radpref.data.table import SPLIT_NAMES, Table, open_table
from radpref.data.vqa import Row, ask, streamed
from radpref.records import Quarantined, Split

_PATIENT = re.compile(r"(?:^|/)(p\d{8}|patient\d+)(?=/)")
_TAG = re.compile(r"\s*<image>\s*")
_ASKS = frozenset({"human", "user"})
_ANSWERS = frozenset({"gpt", "assistant", "model"})


class Options(Section):
    """Of conversations."""

    patient: str | None = Field(
        None, description="column of the patient; the word `image` makes each image a patient of its own"
    )


def find(section: DataSection, options: Options, cache: Path, seed: int) -> Found:
    """All turns of all rows. Where there is a column ``split``, it is used. Raises DataError."""
    table = open_table(section.model_copy(update={"table": TableSection(split="")}), lists=True)
    there = set(table.columns)
    if not there & {"conversations", "messages", "completion"} or not there & {"image", "images"}:
        raise DataError(
            "the file holds no conversations: rows need image or images, and conversations, messages, or prompt and "
            f"completion; it has {', '.join(sorted(there))}"
        )
    if options.patient not in (None, "image") and options.patient not in there:
        raise DataError(f"data.options.patient is {options.patient!r}, but the file has no such column")
    notes: list[str] = []
    rows = _rows(table, options, cache / "images", notes)
    return Found(streamed("conversations", rows, notes), notes, split="split" in there)


def _rows(table: Table, options: Options, store: Path, notes: list[str]) -> Iterator[Row | Quarantined]:
    counts: Counter[str] = Counter()
    for entry in table.rows:
        try:
            with row_errors():
                made = list(_of(entry, table, options, store))
        except RowError as error:
            yield quarantine(entry.place, str(error))
            continue
        counts["dialogues"] += len(made) > 1
        yield from made
    notes += table.notes
    if counts["dialogues"]:
        notes.append(
            f"conversations: {counts['dialogues']:,} have several turns; each question stands alone, without what was "
            "said before"
        )
    if options.patient == "image":
        notes.append("conversations: each image counts as a patient of its own, as data.options.patient says")


def _of(entry: Entry, table: Table, options: Options, store: Path) -> Iterator[Row]:
    if entry.cells is None:
        raise RowError(entry.reason)
    cells = entry.cells
    images = tuple(images_of(cells.get("images") or cells.get("image"), table.roots, store, lambda name: None))
    if not images:
        raise RowError("no images: the row names none")
    split: Split | None = "train"
    if "split" in table.columns:
        split = SPLIT_NAMES.get(text_of(cells.get("split")).lower())
    if split is None:
        raise RowError(f"split unknown: the cell is none of {', '.join(SPLIT_NAMES)}")
    key = "+".join(image.path for image in images)
    patient = _patient(cells, options, key)
    identifier = text_of(cells.get("id")) or entry.place.replace(" ", "-")
    turns = list(_turns(cells))
    if not turns:
        raise RowError("no question: the conversation has no turn with its answer")
    for number, (question, answer) in enumerate(turns, start=1):
        name = identifier if len(turns) == 1 else f"{identifier}-{number}"
        study = _name(images[0].path, table.roots) if len(images) == 1 else identifier
        yield Row(study, patient, images, ask(name, question, answer), split)


def _name(path: str, roots: tuple[Path, ...]) -> str:
    """An image's study: its path below the root as a word, for names alone come twice."""
    root = next((root for root in roots if Path(path).is_relative_to(root)), None)
    place = Path(path).relative_to(root) if root else Path(Path(path).name)
    return "-".join(place.with_suffix("").parts)[-200:]


def _patient(cells: Mapping[str, Any], options: Options, key: str) -> str:
    if options.patient == "image":
        return key
    columns = (options.patient,) if options.patient else USUAL["patient"]
    for column in columns:
        if said := text_of(cells.get(column)):
            return said
    found = _PATIENT.search(key)
    if found is None:
        raise RowError(
            "no patient: neither a column nor the image's path names one; set data.options.patient to a column, or to "
            "image where each image is of another patient"
        )
    return found[1]


def _turns(cells: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Questions and their answers, in order. Raises RowError: roles that are none, parts that are no text."""
    talk = cells.get("conversations") or cells.get("messages")
    if talk is None:
        prompt, completion = cells.get("prompt"), cells.get("completion")
        talk = [
            *(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]),
            *(completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]),
        ]
    if not isinstance(talk, list) or not all(isinstance(turn, dict) for turn in talk):
        raise RowError("row broken: the conversation is no list of turns")
    asked = ""
    for turn in talk:
        role = text_of(turn.get("from") or turn.get("role")).lower()
        said = _said(turn.get("value") if "value" in turn else turn.get("content"))
        if role in _ASKS:
            asked = said
        elif role in _ANSWERS:
            if asked:
                yield asked, said
            asked = ""
        elif role != "system":
            raise RowError("row broken: a turn is of neither user nor assistant")


def _said(content: Any) -> str:
    if isinstance(content, list):
        if not all(isinstance(part, dict) for part in content):
            raise RowError("row broken: a turn's content is no list of parts")
        content = "\n".join(text_of(part.get("text")) for part in content if part.get("text"))
    return _TAG.sub(" ", text_of(content)).strip()


SOURCE = Source(
    "conversations",
    "conversations about images, as LLaVA, RadVLM or TRL keep them",
    find,
    Options,
    frozenset({"root", "file"}),
)
