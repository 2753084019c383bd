"""Any table of studies, images or questions: JSONL, CSV (or TSV), Parquet, gzip or not, or a Hugging Face data set.

``data.file`` is a file in ``data.root`` or an absolute path, a folder that ``datasets`` wrote or can read, or the
name of a data set on the hub (``owner/name``, the only thing here that reaches the network). Without ``data.file``
the one table in ``data.root`` is taken. Columns are found by their usual names (``radpref.data.columns``) or named in
``data.table``; a column that is needed and missing is an error before any row is read.

A row is a study, an image of a study, or a question about one: rows of one id are one study, whose images and
questions are gathered. A cell of images may hold several in any usual writing. Paths are relative to ``data.root``, or
to the table's folder where no root is given, and never lead out of it. With dates, each study's prior is the patient's
nearest earlier one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from radpref.config import DataSection, TableSection
from radpref.data import hugging_face
from radpref.data.columns import AUTO, Columns, find_columns
from radpref.data.dates import When, readings, with_priors
from radpref.data.disk import Groups, database
from radpref.data.gathering import join
from radpref.data.image_cells import EMPTY, exists, images_of, tails, words_of
from radpref.data.image_index import ImageIndex
from radpref.data.published import labels_of
from radpref.data.rows import SUFFIXES, Entry, is_table, is_unicode, kind_of, stream
from radpref.data.rows import columns as columns_of
from radpref.data.sections import sections
from radpref.data.source import (
    DataError,
    Found,
    NoOptions,
    RowError,
    Source,
    inside,
    listed,
    nearest,
    quarantine,
    root_of,
    row_errors,
    text_of,
)
from radpref.data.views import view_of
from radpref.data.vqa import ask
from radpref.records import Asked, ImageFile, Quarantined, Split, Study, View

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ROUNDED = re.compile(r"\d[.,]?\d*[eE]\+\d+")
_EMPTY: dict[str, frozenset[str]] = {
    "id": frozenset({"nan", "<na>"}),  # a study may be called none
    "patient": EMPTY | {"unknown", "unk", "anonymous", "anonymized", "anonymised", "anon", "?", "-"},
}
"""What stands in a cell that says nothing, where that is not ``EMPTY``: patients without a name are not one patient."""
_SAID_VIEW: dict[str, View] = {"frontal": "frontal", "lateral": "lateral"}


@dataclass(frozen=True)
class Table:
    """A table before its rows are looked at."""

    columns: list[str]
    rows: Iterable[Entry]
    roots: tuple[Path, ...]
    """Folders that images may lie in, resolved; relative paths start at the first."""
    notes: list[str] = field(default_factory=list)

    @cached_property
    def images(self) -> ImageIndex:
        """Images by name, looked for when a row first names one without its folder."""
        return ImageIndex(self.roots[0])


@dataclass(frozen=True)
class _Row:
    """What one row says."""

    place: str
    study: Study
    """Of this row alone: its images, its texts, its question if it asks one."""
    when: dict[str, When]


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All rows of the table as studies. Raises DataError: no such table, no such column, an unreadable file."""
    table = open_table(section)
    return found(table, find_columns(section.table, table.columns), cache)


def found(table: Table, columns: Columns, cache: Path) -> Found:
    """What a table holds by these columns; images that it holds itself are kept in ``cache``."""
    notes: list[str] = []
    reading = Reading(table, columns, cache / "images")
    return Found(_studies(reading, notes), notes, split="split" in columns.of)


def _studies(reading: Reading, notes: list[str]) -> Iterator[Study | Quarantined]:
    counts: Counter[str] = Counter()
    with Groups[_Row]() as groups, Groups[tuple[dict[str, When], Study]]() as patients:
        for entry in reading.table.rows:
            counts["rows"] += 1
            try:
                with row_errors():
                    row = reading.row(entry)
            except RowError as error:
                counts["unsplit"] += str(error).startswith("split unknown")
                yield quarantine(reading.name_of(entry), str(error))
            else:
                counts["good"] += 1
                groups.add(row.study.id, row)
        if counts["unsplit"] and not counts["good"]:
            raise DataError(
                f"data.table.split is {reading.columns.of['split']!r}, but no cell of that column is one of "
                f"{', '.join(SPLIT_NAMES)}; name another column, or set it to '' to split by patient"
            )
        ways = Counter[str]()
        for _, rows in groups:
            study, refused = join([(row.study, row.place) for row in rows])
            yield from refused
            counts["studies"] += 1
            counts["several"] += len(rows) - len(refused) > 1
            if "date" not in reading.columns.of:
                yield study
                continue
            when = rows[0].when
            counts["dated"] += bool(when)
            if len(set(when.values())) > 1 or len(when) == 1:
                ways.update(list(when) if len(when) == 1 else ["either"])
            patients.add(study.patient, (when, study))
        notes += _told(reading, counts)
        if "date" in reading.columns.of:
            way, said = _way(ways, counts)
            notes.append(said)
            for _, dated in patients:
                yield from with_priors([(when.get(way) if way else None, study) for when, study in dated])


