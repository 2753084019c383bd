"""What a source has to hold until its files are read to the end, held on disk: rows by key, and values by key."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Groups(Generic[Row]):
    """Rows gathered under keys; gone through key by key, in the order in which the keys were first seen.

    A row is any object that can be pickled. Memory is that of one key's rows. Use as a context: the file that holds
    the rows has no name, and is gone at the end.
    """

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")
        self._rows.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA cache_size=-2000; CREATE TABLE keys (key TEXT UNIQUE);"
            "CREATE TABLE rows (place INTEGER, row BLOB);"
        )

    def __enter__(self) -> Groups[Row]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def add(self, key: str, row: Row) -> None:
        key = key.encode("utf-8", "replace").decode()
        found = self._rows.execute("SELECT rowid FROM keys WHERE key = ?", (key,)).fetchone()
        place = found[0] if found else self._rows.execute("INSERT INTO keys VALUES (?)", (key,)).lastrowid
        self._rows.execute("INSERT INTO rows VALUES (?, ?)", (place, pickle.dumps(row, protocol=5)))

    def __len__(self) -> int:
        """How many keys there are."""
        found: tuple[int] = self._rows.execute("SELECT count(*) FROM keys").fetchone()
        return found[0]

    def __iter__(self) -> Iterator[tuple[str, list[Row]]]:
        last, key, rows = 0, "", list[Row]()
        for place, name, row in self._rows.execute(
            "SELECT place, key, row FROM rows JOIN keys ON keys.rowid = place ORDER BY place, rows.rowid"
        ):
            if place != last and rows:
                yield key, rows
                rows = []
            last, key = place, name
            rows.append(pickle.loads(row))
        if rows:
            yield key, rows


class Lookup(Generic[Row]):
    """Values by key, the last one that was given for a key; as a context, like ``Groups``."""

    def __init__(self, items: Iterable[tuple[str, Row]] = ()) -> None:
        self._rows = sqlite3.connect("")
        self._rows.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA cache_size=-2000; "
            "CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
        )
        self._rows.executemany(
            "INSERT OR REPLACE INTO items VALUES (?, ?)",
            ((key.encode("utf-8", "replace").decode(), pickle.dumps(value, protocol=5)) for key, value in items),
        )

    def __enter__(self) -> Lookup[Row]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def __len__(self) -> int:
        found: tuple[int] = self._rows.execute("SELECT count(*) FROM items").fetchone()
        return found[0]

    def get(self, key: str) -> Row | None:
        key = key.encode("utf-8", "replace").decode()
        found = self._rows.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        value: Row | None = pickle.loads(found[0]) if found else None
        return value
