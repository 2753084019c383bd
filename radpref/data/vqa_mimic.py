"""Questions about images of MIMIC-CXR-JPG: MIMIC-CXR-VQA, MIMIC-Diff-VQA (Medical-Diff-VQA) and Medical-CXR-VQA.

In ``data.root``, anywhere down to the third folder, lie the images as MIMIC-CXR-JPG has them
(``files/p10/p10000032/s50414267/DICOM.jpg``) and the questions as they are published:

- ``mimic-cxr-vqa`` (Bae et al., EHRXQA, NeurIPS 2023): ``train.json``, ``valid.json``, ``test.json`` with answers.
- ``mimic-diff-vqa`` (Hu et al., KDD 2023): ``mimic_pair_questions.csv``; a row names a study and, for a difference,
  the earlier study that it is compared with. Such a pair is a study of its own, with both images, the current first.
- ``medical-cxr-vqa`` (Hu et al., Med Image Anal 2024): ``medical-cxr-vqa-questions.csv``.

The CSV files name no image: ``mimic_all.csv`` of MIMIC-Diff-VQA (``study_id``, ``dicom_id``, ``view``, ``split``)
does, and without it the study's only image is taken. Their splits are those of a ``split`` column, else of
``mimic_all.csv``, else patients are split by hash. Where a data set's own splits share a patient, reading it fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from radpref.config import DataSection
from radpref.data.published import digits
from radpref.data.rows import columns, require, stream
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, inside, root_of, row_errors
from radpref.data.table import SPLIT_NAMES
from radpref.data.views import view_of
from radpref.data.vqa import Row, ask, cell, refused, streamed
from radpref.records import ImageFile, Quarantined, Split, View

_DEPTHS = ("", "*/", "*/*/", "*/*/*/")
_NUMBER = re.compile(r"\d+")


def find_cxr_vqa(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """MIMIC-CXR-VQA: a study an image, with the published split. Raises DataError."""
    root = root_of(section)
    names: dict[str, Split] = {"train.json": "train", "valid.json": "validation", "test.json": "test"}
    found = {path: split for name, split in names.items() if (path := _find(root, name)) is not None}
    if not found:
        raise DataError(
            f"data.root {str(root)!r} holds no questions of MIMIC-CXR-VQA: looked for {', '.join(names)}, which its "
            "build script writes (the files that begin with _ have no answers)"
        )
    images = _Images(root, {})

    def rows() -> Iterator[Row | Quarantined]:
        for file, split in found.items():
            for entry in stream(file):
                if entry.cells is None:
                    yield refused(entry, file)
                    continue
                try:
                    with row_errors():
                        cells = entry.cells
                        if "answer" not in cells:
                            raise RowError("no answer: the release without answers; run its build script")
                        content, semantic = cell(cells, "content_type"), cell(cells, "semantic_type")
                        asked = ask(
                            f"{split}-{cell(cells, 'idx')}",
                            cells.get("question"),
                            cells.get("answer"),
                            kind={"plane": "view"}.get(content, content),
                            closed=semantic in ("verify", "choose"),
                        )
                        path = images.at(cell(cells, "image_path"))
                        subject = digits(cells, "subject_id")
                except RowError as error:
                    yield refused(entry, file, str(error))
                    continue
                yield Row(Path(path).stem, f"p{subject}", (ImageFile(path=path),), asked, split)

    notes: list[str] = []
    return Found(streamed("mimic-cxr-vqa", rows(), notes, "images"), notes, split=True)


def find_diff_vqa(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """MIMIC-Diff-VQA: a study an image, and one more for each pair that is compared. Raises DataError."""
    return _from_csv("mimic-diff-vqa", ("mimic_pair_questions.csv",), section)


def find_medical_cxr_vqa(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """Medical-CXR-VQA: a study an image. Raises DataError."""
    return _from_csv("medical-cxr-vqa", ("medical-cxr-vqa-questions.csv", "mimic_llm_questions.csv"), section)


def _from_csv(name: str, files: tuple[str, ...], section: DataSection) -> Found:
    root = root_of(section)
    wanted = (section.file,) if section.file is not None else files
    file = next((path for one in wanted if (path := _find(root, one)) is not None), None)
    if file is None:
        raise DataError(f"data.root {str(root)!r} holds no questions of {name}: looked for {', '.join(wanted)}")
    require(file, [(column, column) for column in ("study_id", "subject_id", "question_type", "question", "answer")])
    studies = _study_table(root)
    images = _Images(root, studies)
    notes: list[str] = []

    def rows() -> Iterator[Row | Quarantined]:
        for number, entry in enumerate(stream(file), 1):
            if entry.cells is None:
                yield refused(entry, file)
                continue
            try:
                with row_errors():
                    cells = entry.cells
                    subject, study = digits(cells, "subject_id"), digits(cells, "study_id")
                    kind = cell(cells, "question_type").lower()
                    compared = kind == "difference"
                    shown = [images.of(subject, study)]
                    key = f"s{study}"
                    if compared:
                        earlier = digits(cells, "ref_id")
                        shown.append(images.of(subject, earlier))
                        key = f"s{study}-s{earlier}"
                    asked = ask(
                        number,
                        cells.get("question"),
                        cells.get("answer"),
                        kind={"level": "severity"}.get(kind, kind),
                        task="comparison" if compared else "basic",
                    )
                    said = cell(cells, "split") or (studies[study].split if study in studies else "")
                    split: Split | None = SPLIT_NAMES.get(said.lower()) if said else "train"
                    if split is None:
                        raise RowError(f"split unknown: the cell is none of {', '.join(SPLIT_NAMES)}")
            except RowError as error:
                yield refused(entry, file, str(error))
                continue
            yield Row(key, f"p{subject}", tuple(shown), asked, split)

    split = _split_everywhere(file, studies)
    return Found(streamed(name, rows(), notes, "images or pairs"), notes, split=split)


def _split_everywhere(file: Path, studies: Mapping[str, _Listed]) -> bool:
    """Whether a split is known of every question: in its row, else by ``mimic_all.csv``."""
    if "split" not in columns(file) and not any(listed.split for listed in studies.values()):
        return False
    for entry in stream(file):
        cells = entry.cells or {}
        found = _NUMBER.search(cell(cells, "study_id")) if cells else None
        if found and not (cell(cells, "split") or (studies[found[0]].split if found[0] in studies else "")):
            return False
    return True


@dataclass(frozen=True)
class _Listed:
    """What ``mimic_all.csv`` says of a study."""

    dicom: str
    view: View
    split: str


def _study_table(root: Path) -> Mapping[str, _Listed]:
    """``mimic_all.csv`` by study number; empty where it is not there."""
    file = _find(root, "mimic_all.csv")
    if file is None:
        return {}
    require(file, [("study_id", "study_id"), ("dicom_id", "dicom_id")])
    listed: dict[str, _Listed] = {}
    for entry in stream(file):
        if entry.cells and (number := _NUMBER.match(cell(entry.cells, "study_id"))):
            view = view_of(cell(entry.cells, "view"))
            listed[number[0]] = _Listed(cell(entry.cells, "dicom_id"), view, cell(entry.cells, "split"))
    return listed


class _Images:
    """Where an image of MIMIC-CXR-JPG lies under the root."""

    def __init__(self, root: Path, studies: Mapping[str, _Listed]) -> None:
        self._root, self._studies = root, studies
        self._home = next((path for depth in _DEPTHS for path in sorted(root.glob(f"{depth}files"))), root)

    def at(self, given: str) -> str:
        """The image of a path like ``p10/p10000032/s50414267/DICOM.jpg``. Raises RowError."""
        path = inside(self._root, str(self._home / given.removeprefix("files/")))
        if not path.is_file():
            raise RowError("image missing: named in the row, not under data.root")
        return str(path)

    def of(self, subject: str, study: str) -> ImageFile:
        """The image of a study: the one that ``mimic_all.csv`` names, else its only one. Raises RowError."""
        folder = f"p{subject[:2]}/p{subject}/s{study}"
        listed = self._studies.get(study)
        if listed is not None:
            return ImageFile(path=self.at(f"{folder}/{listed.dicom}.jpg"), view=listed.view)
        images = sorted((self._home / folder).glob("*.jpg"))
        if len(images) == 1:
            return ImageFile(path=self.at(f"{folder}/{images[0].name}"))
        if images:
            raise RowError("image not named: the study has several; put mimic_all.csv into data.root")
        raise RowError("image missing: no image of the study under data.root")


def _find(root: Path, name: str) -> Path | None:
    """A file of that name in the root or down to its third folder."""
    return next((path for depth in _DEPTHS for path in sorted(root.glob(f"{depth}{name}")) if path.is_file()), None)


SOURCES = (
    Source("mimic-cxr-vqa", "MIMIC-CXR-VQA: questions about images of MIMIC-CXR-JPG", find_cxr_vqa, NoOptions),
    Source(
        "mimic-diff-vqa",
        "MIMIC-Diff-VQA: questions about studies and their priors",
        find_diff_vqa,
        NoOptions,
        frozenset({"root", "file"}),
    ),
    Source(
        "medical-cxr-vqa",
        "Medical-CXR-VQA: questions about studies of MIMIC-CXR",
        find_medical_cxr_vqa,
        NoOptions,
        frozenset({"root", "file"}),
    ),
)
