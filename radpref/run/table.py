"""Append-only tables of rows, keyed by id, that survive a kill at any moment.

A table is one JSONL file. A line holds a row's id, the key of what it was computed from, and the row. Lines are
only ever appended while a stage works; the last line of an id wins, and a torn last line (the process died, or
the disk was full) is cut off when the table is opened again. When a stage is done, `Table.finish` writes the
rows that belong, in their order, to a new file and moves it over the old one in one step: the finished file does
not depend on where the work was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

from radpref.files import StoreError, append_lines, cut_torn_line, replacing, write_atomically
from radpref.records import Record

Row = TypeVar("Row", bound=Record)


class Table(Generic[Row]):
    """Rows of one type in one file.

    Args:
        path: the JSONL file; it need not exist.
        row: the row's type.
        root: an absolute folder; files below it are written relative to it (``records.StoredPath``).

    Raises:
        StoreError: a line in the middle of the file cannot be read (only the last may be torn).
    """

    def __init__(self, path: Path, row: type[Row], root: Path | None = None) -> None:
        self.path = path
        self._row = row
        self._context = {"root": root}
        self._rows: dict[str, tuple[str, Row]] = {}
        if path.exists():
            self._load()

    def _load(self) -> None:
        cut_torn_line(self.path)
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                entry = json.loads(line)
                row = self._row.model_validate(entry["row"], context=self._context)
                self._rows[entry["id"]] = (entry["key"], row)
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
        append_lines(self.path, b"".join(_line(key, row, self._context) for key, row in entries))
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
        content = b"".join(_line(key, row, self._context) for key, row in kept.values())
        if not self.path.exists() or self.path.read_bytes() != content:
            write_atomically(self.path, content)
        self._rows = kept
        return [row for _, row in kept.values()]


class Ledger:
    """A table too long for memory: JSON rows, each with ``id`` and ``key``, of which it keeps only where they stand.

    Work is appended to ``PATH.part``; `finish` moves what belongs to ``PATH`` in one step. What ``PATH`` holds from
    before counts as well, so the same command on a longer input does only what is new.

    Args:
        path: the JSONL file; it need not exist.
        keep: whether a row from before still counts.

    Raises:
        StoreError: the file holds other rows than a ledger's; it is left as it is.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self._places: dict[str, tuple[str, bool, int]] = {}
        if self.part.exists():
            cut_torn_line(self.part)
        for file in (path, self.part):
            if file.exists():
                self._index(file, keep)

    def _index(self, path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
        offset = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    id, key = row["id"], row["key"]
                except (ValueError, KeyError, TypeError) as error:
                    raise StoreError(
                        f"{path} line {number} is no row of this command ({type(error).__name__}); it was changed by "
                        f"hand or is another file. Move it away, or write somewhere else."
                    ) from error
                if keep(row):
                    self._places[id] = (key, path == self.part, offset)
                offset += len(line)

    def get(self, id: str, key: str) -> dict[str, Any] | None:
        """The row of ``id``, if there is one and it was computed from ``key``."""
        found = self._places.get(id)
        if found is None or found[0] != key:
            return None
        with (self.part if found[1] else self.path).open("rb") as file:
            file.seek(found[2])
            row: dict[str, Any] = json.loads(file.readline())
            return row

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows and force them to disk before returning.

        Raises:
            StoreError: the disk is full or not writable. What was complete before stays readable.
        """
        if not rows:
            return
        lines = [json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows]
        offset = append_lines(self.part, b"".join(lines))
        for row, line in zip(rows, lines, strict=True):
            self._places[row["id"]] = (row["key"], True, offset)
            offset += len(line)

    def finish(self, ids: Iterable[str]) -> None:
        """Make the rows of ``ids``, in that order, the whole content of ``path``.

        Raises:
            StoreError: the disk is full or not writable. Nothing is lost.
        """
        with ExitStack() as opened, replacing(self.path) as target:
            sources = [opened.enter_context(f.open("rb")) if f.exists() else None for f in (self.path, self.part)]
            for id in ids:
                _, new, offset = self._places[id]
                source = sources[new]
                assert source is not None
                source.seek(offset)
                target.write(source.readline())
        self.part.unlink(missing_ok=True)


def row_id(row: Record) -> str:
    """The id that keys a row in its table."""
    return str(row.id)  # type: ignore[attr-defined]


def _line(key: str, row: Record, context: dict[str, Any]) -> bytes:
    content = row.model_dump(mode="json", exclude_defaults=True, context=context)
    return json.dumps({"id": row_id(row), "key": key, "row": content}, ensure_ascii=False).encode() + b"\n"
