"""Small data sets in their published layouts, written by tests: synthetic images, reports of our own."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

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


# ---- all layouts, each of one image a study, for the readers' tests and for what mutates them

ROWS = 15
PARTS = ("train", "train", "train", "valid", "test")
TEXT = "There is a small left effusion. Number {}."


class Layout(NamedTuple):
    """A published layout that a test can write, and what its rows become."""

    source: str
    write: Callable[[Path], None]
    files: tuple[str, ...]
    """Its tables, which mutations change; the first holds the rows."""
    unit: Literal["studies", "images", "questions"] = "studies"
    """What one row of the table becomes."""
    settings: Mapping[str, Any] = MappingProxyType({})


def _split(number: int, valid: str = "valid") -> str:
    return valid if PARTS[number % 5] == "valid" else PARTS[number % 5]


def _mimic_path(number: int) -> str:
    return f"p10/p{10_000_000 + number}/s{50_000_000 + number}/{number:08x}-pa"


def _mimic(root: Path) -> None:
    mimic(root, ROWS, shapes=("plain",), studies=1)
    for name in ("metadata", "split", "chexpert"):
        path = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
        lines = [line for line in gzip.decompress(path.read_bytes()).splitlines() if b"lateral" not in line]
        (root / f"mimic-cxr-2.0.0-{name}.csv").write_bytes(b"\n".join(lines) + b"\n")
        path.unlink()


def _chexpert_plus(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        part = "valid" if number % 5 == 3 else "train"
        path = f"{part}/patient{number:05}/study1/view1_frontal.jpg"
        picture(root / "PNG" / Path(path).with_suffix(".png"), number)
        texts = {
            "section_findings": TEXT.format(number),
            "section_impression": "Effusion.",
            "section_history": "Cough.",
        }
        keys = {"": number, "path_to_image": path, "frontal_lateral": "Frontal", "ap_pa": "AP"}
        who = {"deid_patient_id": f"patient{number:05}", "patient_report_date_order": 1, "split": part}
        rows.append({**keys, **who, **texts, "report": "", "section_comparison": "None."})
    table(root / "df_chexpert_plus_240401.csv", rows)
    lines = [json.dumps({"path_to_image": row["path_to_image"], "Edema": 1.0, "Fracture": None}) for row in rows]
    (root / "findings_fixed.jsonl").write_text("\n".join(lines) + "\n")


def _padchest_gr(root: Path) -> None:
    reports, master = [], []
    for number in range(ROWS):
        name = f"{number:05}_img.png"
        picture(root / "Padchest_GR_files" / "PadChest_GR" / name, number)
        finding = {"sentence_en": TEXT.format(number), "sentence_es": "Derrame.", "labels": ["pleural effusion"]}
        reports.append(
            {"StudyID": f"st{number}", "ImageID": name, "findings": [{**finding, "boxes": [[0.1, 0.2, 0.3, 0.4]]}]}
        )
        split = _split(number, "validation")
        master.append({"StudyID": f"st{number}", "ImageID": name, "PatientID": f"pp{number}", "split": split})
    document(root / "grounded_reports_20240819.json", reports)
    table(root / "master_table.csv", master)


def _r2gen(root: Path) -> None:
    parts: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for number in range(ROWS):
        given = f"CXR{number}_IM-{number:04}/0.png"
        picture(root / "images" / given, number)
        row = {"id": f"CXR{number}_IM-{number:04}", "report": TEXT.format(number), "image_path": [given]}
        parts[_split(number, "val")].append({**row, "split": _split(number, "val")})
    document(root / "annotation.json", parts)


def _openi_images(root: Path) -> None:
    for number in range(ROWS):
        picture(root / "images" / f"{number}_IM-{number:04}-1001.dcm.png", number)


def xml(number: int) -> str:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough.</AbstractText>
<AbstractText Label="FINDINGS">{TEXT.format(number)}</AbstractText>
<AbstractText Label="IMPRESSION">Effusion.</AbstractText></Abstract></Article></MedlineCitation>
<parentImage id="CXR{number}_IM-{number:04}-1001"/></eCitation>"""


def _openi_tgz(root: Path) -> None:
    _openi_images(root)
    with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as archive:
        for number in range(ROWS):
            content = xml(number).encode()
            member = tarfile.TarInfo(f"ecgen-radiology/{number}.xml")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _openi_xml(root: Path) -> None:
    _openi_images(root)
    (root / "ecgen-radiology").mkdir()
    for number in range(ROWS):
        (root / "ecgen-radiology" / f"{number}.xml").write_text(xml(number))


