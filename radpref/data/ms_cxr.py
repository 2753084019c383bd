"""MS-CXR (Boecking et al., ECCV 2022): phrases of MIMIC-CXR reports with the boxes that radiologists drew for them.

``data.root`` holds ``MS_CXR_Local_Alignment_v*.csv`` (columns ``dicom_id``, ``category_name``, ``label_text``,
``path``, ``x``, ``y``, ``w``, ``h``, ``image_width``, ``image_height``; the ``split`` of version 1.1 is not read,
because it is another one than MIMIC-CXR's) and, anywhere below, the images of MIMIC-CXR-JPG by their name. A study is
one image; its reference is its phrases, each once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import box_of, files_by_stem, names_of, number
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, text_of
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
    images = files_by_stem(root)
    boxes: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    phrases: dict[str, dict[str, None]] = defaultdict(dict)
    patients: dict[str, str] = {}
    quarantined: list[Quarantined] = []
    for entry in rows.stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            cells = entry.cells
            left, top, width, height, *frame = (number(cells[name]) for name in COLUMNS[4:])
            box = box_of(left, top, left + width, top + height, (frame[0], frame[1]))
            stem = text_of(cells["dicom_id"])
            boxes[stem][names_of([text_of(cells["category_name"])], {})[0]].append(box)
            phrases[stem].setdefault(text_of(cells["label_text"]))
            found = re.search(r"(?:^|/)p(\d{8})/", text_of(cells["path"]))
            patients[stem] = found[1] if found else stem
        except RowError as error:
            quarantined.append(quarantine(f"{path.name} {entry.place}", str(error)))
    absent = sorted(stem for stem in boxes if stem not in images)
    quarantined += [quarantine(stem, "image missing: named in the table, not under data.root") for stem in absent]
    studies = [
        Study(
            id=stem,
            patient=patients[stem],
            images=(
                ImageFile(
                    path=str(images[stem]),
                    view="frontal",
                    boxes={name: tuple(drawn) for name, drawn in boxes[stem].items()},
                ),
            ),
            findings=" ".join(f"{phrase.rstrip('.')}." for phrase in phrases[stem] if phrase),
        )
        for stem in boxes
        if stem in images
    ]
    return Found([*quarantined, *studies], [f"ms-cxr: {len(studies):,} images with boxes from {path.name}"])


SOURCE = Source("ms-cxr", "MS-CXR: phrases of MIMIC-CXR with boxes", find, NoOptions)
