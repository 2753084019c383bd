"""Rows on disk that read like a list: memory is eight bytes a row, however many there are."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar, overload

from radpref.files import StoreError
from radpref.records import Record

Row = TypeVar("Row", bound=Record)
_BLOCK = 1 << 20


class Spool(Generic[Row]):
    """Rows of one type, appended once and read any number of times, in order or by place.

    The file lies in ``folder`` (made if it is absent), has no name there and is gone with the object or the process.

    Raises:
        StoreError: the disk is full or not writable.
    """

    def __init__(self, row: type[Row], folder: Path) -> None:
        self._row = row
        self._folder = folder
        self._ends = array("q", [0])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as the rows are needed
        except OSError as error:
            raise self._full(error) from error

    def append(self, row: Row) -> None:
        line = row.model_dump_json(exclude_defaults=True).encode("utf-8", "replace") + b"\n"
        try:
            self._file.seek(self._ends[-1])
            self._file.write(line)
        except OSError as error:
            raise self._full(error) from error
        self._ends.append(self._ends[-1] + len(line))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Row]:
        place = 0
        while place < len(self):  # several readers may take turns, so each looks for its own place
            self._file.seek(self._ends[place])
            lines = self._file.readlines(min(_BLOCK, self._ends[-1] - self._ends[place]))
            yield from map(self._row.model_validate_json, lines)
            place += len(lines)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        """The row at a place, or a list of those of a slice. Raises IndexError."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        self._file.seek(self._ends[place])
        return self._row.model_validate_json(self._file.read(self._ends[place + 1] - self._ends[place]))

    def _full(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write to {self._folder}: {error.strerror or error}. Make room or choose another folder, then give "
            "the same command again."
        )
