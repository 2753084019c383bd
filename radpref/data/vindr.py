"""VinDr-CXR (Nguyen et al., Scientific Data 2022;9:429): images with boxes by radiologists, three a training image.

``data.root`` holds ``annotations_train.csv`` and ``annotations_test.csv`` in it or in ``annotations/`` (columns
``image_id``, ``class_name``, ``x_min``, ``y_min``, ``x_max``, ``y_max``, for training ``rad_id``), and anywhere below
the images by their name. Boxes are in pixels of the original image: that size is the DICOM's own, or stands as ``dim0``
(rows) and ``dim1`` (columns) in ``train_meta.csv`` or ``test_meta.csv`` where images have been made smaller; the size
of any other picture is taken for the original's, and a box that does not fit in it is quarantined.

The set names no patients and has no reports: an image is a patient, and its reference is written from the boxes. Boxes
of one finding by several readers are all kept; their union is its lesion.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import box_of, files_by_stem, names_of, number, sentences
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, text_of
from radpref.images import ImageError, image_size
from radpref.records import Box, ImageFile, Quarantined, Split, Study

COLUMNS = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
NAMES = {
    "Aortic enlargement": "tortuous aorta",
    "Clavicle fracture": "fracture",
    "Enlarged PA": "pulmonary hypertension",
    "ILD": "interstitial opacity",
    "Infiltration": "lung opacity",
    "Lung cavity": "lucency",
    "Lung cyst": "lucency",
    "Nodule/Mass": "nodule",
    "Pulmonary fibrosis": "fibrosis",
}
"""The set's labels in the words of the lexicon, where lower case alone does not give them."""
NOTHING = "No finding"
_TABLES: tuple[tuple[str, Split], ...] = (("train", "train"), ("test", "test"))


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Every image of the tables that lies under ``data.root``, in the published split. Raises DataError."""
    root = root_of(section)
    images = files_by_stem(root)
    studies: list[Study] = []
    quarantined: list[Quarantined] = []
    absent = 0
    tables = [(path, part, split) for part, split in _TABLES if (path := _table(root, f"annotations_{part}.csv"))]
    if not tables:
        raise DataError(
            f"data.root {str(root)!r} holds no table of VinDr-CXR: looked for annotations_train.csv and "
            "annotations_test.csv in it and in its folder annotations"
        )
    for path, part, split in tables:
        frames = _frames(_table(root, f"{part}_meta.csv"))
        rows.require(path, [("published", name) for name in COLUMNS])
        boxes: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
        for entry in rows.stream(path):
            try:
                if entry.cells is None:
                    raise RowError(entry.reason)
                stem, label = text_of(entry.cells["image_id"]), text_of(entry.cells["class_name"])
                here = boxes[stem]
                if label == NOTHING or stem not in images:
                    continue
                if stem not in frames:
                    frames[stem] = image_size(images[stem])
                left, top, right, bottom = (number(entry.cells[name]) for name in COLUMNS[2:])
                box = box_of(left, top, right, bottom, frames[stem])
                here[names_of([label], NAMES)[0]].append(box)
            except (RowError, ImageError) as error:
                quarantined.append(quarantine(f"{path.name} {entry.place}", str(error)))
        absent += sum(stem not in images for stem in boxes)
        studies += [
            Study(
                id=stem,
                patient=stem,
                images=(
                    ImageFile(
                        path=str(images[stem]),
                        view="frontal",
                        boxes={name: tuple(drawn) for name, drawn in marked.items()},
                    ),
                ),
                findings=sentences(marked),
                split=split,
            )
            for stem, marked in boxes.items()
            if stem in images
        ]
    notes = [f"vindr: {len(studies):,} images, {sum(bool(study.images[0].boxes) for study in studies):,} with boxes"]
    if absent:
        notes.append(f"vindr: {absent:,} images of the tables are not under data.root")
    return Found([*quarantined, *studies], notes, split=True)


def _table(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, root / "annotations" / name) if path.is_file()), None)


def _frames(path: Path | None) -> dict[str, tuple[float, float]]:
    """Image to the (width, height) of its original; empty where there is no such table."""
    if path is None:
        return {}
    rows.require(path, [("known as", name) for name in ("image_id", "dim0", "dim1")])
    return {
        text_of(entry.cells["image_id"]): (number(entry.cells["dim1"]), number(entry.cells["dim0"]))
        for entry in rows.stream(path)
        if entry.cells is not None
    }


SOURCE = Source("vindr", "VinDr-CXR: images with radiologists' boxes", find, NoOptions)
