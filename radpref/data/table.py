"""Any table of studies: JSONL, CSV (or TSV), Parquet, or a Hugging Face data set on disk or by name.

``data.file`` is a file in ``data.root`` or an absolute path, a folder that ``datasets`` wrote or can read, or the
name of a data set on the hub (``owner/name``, the only thing here that reaches the network). Without ``data.file``
the one table in ``data.root`` is taken. ``data.table`` maps the columns; a column that is needed and missing is an
error before any row is read.

A cell of images is one path, a list of paths, a list written as text (``["a.png", "b.png"]`` or ``a.png;b.png``), or
Hugging Face images, whose bytes are kept unchanged in the cache. Paths are relative to ``data.root``, or to the
table's folder where no root is given, and never lead out of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radpref.config import DataSection, TableSection
from radpref.data import hugging_face
from radpref.data.image_cells import images_of
from radpref.data.rows import SUFFIXES, Entry, is_unicode, stream
from radpref.data.rows import columns as columns_of
from radpref.data.source import DataError, Found, RowError, listed, nearest, quarantine, root_of, text_of
from radpref.records import Quarantined, Split, Study

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
_NEEDED = ("id", "images", "findings")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table before its rows are looked at."""

    columns: list[str]
    rows: Iterable[Entry]
    roots: tuple[Path, ...]
    """Folders that images may lie in, resolved; relative paths start at the first."""
    notes: list[str] = field(default_factory=list)


def find(section: DataSection, cache: Path, seed: int) -> Found:
    """All rows of the table as studies. Raises DataError: no such table, no such column, an unreadable file."""
    table = _open(section)
    columns = _map(section.table, table.columns)
    notes: list[str] = []
    return Found(_studies(table, columns, section.table, cache, notes), notes, split="split" in columns)


def _studies(
    table: Table, columns: Mapping[str, str], section: TableSection, cache: Path, notes: list[str]
) -> Iterator[Study | Quarantined]:
    good = bad = unsplit = 0
    for place, row, broken in table.rows:
        identifier = place
        try:
            if row is None:
                raise RowError(broken)
            cell = _cells(row, columns)
            identifier = (text_of(cell("id")) if "id" in columns else place.replace(" ", "-")) or place
            if identifier == place:
                raise RowError("no id: the cell is empty")
            split = _split_of(cell("split")) if "split" in columns else "train"
            if split is None:
                unsplit += 1
                raise RowError(f"split unknown: the cell is none of {', '.join(SPLIT_NAMES)}")
            study = Study(
                id=identifier,
                patient=text_of(cell("patient")) or identifier,
                images=tuple(images_of(cell("images"), table.roots, cache / "images")),
                findings=text_of(cell("findings")),
                impression=text_of(cell("impression")),
                indication=text_of(cell("indication")),
                split=split,
            )
        except RowError as error:
            bad += 1
            yield quarantine(identifier[:200] or place, str(error))
            continue
        good += 1
        yield study
    if unsplit and not good:
        raise DataError(
            f"data.table.split is {section.split!r}, but no cell of that column is one of "
            f"{', '.join(SPLIT_NAMES)}; name another column, or set it to '' to split by patient"
        )
    notes.append(f"table: {good + bad:,} rows")
    notes += table.notes
    if "patient" not in columns:
        notes.append(
            "table: no column of patients, so each study counts as a patient of its own; name the column with "
            "data.table.patient if patients come more than once"
        )


# ---- columns


def _map(section: TableSection, columns: Sequence[str]) -> dict[str, str]:
    """Field of a study to column of the table, for the columns that are there. Raises DataError.

    A column must be there if it is needed, or if the recipe names another one than the default: that is a typo.
    Set to '', a column is not used; ``id`` set to '' numbers the rows.
    """
    found: dict[str, str] = {}
    for name, info in TableSection.model_fields.items():
        column = str(getattr(section, name))
        if column in columns:
            found[name] = column
        elif column == "" and name not in ("images", "findings"):
            continue
        elif name in _NEEDED or column != info.default:
            hint = "; set it to '' to number the rows" if name == "id" else ""
            raise DataError(
                f"data.table.{name} is {column!r}, but the table has no such column{nearest(column, columns)}; "
                f"it has {listed(columns)}{hint}"
            )
    return found


def _cells(row: Row, columns: Mapping[str, str]) -> Callable[[str], Any]:
    return lambda name: row.get(columns[name]) if name in columns else None


def _split_of(cell: Any) -> Split | None:
    return SPLIT_NAMES.get(text_of(cell).lower())


# ---- opening


def _open(section: DataSection) -> Table:
    root = root_of(section) if section.root is not None else None
    if section.file is None:
        if root is None:
            raise DataError("data.source is table, but neither data.root nor data.file is set; give the table's path")
        path = root if hugging_face.written_by_datasets(root) else _only_table(root)
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
        there = sorted(file.name for file in path.parent.glob("*") if file.suffix.lower() in SUFFIXES)
        raise DataError(
            f"data.file {section.file!r} does not exist{nearest(path.name, there)}; looked in {path.parent}"
        )
    names = columns_of(path, most=None)  # a column that only late rows have may hold their split
    notes = []
    if path.suffix.lower() != ".parquet" and not is_unicode(path):
        notes.append(f"table: {path.name} is not UTF-8 and was read as cp1252; check its accents")
    return Table(names, stream(path), (root or path.resolve().parent,), notes)


def _only_table(root: Path) -> Path:
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(tables) == 1:
        return tables[0]
    found = listed([path.name for path in tables]) if tables else "none"
    raise DataError(
        f"data.root should hold one table ({', '.join(SUFFIXES)}) and holds {found}; name it with data.file"
    )


def _joined(parts: Mapping[str, hugging_face.Part], roots: tuple[Path, ...], section: TableSection) -> Table:
    """The parts of a data set as one table, in which their names fill the split column."""
    names = next(iter(parts.values())).columns
    named = bool(section.split) and section.split not in names and any(name in SPLIT_NAMES for name in parts)

    def rows() -> Iterator[Entry]:
        for name, part in parts.items():
            for entry in part.rows:
                yield entry._replace(cells={**(entry.cells or {}), section.split: name}) if named else entry

    return Table([*names, section.split] if named else names, rows(), roots)
