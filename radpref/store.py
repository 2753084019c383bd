"""Append-only tables of rows, keyed by id, that survive a kill at any moment.

A table is one JSONL file. A line holds a row's id, the key of what it was computed from, and the row. Lines are
only ever appended while a stage works; the last line of an id wins, and a torn last line (the process died, or
the disk was full) is cut off when the table is opened again. When a stage is done, `Table.finish` writes the
rows that belong, in their order, to a new file and moves it over the old one in one step: the finished file does
not depend on where the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from radpref.errors import RadprefError
from radpref.records import Record

Row = TypeVar("Row", bound=Record)


class StoreError(RadprefError):
    """A table that cannot be read or written; the message names the file and what to do."""


def content_key(*parts: Any) -> str:
    """A short hash of anything made of JSON values, records, recipe sections and paths' contents.

    Equal content gives an equal key on every machine; a change anywhere in it gives another.
    """
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(json.dumps(_plain(part), sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


class Table(Generic[Row]):
    """Rows of one type in one file.

    Args:
        path: the JSONL file; it need not exist.
        row: the row's type.

    Raises:
        StoreError: a line in the middle of the file cannot be read (only the last may be torn).
    """

    def __init__(self, path: Path, row: type[Row]) -> None:
        self.path = path
        self._row = row
        self._rows: dict[str, tuple[str, Row]] = {}
        if path.exists():
            self._load()

    def _load(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self._rows[entry["id"]] = (entry["key"], self._row.model_validate(entry["row"]))
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{self.path} line {number} cannot be read ({type(error).__name__}); it was changed by hand or "
                    f"written by another version. Move the file away to compute it again."
                ) from error

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self._rows.values())

    def get(self, id: str, key: str | None = None) -> Row | None:
        """The row of ``id``, if there is one and (where ``key`` is given) it was computed from that."""
        found = self._rows.get(id)
        return found[1] if found and key in (None, found[0]) else None

    def append(self, entries: Iterable[tuple[str, Row]]) -> None:
        """Add ``(key, row)`` entries and force them to disk before returning.

        Raises:
            StoreError: the disk is full or not writable. What was complete before stays readable.
        """
        entries = list(entries)
        if not entries:
            return
        lines = b"".join(_line(key, row) for key, row in entries)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                start = file.tell()
                try:
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, start)
                    raise
        except OSError as error:
            raise StoreError(_write_problem(self.path, error)) from error
        for key, row in entries:
            self._rows[row_id(row)] = (key, row)

    def write(self, rows: Iterable[Row], key: str = "") -> None:
        """Make ``rows``, in their order, the whole content of the table.

        Raises:
            StoreError: an id stands twice, or the disk is full or not writable.
        """
        rows = list(rows)
        self._rows = {row_id(row): (key, row) for row in rows}
        if len(self._rows) < len(rows):
            raise StoreError(f"{self.path.name} was given {len(rows) - len(self._rows)} ids twice; ids are unique.")
        self.finish(self._rows)

    def finish(self, ids: Iterable[str]) -> list[Row]:
        """Keep the rows of ``ids``, in that order, as the whole content of the table; returns them."""
        kept = {id: self._rows[id] for id in list(ids) if id in self._rows}
        content = b"".join(_line(key, row) for key, row in kept.values())
        if not self.path.exists() or self.path.read_bytes() != content:
            write_atomically(self.path, content)
        self._rows = kept
        return [row for _, row in kept.values()]


def row_id(row: Record) -> str:
    """The id that keys a row in its table."""
    return str(row.id)  # type: ignore[attr-defined]


def _line(key: str, row: Record) -> bytes:
    return (
        json.dumps(
            {"id": row_id(row), "key": key, "row": row.model_dump(mode="json", exclude_defaults=True)},
            ensure_ascii=False,
        ).encode()
        + b"\n"
    )


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file's content in one step: readers see the old or the new, never half of it.

    Raises:
        StoreError: the disk is full or not writable; the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(_write_problem(path, error)) from error


def _write_problem(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}. Everything finished before is kept; make room or choose "
        f"another run folder, then give the same command again."
    )
