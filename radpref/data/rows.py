"""JSONL, JSON, CSV and Parquet files as a stream of rows: few in memory, the bad ones told apart with their line.

A name that ends in ``.gz`` is read as it is. What ends before its end (a cut file, a wrong check sum) is an error: rows
that nobody saw can be counted by nobody.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from radpref.data.source import DataError, listed, nearest

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
PARQUET_ROWS = 32
"""Rows in memory at a time where each may hold its images."""
_LOOKED_AT = 100
"""Rows of a JSONL file that are asked for its columns."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_START = 4096
"""Bytes that tell how a text file is written."""
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_INSTEAD = {
    ".xlsx": "save the sheet as CSV (UTF-8)", ".xls": "save the sheet as CSV (UTF-8)", ".ods": "save it as CSV (UTF-8)",
    ".txt": "name it .csv (commas, semicolons) or .tsv (tabs)", ".zip": "unpack it", ".sas7bdat": "export it as CSV",
    ".dta": "export it as CSV", ".sav": "export it as CSV",
}  # fmt: skip
"""What to do with a table of a kind that is not read."""
_JSON_BLOCK = 1 << 20
MAX_JSON = 64 << 20
"""Characters of one element of a JSON file; a longer one is a bracket that was not closed."""
MAX_COLUMNS = 10_000
"""Columns of a table; more is a matrix, or a file whose lines have lost their ends."""
MAX_CELL = 16 << 20
"""Characters of one cell of a CSV file; a longer one is a quote that was not closed."""
csv.field_size_limit(MAX_CELL)


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
    if kind_of(path) == ".parquet":
        try:
            return _few(path, list(_parquet(path).schema_arrow.names))
        except UnicodeDecodeError as error:
            raise _not_parquet(path, error) from error
    if kind_of(path) in (".csv", ".tsv"):
        return _header(path).columns
    names: dict[str, None] = {}
    for entry in islice(stream(path), most):
        names.update(dict.fromkeys(entry.cells or ()))
    if not names:
        wanted = "a list of JSON objects" if kind_of(path) == ".json" else "one JSON object a line"
        raise DataError(f"{path.name} holds no row: {wanted} is expected")
    return _few(path, list(names))


def _few(path: Path, names: list[str]) -> list[str]:
    """Raises DataError where there are more columns than a table of reports can have."""
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{path.name} has {len(names):,} columns, more than {MAX_COLUMNS:,}; keep those that are read, or look "
            "whether its lines have lost their ends"
        )
    return names


def stream(path: Path) -> Iterator[Entry]:
    """The rows of a table in their order. Blank lines are no rows.

    Text is read as UTF-8 or UTF-16, with or without a mark; a line that is not UTF-8 is read as
    Windows-1252 or Latin-1.

    Raises:
        DataError: as `columns`.
    """
    _check(path)
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind == ".json":
        return _json_rows(path)
    return _csv_rows(path) if kind in (".csv", ".tsv") else _jsonl_rows(path)


def kind_of(path: Path) -> str:
    """The suffix that tells how a file is read, ``.gz`` left out: ``.csv``."""
    name = path.name.lower().removesuffix(".gz")
    return "." + name.rpartition(".")[2] if "." in name else ""