class Reading:
    """A table with its columns: rows to what they say."""

    def __init__(self, table: Table, columns: Columns, store: Path) -> None:
        self.table, self.columns = table, columns
        self._store = store
        self.elsewhere = _Elsewhere(table.roots[0])

    def row(self, entry: Entry) -> _Row:
        """Raises RowError: why it cannot be used."""
        if entry.cells is None:
            raise RowError(entry.reason)
        cells = entry.cells
        identifier = self._id(entry)
        split = SPLIT_NAMES.get(self._text(cells, "split").lower()) if "split" in self.columns.of else "train"
        if split is None:
            raise RowError(f"split unknown: the cell is none of {', '.join(SPLIT_NAMES)}")
        images = self._images(cells)
        question = self._question(entry)
        if not identifier:  # questions without ids of studies: an image is a study
            identifier = Path(images[0].path).stem if images else entry.place.replace(" ", "-")
        patient = identifier if self.columns.alone else self._text(cells, "patient")
        if not patient:
            raise RowError(
                "no patient: the cell is empty or says nothing (unknown, n/a ...), and a split by patient must know "
                "whose study this is"
            )
        texts = self._texts(cells)
        study = Study(
            id=identifier,
            patient=patient,
            images=images,
            findings=texts.get("findings", ""),
            impression=texts.get("impression", ""),
            indication=texts.get("indication", ""),
            comparison=texts.get("comparison", ""),
            prior=self._text(cells, "prior") or None,
            questions=(question,) if question else (),
            split=split,
            labels=labels_of(cells),
        )
        when = readings(self._text(cells, "date"), self._text(cells, "time")) if "date" in self.columns.of else {}
        return _Row(entry.place, study, when)

    def name_of(self, entry: Entry) -> str:
        """The row's id where it has one, else its place."""
        try:
            return (self._text(entry.cells or {}, "id") or entry.place)[:200]
        except RowError:
            return entry.place

    def _id(self, entry: Entry) -> str:
        if "id" in self.columns.of:
            identifier = self._text(entry.cells or {}, "id")
            if not identifier:
                raise RowError("no id: the cell is empty")
            return identifier
        return "" if "question" in self.columns.of else entry.place.replace(" ", "-")

    def _question(self, entry: Entry) -> Asked | None:
        if not {"question", "answer"} <= self.columns.of.keys():
            return None
        cells = entry.cells or {}
        question, answer = (cells.get(self.columns.of[name]) for name in ("question", "answer"))
        return ask(entry.place.replace(" ", "-"), question, answer)

    def _texts(self, cells: Mapping[str, Any]) -> dict[str, str]:
        texts = {name: self._text(cells, name) for name in ("findings", "impression", "indication")}
        if "report" in self.columns.of and not texts["findings"]:
            found = sections(self._text(cells, "report"))
            if not found.keys() - {"preamble", "last paragraph"}:
                found["findings"] = self._text(cells, "report")
            texts = {name: text or found.get(name, "") for name, text in texts.items()}
            texts["comparison"] = found.get("comparison", "")
        return texts

    def _images(self, cells: Mapping[str, Any]) -> tuple[ImageFile, ...]:
        cell = cells.get(self.columns.of["images"])
        images = list(
            images_of(
                cell, self.table.roots, self._store, lambda name: self.table.images.only(name), self.elsewhere.image_of
            )
        )
        if "view" in self.columns.of:
            said = words_of(cells.get(self.columns.of["view"]))
            views = [view_of(word) for word in said] if len(said) == len(images) else [view_of(" ".join(said))]
            views = views if len(views) == len(images) else ["unknown"] * len(images)
        else:
            views = [_SAID_VIEW.get(_word_of_view(image.path), "unknown") for image in images]
        return tuple(image.model_copy(update={"view": view}) for image, view in zip(images, views, strict=True))

    def _text(self, cells: Mapping[str, Any], name: str) -> str:
        text = text_of(cells.get(self.columns.of[name])) if name in self.columns.of else ""
        if name in ("id", "patient") and _ROUNDED.fullmatch(text):
            raise RowError(f"{name} rounded: a spreadsheet wrote it as a power of ten; export the column as text")
        return "" if text.lower() in _EMPTY.get(name, EMPTY) else text


