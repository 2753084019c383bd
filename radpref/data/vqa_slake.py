"""SLAKE (Liu et al., ISBI 2021): questions about radiology images in English and Chinese; the English ones are read.

``data.root`` is the unpacked ``Slake1.0``: ``train.json``, ``validate.json`` and ``test.json``, and the images as
``imgs/xmlab12/source.jpg``. The published split is by image and is used. By default chest X-rays alone are read;
``data.options`` asks for other parts of the body and modalities, or for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from radpref.config import DataSection, Section
from radpref.data.published import beside, parts_missing
from radpref.data.rows import stream
from radpref.data.source import DataError, Found, RowError, Source, root_of, row_errors
from radpref.data.vqa import Row, ask, cell, image, refused, streamed
from radpref.records import ImageFile, Quarantined, Split, Study

FILES: dict[str, Split] = {"train.json": "train", "validate.json": "validation", "test.json": "test"}
FOLDERS = ("imgs", "Slake1.0/imgs", ".")
KINDS = {"position": "location", "plane": "view", "kg": "knowledge"}
"""``content_type`` (lower case) to kind, where they differ."""
BODY = {
    "chest": ("lung", "chest", "chest_heart", "chest_lung", "chest_mediastinal", ""),
    "abdomen": ("abdomen",),
    "head": ("brain", "brain_tissue", "brain_face", "head"),
    "neck": ("neck",),
    "pelvis": ("pelvic cavity", "pelvis"),
}
"""Part of the body to ``location`` (lower case)."""
MODALITY = {"x-ray": ("x-ray", "xray", "x ray"), "ct": ("ct",), "mri": ("mri",)}


class Options(Section):
    """SLAKE's."""

    body: Literal["chest", "abdomen", "head", "neck", "pelvis", "all"] = Field(
        "chest", description="the images' part of the body"
    )
    modality: Literal["x-ray", "ct", "mri", "all"] = Field("x-ray", description="how the images were made")


def find(section: DataSection, options: Options, cache: Path, seed: int) -> Found:
    """All English questions about the images asked for, a study an image, in the published split. Raises DataError."""
    root = root_of(section)
    files = {path: split for name, split in FILES.items() if (path := beside(root, name)) is not None}
    if not files:
        raise DataError(
            f"data.root {str(root)!r} holds no questions of SLAKE: looked for {', '.join(FILES)}; "
            "give the unpacked folder Slake1.0"
        )
    notes = parts_missing("slake", FILES, set(files.values()))
    return Found(_studies(root, files, options, notes), notes, split=True)


def _studies(root: Path, files: dict[Path, Split], options: Options, notes: list[str]) -> Iterator[Study | Quarantined]:
    left: Counter[str] = Counter()

    def rows() -> Iterator[Row | Quarantined]:
        for file, split in files.items():
            for entry in stream(file):
                if entry.cells is None:
                    yield refused(entry, file)
                    continue
                try:
                    with row_errors():
                        if cell(entry.cells, "q_lang").lower() not in ("en", ""):
                            left["in another language"] += 1
                            continue
                        if not _wanted(options, cell(entry.cells, "modality"), cell(entry.cells, "location")):
                            left["about other images"] += 1
                            continue
                        picture = cell(entry.cells, "img_name")
                        content = cell(entry.cells, "content_type").lower()
                        asked = ask(
                            entry.cells.get("qid"),
                            entry.cells.get("question"),
                            entry.cells.get("answer"),
                            kind=KINDS.get(content, content),
                            closed=cell(entry.cells, "answer_type").upper() == "CLOSED",
                        )
                        path = image(root, FOLDERS, picture)
                except RowError as error:
                    yield refused(entry, file, str(error))
                    continue
                study = picture.split("/")[0] if "/" in picture else Path(picture).stem
                yield Row(study, study, (ImageFile(path=path),), asked, split)

    images = "chest X-rays" if options == Options() else f"images (body {options.body}, modality {options.modality})"
    yield from streamed("slake", rows(), notes, images)
    if left:
        notes.append("slake: left out " + ", ".join(f"{count:,} {what}" for what, count in left.items()))


def _wanted(options: Options, modality: str, location: str) -> bool:
    made = options.modality == "all" or modality.lower() in MODALITY[options.modality]
    return made and (options.body == "all" or location.lower() in BODY[options.body])


SOURCE = Source("slake", "SLAKE: questions with a published split", find, Options)
