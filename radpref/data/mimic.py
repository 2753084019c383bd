"""MIMIC-CXR (Johnson et al., Sci Data 2019;6:317) and MIMIC-CXR-JPG (arXiv:1901.07042), as PhysioNet ships them.

In ``data.root``, anywhere down to the third folder:

- images as ``files/p10/p10000032/s50414267/DICOM_ID.jpg`` (``.dcm`` or ``.png`` as well);
- ``mimic-cxr-2.0.0-metadata.csv.gz`` (views, dates), or ``cxr-record-list.csv.gz`` of the DICOM release: then views
  and dates are read from the headers;
- reports as ``files/p10/p10000032/s50414267.txt``, or cut already in ``mimic_cxr_sectioned.csv``;
- where they are there, ``mimic-cxr-2.0.0-split.csv.gz`` (the published split) and ``mimic-cxr-2.0.0-chexpert.csv.gz``.

A study is all of its images; its sections are found by MIT-LCP's rules (``radpref.data.sections``); its prior is the
nearest earlier study of the patient, by date and time, that can be used itself. Files may be packed by gzip or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radpref.config import DataSection
from radpref.data import rows
from radpref.data.dates import readings, with_priors
from radpref.data.disk import Groups, Lookup
from radpref.data.mimic_by_hand import corrected
from radpref.data.published import (
    ReportOptions,
    cells_of,
    digits,
    find_file,
    folders,
    image_in,
    in_place,
    known,
    labels_of,
    reference,
    told_broken,
)
from radpref.data.sections import sections
from radpref.data.source import DataError, Found, RowError, Source, quarantine, root_of, row_errors, text_of
from radpref.data.table import SPLIT_NAMES
from radpref.data.views import view_of
from radpref.records import ImageFile, Quarantined, Split, Study, View

MAX_REPORT = 200_000
"""Bytes of one report; the longest has under 10,000."""
_SECTIONED = ("findings", "impression", "last_paragraph", "comparison")


class _Image(NamedTuple):
    study: str
    dicom: str
    said: str
    """The view, in the table's words."""
    date: str
    time: str


class _Tables(NamedTuple):
    splits: Lookup[Split]
    labels: Lookup[dict[str, int | None]]
    sectioned: Lookup[dict[str, str]]


def find(section: DataSection, options: ReportOptions, cache: Path, seed: int) -> Found:
    """All studies of the tables, in the published split where its table is there. Raises DataError."""
    root = root_of(section)
    records = find_file(root, "mimic-cxr-*-metadata.csv", "cxr-record-list.csv")
    if records is None:
        raise DataError(
            f"data.root {str(root)!r} holds no table of MIMIC-CXR: looked for mimic-cxr-2.0.0-metadata.csv.gz (of "
            "MIMIC-CXR-JPG) and cxr-record-list.csv.gz (of MIMIC-CXR); put one of them beside files/"
        )
    rows.require(records, [("published", name) for name in ("dicom_id", "study_id", "subject_id")])
    split = find_file(root, "mimic-cxr-*-split.csv")
    notes: list[str] = []
    return Found(_studies(root, records, split, options, notes), notes, split=split is not None)


def _studies(
    root: Path, records: Path, split: Path | None, options: ReportOptions, notes: list[str]
) -> Iterator[Study | Quarantined]:
    homes = folders(root, "files/p1[0-9]")
    homes = [home / "files" if home.name != "files" and (home / "files").is_dir() else home for home in homes]
    texts = list(dict.fromkeys([*homes, *(home / "files" for home in folders(root, "files"))]))
    counts: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    labels = find_file(root, "mimic-cxr-*-chexpert.csv")
    sectioned = find_file(root, "mimic_cxr_sectioned.csv")
    with (
        Groups[_Image]() as patients,
        Lookup[Split](known(split, ("dicom_id", "split"), broken, _split)) as splits,
        Lookup[dict[str, int | None]](known(labels, ("subject_id", "study_id"), broken, _labels)) as labelled,
        Lookup[dict[str, str]](known(sectioned, ("study", *_SECTIONED), broken, _cut_already)) as cut,
    ):
        for row in cells_of(records):
            if isinstance(row, Quarantined):
                yield row
                continue
            entry, cells = row
            try:
                with row_errors():
                    words = (text_of(cells.get(name)) for name in ("ViewPosition", "ViewCodeSequence_CodeMeaning"))
                    said = next((word for word in words if word), "")
                    image = _Image(
                        digits(cells, "study_id"),
                        text_of(cells["dicom_id"]),
                        said,
                        text_of(cells.get("StudyDate")),
                        text_of(cells.get("StudyTime")),
                    )
                    patients.add(digits(cells, "subject_id"), image)
                    counts["images"] += 1
            except RowError as error:
                yield in_place(records, entry, str(error))
        tables = _Tables(splits, labelled, cut)
        headers = "ViewPosition" not in rows.columns(records)
        for subject, images in patients:
            made = []
            for number in dict.fromkeys(image.study for image in images):
                here = [image for image in images if image.study == number]
                study, when, refused = _study(root, homes, texts, subject, here, tables, options, headers=headers)
                yield from refused
                if study is not None:
                    made.append((when, study))
            counts["studies"] += len(made)
            yield from with_priors(made)
        found = " ".join(path.name for path in (records, split, labels, sectioned) if path)
        notes.append(f"mimic-cxr: {counts['studies']:,} studies, {counts['images']:,} images in the tables ({found})")
        notes += told_broken("mimic-cxr", broken)
        if split is None:
            notes.append("mimic-cxr: no mimic-cxr-2.0.0-split.csv.gz, so the published split is not used")


