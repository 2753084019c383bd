"""Small data sets in their published layouts, written by tests: synthetic images, reports of our own."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHAPES = ("plain", "wet read", "addendum", "no findings", "untitled", "titled by the view", "empty")
"""Report shapes of MIMIC-CXR."""
FINDINGS = "There is a small left pleural effusion. No pneumothorax. Study number {}."
_PLAIN = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old man with cough  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 {findings}

 IMPRESSION:

 Small effusion.
"""


def picture(path: Path, number: int, side: int = 24) -> Path:
    """An image that differs from every other number's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (side, side), dtype=np.uint8)
    if path.suffix == ".dcm":
        dicom(path, noise)
    else:
        Image.fromarray(noise).save(path)
    return path


def dicom(path: Path, pixels: Any, **tags: Any) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A CSV file, packed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def document(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
    return path


def report(shape: str, number: int) -> str:
    """A report of one of ``SHAPES``."""
    text = _PLAIN.format(findings=FINDINGS.format(number))
    rule = " " + "_" * 78 + "\n"
    if shape == "wet read":
        return f"                                 WET READ: ___ 10:38 PM\n  Wet words.\n{rule}{text}"
    if shape == "addendum":
        return f"                                 FINAL ADDENDUM\n ADDENDUM:  Addendum words.\n{rule}{text}"
    if shape == "no findings":
        return text.replace(f" FINDINGS:\n\n {FINDINGS.format(number)}\n\n", "")
    if shape == "untitled":
        return f"{' ' * 33}FINAL REPORT\n CHEST\n\n HISTORY:  Cough.\n\n {FINDINGS.format(number)}\n"
    if shape == "titled by the view":
        return text.replace(" FINDINGS:\n", " PORTABLE AP VIEW OF THE CHEST:\n")
    return "" if shape == "empty" else text


def mimic(
    root: Path, patients: int, *, kind: str = ".jpg", shapes: Sequence[str] = SHAPES, side: int = 24, studies: int = 2
) -> int:
    """MIMIC-CXR-JPG (or its DICOM or PNG files): ``studies`` of each patient, frontal and lateral; their number."""
    metadata, split, chexpert = [], [], []
    number = 0
    for patient in range(patients):
        subject = 10_000_000 + 7 * patient
        for visit in range(studies):
            study = 50_000_000 + 10 * patient + visit
            folder = root / "files" / f"p{subject}"[:3] / f"p{subject}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"s{study}.txt").write_text(report(shapes[number % len(shapes)], number))
            for view in ("LATERAL", "PA"):
                dicom_id = f"{number:08x}-{view.lower()}"
                picture(folder / f"s{study}" / f"{dicom_id}{kind}", 2 * number + (view == "PA"), side)
                keys = {"dicom_id": dicom_id, "subject_id": subject, "study_id": study}
                when = {"StudyDate": 21800506 + visit, "StudyTime": "213014.53100000002"}
                metadata.append({**keys, "ViewPosition": view, "Rows": side, "Columns": side, **when})
                part = ("train", "train", "train", "validate", "test")[patient % 5]
                split.append({"dicom_id": dicom_id, "study_id": study, "subject_id": subject, "split": part})
            chexpert.append(
                {"subject_id": subject, "study_id": study, "Edema": "-1.0", "Pleural Effusion": 1.0, "Fracture": ""}
            )
            number += 1
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    table(root / "mimic-cxr-2.0.0-split.csv.gz", split)
    table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", chexpert)
    return number
