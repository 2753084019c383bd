"""The pictures of held-out studies, to be asked whether another picture is nearly one of them."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radpref.images import ImageError, decode, nearly_same
from radpref.images.near import WORDS, near, words_of_hash
from radpref.records import Split


class HeldOut:
    """Pictures by their hashes: 64 bytes each in memory, their paths on disk."""

    def __init__(self) -> None:
        self._words = array("Q")
        self._rows = sqlite3.connect("")
        self._rows.executescript("PRAGMA journal_mode=OFF; CREATE TABLE shown (n INTEGER PRIMARY KEY, path, split);")

    def add(self, path: str, hashed: str, split: Split) -> None:
        self._words.extend(words_of_hash([hashed])[0].tolist())
        self._rows.execute("INSERT INTO shown VALUES (?, ?, ?)", (len(self) - 1, path, split))

    def __len__(self) -> int:
        return len(self._words) // WORDS

    def find(self, path: str, hashed: str, first: int) -> Split | None:
        """The split of a picture, one of the ``first`` so many, that the one at ``path`` is nearly the same as.

        Those that are near by their hash are looked at themselves.
        """
        if not first:
            return None
        known: NDArray[np.uint64] = np.frombuffer(self._words, np.uint64).reshape(-1, WORDS)[:first]
        places: Sequence[int] = np.flatnonzero(near(words_of_hash([hashed])[0], known)).tolist()
        del known  # an array that is looked at cannot grow
        for place in places:
            other, split = self._rows.execute("SELECT path, split FROM shown WHERE n = ?", (place,)).fetchone()
            try:
                if nearly_same(decode(path), decode(other)):
                    found: Split = split
                    return found
            except ImageError:  # it was there a moment ago; whoever reads it next says so
                continue
        return None
