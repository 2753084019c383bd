"""CheXpert Plus (Chambon et al., arXiv:2405.19538): reports and images of Stanford, a row of the table an image.

``data.root`` holds, down to the third folder, ``df_chexpert_plus_240401.csv`` and images as
``train/patient00001/study1/view1_frontal.jpg`` (or ``.png``, ``.dcm``) below any folder, ``PNG`` for one. The labels of
``findings_fixed.json``, else ``report_fixed.json``, are taken where they lie there. The published split has train and
valid; test is drawn from train. A study's prior is the one before it in ``patient_report_date_order``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radpref.config import DataSection
from radpref.data.boxes import number
from radpref.data.dates import When, with_priors
from radpref.data.disk import Groups, Lookup
from radpref.data.published import (
    ReportOptions,
    cells_of,
    find_file,
    folders,
    image_in,
    in_place,
    known,
    labels_of,
    reference,
    told_broken,
)
from radpref.data.rows import require
from radpref.data.sections import sections
from radpref.data.source import DataError, Found, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.data.table import SPLIT_NAMES
from radpref.data.views import view_of
from radpref.records import ImageFile, Quarantined, Split, Study

COLUMNS = ("path_to_image", "deid_patient_id", "section_findings", "section_impression", "split")


class _Row(NamedTuple):
    study: str
    image: ImageFile
    texts: dict[str, str]
    split: Split
    order: float
    labels: dict[str, int | None]


def find(section: DataSection, options: ReportOptions, cache: Path, seed: int) -> Found:
    """All studies of the table, in the published split. Raises DataError."""
    root = root_of(section)
    path = find_file(root, "df_chexpert_plus_*.csv", "df_chexpert_plus_*.parquet")
    if path is None:
        raise DataError(
            f"data.root {str(root)!r} holds no df_chexpert_plus_240401.csv; give the folder of it and the images"
        )
    require(path, [("published", name) for name in COLUMNS])
    notes: list[str] = []
    return Found(_studies(root, path, options, notes), notes, split=True)


def _studies(root: Path, path: Path, options: ReportOptions, notes: list[str]) -> Iterator[Study | Quarantined]:
    homes = folders(root, "train/patient*", "valid/patient*")
    homes = [home.parent if home.name in ("train", "valid") else home for home in homes]
    labelling = find_file(root, "findings_fixed.json*", "report_fixed.json*")
    broken: Counter[str] = Counter()
    studies = 0
    with (
        Groups[_Row]() as patients,
        Lookup[dict[str, int | None]](known(labelling, ("path_to_image",), broken, _labels)) as labelled,
    ):
        for row in cells_of(path):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    given = text_of(cells["path_to_image"])
                    split = SPLIT_NAMES.get(text_of(cells["split"]).lower())
                    if split is None:
                        raise RowError("split unknown: neither train nor valid")
                    study, _, name = given.removeprefix("train/").removeprefix("valid/").rpartition("/")
                    if not study:
                        raise RowError("no id: the image's path names no study")
                    view = view_of(text_of(cells.get("frontal_lateral")) or name)
                    texts = {
                        "findings": " ".join(text_of(cells["section_findings"]).split()),
                        "impression": " ".join(text_of(cells["section_impression"]).split()),
                        "indication": " ".join(
                            text_of(cells.get("section_clinical_history") or cells.get("section_history")).split()
                        ),
                        "comparison": " ".join(text_of(cells.get("section_comparison")).split()),
                    }
                    if options.without_findings == "last-paragraph" and not texts["findings"]:
                        found = sections(text_of(cells.get("report")))
                        texts["last paragraph"] = found.get("last paragraph", "")
                    image = ImageFile(path=image_in(root, homes, given), view=view)
                    order = number(cells.get("patient_report_date_order"))
                    patient = text_of(cells["deid_patient_id"]) or study.split("/")[0]
                    labels = labelled.get(given) or {}
                    patients.add(patient, _Row(study.replace("/", "-"), image, texts, split, order, labels))
            except RowError as error:
                yield in_place(path, entry, str(error))
        for patient, rows in patients:
            made: list[tuple[When | None, Study]] = []
            for identifier in dict.fromkeys(row.study for row in rows):
                here = [row for row in rows if row.study == identifier]
                text = reference(here[0].texts, options)
                if not text:
                    yield quarantine(identifier, "no findings: the section is empty; see data.options.without_findings")
                    continue
                studies += 1
                made.append((_when(here[0]), _study(identifier, patient, here, text)))
            yield from with_priors(made)
    notes.append(f"chexpert-plus: {studies:,} studies from {path.name}")
    notes += told_broken("chexpert-plus", broken)


def _study(identifier: str, patient: str, rows: list[_Row], text: str) -> Study:
    first = rows[0]
    return Study(
        id=identifier,
        patient=patient,
        images=tuple(row.image for row in rows),
        findings=text,
        impression=first.texts["impression"],
        indication=first.texts["indication"],
        comparison=first.texts["comparison"],
        split=first.split,
        labels=first.labels,
    )


def _when(row: _Row) -> When | None:
    return (int(row.order), 0) if math.isfinite(row.order) else None


def _labels(cells: Mapping[str, Any]) -> tuple[str, dict[str, int | None]]:
    return text_of(cells["path_to_image"]), labels_of(cells)


SOURCE = Source("chexpert-plus", "CheXpert Plus: reports and images of Stanford", find, ReportOptions)
