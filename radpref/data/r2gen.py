"""R2Gen's ``annotation.json`` (Chen et al., EMNLP 2020) of IU X-Ray and of MIMIC-CXR, which many papers compare on.

``data.root`` holds ``annotation.json`` and the images below ``images`` or itself. The published split is used. Reports
are lower case already in IU X-Ray's, one text without sections. IU X-Ray's studies name no patients and each counts as
one (the collection has one study a patient, as far as is known); MIMIC-CXR's patients are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data.gathering import gathered
from radpref.data.published import find_file, folders, image_in
from radpref.data.rows import json_items
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.data.table import SPLIT_NAMES
from radpref.records import ImageFile, Quarantined, Split, Study


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All studies, in the published split. Raises DataError."""
    root = root_of(section)
    path = root / section.file if section.file else find_file(root, "annotation.json", "*annotation*.json")
    if path is None or not path.is_file():
        raise DataError(f"data.root {str(root)!r} holds no annotation.json; name the file with data.file")
    return read(root, path)


def read(root: Path, path: Path) -> Found:
    """The studies of one ``annotation.json``."""
    notes: list[str] = []
    return Found(_studies(root, path, notes), notes, split=True)


def _studies(root: Path, path: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    homes = [root / "images", *folders(path.parent, "images"), path.parent / "images", path.parent, root]
    counts: Counter[str] = Counter()

    def studies() -> Iterator[Study | Quarantined]:
        for part, rows in json_items(path):
            split = SPLIT_NAMES.get(str(part).lower())
            if not isinstance(rows, list):
                yield quarantine(f"{path.name} {part}", "row broken: a part of the split is no list")
                continue
            for number, row in enumerate(rows, start=1):
                counts["rows"] += 1
                try:
                    with row_errors():
                        if split is None:
                            raise RowError("split unknown: neither train, val nor test")
                        yield _study(root, homes, row, split)
                except RowError as error:
                    yield quarantine(f"{path.name} {part} {number}", str(error))

    yield from gathered(studies())
    notes.append(f"r2gen: {counts['rows']:,} rows of {path.name}")


def _study(root: Path, homes: list[Path], row: Any, split: Split) -> Study:
    if not isinstance(row, dict) or not isinstance(row.get("image_path"), list):
        raise RowError("row broken: no object with a list image_path")
    images = tuple(ImageFile(path=image_in(root, homes, text_of(given))) for given in row["image_path"])
    subject, study = (text_of(row.get(name)) for name in ("subject_id", "study_id"))
    identifier = f"s{study}" if study else text_of(row.get("id"))
    return Study(
        id=identifier,
        patient=f"p{subject}" if subject else identifier.split("_")[0],
        images=images,
        findings=" ".join(text_of(row.get("report")).split()),
        split=split,
    )


SOURCE = Source(
    "r2gen", "R2Gen's annotation.json of IU X-Ray or MIMIC-CXR", find, NoOptions, frozenset({"root", "file"})
)
