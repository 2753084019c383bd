"""Open-i, the Indiana University chest X-ray collection (Demner-Fushman et al., JAMIA 2016;23(2):304).

``data.root`` alone is enough. Reports are found in it as ``reports.jsonl`` (one row a report, with the images' true
size and projection), as ``NLMCXR_reports.tgz``, as the XML files of that archive in any folder, as Kaggle's
``indiana_reports.csv`` (with ``indiana_projections.csv``), or as R2Gen's ``annotation.json``, whose split is then used;
``data.file`` names one of them where there are several. Images are found anywhere under the root by their name: the
published ``CXR1_1_IM-0001-3001.png`` or ``.jpg``, or ``1_IM-0001-3001.dcm.png`` (or ``.jpg``, ``.dcm``) of its
conversions.
``indiana_projections.csv``, where it lies in the root, tells frontal from lateral for the XML layout.

Every report of the collection is of another patient as far as is known, so a report's uid is the patient.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, cast
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from pydantic import Field

from radpref.config import DataSection, Section
from radpref.data import r2gen
from radpref.data.image_index import ImageIndex
from radpref.data.nih import NAMES
from radpref.data.published import find_file, known, told_broken
from radpref.data.rows import kind_of, require, stream
from radpref.data.source import (
    DataError,
    Found,
    RowError,
    Source,
    quarantine,
    root_of,
    row_errors,
    text_of,
)
from radpref.errors import RadprefError
from radpref.findings.labelled import NO_FINDING
from radpref.outside import Pieces
from radpref.records import ImageFile, Quarantined, Study, View

MANUAL = "negbio_gold14"
"""Where a row of ``reports.jsonl`` has the labels by hand (Peng et al., NegBio, AMIA 2018), in ChestX-ray14's names."""
_POSITIVE_ONLY = ("Infiltration",)
"""An infiltrate is an opacity, but the coding has opacities of other names, which this label does not tell of."""
_BY_HAND = {name: said for name, said in NAMES.items() if name != "Hernia"} | {"normal": NO_FINDING}
"""Labels by hand to findings. Hernias were not looked for: the label is 0 even where the report states one."""
MAX_XML = 1_000_000
"""Bytes of one report; the largest of the collection has 30,000."""
_ARCHIVES = (".tgz", ".tar.gz", ".tar")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")  # the first is taken where an image lies there twice
_SECTIONS = ("findings", "impression", "indication", "comparison")


class Options(Section):
    """Open-i's."""

    labels: Literal["chexpert", "manual"] = Field(
        "chexpert",
        description="chexpert: what the CheXpert labeler reads in the findings; manual: findings from the "
        "collection's MeSH coding by hand, as NegBio published them",
    )


def find(section: DataSection, options: Options, cache: Path, seed: int) -> Found:
    """All reports under ``data.root`` with their images; splits are left to the gate, but for R2Gen's file.

    Raises DataError.
    """
    root = root_of(section)
    reports = _reports(root, section.file)
    if options.labels == "manual" and reports.suffix != ".jsonl":
        raise DataError(
            f"data.options.labels is manual, and {reports.name} has no labels; a reports.jsonl whose rows have "
            f"{MANUAL!r} does"
        )
    if reports.suffix == ".json":
        return r2gen.read(root, reports)
    images = ImageIndex(root, _key, lambda name: "IM-" in name, _SUFFIXES)
    if not len(images):
        raise DataError(
            f"data.root {str(root)!r} holds no image of Open-i (CXR1_1_IM-0001-3001.png and the like); "
            "put NLMCXR_png, or a folder of its JPEGs, inside it (a link that leads out of it is not followed)"
        )
    notes: list[str] = []
    return Found(_studies(root, reports, images, options, notes), notes)


