"""SLAKE (Liu et al., ISBI 2021): questions about radiology images in English and Chinese; the English chest X-rays.

``data.root`` is the unpacked ``Slake1.0``: ``train.json``, ``validate.json`` and ``test.json``, and the images as
``imgs/xmlab12/source.jpg``. The published split is by image and is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from radpref.config import DataSection
from radpref.data.rows import stream
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, root_of
from radpref.data.vqa import Row, ask, cell, gather, image, refused
from radpref.records import ImageFile, Quarantined, Split

FILES: dict[str, Split] = {"train.json": "train", "validate.json": "validation", "test.json": "test"}
FOLDERS = ("imgs", "Slake1.0/imgs", ".")
KINDS = {"position": "location", "plane": "view", "kg": "knowledge"}
"""``content_type`` (lower case) to kind, where they differ."""


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All English questions about chest X-rays, a study an image, with the published split. Raises DataError."""
    root = root_of(section)
    files = {root / name: split for name, split in FILES.items() if (root / name).is_file()}
    if not files:
        raise DataError(
            f"data.root {str(root)!r} holds no questions of SLAKE: looked for {', '.join(FILES)}; "
            "give the unpacked folder Slake1.0"
        )
    left: Counter[str] = Counter()

    def rows() -> Iterator[Row | Quarantined]:
        for file, split in files.items():
            for entry in stream(file):
                if entry.cells is None:
                    yield refused(entry, file)
                    continue
                try:
                    if cell(entry.cells, "q_lang").lower() not in ("en", ""):
                        left["in another language"] += 1
                        continue
                    if not _chest_image(cell(entry.cells, "modality"), cell(entry.cells, "location")):
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

    studies, quarantined = gather(rows())
    notes = [f"slake: {sum(len(study.questions) for study in studies):,} questions about {len(studies):,} chest X-rays"]
    if left:
        notes.append("slake: left out " + ", ".join(f"{count:,} {what}" for what, count in left.items()))
    return Found([*quarantined, *studies], notes, split=True)


def _chest_image(modality: str, location: str) -> bool:
    return modality.lower() in ("x-ray", "xray", "x ray") and location.lower() in ("lung", "chest", "")


SOURCE = Source("slake", "SLAKE: questions with published splits", find, NoOptions)
