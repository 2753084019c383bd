"""MS-CXR (Boecking et al., ECCV 2022): phrases of MIMIC-CXR reports with the boxes that radiologists drew for them.

``data.root`` holds ``MS_CXR_Local_Alignment_v*.csv`` (columns ``dicom_id``, ``category_name``, ``label_text``,
``path``, ``x``, ``y``, ``w``, ``h``, ``image_width``, ``image_height``; the ``split`` of version 1.1 is not read,
because it is another one than MIMIC-CXR's) and, anywhere below, the images of MIMIC-CXR-JPG by their name. A study is
one image; its reference is its phrases, each once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import box_of, names_of, number
from radpref.data.disk import Groups
from radpref.data.image_index import ImageIndex
from radpref.data.published import cells_of, in_place
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.records import Box, ImageFile, Quarantined, Study

COLUMNS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Every image with a phrase that lies under ``data.root``; splits are left to the gate. Raises DataError."""
    root = root_of(section)
    path = next(iter(sorted(root.rglob("MS_CXR_Local_Alignment_v*.csv"), reverse=True)), None)
    if path is None:
        raise DataError(
            f"data.root {str(root)!r} holds no MS_CXR_Local_Alignment_v*.csv; give the folder that holds it and the "
            "images of MIMIC-CXR-JPG"
        )
    rows.require(path, [("published", name) for name in COLUMNS])
    notes: list[str] = []
    return Found(_studies(root, path, notes), notes)


class _Row(NamedTuple):
    name: str
    box: Box
    phrase: str
    patient: str


def _studies(root: Path, path: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    images = ImageIndex(root)
    count = 0
    with Groups[_Row]() as groups:
        for row in cells_of(path):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    left, top, width, height, *frame = (number(cells[name]) for name in COLUMNS[4:])
                    box = box_of(left, top, left + width, top + height, (frame[0], frame[1]))
                    stem = text_of(cells["dicom_id"])
                    found = re.search(r"(?:^|/)p(\d{8})/", text_of(cells["path"]))
                    name = names_of([text_of(cells["category_name"])], {})[0]
                    patient = found[1] if found else stem
                    groups.add(stem, _Row(name, box, text_of(cells["label_text"]), patient))
            except RowError as error:
                yield in_place(path, entry, str(error))
        for stem, here in groups:
            image = images.get(stem)
            if image is None:
                yield quarantine(stem, "image missing: named in the table, not under data.root")
                continue
            boxes: dict[str, list[Box]] = defaultdict(list)
            for one in here:
                boxes[one.name].append(one.box)
            phrases = dict.fromkeys(one.phrase for one in here if one.phrase)
            count += 1
            yield Study(
                id=stem,
                patient=here[-1].patient,
                images=(
                    ImageFile(path=image, view="frontal", boxes={name: tuple(drawn) for name, drawn in boxes.items()}),
                ),
                findings=" ".join(f"{phrase.rstrip('.')}." for phrase in phrases),
            )
    notes.append(f"ms-cxr: {count:,} images with boxes from {path.name}")


SOURCE = Source("ms-cxr", "MS-CXR: phrases of MIMIC-CXR with boxes", find, NoOptions)
