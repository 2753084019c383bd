"""ReXrank's files (Zhang et al., arXiv:2411.15122): the studies that its leaderboard asks about, and what it is handed.

``data.file`` names a JSON file of the leaderboard (``ReXRank_MIMICCXR_test.json`` and its kin: a study's id to its
images, texts and context); alone in ``data.root`` it is found. Images lie below the root, in any folder, as the file
says. ``submission`` writes the same file with a model's reports in it, which ReXrank's scripts score.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data.image_index import ImageIndex
from radpref.data.published import DEPTHS, find_file, folders, image_in
from radpref.data.rows import json_items
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.data.table import SPLIT_NAMES
from radpref.data.views import view_of
from radpref.files import write_atomically
from radpref.records import ImageFile, Quarantined, Study

PREDICTION = "model_prediction"
"""The key that holds a model's report."""
_HOMES = ("files/p1[0-9]", "p1[0-9]", "valid", "train", "images", "deid_png")
_ASKED = "Indication|Comparison|Age|Gender"
_CONTEXT = re.compile(rf"({_ASKED}):\s*(.*?)\s*(?=(?:{_ASKED}):|$)", re.DOTALL)
_PATIENT = re.compile(r"(?:^|[/_])(p\d{8}|patient\d+)(?=[/_]|$)")


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All studies of the file. Where it names a split, that is used. Raises DataError."""
    root = root_of(section)
    path = root / section.file if section.file else find_file(root, "ReXRank_*.json", "ReXrank_*.json", "rexrank*.json")
    if path is None or not path.is_file():
        raise DataError(f"data.root {str(root)!r} holds no ReXRank_*.json; name the file with data.file")
    notes: list[str] = []
    return Found(_studies(root, path, notes), notes, split=_has_split(path))


def _has_split(path: Path) -> bool:
    """Whether the studies of the file name splits, by its first one."""
    _, first = next(json_items(path), ("", {}))
    return isinstance(first, dict) and str(first.get("split", "")).lower() in SPLIT_NAMES


def _studies(root: Path, path: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    homes = [root, *folders(root, *_HOMES), *(home / "files" for home in folders(root, "files")), root / "images"]
    homes += [home for depth in DEPTHS[1:2] for home in sorted(root.glob(depth)) if home.is_dir()]
    index: list[ImageIndex] = []
    counts: Counter[str] = Counter()
    whole = _has_split(path)
    for key, row in json_items(path):
        counts["rows"] += 1
        try:
            with row_errors():
                if not isinstance(row, dict):
                    raise RowError("row broken: no JSON object")
                identifier = key if key is not None else text_of(row.get("study_id") or row.get("id"))
                images = []
                for given in _named(row):
                    try:
                        images.append(ImageFile(path=image_in(root, homes, given), view=view_of(Path(given).stem)))
                    except RowError:
                        index = index or [ImageIndex(root)]
                        found = index[0].only(Path(given).name)
                        if found is None:
                            raise
                        images.append(ImageFile(path=found, view=view_of(Path(given).stem)))
                split = SPLIT_NAMES.get(text_of(row.get("split")).lower()) if whole else "train"
                if split is None:
                    raise RowError("split unknown: neither train, validation nor test")
                context = dict(_CONTEXT.findall(re.sub(r"</?context>", "", _first(row, "context", "Context"))))
                yield Study(
                    id=identifier,
                    patient=_patient(identifier, row),
                    images=tuple(images),
                    findings=" ".join(_first(row, "findings", "section_findings", "Findings").split()),
                    impression=" ".join(_first(row, "impression", "section_impression", "Impression").split()),
                    indication=_first(row, "indication", "Indication") or context.get("Indication", ""),
                    comparison=_first(row, "comparison", "Comparison") or context.get("Comparison", ""),
                    split=split,
                )
        except RowError as error:
            yield quarantine(f"{path.name} row {counts['rows']}", str(error))
    notes.append(f"rexrank: {counts['rows']:,} studies of {path.name}")


def _named(row: Mapping[str, Any]) -> list[str]:
    """The images of a study: paths, or DICOM ids in a folder."""
    given = row.get("image_path") or row.get("images") or row.get("ImagePath")
    if given is None:
        folder = text_of(row.get("img_root_dir")).strip("/")
        given = row.get("dicom_id") or []
        ids = given if isinstance(given, list) else [given]
        return [f"{folder}/{text_of(one)}.jpg" for one in ids]
    return [re.sub(r"^(?:\.\./)+", "", text_of(one)) for one in (given if isinstance(given, list) else [given])]


def _patient(identifier: str, row: Mapping[str, Any]) -> str:
    said = _first(row, "subject_id", "PatientID", "patient_id")
    if said:
        return f"p{said}" if said.isdigit() else said
    found = _PATIENT.search(identifier) or next((one for given in _named(row) if (one := _PATIENT.search(given))), None)
    return found[1] if found else identifier


def _first(row: Mapping[str, Any], *names: str) -> str:
    return next((text for name in names if (text := text_of(row.get(name)))), "")


def submission(asked: Path, answers: Mapping[str, str], out: Path) -> int:
    """Write the leaderboard's file with a report for every study in it; returns how many.

    ``asked``: the file that was read; ``answers``: a study's id to the model's report.
    Raises DataError: a study without an answer (the leaderboard scores all of them), a file that is none of ReXrank's.
    """
    studies: dict[str, Any] = {}
    lacking = 0
    for key, row in json_items(asked):
        if key is None or not isinstance(row, dict):
            raise DataError(f"{asked.name} is no file of ReXrank: a mapping of study ids to studies is expected")
        lacking += key not in answers
        studies[key] = {**row, PREDICTION: answers.get(key, "")}
    if lacking:
        raise DataError(
            f"{lacking:,} of {len(studies):,} studies of {asked.name} have no answer; answer all of them, those in "
            "quarantine as well, or the scores are not comparable"
        )
    write_atomically(out, json.dumps(studies, ensure_ascii=False, indent=1))
    return len(studies)


SOURCE = Source(
    "rexrank", "ReXrank's leaderboard files, read and written", find, NoOptions, frozenset({"root", "file"})
)
