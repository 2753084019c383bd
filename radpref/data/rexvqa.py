"""ReXVQA (Pal et al., arXiv:2506.04353): questions with options about the studies of ReXGradient-160K.

``data.root`` holds, down to the third folder, ``{train,valid,test}_vqa_data.json`` (a question's id to the question,
its options, the right letter and its explanation) and the images as ``deid_png/...`` says. The options stand below the
question; the answer is the letter with its option, the explanation the rationale. The published split is by patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data.image_index import ImageIndex
from radpref.data.published import cells_of, find_file, folders, image_in, in_place, parts_missing
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, root_of, row_errors, text_of
from radpref.data.views import view_of
from radpref.data.vqa import Row, ask, streamed
from radpref.records import ImageFile, Quarantined, Split

PARTS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All questions, a study a study, in the published split. Raises DataError."""
    root = root_of(section)
    files = {split: path for part, split in PARTS.items() if (path := find_file(root, f"{part}*vqa_data.json"))}
    if not files:
        raise DataError(
            f"data.root {str(root)!r} holds no questions of ReXVQA: looked for train_vqa_data.json, "
            "valid_vqa_data.json and test_vqa_data.json"
        )
    named: dict[str, Split] = {f"{part}_vqa_data.json": split for part, split in PARTS.items()}
    notes = parts_missing("rexvqa", named, files)
    return Found(streamed("rexvqa", _rows(root, files), notes), notes, split=True)


def _rows(root: Path, files: Mapping[Split, Path]) -> Iterator[Row | Quarantined]:
    homes = [root, *folders(root, "deid_png"), root / "images"]
    index: list[ImageIndex] = []
    for split, path in files.items():
        for row in cells_of(path):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    images = []
                    views = cells.get("ImageViewPosition")
                    for place, given in enumerate(_list(cells.get("ImagePath"))):
                        name = re.sub(r"^(?:\.\.?/)+", "", text_of(given))
                        try:
                            image = image_in(root, homes, name)
                        except RowError:
                            index = index or [ImageIndex(root)]
                            image = index[0].only(Path(name).name) or ""
                            if not image:
                                raise
                        said = text_of(views[place]) if isinstance(views, list) and place < len(views) else ""
                        images.append(ImageFile(path=image, view=view_of(said)))
                    if not images:
                        raise RowError("no images: the question names none")
                    study = text_of(cells.get("study_id"))
                    patient = text_of(cells.get("PatientID")) or study
                    if not study:
                        raise RowError("no id: the question names no study")
                    question, answer = _asked(cells)
                    asked = ask(
                        cells.get("", entry.place.replace(" ", "-")),
                        question,
                        answer,
                        kind=text_of(cells.get("task_name")).lower(),
                        closed=True,
                    )
                    asked = asked.model_copy(update={"rationale": text_of(cells.get("correct_answer_explanation"))})
                    yield Row(study, patient, tuple(images), asked, split)
            except RowError as error:
                yield in_place(path, entry, str(error))


def _asked(cells: Mapping[str, Any]) -> tuple[str, str]:
    """The question with its options, and the option of the right letter."""
    options = [text_of(option) for option in _list(cells.get("options"))]
    letter = text_of(cells.get("correct_answer"))
    right = (
        next((option for option in options if re.match(rf"{re.escape(letter[:1])}\b", option)), letter)
        if letter
        else ""
    )
    if options and right not in options:
        raise RowError("no answer: the letter is none of the options")
    return " ".join([text_of(cells.get("question")), *options]), right


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


SOURCE = Source("rexvqa", "ReXVQA: questions with options about ReXGradient's studies", find, NoOptions)
