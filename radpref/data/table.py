"""Any table of studies: JSONL, CSV (or TSV), Parquet, or a Hugging Face data set on disk or by name.

``data.file`` is a file in ``data.root`` or an absolute path, a folder that ``datasets`` wrote or can read, or the
name of a data set on the hub (``owner/name``, the only thing here that reaches the network). Without ``data.file``
the one table in ``data.root`` is taken. ``data.table`` maps the columns; a column that is needed and missing is an
error before any row is read.

A cell of films is one path, a list of paths, a list written as text (``["a.png", "b.png"]`` or ``a.png;b.png``), or
Hugging Face images, whose bytes are kept unchanged in the cache. Paths are relative to ``data.root``, or to the
table's folder where no root is given, and never lead out of it.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radpref.data.source import DataError, Found, RowError, inside, listed, nearest, quarantine, root_of, text_of
from radpref.recipe import DataSection, TableSection
from radpref.records import Film, Quarantined, Split, Study

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
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
    rows: Iterable[tuple[str, Row]]
    """Pairs of a place (``line 12``, ``row 12``) and a mapping of columns to cells."""
    roots: tuple[Path, ...]
    """Folders that films may lie in, resolved; relative paths start at the first."""
    broken: list[Quarantined] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(section: DataSection, cache: Path, seed: int) -> Found:
    """All rows of the table as studies. Raises DataError: no such table, no such column, an unreadable file."""
    table = _open(section)
    columns = _map(section.table, table.columns)
    studies: list[Study] = []
    quarantined = list(table.broken)
    notes = list(table.notes)
    unsplit = 0
    for place, row in table.rows:
        identifier = place
        try:
            cell = _cells(row, columns)
            identifier = (text_of(cell("id")) if "id" in columns else place.replace(" ", "-")) or place
            if identifier == place:
                raise RowError("no id: the cell is empty")
            split = _split_of(cell("split")) if "split" in columns else "train"
            if split is None:
                unsplit += 1
                raise RowError(f"split unknown: the cell is none of {', '.join(SPLIT_NAMES)}")
            studies.append(
                Study(
                    id=identifier,
                    patient=text_of(cell("patient")) or identifier,
                    films=tuple(_films(cell("images"), table.roots, cache / "films")),
                    findings=text_of(cell("findings")),
                    impression=text_of(cell("impression")),
                    indication=text_of(cell("indication")),
                    split=split,
                )
            )
        except RowError as error:
            quarantined.append(quarantine(identifier[:200] or place, str(error)))
    if unsplit and not studies:
        raise DataError(
            f"data.table.split is {section.table.split!r}, but no cell of that column is one of "
            f"{', '.join(SPLIT_NAMES)}; name another column, or set it to '' to split by patient"
        )
    notes.insert(0, f"table: {len(studies) + len(quarantined):,} rows")
    if "patient" not in columns:
        notes.append(
            "table: no column of patients, so each study counts as a patient of its own; name the column with "
            "data.table.patient if patients come more than once"
        )
    return Found(studies, quarantined, notes, split="split" in columns)


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


# ---- films


def _films(cell: Any, roots: Sequence[Path], store: Path) -> Iterator[Film]:
    """The films of a cell. Raises RowError."""
    for part in _parts(cell):
        if isinstance(part, Mapping):  # a Hugging Face image: {"bytes": ..., "path": ...}
            content, path = part.get("bytes"), part.get("path")
            if isinstance(content, bytes) and content:
                yield Film(path=str(_keep(content, store)))
            elif isinstance(path, str):
                yield Film(path=str(_inside_any(roots, path)))
            else:
                raise RowError("no films: an image without bytes and path")
        elif isinstance(part, bytes):
            yield Film(path=str(_keep(part, store)))
        elif isinstance(part, str):
            yield Film(path=str(_inside_any(roots, part)))
        elif part is not None:
            raise RowError(f"film is neither path nor image: found {type(part).__name__}; check data.table.images")


def _parts(cell: Any) -> list[Any]:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, list | tuple):
        return list(cell)
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                parts = read(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(parts, list):
                return parts
        raise RowError("films not readable: the cell starts like a list and is none")
    return [part.strip() for part in text.split(";") if part.strip()]


def _inside_any(roots: Sequence[Path], given: str) -> Path:
    for root in roots[1:]:
        if Path(given).is_absolute() and Path(given).resolve().is_relative_to(root):
            return Path(given).resolve()
    return inside(roots[0], given)


def _keep(content: bytes, store: Path) -> Path:
    """The image's bytes as a file named by their hash; written once, whole or not at all."""
    name = hashlib.blake2b(content, digest_size=16).hexdigest()
    suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg" if content.startswith(b"\xff\xd8") else ".img"
    path = (store / name[:2] / f"{name}{suffix}").resolve()
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return path


# ---- opening


