"""Open-i, the Indiana University chest X-ray collection (Demner-Fushman et al., JAMIA 2016;23(2):304).

``data.root`` alone is enough. Reports are found in it as ``reports.jsonl`` (one row a report, with the images' true
size and projection), as ``NLMCXR_reports.tgz``, or as the XML files of that archive in any folder; ``data.file``
names one of them where there are several. Images are found anywhere under the root by their name: the published
``CXR1_1_IM-0001-3001.png`` or ``.jpg``, or ``1_IM-0001-3001.dcm.png`` (or ``.jpg``, ``.dcm``) of its conversions.
``indiana_projections.csv``, where it lies in the root, tells frontal from lateral for the XML layout.

Every report of the collection is of another patient as far as is known, so a report's uid is the patient.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from radpref.config import DataSection
from radpref.data.source import DataError, Found, NoOptions, RowError, Source, quarantine, root_of, text_of
from radpref.records import ImageFile, Quarantined, Study, View

MAX_XML = 1_000_000
"""Bytes of one report; the largest of the collection has 30,000."""
_ARCHIVES = (".tgz", ".tar.gz", ".tar")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")  # the first is taken where an image lies there twice
_SECTIONS = ("findings", "impression", "indication", "comparison")


def find(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """All reports under ``data.root`` with their images; splits are left to the gate. Raises DataError."""
    root = root_of(section)
    reports = _reports(root, section.file)
    images = _images(root)
    if not images:
        raise DataError(
            f"data.root {str(root)!r} holds no image of Open-i (CXR1_1_IM-0001-3001.png and the like); "
            "put NLMCXR_png, or a folder of its JPEGs, inside it (a link that leads out of it is not followed)"
        )
    studies: list[Study] = []
    quarantined: list[Quarantined] = []
    missing = 0
    projections = {} if reports.suffix == ".jsonl" else _projections(root)
    rows = _from_jsonl(reports) if reports.suffix == ".jsonl" else _from_xml(reports)
    for row in rows:
        if isinstance(row, Quarantined):
            quarantined.append(row)
            continue
        identifier = f"CXR{row['uid']}"
        here: list[ImageFile] = []
        for number, picture in enumerate(row["images"], start=1):
            key = _key(str(picture.get("file") or picture.get("xml_id") or ""))
            if key not in images:
                missing += 1
                quarantined.append(
                    quarantine(
                        f"{identifier}#image-{number}", "image missing: named in the report, not under data.root"
                    )
                )
                continue
            view = _view(picture) if "projection" in picture else projections.get(key, "unknown")
            here.append(ImageFile(path=str(images[key]), view=view, rows=picture.get("rows"), cols=picture.get("cols")))
        try:
            texts = {name: text_of(row.get(name)) for name in _SECTIONS}
        except RowError as error:
            quarantined.append(quarantine(identifier, str(error)))
            continue
        labels = row.get("chexpert_labeler_on_findings") or {}
        studies.append(Study(id=identifier, patient=identifier, images=tuple(here), labels=labels, **texts))
    notes = [f"openi: {len(studies):,} reports from {reports.name}, {len(images):,} images"]
    if studies and all(image.view == "unknown" for study in studies for image in study.images):
        notes.append("openi: views unknown; put indiana_projections.csv into data.root to show the frontal image first")
    return Found([*quarantined, *studies], notes)


def _reports(root: Path, given: str | None) -> Path:
    """The file or folder of reports: ``given``, or what is found in the root. Raises DataError."""
    if given is not None:
        path = (root / given).expanduser()
        if path.is_dir() or (path.is_file() and path.name.endswith((".jsonl", *_ARCHIVES))):
            return path
        raise DataError(
            f"data.file {given!r} is no folder, .jsonl or {', '.join(_ARCHIVES)} under data.root; "
            "leave it out to have the reports looked for"
        )
    if (root / "reports.jsonl").is_file():
        return root / "reports.jsonl"
    archives = sorted(
        path for path in root.iterdir() if path.name.endswith(_ARCHIVES) and "report" in path.name.lower()
    )
    if archives:
        return archives[0]
    if next(root.rglob("*.xml"), None) is not None:
        return root
    raise DataError(
        f"data.root {str(root)!r} holds no reports of Open-i: looked for reports.jsonl, NLMCXR_reports.tgz and "
        "*.xml; name them with data.file"
    )


def _images(root: Path) -> dict[str, Path]:
    """Every image under the root, by its key. Links that lead out of the root are left out."""
    images: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if not name.lower().endswith(_SUFFIXES) or "IM-" not in name:
                continue
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            old = images.get(_key(name))
            if old is None or _rank(path) < _rank(old):
                images[_key(name)] = path
    return images


def _rank(path: Path) -> int:
    return _SUFFIXES.index(path.suffix.lower())


def _key(name: str) -> str:
    """``CXR1_1_IM-0001-3001`` of the XML, its file and ``1_IM-0001-3001.dcm.jpg`` have one key."""
    while name.lower().endswith(_SUFFIXES):
        name = name[: name.rindex(".")]
    return re.sub(r"^(?:CXR)?(\d+)(?:_\d+)?_IM", r"\1_IM", name)


def _view(image: dict[str, Any]) -> View:
    """Frontal or lateral by the projection that was given by hand, else by the DICOM view position."""
    said = str(image.get("projection") or image.get("view") or "").lower()
    if said in ("frontal", "pa", "ap"):
        return "frontal"
    return "lateral" if said in ("ll", "rl") or "lateral" in said else "unknown"


def _projections(root: Path) -> dict[str, View]:
    """``indiana_projections.csv`` (uid, filename, projection) where it lies under the root."""
    path = next(root.rglob("indiana_projections.csv"), None)
    if path is None:
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {_key(row["filename"]): _view(row) for row in csv.DictReader(file) if row.get("filename")}


def _from_jsonl(path: Path) -> Iterator[dict[str, Any] | Quarantined]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield {**row, "uid": str(row["uid"]), "images": list(row["images"])}
        except (ValueError, KeyError, TypeError):
            yield quarantine(f"line {number}", "row broken: no JSON object with uid and images")


def _from_xml(path: Path) -> Iterator[dict[str, Any] | Quarantined]:
    for name, content in _archive(path) if path.is_file() else _folder(path):
        try:
            if len(content) > MAX_XML:
                raise RowError(f"XML too large: more than {MAX_XML:,} bytes")
            yield _parse(ElementTree.fromstring(content))
        except (ParseError, DefusedXmlException, ValueError) as error:
            reason = str(error) if isinstance(error, RowError) else f"XML broken: {type(error).__name__}"
            yield quarantine(Path(name).name, reason)


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*.xml")):
        if file.resolve().is_relative_to(path.resolve()):
            with file.open("rb") as stream:
                yield file.name, stream.read(MAX_XML + 1)


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """The XML files of the archive, read in memory; nothing is unpacked."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".xml"):
                    stream = archive.extractfile(member)
                    yield member.name, stream.read(MAX_XML + 1) if stream else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be read to its end ({type(error).__name__}); download it again") from error


def _parse(report: Element) -> dict[str, Any]:
    identity = report.find("uId")
    uid = "" if identity is None else identity.get("id", "")
    if not uid.startswith("CXR"):
        raise RowError("XML of another kind: no uId that starts with CXR")
    texts: dict[str, str] = dict.fromkeys(_SECTIONS, "")
    for part in report.iter("AbstractText"):
        label = str(part.get("Label")).lower()
        if label in texts:
            texts[label] = f"{texts[label]}\n{''.join(part.itertext())}".strip()
    images = [{"xml_id": image.get("id", "")} for image in report.iter("parentImage")]
    return {"uid": uid.removeprefix("CXR"), "images": images, **texts}


SOURCE = Source(
    "openi",
    "Open-i, the Indiana University collection: reports and images",
    find,
    NoOptions,
    frozenset({"root", "file"}),
)