def _study(
    root: Path,
    homes: list[Path],
    texts: list[Path],
    subject: str,
    images: list[_Image],
    tables: _Tables,
    options: ReportOptions,
    *,
    headers: bool,
) -> tuple[Study | None, tuple[int, int] | None, list[Quarantined]]:
    """A study, when it was made, and what could not be used; None where nothing is left to use."""
    identifier, refused = f"s{images[0].study}", list[Quarantined]()
    folder = f"p{subject[:2]}/p{subject}"
    shown: list[ImageFile] = []
    date, time = images[0].date, images[0].time
    for number, image in enumerate(images, start=1):
        try:
            path = image_in(root, homes, f"{folder}/{identifier}/{image.dicom}.jpg")
        except RowError as error:
            refused.append(quarantine(f"{identifier}#image-{number}", str(error)))
            continue
        view = view_of(image.said)
        if headers and path.endswith((".dcm", ".dicom")):
            view, date, time = _header(path)
        shown.append(ImageFile(path=path, view=view))
    try:
        with row_errors():
            if not shown:
                raise RowError("image missing: none of the study's images is under data.root")
            found = _report(root, texts, f"{folder}/{identifier}.txt", tables.sectioned.get(identifier))
            text = reference(found, options)
            if not text:
                raise RowError("no findings: the report has no such section; see data.options.without_findings")
            split = tables.splits.get(images[0].dicom)
            if len(tables.splits) and split is None:
                raise RowError("split unknown: the study is not in the table of the split")
    except RowError as error:
        return None, None, [*refused, quarantine(identifier, str(error))]
    study = Study(
        id=identifier,
        patient=f"p{subject}",
        images=tuple(shown),
        findings=text,
        impression=found.get("impression", ""),
        indication=found.get("indication", ""),
        comparison=found.get("comparison", ""),
        split=split or "train",
        labels=tables.labels.get(f"{subject}-{images[0].study}") or {},
    )
    # laterals alone are refused by the gate, so that no study may have them for its prior
    usable = any(image.view != "lateral" for image in shown)
    return study, readings(date, time).get("day first") if usable else None, refused


def _header(path: str) -> tuple[View, str, str]:
    """View, date and time by the DICOM header; unknown where it cannot be read."""
    try:
        import pydicom

        wanted = ["ViewPosition", "StudyDate", "StudyTime"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
        view, date, time = (str(header.get(name) or "") for name in wanted)
    except Exception:  # whatever is wrong with the file, decoding it says so
        return "unknown", "", ""
    return view_of(view), date, time


def _report(root: Path, homes: list[Path], name: str, cut: dict[str, str] | None) -> dict[str, str]:
    """The sections of a report: those that were cut already, else those of its file. Raises RowError."""
    path = next((home / name for home in homes if (home / name).is_file()), None)
    found: dict[str, str] = {}
    if path is not None:
        if not path.resolve().is_relative_to(root):
            raise RowError("path leads out of data.root: the report is a link")
        with path.open("rb") as file:
            content = file.read(MAX_REPORT + 1)
        if len(content) > MAX_REPORT:
            raise RowError(f"report too long: more than {MAX_REPORT:,} bytes")
        text = rows.decoded(content).replace("\r\n", "\n")
        cut_by_rule = sections(text, strict=True)
        found = {key: text_of(said) for key, said in corrected(path.stem, text, cut_by_rule).items()}
    if cut is not None:
        return {**found, "findings": "", "last paragraph": "", "impression": "", **cut}
    if path is None:
        raise RowError("report missing: neither its file nor a row of mimic_cxr_sectioned.csv is under data.root")
    return found


def _split(cells: Mapping[str, Any]) -> tuple[str, Split] | None:
    split = SPLIT_NAMES.get(text_of(cells["split"]).lower())
    return (text_of(cells["dicom_id"]), split) if split else None


def _labels(cells: Mapping[str, Any]) -> tuple[str, dict[str, int | None]]:
    return _key(cells), labels_of(cells)


def _key(cells: Mapping[str, Any]) -> str:
    return "-".join(text_of(cells[name]).removesuffix(".0") for name in ("subject_id", "study_id"))


def _cut_already(cells: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    texts = {name.replace("_", " "): " ".join(text_of(cells[name]).split()) for name in _SECTIONED}
    return text_of(cells["study"]), texts


SOURCE = Source("mimic-cxr", "MIMIC-CXR and MIMIC-CXR-JPG: reports and images, priors, labels", find, ReportOptions)