def _open(section: DataSection) -> Table:
    root = root_of(section) if section.root is not None else None
    if section.file is None:
        if root is None:
            raise DataError("data.source is table, but neither data.root nor data.file is set; give the table's path")
        path = root if _written_by_datasets(root) else _only_table(root)
    else:
        path = (root or Path.cwd()).joinpath(Path(section.file).expanduser())
        if not path.exists() and _HUB_NAME.fullmatch(section.file) and not section.file.endswith(SUFFIXES):
            return _from_hub(section.file, root, section.table)
    if path.is_dir():
        return _from_folder(path.resolve(), root, section.table)
    roots = (root or path.resolve().parent,)
    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*") if file.suffix.lower() in SUFFIXES)
        raise DataError(
            f"data.file {section.file!r} does not exist{nearest(path.name, there)}; looked in {path.parent}"
        )
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, roots)
    if suffix not in SUFFIXES:
        raise DataError(f"data.file is of kind {suffix!r}; give one of {', '.join(SUFFIXES)} (save a sheet as CSV)")
    text, notes = _decode(path)
    return _jsonl(text, roots, notes) if suffix in (".jsonl", ".ndjson") else _csv(text, roots, notes)


def _only_table(root: Path) -> Path:
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(tables) == 1:
        return tables[0]
    found = listed([path.name for path in tables]) if tables else "none"
    raise DataError(
        f"data.root should hold one table ({', '.join(SUFFIXES)}) and holds {found}; name it with data.file"
    )


def _decode(path: Path) -> tuple[str, list[str]]:
    """The file's text: UTF-8 with or without a mark, UTF-16 with one, else Windows-1252 or Latin-1 with a note."""
    content = path.read_bytes()
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        notes = [f"table: {path.name} is not UTF-8 and was read as {encoding}; check its accents"]
        return text, notes if encoding in ("cp1252", "latin-1") else []
    raise DataError(f"{path.name} starts like UTF-16 and is none; save it as UTF-8")


def _jsonl(text: str, roots: tuple[Path, ...], notes: list[str]) -> Table:
    rows: list[tuple[str, Row]] = []
    broken: list[Quarantined] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
            rows.append((f"line {number}", row))
        else:
            broken.append(quarantine(f"line {number}", "row broken: the line is no JSON object"))
    return Table(list(columns), rows, roots, broken, notes)


def _csv(text: str, roots: tuple[Path, ...], notes: list[str]) -> Table:
    """Comma, semicolon or tab, whichever cuts the header into most columns."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        rows, broken = _csv_rows(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise DataError("the table is empty: not even a header; check data.file")
    columns = [name.strip() for name in rows[0][1]]
    doubled = sorted({name for name in columns if columns.count(name) > 1 and name})
    if doubled:
        raise DataError(f"the table has columns of the same name: {listed(doubled)}; rename one of them")
    good: list[tuple[str, Row]] = []
    for place, cells in rows[1:]:
        if len(cells) == len(columns):
            good.append((place, dict(zip(columns, cells, strict=True))))
        else:
            broken.append(
                quarantine(place, f"row broken: {len(cells)} cells under {len(columns)} columns; quote the texts")
            )
    return Table(columns, good, roots, broken, notes)


def _csv_rows(reader: Any) -> tuple[list[tuple[str, list[str]]], list[Quarantined]]:
    rows: list[tuple[str, list[str]]] = []
    broken: list[Quarantined] = []
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return rows, broken
        except csv.Error as error:
            lines = f"line {start}" if reader.line_num <= start else f"lines {start} to {reader.line_num}"
            broken.append(quarantine(lines, f"row broken: {error}; check the quotes"))
            continue
        if cells:
            rows.append((f"line {start}", cells))


def _parquet(path: Path, roots: tuple[Path, ...]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name} is no Parquet file, or cut short ({type(error).__name__}); copy it again"
        ) from error
    batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=64))
    return Table(list(file.schema_arrow.names), _numbered(batches), roots)


def _written_by_datasets(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _from_folder(folder: Path, root: Path | None, section: TableSection) -> Table:
    import datasets

    try:
        if _written_by_datasets(folder):
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder))
    except Exception as error:  # datasets raises what its readers raise
        raise DataError(f"the folder {str(folder)!r} is no data set: {_first_line(error)}") from error
    return _from_datasets(found, tuple(dict.fromkeys((root or folder, folder))), section)


def _from_hub(name: str, root: Path | None, section: TableSection) -> Table:
    import datasets

    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the hub's, the network's and the readers' own errors
        raise DataError(
            f"data.file {name!r} is no path here, and as a data set of the hub it could not be loaded: "
            f"{_first_line(error)}"
        ) from error
    cache = Path(datasets.config.HF_DATASETS_CACHE).resolve()
    return _from_datasets(found, tuple(dict.fromkeys((root or cache, cache))), section)


def _from_datasets(found: Any, roots: tuple[Path, ...], section: TableSection) -> Table:
    """Rows straight from Arrow, so that images stay the bytes they are; the parts' names fill the split column."""
    parts = dict(found) if hasattr(found, "keys") else {"": found}
    columns = list(next(iter(parts.values())).column_names)
    named = section.split and section.split not in columns and any(name in SPLIT_NAMES for name in parts)

    def batches() -> Iterator[list[Row]]:
        for name, part in parts.items():
            for batch in part.with_format("arrow").iter(batch_size=64):
                rows = batch.to_pylist()
                yield [{**row, section.split: name} for row in rows] if named else rows

    return Table([*columns, section.split] if named else columns, _numbered(batches()), roots)


def _numbered(batches: Iterable[Sequence[Row]]) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in batches:
        for row in batch:
            number += 1
            yield f"row {number}", row


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