def is_table(path: Path) -> bool:
    """Whether the name is one of a table: one of ``SUFFIXES``, packed by gzip or not."""
    return kind_of(path) in SUFFIXES


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where its name ends in ``.gz``.

    Raises:
        DataError: it cannot be read, or not to its end; gzip's check sum is among what is checked.
    """
    try:
        with path.open("rb") as raw:
            packed = path.suffix.lower() == ".gz" or raw.read(2) == _GZIP  # some tools unpack the name alone
            raw.seek(0)
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        what = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{path.name} cannot be read to its end ({what}); download or copy it again") from error


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
    with opened(path) as file:
        if _wide(file.read(_START)):
            return True
        file.seek(0)
        return all(_is_utf8(line) for line in file)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wide(start: bytes) -> str | None:
    """The encoding of a text whose letters take two bytes, by its mark or by its zeros; None for any other."""
    if start[:2] in _MARKS:
        return "utf-16"
    first, second = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if half >= 8 and max(first, second) > 0.8 * half and min(first, second) < 0.1 * half:
        return "utf-16-le" if second > first else "utf-16-be"
    return None


def _check(path: Path) -> None:
    if not path.is_file():
        folder = path.parent
        names = sorted(file.name for file in folder.glob("*") if is_table(file))
        raise DataError(f"there is no file {str(path)!r}{nearest(path.name, names)}")
    if kind_of(path) not in (*SUFFIXES, ".json"):
        instead = _INSTEAD.get(kind_of(path), "give one of")
        known = ", ".join(SUFFIXES)
        more = f"{instead} {known}" if instead == "give one of" else f"{instead}; these are read: {known}"
        raise DataError(f"{path.name} is of kind {kind_of(path)!r}; {more}")
    if kind_of(path) != ".parquet":
        with path.open("rb") as file:
            if file.read(4) == _ZIP:
                raise DataError(f"{path.name} is a spreadsheet or a zip archive by its content; save it as CSV (UTF-8)")


def _lines(path: Path) -> Iterator[str]:
    with opened(path) as file:
        start = file.read(_START)
        file.seek(0)
        if encoding := _wide(start):
            try:
                yield from io.TextIOWrapper(file, encoding, newline="")
            except UnicodeError:
                raise DataError(f"{path.name} starts like UTF-16 and is none; save it as UTF-8") from None
            return
        if b"\r" in start and b"\n" not in start:  # as old spreadsheets on a Mac end their lines
            yield from io.TextIOWrapper(file, "utf-8-sig", errors="radpref-cp1252")
            return
        for number, line in enumerate(file):
            yield decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line)


def decoded(line: bytes) -> str:
    """UTF-8, else Windows-1252, else Latin-1."""
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


def _json_rows(path: Path) -> Iterator[Entry]:
    """The objects of a list, or of a mapping: then each has its key in the cell ``""``."""
    for number, (key, value) in enumerate(json_items(path), 1):
        if isinstance(value, dict):
            yield Entry(f"row {number}", {"": key, **value} if key is not None else value)
        else:
            yield Entry(f"row {number}", None, "row broken: the element is no JSON object")


def json_items(path: Path) -> Iterator[tuple[str | None, Any]]:
    """The elements of a JSON list, or the keys and values of a JSON mapping, one at a time.

    NaN is read, which several published files hold. Raises DataError: neither of both, or broken.
    """
    decoder = json.JSONDecoder(strict=False)
    with opened(path) as file:
        text = _Text(_text(file), path.name)
        opening = text.take("[{")
        closing = "]" if opening == "[" else "}"
        if text.peek() == closing:
            return
        while True:
            key = None
            if opening == "{":
                key = str(text.value(decoder))
                text.take(":")
            yield key, text.value(decoder)
            if text.take("," + closing) == closing:
                break
        text.end()


class _Text:
    """Text that is read as far as JSON's next value asks for it."""

    def __init__(self, blocks: Iterator[str], name: str) -> None:
        self._blocks, self._name = blocks, name
        self._held, self._place = "", 0

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._place < len(self._held) and self._held[self._place] in " \t\n\r\ufeff":
                self._place += 1
            if self._place < len(self._held):
                return self._held[self._place]
            if not self._more():
                return ""

    def take(self, wanted: str) -> str:
        """The next character, which must be one of ``wanted``. Raises DataError."""
        found = self.peek()
        if not found or found not in wanted:
            raise self._broken(f"{' or '.join(wanted)} is missing")
        self._place += 1
        return found

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The next value. Raises DataError."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self._held, self._place)
            except RecursionError:
                raise self._broken("brackets in brackets without end") from None
            except ValueError:
                if len(self._held) - self._place > MAX_JSON or not self._more(whole=True):
                    raise self._broken("a value is cut short or no JSON") from None
                continue
            if end == len(self._held) and self._more(whole=True):
                continue  # a number may go on in the next block
            self._place = end
            return value

    def end(self) -> None:
        """Nothing may follow: what does would be lost without a word. Raises DataError."""
        if self.peek():
            raise self._broken("there is more behind its end")

    def _more(self, *, whole: bool = False) -> bool:
        """Read on: one block, or as much again as is held, so that a long value is not read often."""
        size = len(self._held) - self._place
        parts = [self._held[self._place :]]
        added = 0
        for block in self._blocks:
            parts.append(block)
            added += len(block)
            if not whole or added >= size:
                break
        self._held, self._place = "".join(parts), 0
        return added > 0

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self._name} cannot be read as JSON to its end: {what}; copy it again")