def _openi_kaggle(root: Path) -> None:
    _openi_images(root)
    texts = {"MeSH": "normal", "Problems": "normal", "image": "Xray", "indication": "Cough.", "comparison": "None."}
    rows = [{"uid": n, **texts, "findings": TEXT.format(n), "impression": "Effusion."} for n in range(ROWS)]
    table(root / "indiana_reports.csv", rows)
    images = [f"{n}_IM-{n:04}-1001.dcm.png" for n in range(ROWS)]
    listed = [{"uid": n, "filename": name, "projection": "Frontal"} for n, name in enumerate(images)]
    table(root / "indiana_projections.csv", listed)


def _rexrank(root: Path) -> None:
    studies = {}
    for number in range(ROWS):
        place = Path(_mimic_path(number))
        picture(root / "files" / f"{place}.jpg", number)
        studies[str(50_000_000 + number)] = {
            "dicom_id": [place.name],
            "img_root_dir": f"/{place.parent}",
            "findings": TEXT.format(number),
            "impression": "Effusion.",
            "subject_id": 10_000_000 + number,
            "split": "test",
            "context": "<context>Age:50-60.Gender:M.Indication: Cough for weeks. Comparison: None.</context>",
        }
    document(root / "ReXRank_MIMICCXR_test.json", studies)


def _rexvqa(root: Path) -> None:
    files: dict[str, dict[str, Any]] = {"train": {}, "valid": {}, "test": {}}
    for number in range(ROWS):
        given = f"deid_png/pat{number}/st{number}/0.png"
        picture(root / given, number)
        files[_split(number)][f"q{number}"] = {
            "study_id": f"st{number}",
            "PatientID": f"pat{number}",
            "ImagePath": [f"../{given}"],
            "ImageViewPosition": ["PA"],
            "question": "Which finding is there?",
            "options": ["A. Effusion", "B. Mass", "C. None", "D. Fracture"],
            "correct_answer": "A",
            "correct_answer_explanation": "The angle is blunted.",
            "task_name": "Presence Assessment",
        }
    for part, questions in files.items():
        document(root / "metadata" / f"{part}_vqa_data.json", questions)


def _llava_rad(root: Path) -> None:
    files: dict[str, list[Any]] = {"train": [], "dev": [], "test": []}
    for number in range(ROWS):
        place = f"{_mimic_path(number)}.jpg"
        picture(root / "files" / place, number)
        talk = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": TEXT.format(number)}]
        labels = {"Edema": float("nan"), "Pleural Effusion": 1.0}
        more = {"generate_method": "gpt4", "reason": "Cough.", "view": "PA", "chexpert_labels": labels}
        row = {"id": str(number), "image": f"mimic/{place}", "conversations": talk, **more}
        files[_split(number, "dev")].append(row)
    for part, rows in files.items():
        document(root / f"chat_{part}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json", rows)


