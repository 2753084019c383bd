"""Tables: rows of one type in a JSONL file, read as a stream, resumable while they are being made.

A finished table is one plain row a line, in the order of its inputs. While a stage works, what it has made of each
input is appended to *parts* beside it (``completions.part0`` by the first process, ``completions.part1`` by the second
...): one line an input, with the key of all that the result follows from. A part is only ever appended to; a torn last
line (the process died, the disk was full) is cut off when it is opened again. When every input has its line,
``merge`` writes the table in one step, and a file of keys beside it, so that a later change computes anew only the
inputs that it touches.

Nothing here holds a table's rows: in memory are a number of 24 bytes for each input, and the rows at hand.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from radpref.files import StoreError, append_lines, cut_torn_line, replacing
from radpref.records import Quarantined, Record

Row = TypeVar("Row", bound=Record)
OLD = "old"
"""The part that holds what a finished table had, while it is being made anew."""


class Made(NamedTuple):
    """What a stage has made of one input: rows, and what of it could not be used, with the reason."""

    item: str
    """The input's id."""
    key: str
    """Of all that the result follows from."""
    rows: Sequence[Record]
    refused: Sequence[Quarantined] = ()


class Merged(NamedTuple):
    """What a merge wrote."""

    items: int
    rows: int
    refused: list[Quarantined]


class Table(Generic[Row]):
    """Rows of one type in one file.

    Args:
        path: the JSONL file; it need not exist.
        row: the rows' type.
        root: an absolute folder; files below it are written relative to it (``records.StoredPath``).
    """

    def __init__(self, path: Path, row: type[Row], root: Path | None = None) -> None:
        self.path = path
        self._row = row
        self._context = {"root": root}

    # ------------------------------------------------------------------------------------------ finished

    def __iter__(self) -> Iterator[Row]:
        """The rows in order; none where there is no file. Raises StoreError for a line that is no row."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield self._read(line, number)

    def __len__(self) -> int:
        """Rows, counted without reading them."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))

    def digest(self) -> str:
        """A hash of the file's content; of no file, that of no rows."""
        return _digest(self.path)

    @contextmanager
    def writing(self) -> Iterator[Callable[[Row], None]]:
        """A function that takes one row after the other, of which the whole content is made when the block ends.

        Raises:
            StoreError: an id stands twice, or the disk is full or not writable; the old content is then untouched.
        """
        ids = array("Q")
        with replacing(self.path) as file:

            def add(row: Row) -> None:
                ids.append(_hash(str(row.id)))  # type: ignore[attr-defined]
                file.write(self._line(row))

            yield add
            twice = len(ids) - len(np.unique(np.frombuffer(ids, dtype=np.uint64))) if ids else 0
            if twice:
                raise StoreError(f"{self.path.name} was given {twice} ids twice; ids are unique.")

    def write(self, rows: Iterable[Row]) -> int:
        """Make ``rows``, in their order, the whole content; returns their number. Raises StoreError as `writing`."""
        count = 0
        with self.writing() as add:
            for row in rows:
                add(row)
                count += 1
        return count

    def _line(self, row: Record) -> bytes:
        return json.dumps(self._plain(row), ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    def _plain(self, row: Record) -> dict[str, Any]:
        return row.model_dump(mode="json", exclude_defaults=True, context=self._context)

    def _read(self, line: bytes, number: int) -> Row:
        try:
            return self._row.model_validate(json.loads(line), context=self._context)
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{self.path} line {number} cannot be read ({type(error).__name__}); it was changed by hand or written "
                "by another version. Move the file away to compute it again."
            ) from error

    # ------------------------------------------------------------------------------------------ in the making

    def part(self, name: int | str) -> Path:
        """Where one process puts what it makes."""
        return self.path.with_name(f"{self.path.stem}.part{name}")

    @property
    def keys(self) -> Path:
        """The file of what each input of a finished table was made from."""
        return self.path.with_name(f"{self.path.stem}.keys")

    def merged(self) -> bool:
        """Whether the file is what ``merge`` wrote, down to the last byte."""
        if not (self.path.exists() and self.keys.exists()):
            return False
        with self.keys.open("rb") as keys:
            head = _json(keys.readline())
        return head is not None and head.get("digest") == self.digest()

    def reopen(self) -> None:
        """Get ready for ``known``: cut torn lines off, and put what a finished table holds into a part of its own.

        One process calls it, before any works.
        """
        for part in self._parts():
            cut_torn_line(part)
        if self.merged():
            with self.path.open("rb") as lines, self.keys.open("rb") as keys, replacing(self.part(OLD)) as file:
                keys.readline()
                for line in keys:
                    entry = json.loads(line)
                    entry["rows"] = [json.loads(row) for row in islice(lines, entry["rows"])]
                    file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self.keys.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def append(self, name: int | str, made: Iterable[Made]) -> None:
        """Add what was made of some inputs to a part and force it to disk.

        Raises:
            StoreError: the disk is full or not writable. What was complete before stays.
        """
        lines = b"".join(self._entry(one) for one in made)
        if lines:
            append_lines(self.part(name), lines)

    def _entry(self, made: Made) -> bytes:
        entry: dict[str, Any] = {"item": made.item, "key": made.key, "rows": [self._plain(row) for row in made.rows]}
        if made.refused:
            entry["refused"] = [one.model_dump() for one in made.refused]
        return json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    def known(self, again: Callable[[Any], bool] | None = None) -> Known:
        """Which inputs have been done, with which key.

        ``again``: whether a row is to be made once more though nothing has changed (a server was away).
        """
        parts = self._parts()
        index = Known(parts)
        for number, part in enumerate(parts):
            offset = 0
            with part.open("rb") as lines:
                for line in lines:
                    entry = _json(line)
                    if entry is None:
                        raise StoreError(
                            f"{part} cannot be read at byte {offset}; it was changed by hand. Move it away to compute "
                            "what it held again."
                        )
                    refused = [Quarantined.model_validate(one) for one in entry.get("refused", ())] if again else []
                    stale = again is not None and any(map(again, [*map(self._read_entry, entry["rows"]), *refused]))
                    if not stale:
                        index.add(entry["item"], entry["key"], number, offset)
                    offset += len(line)
        index.close()
        return index

    def _read_entry(self, row: dict[str, Any]) -> Row:
        return self._row.model_validate(row, context=self._context)

    def merge(self, order: Iterable[tuple[str, str]], most: int | None = None) -> Merged:
        """Write the table out of the parts: of every ``(item, key)`` what was made of it, in that order.

        The parts stay until ``tidy``. ``most`` keeps the first so many rows.

        Raises:
            StoreError: an input has not been done, or the disk is full or not writable.
        """
        known = self.known()
        items = rows = 0
        refused: list[Quarantined] = []
        digest = blake2b(digest_size=12)
        with ExitStack() as opened:
            sources = [opened.enter_context(part.open("rb")) for part in known.parts]
            file = opened.enter_context(replacing(self.path))
            spool = opened.enter_context(replacing(self.keys))
            spool.write(_head("0" * 24))
            for item, key in order:
                place = known.place(item, key)
                if place is None:
                    raise StoreError(f"{self.path.name} lacks what was to be made of {items + 1:,} of its inputs.")
                number, offset = place
                sources[number].seek(offset)
                entry = json.loads(sources[number].readline())
                kept = entry["rows"] if most is None else entry["rows"][: max(most - rows, 0)]
                for row in kept:
                    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                    digest.update(line)
                    file.write(line)
                note = {"item": item, "key": key, "rows": len(kept)}
                if "refused" in entry:
                    refused += [Quarantined.model_validate(one) for one in entry["refused"]]
                    note["refused"] = entry["refused"]
                spool.write(json.dumps(note, ensure_ascii=False).encode() + b"\n")
                items, rows = items + 1, rows + len(kept)
            spool.seek(0)
            spool.write(_head(digest.hexdigest()))
        return Merged(items, rows, refused)

    def tidy(self) -> None:
        """Remove the parts; called once the stage is marked as finished."""
        for part in self._parts():
            part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        """The old table's part first: what was made since then stands."""
        found = sorted(self.path.parent.glob(f"{self.path.stem}.part*"))
        return sorted(found, key=lambda part: part != self.part(OLD))


