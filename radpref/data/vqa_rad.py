"""VQA-RAD (Lau et al., Sci Data 2018;5:180251): clinicians' questions about MedPix images; the chest part of it.

``data.root`` holds the images in any of ``VQA_RAD Image Folder``, ``images`` or the root itself, and the questions as
``VQA_RAD Dataset Public.json`` (the publication), as ``trainset.json`` and ``testset.json`` (the split in common use)
or as a JSONL file of the same fields, which ``data.file`` may name.

The published split, by question, shares images between train and test. It is therefore not used: an image, or the
case that it comes from where the row names that, falls on one side with all of its questions, by hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from radpref.config import DataSection
from radpref.data.rows import stream
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, root_of
from radpref.data.vqa import Row, ask, cell, gather, image, refused
from radpref.records import ImageFile, Quarantined

FILES = ("VQA_RAD Dataset Public.json", "VQA_RAD Dataset.json", "trainset.json", "testset.json", "chest_qa.jsonl")
FOLDERS = ("VQA_RAD Image Folder", "images", ".")
KINDS = {
    "PRES": "presence",
    "ABN": "abnormality",
    "POS": "location",
    "SIZE": "size",
    "MODALITY": "modality",
    "PLANE": "view",
    "ATTRIB": "attribute",
    "ATRIB": "attribute",
    "ORGAN": "organ",
    "COUNT": "count",
    "COLOR": "color",
    "OTHER": "other",
}
"""``question_type`` to kind; of several, the first counts."""


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All questions about chest images, a study an image; splits are left to the gate. Raises DataError."""
    root = root_of(section)
    files = _files(root, section.file)
    others = 0
    official: dict[str, set[str]] = {"train": set(), "test": set()}

    def rows() -> Iterator[Row | Quarantined]:
        nonlocal others
        for file in files:
            for entry in stream(file):
                if entry.cells is None:
                    yield refused(entry, file)
                    continue
                try:
                    if cell(entry.cells, "image_organ").upper() not in ("CHEST", ""):
                        others += 1
                        continue
                    picture = cell(entry.cells, "image_name")
                    names = [name.strip() for name in cell(entry.cells, "question_type").upper().split(",")]
                    asked = ask(
                        entry.cells.get("qid", entry.place.replace(" ", "-")),
                        entry.cells.get("question"),
                        entry.cells.get("answer"),
                        kind=KINDS.get(names[0], names[0].lower()),
                        closed=cell(entry.cells, "answer_type").upper() == "CLOSED",
                    )
                    path = image(root, FOLDERS, picture)
                except RowError as error:
                    yield refused(entry, file, str(error))
                    continue
                official["test" if _published_test(entry.cells, file) else "train"].add(picture)
                case = cell(entry.cells, "image_case_url")
                study = Path(picture).stem
                yield Row(study, case or study, (ImageFile(path=path),), asked)

    studies, quarantined = gather(rows())
    questions = sum(len(study.questions) for study in studies)
    notes = [f"vqa-rad: {questions:,} questions about {len(studies):,} chest images"]
    if others:
        notes.append(f"vqa-rad: {others:,} questions about other parts of the body left out")
    shared = len(official["train"] & official["test"])
    if shared:
        notes.append(
            f"vqa-rad: the published split asks about {shared:,} of its {len(official['test']):,} test images in "
            "train as well, so it is not used; images are split instead, with all of their questions"
        )
    return Found([*quarantined, *studies], notes)


def _published_test(cells: dict[str, object], file: Path) -> bool:
    """Whether the published split has the row in its test part, in any of the three layouts."""
    told = " ".join(str(cells.get(name) or "") for name in ("official_split", "phrase_type"))
    return "test" in told.lower() or file.name == "testset.json"


def _files(root: Path, given: str | None) -> list[Path]:
    if given is not None:
        path = root / given
        if path.is_file():
            return [path]
        raise DataError(f"data.file {given!r} is no file in data.root; VQA-RAD comes as {', '.join(FILES)}")
    there = [root / name for name in FILES if (root / name).is_file()]
    if not there:
        raise DataError(f"data.root {str(root)!r} holds no questions of VQA-RAD: looked for {', '.join(FILES)}")
    published = there[0].name.startswith("VQA_RAD")  # the whole set in one file, which the split ones repeat
    return there[:1] if published else there


SOURCE = Source("vqa-rad", "VQA-RAD: clinicians' questions", find, NoOptions, frozenset({"root", "file"}))
