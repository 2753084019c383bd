"""Readers of question data sets, on small files in their published layouts; VQA-RAD on the real one as well."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from radpref.config import DataSection
from radpref.data import DataError, Loaded, leakage, load_studies
from radpref.records import Study


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 20), np.uint8)).save(path)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows), "utf-8")


def load(source: str, root: Path, **more: Any) -> Loaded:
    return load_studies(DataSection(source=source, root=str(root), **more), root.parent / "cache", 3)


def by_id(loaded: Loaded) -> dict[str, Study]:
    return {study.id: study for study in loaded.studies}


# ---- VQA-RAD


def rad_row(qid: int, image: str, **more: Any) -> dict[str, Any]:
    return {
        "qid": qid,
        "phrase_type": "freeform",
        "qid_linked_id": "x",
        "image_case_url": f"https://medpix/{image}",
        "image_name": f"{image}.jpg",
        "image_organ": "CHEST",
        "evaluation": "evaluated",
        "question": "Is there a mass?",
        "question_rephrase": "NULL",
        "question_type": "PRES",
        "answer": "No",
        "answer_type": "CLOSED",
        **more,
    }


def test_vqa_rad_as_published(tmp_path: Path) -> None:
    root = tmp_path / "rad"
    for number in range(24):
        image(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg", number)
    rows = [rad_row(number, f"synpic{number}") for number in range(24)]
    rows += [
        rad_row(100, "synpic0", question_type="POS, PRES", answer="right lung", answer_type="OPEN "),
        rad_row(101, "synpic0", phrase_type="test_freeform", question="How many?", question_type="COUNT", answer=3),
        rad_row(102, "synpic0", image_organ="HEAD"),
        rad_row(103, "synpic0", question=" "),
        rad_row(104, "gone"),
        rad_row(105, "../../etc"),
        rad_row(106, "synpic1", image_case_url="https://medpix/synpic0"),
    ]
    write(root / "VQA_RAD Dataset Public.json", rows)
    loaded = load("vqa-rad", root)
    studies = by_id(loaded)
    asked = {asked.id: asked for asked in studies["synpic0"].questions}
    assert set(asked) == {"0", "100", "101"}
    assert (asked["100"].kind, asked["100"].closed, asked["100"].answer) == ("location", False, "right lung")
    assert (asked["101"].kind, asked["101"].answer) == ("count", "3")
    assert {row.reason.split(":")[0] for row in loaded.quarantined} == {
        "no question",
        "image missing",
        "path leads out of data.root",
    }
    notes = " ".join(loaded.notes)
    assert "1 questions about other parts" in notes
    assert "1 of its 1 test images in train" in notes
    assert leakage(loaded.studies) == []


def test_vqa_rad_as_two_files(tmp_path: Path) -> None:
    root = tmp_path / "rad"
    for number in range(20):
        image(root / "images" / f"synpic{number}.jpg", number)
    rows = [rad_row(number, f"synpic{number}", image_case_url="") for number in range(20)]
    write(root / "trainset.json", rows)
    write(root / "testset.json", [{**rows[0], "qid": 50}, {**rows[1], "qid": 51}])
    loaded = load("vqa-rad", root)
    assert sum(len(study.questions) for study in loaded.studies) == 22
    assert "2 of its 2 test images" in " ".join(loaded.notes)
    with pytest.raises(DataError, match="is no file"):
        load("vqa-rad", root, file="other.json")


def test_vqa_rad_chest(shared_data: Path, tmp_path: Path) -> None:
    section = DataSection(source="vqa-rad", root=str(shared_data / "vqa_rad"))
    loaded = load_studies(section, tmp_path, 17)
    assert len(loaded.studies) == 79
    assert not loaded.quarantined
    questions = [asked for study in loaded.studies for asked in study.questions]
    assert len(questions) == 921
    kinds = Counter(asked.kind for asked in questions)
    assert kinds["presence"] == 374
    assert kinds["attribute"] == 32
    assert sum(asked.closed for asked in questions) == 611
    assert leakage(loaded.studies) == []
    assert any("published split" in note for note in loaded.notes)


# ---- SLAKE


def slake_row(qid: int, image: str, **more: Any) -> dict[str, Any]:
    return {
        "img_id": 1,
        "img_name": f"{image}/source.jpg",
        "question": "Is the lung healthy?",
        "answer": "No",
        "q_lang": "en",
        "location": "Lung",
        "modality": "X-Ray",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Abnormality",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
        **more,
    }


def test_slake(tmp_path: Path) -> None:
    root = tmp_path / "Slake1.0"
    for number in range(3):
        image(root / "imgs" / f"xmlab{number}" / "source.jpg", number)
    rows = [
        slake_row(0, "xmlab0"),
        slake_row(1, "xmlab0", content_type="Position", answer="Right lung, Left", answer_type="OPEN"),
        slake_row(2, "xmlab0", q_lang="zh"),
        slake_row(3, "xmlab0", modality="MRI", location="Brain_Face"),
        slake_row(4, "xmlab9"),
    ]
    write(root / "train.json", rows)
    write(root / "validate.json", [slake_row(5, "xmlab1")])
    write(root / "test.json", [slake_row(6, "xmlab2")])
    loaded = load("slake", root)
    studies = by_id(loaded)
    assert {key: study.split for key, study in studies.items()} == {
        "xmlab0": "train",
        "xmlab1": "validation",
        "xmlab2": "test",
    }
    assert [asked.kind for asked in studies["xmlab0"].questions] == ["abnormality", "location"]
    assert len(loaded.quarantined) == 1
    assert "1 in another language, 1 about other images" in " ".join(loaded.notes)


def test_a_published_split_that_leaks_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "slake"
    for number in range(3):
        image(root / "imgs" / f"xmlab{number}" / "source.jpg", 0)  # the same picture three times
    write(root / "train.json", [slake_row(0, "xmlab0")])
    write(root / "validate.json", [slake_row(1, "xmlab1")])
    write(root / "test.json", [slake_row(2, "xmlab2")])
    with pytest.raises(DataError, match="leak"):
        load("slake", root)


# ---- MIMIC


def test_mimic_cxr_vqa(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    names = {"train": "10000032", "valid": "10000764", "test": "11000011"}
    for number, (split, subject) in enumerate(names.items()):
        path = f"p{subject[:2]}/p{subject}/s5{number}/dicom-{split}.jpg"
        image(root / "mimic-cxr-jpg" / "files" / path, number)
        rows = [
            {
                "subject_id": subject,
                "study_id": f"5{number}",
                "image_path": path,
                "answer": answer,
                "split": split,
                "idx": idx,
                "image_id": f"dicom-{split}",
                "question": "Which findings are there?",
                "content_type": content,
                "semantic_type": semantic,
                "template": "",
                "template_program": "program_1",
                "template_arguments": {},
            }
            for idx, (answer, content, semantic) in enumerate(
                [(["yes"], "presence", "verify"), (["edema", "mass"], "attribute", "query"), ([], "plane", "choose")]
            )
        ]
        write(root / "mimiccxrvqa" / "dataset" / f"{split}.json", rows)
    loaded = load("mimic-cxr-vqa", root)
    study = by_id(loaded)["dicom-train"]
    assert (study.patient, study.split) == ("p10000032", "train")
    assert [(a.answer, a.kind, a.closed) for a in study.questions] == [
        ("yes", "presence", True),
        ("edema, mass", "attribute", False),
        ("none", "view", True),
    ]
    assert Counter(study.split for study in loaded.studies) == {"train": 1, "validation": 1, "test": 1}


def test_mimic_cxr_vqa_without_answers_is_quarantined(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    write(root / "train.json", [{"idx": 0, "image_id": "d", "question": "Is there a mass?"}])
    with pytest.raises(DataError, match="no usable study"):
        load("mimic-cxr-vqa", root)


def mimic_csv(root: Path, name: str, *, listed: bool = True, split: bool = True) -> None:
    """Three patients, two studies each."""
    everything, rows = [], []
    for number, part in enumerate(("train", "val", "test")):
        subject = f"1000{number:04d}"
        for study in (10 * number + 50, 10 * number + 51):
            image(root / "files" / "p10" / f"p{subject}" / f"s{study}" / f"dicom{study}.jpg", study)
            everything.append(
                {"subject_id": subject, "study_id": study, "dicom_id": f"dicom{study}", "view": "postero-anterior",
                 "split": {"val": "validate"}.get(part, part), "study_order": 1.0}
            )  # fmt: skip
        base = {"study_id": 10 * number + 51, "subject_id": subject, "ref_id": 10 * number + 50}
        rows += [
            {**base, "question_type": "presence", "question": "is there any evidence of edema?", "answer": "no"},
            {**base, "question_type": "level", "question": "what level is the effusion?", "answer": "small"},
            {
                **base,
                "question_type": "difference",
                "question": "what has changed?",
                "answer": "nothing has changed.",
            },
        ]
        for row in rows[-3:]:
            if split:
                row["split"] = part
    if listed:
        write(root / "mimic_all.csv", everything)
    write(root / name, rows)


def test_mimic_diff_vqa(tmp_path: Path) -> None:
    root = tmp_path / "diff"
    mimic_csv(root, "mimic_pair_questions.csv")
    studies = by_id(load("mimic-diff-vqa", root))
    assert set(studies) == {"s51", "s51-s50", "s61", "s61-s60", "s71", "s71-s70"}
    assert {study.split for study in studies.values() if study.patient == "p10000001"} == {"validation"}
    single, pair = studies["s51"], studies["s51-s50"]
    assert [(asked.kind, asked.task, asked.closed) for asked in single.questions] == [
        ("presence", "basic", True),
        ("severity", "basic", False),
    ]
    assert [Path(image.path).stem for image in pair.images] == ["dicom51", "dicom50"]
    assert pair.questions[0].task == "comparison"
    assert single.images[0].view == "frontal"


def test_medical_cxr_vqa_without_splits_or_list(tmp_path: Path) -> None:
    root = tmp_path / "medical"
    mimic_csv(root, "medical-cxr-vqa-questions.csv", listed=False, split=False)
    rows = list(csv.DictReader((root / "medical-cxr-vqa-questions.csv").open()))
    write(root / "medical-cxr-vqa-questions.csv", [row for row in rows if row["question_type"] != "difference"])
    loaded = load("medical-cxr-vqa", root)
    assert set(by_id(loaded)) == {"s51", "s61", "s71"}
    assert "drawn by hash" in " ".join(loaded.notes)


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    root = tmp_path / "diff"
    write(root / "mimic_pair_questions.csv", [{"study_id": 1, "subject": 2}])
    with pytest.raises(DataError, match="subject_id"):
        load("mimic-diff-vqa", root)
    for source in ("slake", "vqa-rad", "mimic-cxr-vqa", "medical-cxr-vqa"):
        with pytest.raises(DataError, match="holds no questions"):
            load(source, root)