class Known:
    """Which inputs have been done: a hash of item and key, the part and the place in it, 8 bytes each."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = parts
        self._hashes, self._files, self._offsets = array("Q"), array("Q"), array("Q")

    def add(self, item: str, key: str, part: int, offset: int) -> None:
        """Note an input's line."""
        self._hashes.append(_hash(item, key))
        self._files.append(part)
        self._offsets.append(offset)

    def close(self) -> None:
        """Sort, after which ``place`` works."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64) if self._hashes else np.empty(0, np.uint64)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def place(self, item: str, key: str) -> tuple[int, int] | None:
        """(part, offset) of what was made of an input, the latest; None where it has not been done with this key."""
        wanted = np.uint64(_hash(item, key))
        at = int(np.searchsorted(self._sorted, wanted, side="right")) - 1
        if at < 0 or self._sorted[at] != wanted:
            return None
        row = int(self._order[at])
        return self._files[row], self._offsets[row]

    def __contains__(self, entry: tuple[str, str]) -> bool:
        return self.place(*entry) is not None


def _head(digest: str) -> bytes:
    return json.dumps({"digest": digest}).encode() + b"\n"


def _hash(*words: str) -> int:
    return int.from_bytes(blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _digest(path: Path) -> str:
    whole = blake2b(digest_size=12)
    if path.exists():
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                whole.update(block)
    return whole.hexdigest()


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
