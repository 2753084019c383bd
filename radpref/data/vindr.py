"""VinDr-CXR (Nguyen et al., Scientific Data 2022;9:429): images with boxes by radiologists, three a training image.

``data.root`` holds ``annotations_train.csv`` and ``annotations_test.csv`` in it or in ``annotations/`` (columns
``image_id``, ``class_name``, ``x_min``, ``y_min``, ``x_max``, ``y_max``, for training ``rad_id``), or ``train.csv`` of
the VinBigData challenge, which is its training part alone (validation and test are then drawn), and anywhere below
the images by their name. Boxes are in pixels of the original image: that size is the DICOM's own, or stands as ``dim0``
(rows) and ``dim1`` (columns) in ``train_meta.csv`` or ``test_meta.csv`` where images have been made smaller; the size
of any other picture is taken for the original's, and a box that does not fit in it is quarantined.

The set names no patients and has no reports: an image is a patient, and its reference is written from the boxes. Boxes
of one finding by several readers are all kept; their union is its lesion. With ``data.unreported.use: labels`` there is
no reference: what a reader has boxed is positive with side and zone, the other classes of the challenge are negative.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import box_of, marked_of, names_of, number, sentences
from radpref.data.disk import Groups, Lookup
from radpref.data.image_index import ImageIndex
from radpref.data.published import beside, cells_of, in_place, known, told_broken
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, row_errors, text_of
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
CLASSES = (
    *("tortuous aorta", "atelectasis", "calcification", "cardiomegaly", "consolidation", "interstitial opacity"),
    *("lung opacity", "Lung Lesion", "pleural effusion", "pleural thickening", "pneumothorax", "fibrosis"),
)
"""What both the set and the challenge's table would box, in the words of the lexicon: not boxed is not there."""
_CLASS = {"nodule": "Lung Lesion"}
"""The set does not tell a nodule from a mass."""
_META = ("image_id", "dim0", "dim1")
_TABLES: tuple[tuple[str, Split], ...] = (("train", "train"), ("test", "test"))


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Every image of the tables that lies under ``data.root``, in the published split. Raises DataError."""
    root = root_of(section)
    tables = [
        (path, part, split)
        for part, split in _TABLES
        if (path := _table(root, f"annotations_{part}.csv", f"{part}.csv")) is not None
    ]
    if not tables:
        raise DataError(
            f"data.root {str(root)!r} holds no table of VinDr-CXR: looked for annotations_train.csv and "
            "annotations_test.csv, and for train.csv of VinBigData, in it and in its folder annotations"
        )
    for path, _, _ in tables:
        rows.require(path, [("published", name) for name in COLUMNS])
    notes: list[str] = []
    return Found(_studies(root, tables, notes), notes, split=len(tables) > 1)


def _studies(root: Path, tables: list[tuple[Path, str, Split]], notes: list[str]) -> Iterator[Study | Quarantined]:
    images = ImageIndex(root)
    broken: Counter[str] = Counter()
    absent = count = drawn = 0
    for path, part, split in tables:
        with (
            Lookup[tuple[float, float]](known(_table(root, f"{part}_meta.csv"), _META, broken, _frame)) as frames,
            Groups[_Row]() as groups,
        ):
            for row in cells_of(path):
                if isinstance(row, Quarantined):
                    yield row
                    continue
                entry, cells = row
                try:
                    with row_errors():
                        corners = tuple(number(cells[name]) for name in COLUMNS[2:])
                        groups.add(text_of(cells["image_id"]), _Row(entry.place, text_of(cells["class_name"]), corners))
                except RowError as error:
                    yield in_place(path, entry, str(error))
            for stem, here in groups:
                image = images.get(stem)
                if image is None:
                    absent += 1
                    continue
                boxes, refused = _boxes(path, image, frames.get(stem), here)
                yield from refused
                count += 1
                drawn += bool(boxes)
                shown = ImageFile(path=image, view="frontal", boxes=boxes)
                marked = [f.model_copy(update={"name": _CLASS.get(f.name, f.name)}) for f in marked_of(shown)]
                there = {f.name for f in marked}
                yield Study(
                    id=stem,
                    patient=stem,
                    images=(shown,),
                    findings=sentences(boxes),
                    split=split,
                    labels={name: int(name in there) for name in CLASSES},
                    marked=tuple(marked),
                )
    notes.append(f"vindr: {count:,} images, {drawn:,} with boxes")
    if absent:
        notes.append(f"vindr: {absent:,} images of the tables are not under data.root")
    notes += told_broken("vindr", broken)


class _Row(NamedTuple):
    place: str
    label: str
    corners: tuple[float, ...]


def _boxes(
    path: Path, image: str, frame: tuple[float, float] | None, rows: list[_Row]
) -> tuple[dict[str, tuple[Box, ...]], list[Quarantined]]:
    """A finding's boxes on one image, drawn on an original of ``frame``, else of the file's own size."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    refused: list[Quarantined] = []
    for row in rows:
        if row.label == NOTHING:
            continue
        try:
            frame = frame or image_size(image)
            left, top, right, bottom = row.corners
            box = box_of(left, top, right, bottom, frame)
            boxes[names_of([row.label], NAMES)[0]].append(box)
        except (RowError, ImageError) as error:
            refused.append(quarantine(f"{path.name} {row.place}", str(error)))
    return {name: tuple(drawn) for name, drawn in boxes.items()}, refused


def _table(root: Path, *names: str) -> Path | None:
    found = (beside(folder, name) for name in names for folder in (root, root / "annotations"))
    return next((path for path in found if path is not None), None)


def _frame(cells: Mapping[str, Any]) -> tuple[str, tuple[float, float]]:
    """An image and the (width, height) of its original."""
    return text_of(cells["image_id"]), (number(cells["dim1"]), number(cells["dim0"]))


SOURCE = Source("vindr", "VinDr-CXR and VinBigData: images with radiologists' boxes", find, NoOptions, unreported=True)
