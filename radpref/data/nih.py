"""NIH ChestX-ray14 (Wang et al., CVPR 2017): frontal images with mined labels, some with boxes around the lesion.

``data.root`` alone is enough. Either it holds the tables as published, ``Data_Entry_2017*.csv`` and, where there are
boxes, ``BBox_List_2017.csv`` (with ``train_val_list.txt`` and ``test_list.txt`` the published split is kept), or one
``annotations.jsonl`` with a row an image, which may carry the boxes of the RSNA Pneumonia Challenge as well. Images are
found anywhere under the root by their name and may have any size: boxes are of the published frame, 1024 by 1024.

The set has no reports. The reference of a study is written from its labels and says so nowhere else: it is good for
corruption, grounding and questions, not for learning to report. With ``data.unreported.use: labels``
there is none, and a study is judged by its labels: those of the fourteen that it lacks are negative, boxes tell side
and zone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.boxes import box_of, marked_of, names_of, number, sentences
from radpref.data.disk import Lookup
from radpref.data.image_index import ImageIndex, stem_of
from radpref.data.published import beside, cells_of, in_place
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
from radpref.records import Box, ImageFile, Quarantined, Split, Study

FRAME = (1024.0, 1024.0)
"""Width and height of the published PNG files, which the boxes are drawn on."""
NAMES = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Effusion": "pleural effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hiatal hernia",
    "Infiltrate": "lung opacity",
    "Infiltration": "lung opacity",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural_Thickening": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
"""The set's labels in the words of the lexicon."""


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Every image of the tables that lies under ``data.root``, as a study of its own. Raises DataError."""
    root = root_of(section)
    single = root / "annotations.jsonl"
    return _from_jsonl(single, root) if single.is_file() else _from_tables(root)


def _from_tables(root: Path) -> Found:
    entries = beside(root, "Data_Entry_2017*.csv")
    if entries is None:
        raise DataError(
            f"data.root {str(root)!r} holds no table of ChestX-ray14: looked for Data_Entry_2017*.csv and "
            "annotations.jsonl; put Data_Entry_2017_v2020.csv beside the images"
        )
    rows.require(entries, [("published", name) for name in ("Image Index", "Finding Labels", "Patient ID")])
    notes: list[str] = []
    lists = all((root / name).is_file() for name, _ in _LISTS)
    return Found(_of_tables(root, entries, notes, split=lists), notes, split=lists)


def _of_tables(root: Path, entries: Path, notes: list[str], *, split: bool) -> Iterator[Study | Quarantined]:
    images = ImageIndex(root)
    boxes, quarantined = _boxes(root / "BBox_List_2017.csv")
    yield from quarantined
    count = drawn = absent = unlisted = 0
    with Lookup[Split](_splits(root) if split else ()) as splits:
        for row in cells_of(entries):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    stem = stem_of(text_of(cells["Image Index"]))
                    path, part = images.get(stem), splits.get(stem)
                    if path is None:
                        absent += 1
                        continue
                    if split and part is None:
                        unlisted += 1
                        continue
                    labels = [label for label in text_of(cells["Finding Labels"]).split("|") if label in NAMES]
                    view = view_of(text_of(cells.get("View Position")))
                    image = ImageFile(path=path, view=view, boxes=_frozen(boxes.get(stem, {})))
                    study = _study(stem, text_of(cells["Patient ID"]), image, labels, part or "train")
            except RowError as error:
                yield in_place(entries, entry, str(error))
                continue
            count += 1
            drawn += bool(image.boxes)
            yield study
    notes.append(f"nih: {count:,} images, {drawn:,} with boxes")
    if absent:
        notes.append(f"nih: {absent:,} rows of {entries.name} have no image under data.root")
    if unlisted:
        notes.append(f"nih: {unlisted:,} images stand in neither train_val_list.txt nor test_list.txt")


def _boxes(path: Path) -> tuple[dict[str, dict[str, list[Box]]], list[Quarantined]]:
    """Image to finding to boxes. The header spreads ``Bbox [x,y,w,h]`` over four columns."""
    found: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    quarantined: list[Quarantined] = []
    if not path.is_file():
        return found, quarantined
    columns = ("Bbox [x", "y", "w", "h]")
    rows.require(path, [("published", name) for name in ("Image Index", "Finding Label", *columns)])
    for entry in rows.stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            box = _of_xywh([entry.cells[name] for name in columns], FRAME)
            stem = Path(text_of(entry.cells["Image Index"])).stem
            found[stem][names_of([text_of(entry.cells["Finding Label"])], NAMES)[0]].append(box)
        except RowError as error:
            quarantined.append(quarantine(f"{path.name} {entry.place}", str(error)))
    return found, quarantined


_LISTS: tuple[tuple[str, Split], ...] = (("train_val_list.txt", "train"), ("test_list.txt", "test"))


def _splits(root: Path) -> Iterator[tuple[str, Split]]:
    for name, split in _LISTS:
        with (root / name).open("rb") as file:
            for line in file:
                yield stem_of(rows.decoded(line).strip()), split


def _from_jsonl(path: Path, root: Path) -> Found:
    notes: list[str] = []
    return Found(_of_jsonl(path, root, notes), notes)


def _of_jsonl(path: Path, root: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    count = marked = 0
    for entry in rows.stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            with row_errors():
                study, refused = _of_row(entry.cells, root)
        except RowError as error:
            yield quarantine(f"{path.name} {entry.place}", str(error))
            continue
        yield from refused
        count += 1
        marked += bool(study.images[0].boxes)
        yield study
    notes.append(f"nih: {count:,} images, {marked:,} with boxes")


def _of_row(row: dict[str, Any], root: Path) -> tuple[Study, list[Quarantined]]:
    image = inside(root, text_of(row.get("image")))
    frame = tuple(map(number, row.get("box_frame") or FRAME))
    if len(frame) != 2:
        raise RowError("box frame broken: width and height of the picture that the boxes were drawn on")
    boxes: dict[str, list[Box]] = defaultdict(list)
    refused: list[Quarantined] = []
    for place, (name, corners) in enumerate(_drawn(row), start=1):
        try:
            box = _of_xywh(corners, frame)
            boxes[name].append(box)
        except RowError as error:
            refused.append(quarantine(f"{image.stem}#box-{place}", str(error)))
    labels = [label for label in row.get("nih_labels") or () if label in NAMES]
    shown = ImageFile(path=str(image), view=view_of(text_of(row.get("view"))), boxes=_frozen(boxes))
    return _study(image.stem, text_of(row.get("patient_id")), shown, labels, "train"), refused


def _drawn(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The boxes of a row, NIH's and RSNA's, with the finding that they show."""
    for one in row.get("nih_boxes_xywh") or ():
        yield names_of([text_of(one["label"])], NAMES)[0], one["box"]
    for corners in (row.get("rsna") or {}).get("lung_opacity_boxes_xywh") or ():
        yield "lung opacity", corners


def _of_xywh(corners: Any, frame: tuple[float, ...]) -> Box:
    left, top, width, height = map(number, corners)
    return box_of(left, top, left + width, top + height, (frame[0], frame[1]))


def _frozen(boxes: dict[str, list[Box]]) -> dict[str, tuple[Box, ...]]:
    return {name: tuple(drawn) for name, drawn in boxes.items()}


def _study(stem: str, patient: str, image: ImageFile, labels: list[str], split: Split) -> Study:
    names = names_of(labels, NAMES)
    shown = dict.fromkeys((*names, *image.boxes))
    return Study(
        id=stem,
        patient=patient or stem,
        images=(image,),
        findings=sentences(shown),
        split=split,
        labels={name: int(name in shown) for name in dict.fromkeys(NAMES.values())},
        marked=marked_of(image),
    )


SOURCE = Source("nih", "NIH ChestX-ray14: images with labels and some boxes", find, NoOptions, unreported=True)