class _Elsewhere:
    """Absolute paths of the machine that wrote the table, found here by their ends below the root.

    The longest end that is a file counts. No two paths may come to one file: they were two images there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known = database("CREATE TABLE found (here TEXT PRIMARY KEY, there TEXT) WITHOUT ROWID;")
        self.count = 0

    def image_of(self, given: str) -> str:
        """The file here. Raises RowError: none of that end, or another path came to it before."""
        here = next((path for tail in tails(given) if exists(path := self._root / tail)), None)
        if here is None:
            raise RowError(
                "path leads out of data.root: it is absolute, and no end of it is a file below the root; set data.root "
                "to the folder that holds these images, or write paths relative to it"
            )
        found = str(inside(self._root, str(here)))
        self._known.execute("INSERT OR IGNORE INTO found VALUES (?, ?)", (found, given))
        if self._known.execute("SELECT there FROM found WHERE here = ?", (found,)).fetchone()[0] != given:
            raise RowError("image not named: two absolute paths of the table end in one file; write relative paths")
        self.count += 1
        return found


def _word_of_view(path: str) -> str:
    found = re.findall("frontal|lateral", Path(path).stem.lower())
    return found[0] if len(set(found)) == 1 else ""


def _told(reading: Reading, counts: Counter[str]) -> list[str]:
    notes = [f"table: {counts['rows']:,} rows, {counts['studies']:,} studies"]
    notes += reading.table.notes
    if any(reading.columns.of[name] != name for name in reading.columns.found):
        notes.append(f"table: columns: {reading.columns.shown()}")
    if reading.elsewhere.count:
        notes.append(
            f"table: {reading.elsewhere.count:,} image paths are absolute paths of another machine, found by their "
            "ends below data.root"
        )
    if counts["several"]:
        notes.append(f"table: {counts['several']:,} studies were gathered from several rows of one id")
    if reading.columns.alone:
        notes.append(
            "table: each study counts as a patient of its own, as data.table.patient says; intervals are over studies, "
            "and nothing keeps one patient's studies on one side of a split"
        )
    return notes


def _way(ways: Counter[str], counts: Counter[str]) -> tuple[str | None, str]:
    """How ambiguous dates are read, and a sentence about it."""
    lost = counts["studies"] - counts["dated"]
    more = f"; {lost:,} studies without a date that can be read have no prior" if lost else ""
    unsure = ways["either"] and not (ways["day first"] or ways["month first"])
    if unsure or (ways["day first"] and ways["month first"]):
        return None, "table: no priors: its dates can be read with day or month first; write them as 2021-03-04" + more
    way = "month first" if ways["month first"] else "day first"
    return way, "table: a study's prior is the patient's nearest earlier one by date" + more


# ---- opening


def open_table(section: DataSection, *, lists: bool = False) -> Table:
    """The table that the recipe names; with ``lists`` a JSON list as well.

    Raises DataError: no such table, several, one that cannot be read.
    """
    root = root_of(section) if section.root is not None else None
    if section.file is None:
        if root is None:
            raise DataError("data.source is table, but neither data.root nor data.file is set; give the table's path")
        path = root if hugging_face.written_by_datasets(root) else _only_table(root, lists=lists)
    else:
        path = (root or Path.cwd()).joinpath(Path(section.file).expanduser())
        if not path.exists() and _HUB_NAME.fullmatch(section.file) and not section.file.endswith(SUFFIXES):
            parts, cache = hugging_face.from_hub(section.file, "data.file")
            return _joined(parts, tuple(dict.fromkeys((root or cache, cache))), section.table)
    if path.is_dir():
        folder = path.resolve()
        parts = hugging_face.from_folder(folder)
        return _joined(parts, tuple(dict.fromkeys((root or folder, folder))), section.table)
    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*") if is_table(file))
        raise DataError(
            f"data.file {section.file!r} does not exist{nearest(path.name, there)}; looked in {path.parent}"
        )
    names = columns_of(path, most=None)  # a column that only late rows have may hold their split
    notes = []
    if kind_of(path) != ".parquet" and not is_unicode(path):
        notes.append(f"table: {path.name} is not UTF-8 and was read as cp1252; check its accents")
    return Table(names, stream(path), (root or path.resolve().parent,), notes)


def _only_table(root: Path, *, lists: bool) -> Path:
    tables = sorted(path for path in root.iterdir() if is_table(path) or (lists and kind_of(path) == ".json"))
    if len(tables) == 1:
        return tables[0]
    found = listed([path.name for path in tables]) if tables else "none"
    raise DataError(
        f"data.root should hold one table ({', '.join(SUFFIXES)}) and holds {found}; name it with data.file"
    )


def _joined(parts: Mapping[str, hugging_face.Part], roots: tuple[Path, ...], section: TableSection) -> Table:
    """The parts of a data set as one table, in which their names fill the split column."""
    names = next(iter(parts.values())).columns
    column = "split" if section.split == AUTO else section.split
    named = bool(column) and column not in names and any(name in SPLIT_NAMES for name in parts)

    def rows() -> Iterator[Entry]:
        for name, part in parts.items():
            for entry in part.rows:
                yield entry._replace(cells={**(entry.cells or {}), column: name}) if named else entry

    return Table([*names, column] if named else names, rows(), roots)


SOURCE = Source(
    "table", "a table of your own: studies, images or questions", find, NoOptions, frozenset({"root", "file"})
)
