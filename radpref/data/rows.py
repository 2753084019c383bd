"""JSONL, CSV and Parquet files as a stream of rows: few in memory, the bad ones told apart with their line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from radpref.data.source import DataError, listed, nearest

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
PARQUET_ROWS = 32
"""Rows in memory at a time where each may hold its images."""
_LOOKED_AT = 100
"""Rows of a JSONL file that are asked for its columns."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Entry(NamedTuple):
    """A row, or why there is none."""

    place: str
    """``line 12``, ``lines 12 to 14``, ``row 12`` (Parquet)."""
    cells: dict[str, Any] | None
    reason: str = ""


def columns(path: Path, *, most: int | None = _LOOKED_AT) -> list[str]:
    """The columns of a table: a header's, or the keys of the first ``most`` rows of a JSONL file (None: of all).

    Raises:
        DataError: no such file, a kind that is not read, no header, or no row that can be read.
    """
    _check(path)
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _header(path)[0]
    names: dict[str, None] = {}
    for entry in islice(stream(path), most):
        names.update(dict.fromkeys(entry.cells or ()))
    if not names:
        raise DataError(f"{path.name} holds no row: one JSON object a line is expected")
    return list(names)


def stream(path: Path) -> Iterator[Entry]:
    """The rows of a table in their order. Blank lines are no rows.

    Text is read as UTF-8, with or without a mark, or as UTF-16 with one; a line that is not UTF-8 is read as
    Windows-1252 or Latin-1.

    Raises:
        DataError: as `columns`.
    """
    _check(path)
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    return _csv_rows(path) if path.suffix.lower() in (".csv", ".tsv") else _jsonl_rows(path)


def require(path: Path, wanted: Sequence[tuple[str, str]]) -> None:
    """Refuse a table that lacks a column. ``wanted`` are pairs of the option that names it and the column.

    Raises:
        DataError: names the option, the nearest column, and those that are there.
    """
    there = columns(path)
    for option, column in wanted:
        if column not in there:
            raise DataError(
                f"{path.name} has no column {column!r} ({option}); it has {listed(there)}{nearest(column, there)}"
            )


def is_unicode(path: Path) -> bool:
    """Whether every line of a text file is UTF-8 (or the file UTF-16 with a mark); reads it once."""
    with path.open("rb") as file:
        if file.read(2) in _MARKS:
            return True
        file.seek(0)
        return all(_is_utf8(line) for line in file)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check(path: Path) -> None:
    if not path.is_file():
        folder = path.parent
        names = sorted(file.name for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
        raise DataError(f"there is no file {str(path)!r}{nearest(path.name, names)}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} is of kind {path.suffix!r}; give one of {', '.join(SUFFIXES)}")


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        if start in _MARKS:
            try:
                yield from io.TextIOWrapper(file, "utf-16", newline="")
            except UnicodeError:
                raise DataError(f"{path.name} starts like UTF-16 and is none; save it as UTF-8") from None
            return
        for number, line in enumerate(file):
            yield _decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line)


def _decoded(line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def _jsonl_rows(path: Path) -> Iterator[Entry]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield Entry(f"line {number}", row)
        else:
            yield Entry(f"line {number}", None, "row broken: the line is no JSON object")


def _header(path: Path) -> tuple[list[str], str]:
    """The columns, and the delimiter that cuts the first line into most of them."""
    first = next(_lines(path), "")
    delimiter = max(",;\t", key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if not any(names):
        raise DataError(f"{path.name} is empty: not even a header")
    doubled = sorted({name for name in names if names.count(name) > 1 and name})
    if doubled:
        raise DataError(f"{path.name} has columns of the same name: {listed(doubled)}; rename one of them")
    return names, delimiter


def _csv_rows(path: Path) -> Iterator[Entry]:
    names, delimiter = _header(path)
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    next(reader)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Entry(_place(start, reader.line_num), None, f"row broken: {error}; check the quotes")
            continue
        if len(cells) == len(names):
            yield Entry(_place(start, reader.line_num), dict(zip(names, cells, strict=True)))
        elif cells:
            reason = f"row broken: {len(cells)} cells under {len(names)} columns; quote the texts"
            yield Entry(_place(start, reader.line_num), None, reason)


def _place(start: int, end: int) -> str:
    return f"line {start}" if end <= start else f"lines {start} to {end}"


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name} is no Parquet file, or cut short ({type(error).__name__}); copy it again"
        ) from error


def _parquet_rows(path: Path) -> Iterator[Entry]:
    number = 0
    for batch in _parquet(path).iter_batches(batch_size=PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield Entry(f"row {number}", row)