def _conversations(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / f"{number}.png", number)
        talk = [{"from": "human", "value": "<image>\nIs there an effusion?"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": f"c{number}", "image": f"{number}.png", "patient_id": f"p{number}", "conversations": talk})
    document(root / "radvlm.json", rows)


def _trl(root: Path) -> None:
    lines = []
    for number in range(ROWS):
        picture(root / f"{number}.png", number)
        said: list[Any] = [{"type": "image"}, {"type": "text", "text": "Is there an effusion?"}]
        messages = [{"role": "user", "content": said}, {"role": "assistant", "content": "yes"}]
        lines.append(json.dumps({"images": [f"{number}.png"], "messages": messages, "subject_id": f"p{number}"}))
    (root / "train.jsonl").write_text("\n".join(lines) + "\n")


def _vinbigdata(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / "train" / f"im{number:03}.png", number)
        label = {"class_name": "Cardiomegaly", "class_id": 3, "rad_id": "R1"}
        rows.append({"image_id": f"im{number:03}", **label, "x_min": 2, "y_min": 3, "x_max": 12, "y_max": 20})
    table(root / "train.csv", rows)
    table(root / "train_meta.csv", [{"image_id": row["image_id"], "dim0": 24, "dim1": 24} for row in rows])


def _slake(root: Path) -> None:
    for part, first in (("train", 0), ("validate", 9), ("test", 12)):
        rows = []
        for number in range(first, first + (9 if part == "train" else 3)):
            picture(root / "imgs" / f"xmlab{number}" / "source.jpg", number)
            what = {"location": "Abdomen" if number % 3 else "Lung", "modality": "CT" if number % 2 else "X-Ray"}
            asked = {"question": "Is there a mass?", "answer": "Yes", "answer_type": "CLOSED", "content_type": "KG"}
            rows.append({"img_name": f"xmlab{number}/source.jpg", "qid": number, "q_lang": "en", **what, **asked})
        document(root / f"{part}.json", rows)


def _vqa_rad(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / "images" / f"synpic{number}.jpg", number)
        asked = {"question": "Is there a mass?", "question_type": "PRES", "answer": "No", "answer_type": "CLOSED"}
        part = "test_freeform" if number % 5 == 0 else "freeform"
        organ = ("CHEST", "HEAD", "ABD")[number % 3]
        name = f"synpic{number}.jpg"
        rows.append({"qid": number, "image_name": name, "image_organ": organ, "phrase_type": part, **asked})
    rows.append({**rows[0], "qid": 99, "question": "Where is it?", "answer": "left", "phrase_type": "freeform"})
    document(root / "VQA_RAD Dataset Public.json", rows)


def _vqa_rad_parquet(root: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for part, numbers in (("train", range(ROWS - 3)), ("test", range(ROWS - 4, ROWS))):  # one image in both
        rows = []
        for number in numbers:
            content = picture(root.parent / "made" / f"{number}.png", number).read_bytes()
            image = {"bytes": content, "path": None}
            rows.append({"image": image, "question": f"Is there a {part} mass?", "answer": "no"})
        (root / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "data" / f"{part}-00000-of-00001.parquet")


def _table(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / f"{number}.png", number)
        keys = {"study_id": f"s{number}", "mrn": f"p{number}", "image": f"{number}.png", "view": "PA"}
        rows.append({**keys, "report": f"FINDINGS: {TEXT.format(number)} IMPRESSION: Effusion.", "date": "2021-03-04"})
    table(root / "export.csv", rows)


def _table_of_questions(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / f"{number}.png", number)
        keys = {"image": f"{number}.png", "patient": f"p{number}"}
        rows.append({**keys, "question": "Is there an effusion?", "answer": "yes"})
    (root / "vqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _nih(root: Path) -> None:
    rows = []
    for number in range(ROWS):
        picture(root / "images" / f"{number:08}_000.png", number)
        keys = {"Image Index": f"{number:08}_000.png", "Finding Labels": "Effusion|Mass", "Patient ID": number}
        rows.append({**keys, "View Position": "PA"})
    table(root / "Data_Entry_2017_v2020.csv", rows)


LAYOUTS: dict[str, Layout] = {
    "mimic-cxr": Layout(
        "mimic-cxr",
        _mimic,
        ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-chexpert.csv"),
        "images",
    ),
    "chexpert-plus": Layout("chexpert-plus", _chexpert_plus, ("df_chexpert_plus_240401.csv", "findings_fixed.jsonl")),
    "padchest-gr": Layout("padchest-gr", _padchest_gr, ("grounded_reports_20240819.json", "master_table.csv")),
    "r2gen": Layout("r2gen", _r2gen, ("annotation.json",)),
    "openi-r2gen": Layout("openi", _r2gen, ("annotation.json",)),
    "openi-tgz": Layout("openi", _openi_tgz, ("NLMCXR_reports.tgz",)),
    "openi-xml": Layout("openi", _openi_xml, tuple(f"ecgen-radiology/{number}.xml" for number in range(ROWS))),
    "openi-kaggle": Layout("openi", _openi_kaggle, ("indiana_reports.csv", "indiana_projections.csv")),
    "rexrank": Layout("rexrank", _rexrank, ("ReXRank_MIMICCXR_test.json",)),
    "rexvqa": Layout(
        "rexvqa", _rexvqa, tuple(f"metadata/{part}_vqa_data.json" for part in ("train", "valid", "test")), "questions"
    ),
    "llava-rad": Layout(
        "llava-rad",
        _llava_rad,
        tuple(f"chat_{part}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json" for part in ("train", "dev", "test")),
    ),
    "conversations": Layout("conversations", _conversations, ("radvlm.json",), "questions"),
    "trl": Layout("conversations", _trl, ("train.jsonl",), "questions"),
    "vinbigdata": Layout("vindr", _vinbigdata, ("train.csv", "train_meta.csv")),
    "slake": Layout(
        "slake",
        _slake,
        ("train.json", "validate.json", "test.json"),
        "questions",
        {"options": {"body": "all", "modality": "all"}},
    ),
    "vqa-rad": Layout("vqa-rad", _vqa_rad, ("VQA_RAD Dataset Public.json",), "questions", {"options": {"body": "all"}}),
    "vqa-rad-parquet": Layout(
        "vqa-rad",
        _vqa_rad_parquet,
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        "questions",
    ),
    "nih": Layout("nih", _nih, ("Data_Entry_2017_v2020.csv",)),
    "table": Layout("table", _table, ("export.csv",), "images"),
    "table of questions": Layout("table", _table_of_questions, ("vqa.jsonl",), "questions"),
}