def _text(file: IO[bytes]) -> Iterator[str]:
    encoding = _wide(file.read(_START)) or "utf-8"
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)(errors="radpref-cp1252")
    while block := file.read(_JSON_BLOCK):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _from_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are not UTF-8 as Windows-1252 has them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return decoded(error.object[error.start : error.end]), error.end


codecs.register_error("radpref-cp1252", _from_cp1252)


class _Head(NamedTuple):
    columns: list[str]
    delimiter: str
    above: int
    """Lines above the header."""


def _header(path: Path) -> _Head:
    """The columns, and the delimiter: the one that Excel's ``sep=;`` names, or that cuts the header most often.

    Blank lines above the header are no rows.
    """
    lines, above, delimiter, first = _lines(path), 0, "", ""
    for first in lines:
        said = re.fullmatch(r'"?sep=(.)"?\s*', first) if not delimiter else None
        if said is None and first.strip():
            break
        above += 1
        delimiter = said[1] if said else delimiter
        first = ""
    delimiter = delimiter or max(",;\t|", key=first.count)
    try:  # a name in quotes may go on in the next line
        names = [" ".join(name.split()) for name in next(csv.reader(chain([first], lines), delimiter=delimiter), [])]
    except csv.Error as error:
        raise DataError(f"{path.name} has a header that cannot be read: {error}; save it as UTF-8 again") from None
    _few(path, names)
    if not any(names):
        raise DataError(f"{path.name} is empty: not even a header")
    doubled = sorted({name for name in names if names.count(name) > 1 and name})
    if doubled:
        raise DataError(f"{path.name} has columns of the same name: {listed(doubled)}; rename one of them")
    return _Head(names, delimiter, above)


class _Record:
    """Lines for a CSV reader, those of its last record kept: one quote that is not closed takes in all rows behind it,
    and they can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._back = lines, deque[str]()
        self.number = 0
        """Lines that were read."""
        self.taken: list[str] = []
        """Those since the last ``begin``."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line

    def begin(self) -> int:
        """The number of the line that comes next, which begins a record."""
        self.taken.clear()
        return self.number + 1

    def give_back(self, head: _Head) -> None:
        """All lines but the first, where one of them is a row by itself."""
        rest = self.taken[1:]
        if any(line.count(head.delimiter) == len(head.columns) - 1 for line in rest):
            self._back.extendleft(reversed(rest))
            self.number -= len(rest)


def _csv_rows(path: Path) -> Iterator[Entry]:
    head = _header(path)
    names = head.columns
    lines = _Record(_lines(path))
    for _ in range(head.above):
        next(lines)
    reader = csv.reader(lines, delimiter=head.delimiter, strict=True)
    try:
        next(reader)
    except csv.Error as error:  # rows are read more strictly than the names above them
        raise DataError(f"{path.name} has a header that cannot be read: {error}; save it as UTF-8 again") from None
    while True:
        start = lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.give_back(head)
            yield Entry(_place(start, lines.number), None, f"row broken: {error}; check the quotes")
            continue
        if len(cells) > len(names) and not any(cell.strip() for cell in cells[len(names) :]):
            del cells[len(names) :]  # delimiters at the end of a row, as spreadsheets write them
        if len(cells) == len(names):
            yield Entry(_place(start, lines.number), dict(zip(names, cells, strict=True)))
        elif cells:
            lines.give_back(head)
            reason = f"row broken: {len(cells)} cells under {len(names)} columns; quote the texts"
            yield Entry(_place(start, lines.number), None, reason)


def _place(start: int, end: int) -> str:
    return f"line {start}" if end <= start else f"lines {start} to {end}"


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise _not_parquet(path, error) from error


def _parquet_rows(path: Path) -> Iterator[Entry]:
    import pyarrow

    file = _parquet(path)
    number = 0
    try:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield Entry(f"row {number}", row)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise _not_parquet(path, error) from error
    if number != file.metadata.num_rows:
        raise DataError(
            f"{path.name} says that it has {file.metadata.num_rows:,} rows and gives {number:,}; copy it again"
        )


def _not_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} is no Parquet file, or cut short or changed ({type(error).__name__}); copy it again")
