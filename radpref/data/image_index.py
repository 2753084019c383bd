"""Where the images of a folder lie, by their names: held on disk, for there may be hundreds of thousands."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from radpref.data.source import RowError

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp")
"""Kinds of image files; the first is taken where an image lies there twice."""


def stem_of(name: str) -> str:
    """The name without the suffix of an image: ``a.b.png`` gives ``a.b``, and ``1.2.840.1`` stays itself."""
    return name[: name.rindex(".")] if name.lower().endswith(SUFFIXES) else name


class ImageIndex:
    """Every image under ``root`` by the key of its name. Links that lead out of the root are left out.

    Of two kinds of file with one name the first of ``SUFFIXES`` counts; a name that stands in two folders is
    ambiguous.
    """

    def __init__(
        self,
        root: Path,
        key: Callable[[str], str] = stem_of,
        wanted: Callable[[str], bool] = lambda name: True,
        suffixes: tuple[str, ...] = SUFFIXES,
    ) -> None:
        self._root, self._key = root, key
        self._rows = sqlite3.connect("")
        self._rows.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA cache_size=-2000; "
            "CREATE TABLE images (key TEXT PRIMARY KEY, path TEXT, rank INTEGER, times INTEGER) WITHOUT ROWID;"
        )
        self._rows.executemany(
            "INSERT INTO images VALUES (?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET "
            "path = iif(excluded.rank < rank, excluded.path, path), "
            "times = iif(excluded.rank = rank, times + 1, iif(excluded.rank < rank, 1, times)), "
            "rank = min(rank, excluded.rank)",
            self._found(wanted, suffixes),
        )

    def _found(self, wanted: Callable[[str], bool], suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
        for folder, folders, names in os.walk(self._root):
            folders.sort()
            for name in sorted(names):
                lower = name.lower()
                suffix = next((suffix for suffix in suffixes if lower.endswith(suffix)), None)
                if suffix is None or not wanted(name):
                    continue
                path = Path(folder, name)
                try:
                    if path.is_symlink() and not path.resolve(strict=True).is_relative_to(self._root):
                        continue
                    (key := self._key(name)).encode()
                    str(path).encode()
                except (OSError, RuntimeError, UnicodeEncodeError):  # a loop of links; a name that no text can give
                    continue
                yield key, str(path), suffixes.index(suffix)

    def __len__(self) -> int:
        found: tuple[int] = self._rows.execute("SELECT count(*) FROM images").fetchone()
        return found[0]

    def get(self, name: str) -> str | None:
        """The path of the image of that name; of two folders that have it, the first. None where none is there."""
        found = self._rows.execute(
            "SELECT path FROM images WHERE key = ?", (self._key(name).encode("utf-8", "replace").decode(),)
        ).fetchone()
        return found[0] if found else None

    def only(self, name: str) -> str | None:
        """As ``get``, but raises RowError where two folders have an image of that name."""
        found = self._rows.execute(
            "SELECT path, times FROM images WHERE key = ?", (self._key(name).encode("utf-8", "replace").decode(),)
        ).fetchone()
        if found and found[1] > 1:
            raise RowError("image not named: several folders hold one of that name; give its path")
        return found[0] if found else None
