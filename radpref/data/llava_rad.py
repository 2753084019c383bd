"""LLaVA-Rad's annotations of MIMIC-CXR (Chaves et al., PhysioNet 2025): findings of each image, in train, dev and test.

``data.root`` holds, down to the third folder, ``chat_{train,dev,test}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json`` and
the images of MIMIC-CXR-JPG below ``files``. A row is an image with its study's findings; rows of one study are
gathered. Where findings were extracted twice, ``data.options.method`` says whose count; else the first do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from radpref.config import DataSection, Section
from radpref.data.gathering import gathered
from radpref.data.published import cells_of, find_file, folders, image_in, in_place, labels_of, parts_missing
from radpref.data.source import DataError, Found, RowError, Source, root_of, row_errors, text_of
from radpref.data.views import view_of
from radpref.records import ImageFile, Quarantined, Split, Study

PARTS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}
_PLACE = re.compile(r"p(\d{8})/s(\d{8})/")


class Options(Section):
    """LLaVA-Rad's."""

    method: str = Field("", description="whose extraction of the findings counts: gpt4, rule-based; empty: any")


def find(section: DataSection, options: Options, cache: Path, seed: int) -> Found:
    """All studies, in the published split. Raises DataError."""
    root = root_of(section)
    files = {split: path for part, split in PARTS.items() if (path := find_file(root, f"chat_{part}_MIMIC_CXR*.json"))}
    if not files:
        raise DataError(
            f"data.root {str(root)!r} holds no annotations of LLaVA-Rad: looked for chat_train_MIMIC_CXR*.json, "
            "chat_dev_MIMIC_CXR*.json and chat_test_MIMIC_CXR*.json"
        )
    named: dict[str, Split] = {f"chat_{part}_MIMIC_CXR*.json": split for part, split in PARTS.items()}
    notes = parts_missing("llava-rad", named, files)
    return Found(_studies(root, files, options, notes), notes, split=True)


def _studies(
    root: Path, files: Mapping[Split, Path], options: Options, notes: list[str]
) -> Iterator[Study | Quarantined]:
    homes = [home / "files" if home.name != "files" else home for home in folders(root, "files/p1[0-9]", "files")]
    counts: Counter[str] = Counter()

    def studies() -> Iterator[Study | Quarantined]:
        for split, path in files.items():
            for row in cells_of(path):
                if isinstance(row, Quarantined):
                    yield row
                    continue
                entry, cells = row
                try:
                    with row_errors():
                        if options.method and text_of(cells.get("generate_method")) != options.method:
                            counts["other"] += 1
                            continue
                        counts["rows"] += 1
                        yield _study(root, homes, cells, split)
                except RowError as error:
                    yield in_place(path, entry, str(error))

    yield from gathered(studies())
    notes.append(f"llava-rad: {counts['rows']:,} rows")
    if counts["other"]:
        notes.append(f"llava-rad: {counts['other']:,} rows of another method than {options.method} left out")


def _study(root: Path, homes: list[Path], cells: Mapping[str, Any], split: Split) -> Study:
    given = text_of(cells.get("image")).removeprefix("mimic/").removeprefix("files/")
    found = _PLACE.search(given)
    if found is None:
        raise RowError("no patient: the image's path is not as in MIMIC-CXR-JPG")
    turns = cells.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not isinstance(turns[1], dict):
        raise RowError("row broken: no conversation of a question and its answer")
    labels = cells.get("chexpert_labels")
    return Study(
        id=f"s{found[2]}",
        patient=f"p{found[1]}",
        images=(ImageFile(path=image_in(root, homes, given), view=view_of(text_of(cells.get("view")))),),
        findings=" ".join(text_of(turns[1].get("value")).split()),
        indication=" ".join(text_of(cells.get("reason")).split()),
        split=split,
        labels=labels_of(labels) if isinstance(labels, dict) else {},
    )


SOURCE = Source("llava-rad", "LLaVA-Rad's findings of MIMIC-CXR", find, Options)
