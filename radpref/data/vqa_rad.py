"""VQA-RAD (Lau et al., Sci Data 2018;5:180251): clinicians' questions about MedPix images, by part of the body.

``data.root`` holds the images in any of ``VQA_RAD Image Folder``, ``images`` or the root itself, and the questions as
``VQA_RAD Dataset Public.json`` (the publication), as ``trainset.json`` and ``testset.json`` (the split in common use)
or as a JSONL file of the same fields, which ``data.file`` may name; or it is the data set of the hub, Parquet files
named ``train-*`` and ``test-*`` with their images inside, where no part of the body is told.

The published split, by question, shares images between train and test. By default it is not used: an image, or the
case that it comes from where the row names that, falls on one side with all of its questions, by hash.
``data.options.split: published`` keeps it, so that accuracies can be set beside published ones; the leak is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from radpref.config import DataSection, Section
from radpref.data.image_cells import images_of
from radpref.data.rows import Entry, kind_of, stream
from radpref.data.source import DataError, Found, RowError, Source, root_of, row_errors
from radpref.data.vqa import Row, ask, cell, image, refused, streamed
from radpref.records import ImageFile, Quarantined, Study

FILES = ("VQA_RAD Dataset Public.json", "VQA_RAD Dataset.json", "trainset.json", "testset.json", "chest_qa.jsonl")
FOLDERS = ("VQA_RAD Image Folder", "images", ".")
BODY = {"chest": "CHEST", "head": "HEAD", "abdomen": "ABD"}
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


class Options(Section):
    """VQA-RAD's."""

    body: Literal["chest", "head", "abdomen", "all"] = Field("chest", description="the images' part of the body")
    split: Literal["image", "published"] = Field(
        "image", description="image: by image, by hash; published: the one that papers report on, which leaks"
    )


def find(section: DataSection, options: Options, cache: Path, seed: int) -> Found:
    """All questions about images of the asked part of the body, a study an image. Raises DataError."""
    root = root_of(section)
    files = _files(root, section.file)
    notes: list[str] = []
    published = options.split == "published"
    return Found(_studies(root, files, options, cache / "images", notes), notes, split=published, leaky=published)


def _studies(
    root: Path, files: list[Path], options: Options, store: Path, notes: list[str]
) -> Iterator[Study | Quarantined]:
    left: Counter[str] = Counter()
    official: dict[str, set[str]] = {"train": set(), "test": set()}

    def rows() -> Iterator[Row | Quarantined]:
        for file in files:
            for entry in stream(file):
                if entry.cells is None:
                    yield refused(entry, file)
                    continue
                try:
                    with row_errors():
                        organ = cell(entry.cells, "image_organ").upper()
                        if options.body != "all" and organ not in (BODY[options.body], ""):
                            left["others"] += 1
                            continue
                        row = _row(root, entry, file, store)
                except RowError as error:
                    yield refused(entry, file, str(error))
                    continue
                part: Literal["train", "test"] = "test" if _published_test(entry.cells, file) else "train"
                official[part].add(row.study)
                if options.split == "published":  # one image may stand in both, as a study of each
                    row = Row(f"{row.study}-{part}", row.patient, row.images, row.asked, part)
                yield row

    yield from streamed("vqa-rad", rows(), notes, "images" if options.body == "all" else f"{options.body} images")
    if left["others"]:
        notes.append(f"vqa-rad: {left['others']:,} questions about other parts of the body left out")
    shared = len(official["train"] & official["test"])
    if shared and options.split == "image":
        notes.append(
            f"vqa-rad: the published split asks about {shared:,} of its {len(official['test']):,} test images in "
            "train as well, so it is not used; images are split instead, with all of their questions"
        )


def _row(root: Path, entry: Entry, file: Path, store: Path) -> Row:
    cells = entry.cells or {}
    names = [name.strip() for name in cell(cells, "question_type").upper().split(",")]
    said = cell(cells, "answer_type").upper()
    asked = ask(
        cells.get("qid", entry.place.replace(" ", "-")),
        cells.get("question"),
        cells.get("answer"),
        kind=KINDS.get(names[0], names[0].lower()),
        closed=said == "CLOSED" if said else None,
    )
    if kind_of(file) == ".parquet":
        images = tuple(images_of(cells.get("image"), (root,), store))
        if len(images) != 1:
            raise RowError("no images: one image a question is expected")
        study = Path(images[0].path).stem
        return Row(study, study, images, asked)
    picture = cell(cells, "image_name")
    study = Path(picture).stem
    path = image(root, FOLDERS, picture)
    return Row(study, cell(cells, "image_case_url") or study, (ImageFile(path=path),), asked)


def _published_test(cells: dict[str, object], file: Path) -> bool:
    """Whether the published split has the row in its test part, in any of the layouts."""
    told = " ".join(str(cells.get(name) or "") for name in ("official_split", "phrase_type"))
    return "test" in told.lower() or file.name == "testset.json" or file.name.startswith("test-")


def _files(root: Path, given: str | None) -> list[Path]:
    if given is not None:
        path = root / given
        if path.is_file():
            return [path]
        raise DataError(f"data.file {given!r} is no file in data.root; VQA-RAD comes as {', '.join(FILES)}")
    there = [root / name for name in FILES if (root / name).is_file()]
    there = there or sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    if not there:
        looked = ", ".join((*FILES, "*.parquet"))
        raise DataError(f"data.root {str(root)!r} holds no questions of VQA-RAD: looked for {looked}")
    published = there[0].name.startswith("VQA_RAD")  # the whole set in one file, which the split ones repeat
    return there[:1] if published else there


SOURCE = Source("vqa-rad", "VQA-RAD: clinicians' questions", find, Options, frozenset({"root", "file"}))
