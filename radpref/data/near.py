"""The pictures of held-out studies, to be asked whether another picture is nearly one of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from radpref.data.disk import database
from radpref.images import ImageError, decode, nearly_same
from radpref.images.near import WORDS, near, words_of_hash
from radpref.records import Split


class HeldOut:
    """Pictures by their hashes: 64 bytes each in memory, their paths on disk."""

    def __init__(self) -> None:
        self._words = [array("Q") for _ in range(WORDS)]
        self._rows = database("CREATE TABLE shown (n INTEGER PRIMARY KEY, path, split, hash BLOB UNIQUE);")

    def add(self, path: str, hashed: str, split: Split) -> None:
        """A picture of a held-out study; of those with one hash the first is kept."""
        row = (len(self), path, split, bytes.fromhex(hashed))
        if self._rows.execute("INSERT OR IGNORE INTO shown VALUES (?, ?, ?, ?)", row).rowcount:
            for words, word in zip(self._words, words_of_hash([hashed])[0].tolist(), strict=True):
                words.append(word)

    def __len__(self) -> int:
        return len(self._words[0])

    def find(self, path: str, hashed: str, first: int) -> Split | None:
        """The split of a picture, one of the ``first`` so many, that the one at ``path`` is nearly the same as.

        Those that are near by their hash are looked at themselves.
        """
        if not first:
            return None
        known: list[NDArray[np.uint64]] = [np.frombuffer(words, np.uint64)[:first] for words in self._words]
        places: Sequence[int] = near(words_of_hash([hashed])[0], known).tolist()
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
