"""PadChest-GR (de Castro et al., arXiv:2411.05085): frontal images with findings, each a sentence with its boxes.

``data.root`` holds, down to the third folder, ``grounded_reports_*.json``, ``master_table.csv`` (patients and the
published split) and the images by their name. The English sentences of a study, one after the other, are its
reference; boxes go by the finding's label. Sentences without English are left out; a study of nothing else is
quarantined.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data.boxes import box_of, number
from radpref.data.dates import readings, with_priors
from radpref.data.disk import Groups, Lookup
from radpref.data.image_index import ImageIndex
from radpref.data.published import cells_of, find_file, in_place, known, told_broken
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.data.table import SPLIT_NAMES
from radpref.records import Box, ImageFile, Quarantined, Split, Study


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All studies of the reports, in the published split. Raises DataError."""
    root = root_of(section)
    reports, master = find_file(root, "grounded_reports_*.json"), find_file(root, "master_table.csv")
    if reports is None or master is None:
        raise DataError(
            f"data.root {str(root)!r} holds no grounded_reports_*.json with its master_table.csv (patients, split) of "
            "PadChest-GR; give the folder that holds both and the images"
        )
    notes: list[str] = []
    return Found(_studies(root, reports, master, notes), notes, split=True)


def _studies(root: Path, reports: Path, master: Path, notes: list[str]) -> Iterator[Study | Quarantined]:
    images = ImageIndex(root)
    broken: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    with (
        Lookup[dict[str, str]](known(master, ("ImageID", "PatientID", "split"), broken, _facts)) as facts,
        Groups[tuple[tuple[int, int] | None, Study]]() as patients,
    ):
        for row in cells_of(reports):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    name = text_of(cells.get("ImageID"))
                    identifier = text_of(cells.get("StudyID")) or name
                    fact = facts.get(name)
                    if fact is None or not fact["PatientID"]:
                        raise RowError("no patient: the image is not in master_table.csv")
                    split = SPLIT_NAMES.get(fact["split"].lower())
                    if split is None:
                        raise RowError("split unknown: neither train, validation nor test")
                    path = images.only(name)
                    if path is None:
                        raise RowError("image missing: named in the reports, not under data.root")
                    study, problems = _study(identifier, fact["PatientID"], split, path, cells)
            except RowError as error:
                yield in_place(reports, entry, str(error))
                continue
            yield from problems
            counts["studies"] += 1
            counts["boxes"] += sum(map(len, study.images[0].boxes.values()))
            when = readings(fact["StudyDate_DICOM"]).get("day first")
            patients.add(study.patient, (when, study))
        for _, made in patients:
            yield from with_priors(made)
    notes.append(f"padchest-gr: {counts['studies']:,} studies with {counts['boxes']:,} boxes, in English")
    notes += told_broken("padchest-gr", broken)


_FACTS = ("PatientID", "split", "StudyDate_DICOM")


def _facts(cells: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    return text_of(cells["ImageID"]), {name: text_of(cells.get(name)) for name in _FACTS}


def _study(
    identifier: str, patient: str, split: Split, path: str, cells: Mapping[str, Any]
) -> tuple[Study, list[Quarantined]]:
    findings = cells.get("findings")
    if not isinstance(findings, list):
        raise RowError("row broken: findings are no list")
    boxes: dict[str, list[Box]] = defaultdict(list)
    said: list[str] = []
    refused: list[Quarantined] = []
    for place, finding in enumerate(findings, start=1):
        if not isinstance(finding, dict):
            refused.append(quarantine(f"{identifier}#finding-{place}", "finding broken: no JSON object"))
            continue
        try:
            sentence = text_of(finding.get("sentence_en"))
            if not sentence:
                raise RowError("finding without an English sentence")
            said.append(sentence if sentence[-1] in ".!?" else f"{sentence}.")
            labels = [text_of(label).lower() for label in _list(finding.get("labels"))]
            for corners in [*_list(finding.get("boxes")), *_list(finding.get("extra_boxes"))]:
                left, top, right, bottom = map(number, corners if isinstance(corners, list) else ())
                box = box_of(left, top, right, bottom, (1.0, 1.0))
                boxes[next(iter(labels), sentence.lower())].append(box)
        except (RowError, ValueError, TypeError) as error:
            reason = str(error) if isinstance(error, RowError) else "box broken: no four numbers"
            refused.append(quarantine(f"{identifier}#finding-{place}", reason))
    image = ImageFile(path=path, view="frontal", boxes={name: tuple(drawn) for name, drawn in boxes.items()})
    return Study(id=identifier, patient=patient, images=(image,), findings=" ".join(said), split=split), refused


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


SOURCE = Source("padchest-gr", "PadChest-GR: findings as English sentences, with boxes", find, NoOptions)