def _studies(
    root: Path, reports: Path, images: ImageIndex, options: Options, notes: list[str]
) -> Iterator[Study | Quarantined]:
    broken: Counter[str] = Counter()
    projections = {} if reports.suffix == ".jsonl" else _projections(root, broken)
    listed = _of_uid(projections) if kind_of(reports) == ".csv" else {}
    if kind_of(reports) == ".csv" and not listed:
        raise DataError(
            f"{reports.name} names no images; Kaggle's indiana_projections.csv does, and is not under data.root"
        )
    count = 0
    seen = labelled = False
    for row in _rows(reports, listed):
        if isinstance(row, Quarantined):
            yield row
            continue
        identifier = f"CXR{row['uid']}"
        try:
            with row_errors():
                study, refused = _study(identifier, row, images, projections, options)
        except RowError as error:
            yield quarantine(identifier[:200], str(error))
            continue
        yield from refused
        count += 1
        seen = seen or any(image.view != "unknown" for image in study.images)
        labelled = labelled or bool(study.labels)
        yield study
    if options.labels == "manual" and not labelled:
        raise DataError(
            f"data.options.labels is manual, and no row of {reports.name} has labels under {MANUAL!r}; add them, or "
            "leave the option out"
        )
    notes.append(f"openi: {count:,} reports from {reports.name}, {len(images):,} images")
    if count and not seen:
        notes.append("openi: views unknown; put indiana_projections.csv into data.root to show the frontal image first")
    notes += told_broken("openi", broken)


def _study(
    identifier: str, row: dict[str, Any], images: ImageIndex, projections: dict[str, View], options: Options
) -> tuple[Study, list[Quarantined]]:
    here: list[ImageFile] = []
    refused: list[Quarantined] = []
    for number, picture in enumerate(row["images"], start=1):
        key = _key(str(picture.get("file") or picture.get("xml_id") or ""))
        path = images.get(key)
        if path is None:
            reason = "image missing: named in the report, not under data.root"
            refused.append(quarantine(f"{identifier}#image-{number}"[:200], reason))
            continue
        view = _view(picture) if "projection" in picture else projections.get(key, "unknown")
        here.append(ImageFile(path=path, view=view, rows=picture.get("rows"), cols=picture.get("cols")))
    texts = {name: text_of(row.get(name)) for name in _SECTIONS}
    labels = _manual(row) if options.labels == "manual" else row.get("chexpert_labeler_on_findings") or {}
    return Study(id=identifier, patient=identifier, images=tuple(here), labels=labels, **texts), refused


def _manual(row: Mapping[str, Any]) -> dict[str, int | None]:
    """The labels by hand, in the words of the lexicon; a row without has none."""
    given = row.get(MANUAL) or {}
    return {
        name: given[label] for label, name in _BY_HAND.items() if given.get(label) is not None
        if given[label] or label not in _POSITIVE_ONLY
    }  # fmt: skip


