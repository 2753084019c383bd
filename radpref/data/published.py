"""What readers of published data sets share: finding their files, their folders of images, labels, whole reports."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from radpref.config import Section
from radpref.data.rows import Entry, require, stream
from radpref.data.source import RowError, inside, quarantine, row_errors, text_of
from radpref.records import Quarantined, Split

DEPTHS = ("", "*/", "*/*/", "*/*/*/")
"""Files are looked for in the root and down to its third folder."""
KINDS = (".jpg", ".png", ".dcm", ".jpeg", ".dicom")
"""Suffixes that an image may have instead of the published one."""
LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
"""CheXpert's."""
_NUMBER = re.compile(r"\d+")
Item = TypeVar("Item")


class ReportOptions(Section):
    """Of a source of reports."""

    without_findings: Literal["quarantine", "last-paragraph", "impression"] = Field(
        "quarantine",
        description="a report without a findings section: quarantined, or its last paragraph or impression is taken",
    )


def reference(found: Mapping[str, str], options: ReportOptions) -> str:
    """The text that a report is judged against: its findings, or what the options take instead; empty for none."""
    if found.get("findings", "").strip() or options.without_findings == "quarantine":
        return found.get("findings", "")
    instead = {"last-paragraph": "last paragraph", "impression": "impression"}[options.without_findings]
    return found.get(instead, "")


def find_file(root: Path, *names: str) -> Path | None:
    """A file of one of these names (or patterns), packed by gzip or not, in the root or down to its third folder."""
    for name in names:
        for depth in DEPTHS:
            for pattern in (name, f"{name}.gz"):
                found = [path for path in sorted(root.glob(f"{depth}{pattern}")) if path.is_file()]
                if found:
                    return found[-1]
    return None


def beside(folder: Path, *names: str) -> Path | None:
    """The first of these files that lies in the folder, packed by gzip or not; names may be patterns."""
    found = (path for name in names for kind in ("", ".gz") for path in sorted(folder.glob(name + kind), reverse=True))
    return next((path for path in found if path.is_file()), None)


def parts_missing(source: str, parts: Mapping[str, Split], there: Collection[Split]) -> list[str]:
    """A sentence for each part of a published split whose file is not there: another would pass for it in silence."""
    return [
        f"{source}: no {name}, so its {split} part is not the published one"
        for name, split in parts.items()
        if split not in there
    ]


def folders(root: Path, *names: str) -> list[Path]:
    """The folders that hold one of ``names``, nearest first; the root itself if it does, or if none does."""
    found = [path.parent for depth in DEPTHS for name in names for path in sorted(root.glob(f"{depth}{name}"))]
    return list(dict.fromkeys(path for path in found if path.is_dir())) or [root]


def image_in(root: Path, homes: Iterable[Path], given: str) -> str:
    """The image ``given`` below the first of ``homes`` that has it, whatever kind of file it is there.

    Raises RowError: it is in none of them, or would lie outside the root.
    """
    stem, dot, _ = given.rpartition(".")
    stem = stem if dot else given
    reason: RowError | None = None
    for home in homes:
        for name in (given, *(f"{stem}{kind}" for kind in KINDS)):
            try:
                path = inside(root, str(home / name.lstrip("/")))
                if path.is_file():
                    return str(path)
            except (RowError, OSError) as error:
                reason = error if isinstance(error, RowError) else reason
    raise reason or RowError("image missing: named in the table, not under data.root")


def labels_of(cells: Mapping[str, Any]) -> dict[str, int | None]:
    """CheXpert's labels of a row: 1, 0, -1, None for blank; empty where the row has none of them."""
    return {name: _label(cells[name]) for name in LABELS if name in cells}


def _label(cell: Any) -> int | None:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return int(number) if number in (-1, 0, 1) else None


def digits(cells: Mapping[str, Any], name: str) -> str:
    """A number of MIMIC as a word, whether written as 10000032, 10000032.0, p10000032 or s50414267."""
    number = _NUMBER.search(text_of(cells.get(name)))
    if number is None:
        raise RowError(f"no {name}: the cell holds no number")
    return number[0]


def cells_of(path: Path) -> Iterator[tuple[Entry, dict[str, Any]] | Quarantined]:
    """The rows of a table with their cells; broken ones are named by the file and their place."""
    for entry in stream(path):
        if entry.cells is None:
            yield quarantine(f"{path.name} {entry.place}", entry.reason)
        else:
            yield entry, entry.cells


def known(
    path: Path | None, columns: Iterable[str], broken: Counter[str], of: Callable[[dict[str, Any]], Item | None]
) -> Iterator[Item]:
    """What the rows of a table say that only adds to another one; a row without anything to say gives None.

    Rows that cannot be read are counted under the table's name. Raises DataError: a column is missing.
    """
    if path is None:
        return
    require(path, [("published", name) for name in columns])
    for entry in stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            with row_errors():
                item = of(entry.cells)
        except RowError:
            broken[path.name] += 1
            continue
        if item is not None:
            yield item


def told_broken(source: str, broken: Counter[str]) -> list[str]:
    """A sentence for each table that had rows which cannot be read."""
    return [f"{source}: {count:,} rows of {name} cannot be read and add nothing" for name, count in broken.items()]


def in_place(path: Path, entry: Entry, reason: str) -> Quarantined:
    """A row in quarantine, named by its file and place."""
    return quarantine(f"{path.name} {entry.place}", reason)
