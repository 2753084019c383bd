"""Pneumonia images with lesions outlined by radiologists (GeneralBlockchain's masks, ieee8023's images).

``data.root`` holds ``records.jsonl``, a row an image: ``image`` and ``masks`` (``{"consolidation": {"path": ...}}``)
relative to it, ``patientid``, ``view``. Masks of lesions and devices are kept under the lexicon's names; those of
lungs, heart and airways show no finding and are left out. The set has no reports: the reference is written from the
masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import sentences
from radpref.data.source import (
    DataError,
    Found,
    NoOptions,
    RowError,
    Source,
    inside,
    quarantine,
    root_of,
    row_errors,
    text_of,
)
from radpref.data.views import view_of
from radpref.records import ImageFile, Quarantined, Study

NAMES = {
    "ground_glass_opacities": "lung opacity",
    "consolidation": "consolidation",
    "pleural_effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "endotracheal_tube": "endotracheal tube",
    "central_venous_line": "central venous catheter",
    "nosogastric_tube": "enteric tube",
    "tubings": "support device",
    "monitoring_probes": "external leads",
}
"""The set's masks in the words of the lexicon."""


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Every image of ``records.jsonl`` as a study of its own, lesions before devices. Raises DataError."""
    root = root_of(section)
    path = root / "records.jsonl"
    if not path.is_file():
        raise DataError(f"data.root {str(root)!r} holds no records.jsonl; give the folder that does")
    rows.require(path, [("published", name) for name in ("image", "masks")])
    notes: list[str] = []
    return Found(_studies(root, path, notes), notes)


def _studies(root: Path, path: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    count = 0
    for entry in rows.stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            with row_errors():
                study = _study(root, entry.cells)
        except RowError as error:
            yield quarantine(f"{path.name} {entry.place}", str(error))
            continue
        count += 1
        yield study
    notes.append(f"covid: {count:,} images with masks")


def _study(root: Path, row: dict[str, Any]) -> Study:
    image = inside(root, text_of(row["image"]))
    given = {NAMES[name]: mask for name, mask in row["masks"].items() if name in NAMES}
    names = sorted(given, key=list(NAMES.values()).index)
    masks = {name: str(inside(root, text_of(given[name]["path"]))) for name in names}
    shown = ImageFile(path=str(image), view=view_of(text_of(row.get("view"))), masks=masks)
    patient = text_of(row.get("patientid")) or image.stem
    return Study(id=image.stem, patient=patient, images=(shown,), findings=sentences(names))


SOURCE = Source("covid", "pneumonia images with lesions outlined", find, NoOptions)