def _reports(root: Path, given: str | None) -> Path:
    """The file or folder of reports: ``given``, or what is found in the root. Raises DataError."""
    if given is not None:
        path = (root / given).expanduser()
        if path.is_dir() or (path.is_file() and path.name.endswith((".jsonl", ".csv", ".json", *_ARCHIVES))):
            return path
        raise DataError(
            f"data.file {given!r} is no folder, .jsonl, .csv, .json or {', '.join(_ARCHIVES)} under data.root; "
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
    found = find_file(root, "indiana_reports.csv") or find_file(root, "annotation.json")
    if found is not None:
        return found
    raise DataError(
        f"data.root {str(root)!r} holds no reports of Open-i: looked for reports.jsonl, NLMCXR_reports.tgz, *.xml, "
        "indiana_reports.csv (Kaggle) and annotation.json (R2Gen); name them with data.file"
    )


def _key(name: str) -> str:
    """``CXR1_1_IM-0001-3001`` of the XML, its file and ``1_IM-0001-3001.dcm.jpg`` have one key."""
    while name.lower().endswith(_SUFFIXES):
        name = name[: name.rindex(".")]
    return re.sub(r"^(?:CXR)?(\d+)(?:_\d+)?_IM", r"\1_IM", name)


def _view(image: Mapping[str, Any]) -> View:
    """Frontal or lateral by the projection that was given by hand, else by the DICOM view position."""
    said = str(image.get("projection") or image.get("view") or "").lower()
    if said in ("frontal", "pa", "ap"):
        return "frontal"
    return "lateral" if said in ("ll", "rl") or "lateral" in said else "unknown"


def _projections(root: Path, broken: Counter[str]) -> dict[str, View]:
    """``indiana_projections.csv`` (uid, filename, projection) where it lies under the root: the key of an image's name
    to its view. The collection has under 8,000 images."""
    path = next((path for name in ("", ".gz") for path in root.rglob(f"indiana_projections.csv{name}")), None)
    return dict(known(path, ("filename", "projection"), broken, _projection))


def _projection(cells: Mapping[str, Any]) -> tuple[str, View]:
    return _key(text_of(cells["filename"])), _view(cells)


def _of_uid(projections: dict[str, View]) -> dict[str, list[str]]:
    """A report's uid to the keys of its images, which begin with it."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in projections:
        found[key.split("_")[0]].append(key)
    return found


def _rows(reports: Path, listed: dict[str, list[str]]) -> Iterator[dict[str, Any] | Quarantined]:
    """The reports, whatever they lie in."""
    if reports.suffix == ".jsonl":
        return _from_jsonl(reports)
    return _from_kaggle(reports, listed) if kind_of(reports) == ".csv" else _from_xml(reports)


def _from_jsonl(path: Path) -> Iterator[dict[str, Any] | Quarantined]:
    for entry in stream(path):
        row = entry.cells or {}
        if isinstance(row.get("images"), list) and all(isinstance(one, dict) for one in row["images"]) and "uid" in row:
            yield {**row, "uid": str(row["uid"])}
        else:
            yield quarantine(entry.place, "row broken: no JSON object with uid and images")


def _from_kaggle(path: Path, listed: dict[str, list[str]]) -> Iterator[dict[str, Any] | Quarantined]:
    """``indiana_reports.csv``, whose images stand in ``indiana_projections.csv``."""
    require(path, [("published", name) for name in ("uid", "findings", "impression")])
    for entry in stream(path):
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            uid = text_of(entry.cells["uid"])
            if not uid.isdigit():
                raise RowError("no id: uid is no number")
            images = [{"file": key} for key in listed.get(uid, ())]
            yield {**entry.cells, "uid": uid, "images": images}
        except RowError as error:
            yield quarantine(f"{path.name} {entry.place}", str(error))


def _from_xml(path: Path) -> Iterator[dict[str, Any] | Quarantined]:
    for name, content in _archive(path) if path.is_file() else _folder(path):
        try:
            if len(content) > MAX_XML:
                raise RowError(f"XML too large: more than {MAX_XML:,} bytes")
            yield _parse(ElementTree.fromstring(content))
        except RowError as error:
            yield quarantine(Path(name).name, str(error))
        except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:  # odd encodings
            yield quarantine(Path(name).name, f"XML broken: {type(error).__name__}")


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*.xml")):
        if file.resolve().is_relative_to(path.resolve()):
            with file.open("rb") as stream:
                yield file.name, stream.read(MAX_XML + 1)


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """The XML files of the archive, read in memory; nothing is unpacked. It is read to its end, check sum included.

    A broken header looks like the end of a tape to tarfile: behind its true end there is nothing but zeros.
    """
    packed = path.with_suffix(".gz") if path.name.endswith((".tgz", ".gz")) else path
    try:
        with path.open("rb") as raw, cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if packed != path else raw) as file:
            with tarfile.open(fileobj=cast("IO[bytes]", Pieces(file)), mode="r:") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".xml"):
                        stream = archive.extractfile(member)
                        yield member.name, stream.read(MAX_XML + 1) if stream else b""
                end = archive.offset
            file.seek(end)
            while block := file.read(1 << 20):
                if block.strip(b"\0"):
                    raise tarfile.ReadError("a header is broken")
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, RadprefError):
            raise
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
    Options,
    frozenset({"root", "file"}),
)
