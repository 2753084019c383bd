"""What a source hands over, and the tools that sources share: texts, and paths that stay inside the root."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import ELOOP
from pathlib import Path
from stat import S_ISLNK
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from radpref.config import DataSection, RecipeError, Section
from radpref.data.spool import Spool
from radpref.errors import RadprefError
from radpref.outside import brief
from radpref.records import Quarantined, Study


class DataError(RecipeError):
    """Data that cannot be used as the recipe says; the message says what was given, why not, and what to do."""


class RowError(RadprefError, ValueError):
    """One row that cannot be used; the message becomes its reason in quarantine."""


@dataclass(frozen=True)
class Found:
    """What a source holds, before the gate."""

    studies: Iterable[Study | Quarantined]
    """Studies, and rows that cannot be used with their reason, as they are read: gone through once."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the terminal and the report; complete when ``studies`` has been gone through."""
    split: bool = False
    """True where ``Study.split`` comes from the source; otherwise patients are split by hash."""
    leaky: bool = False
    """True where the recipe asks for a published split although it is known to leak: that is said, not refused."""
    distinct: bool = False
    """True where no two pictures can be nearly the same, as the built-in world draws them: none is looked for."""


@dataclass(frozen=True)
class Loaded:
    """What can be used, and what cannot, and why. Both are read from disk, row by row, as often as is wished.

    The studies stand in a fixed random order in which every beginning holds the splits in proportion.
    """

    studies: Spool[Study]
    quarantined: Spool[Quarantined]
    notes: list[str]
    """Sentences for the terminal and the report: counts only, no identifier and no report text."""
    leaks: list[str] = field(default_factory=list)
    """What stands on both sides of a published split that the recipe asks for although it leaks; else empty."""


class NoOptions(Section):
    """The options of a source that has none."""


Options = TypeVar("Options", bound=Section)


@dataclass(frozen=True)
class Source(Generic[Options]):
    """A data set that ``data.source`` names.

    ``find`` is given the recipe's section, the source's own options, a folder for what it has to keep, and the run's
    seed. Other packages add one with the entry point group ``radpref.sources``.
    """

    name: str
    about: str
    """What it is, in a line."""
    find: Callable[[DataSection, Options, Path, int], Found]
    options: type[Options]
    """What ``data.options`` may hold."""
    reads: frozenset[Literal["root", "file"]] = frozenset({"root"})
    """Which of ``data.root`` and ``data.file`` it looks at; another one that is given is an error."""
    unreported: bool = False
    """True where its references are written from labels: there are none where labels are used as such."""

    def read(self, section: DataSection, cache: Path, seed: int) -> Found:
        """What the source holds. Raises DataError: as ``check``, and where files or columns are not there."""
        return self.find(section, self.check(section), cache, seed)

    def check(self, section: DataSection) -> Options:
        """The options of ``data.options``. Raises DataError: a key that this source does not read."""
        for key in ("root", "file"):
            if getattr(section, key) is not None and key not in self.reads:
                others = (
                    " and ".join(f"data.{name}" for name in sorted(self.reads)) or "neither data.root nor data.file"
                )
                raise DataError(
                    f"data.{key} is {getattr(section, key)!r}, but data.source is {self.name}, which reads {others}; "
                    f"name the source of your data (for a table: --data.source table), or leave data.{key} out"
                )
        if section.source != "table" and section.table != type(section)().table:
            raise DataError(f"data.table names columns, but data.source is {self.name}; set data.source to table")
        known = self.options.model_fields
        for name in section.options:
            if name not in known:
                there = f"it has {', '.join(known)}" if known else "it has none"
                raise DataError(f"data.options.{name} is no option of {self.name}{nearest(name, known)}; {there}")
        try:
            return self.options.model_validate(section.options)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"]))
            raise DataError(f"data.options.{key} is {problem['input']!r}: {problem['msg'].lower()}") from None


def quarantine(identifier: str, reason: str) -> Quarantined:
    return Quarantined(id=identifier, stage="data", reason=reason)


@contextmanager
def row_errors() -> Iterator[None]:
    """What a row of another shape than published makes fail becomes a RowError: a bad row never ends a run."""
    try:
        yield
    except (RadprefError, BrokenPipeError):
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, OSError) as error:
        raise RowError(f"row broken: a cell of another kind than published ({type(error).__name__})") from error


def text_of(value: Any) -> str:
    """A cell as text: None and NaN are empty, whole floats lose their ``.0``, lists of strings are joined.

    Control characters become blanks and lone surrogates U+FFFD, so that the text can be written anywhere.
    Raises RowError for what is no text (a mapping, bytes, an image).
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, bool | dict | list | tuple | bytes | bytearray):
        raise RowError(f"cell is no text: found {type(value).__name__}; check the column map")
    text = _CONTROL.sub(" ", str(value)).encode("utf-8", "replace").decode("utf-8")
    return text.strip()


def inside(root: Path, given: str) -> Path:
    """The absolute path of ``given`` (relative to ``root``), links followed; ``root`` must be resolved already.

    Raises RowError for a path that leads out of ``root`` by ``..``, by being absolute elsewhere or by a link, and
    for URLs. Whether the file exists is not looked at.
    """
    given = given.strip()
    if not given:
        raise RowError("no images: the path is empty")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", given):
        raise RowError("image is a URL: nothing is fetched while data is read; download it and give its path")
    try:
        path = (root / given.replace("\\", "/")).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            if S_ISLNK(path.lstat().st_mode):  # since Python 3.13 `resolve` leaves a loop of links as it is
                raise OSError(ELOOP, "links that lead to each other")
    except (OSError, RuntimeError, ValueError):
        raise RowError("path cannot be followed: a loop of links, a NUL, or a name too long; check the row") from None
    if not path.is_relative_to(root):
        raise RowError("path leads out of data.root: images are read from inside it only; move or copy the image there")
    return path


def root_of(section: DataSection) -> Path:
    """``data.root`` as an existing absolute folder, links followed. Raises DataError."""
    if section.root is None:
        raise DataError(f"data.source is {section.source}, but data.root is not set; give the folder of the data")
    root = Path(section.root).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"data.root {str(root)!r} {what}; give the folder of the data")
    return root.resolve()


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the nearest of ``names``, upper and lower case alike, or nothing."""
    import difflib

    lower = {candidate.lower(): candidate for candidate in names}
    match = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[match[0]]!r}?" if match else ""


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, cut after ``most``."""
    told = ", ".join(repr(brief(str(name), 60)) for name in names[:most])
    return told + (f", and {len(names) - most} more" if len(names) > most else "")


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
