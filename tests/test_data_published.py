"""Every layout that is read, as it is published: studies, splits, labels, boxes, questions."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from radpref.cli import app
from radpref.config import DataSection
from radpref.data import DataError, Loaded, load_studies
from radpref.data.rexrank import submission
from radpref.records import Study
from tests.published import LAYOUTS, ROWS, TEXT, document, picture, xml
from tests.runs import Whole


def load(name: str, root: Path, **more: Any) -> Loaded:
    layout = LAYOUTS[name]
    section = DataSection.model_validate({"source": layout.source, "root": str(root), **layout.settings, **more})
    return load_studies(section, root.parent / "cache", 3)


def made(name: str, tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name].write(root)
    return root


def by_id(loaded: Loaded) -> dict[str, Study]:
    return {study.id: study for study in loaded.studies}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_row_of_a_layout_is_used(name: str, tmp_path: Path) -> None:
    loaded = load(name, made(name, tmp_path))
    assert not list(loaded.quarantined)
    used = {
        "studies": len(loaded.studies),
        "images": sum(len(study.images) for study in loaded.studies),
        "questions": sum(len(study.questions) for study in loaded.studies),
        "boxes": sum(len(drawn) for study in loaded.studies for drawn in study.images[0].boxes.values()),
    }
    assert used[LAYOUTS[name].unit] == ROWS + (name.startswith("vqa-rad"))
    for study in loaded.studies:
        assert study.questions or study.findings
        assert not study.findings or TEXT.split(".")[0] in study.findings or name in ("mimic-cxr", "vinbigdata", "nih")


@pytest.mark.parametrize(
    "name",
    ["mimic-cxr", "chexpert-plus", "padchest-gr", "r2gen", "openi-r2gen", "rexvqa", "llava-rad", "slake"],
)
def test_published_splits_are_used(name: str, tmp_path: Path) -> None:
    loaded = load(name, made(name, tmp_path))
    counts = Counter(study.split for study in loaded.studies)
    if name == "chexpert-plus":  # which has no reports for its test part
        assert counts["validation"] == 3
        assert any("test drawn by hash" in note for note in loaded.notes)
    else:
        assert counts == {"train": 9, "validation": 3, "test": 3}
        assert not any("drawn by hash" in note for note in loaded.notes)


def test_labels_and_texts(tmp_path: Path) -> None:
    study = by_id(load("chexpert-plus", made("chexpert-plus", tmp_path)))["patient00001-study1"]
    assert study.labels == {"Edema": 1, "Fracture": None}
    assert (study.impression, study.indication, study.patient) == ("Effusion.", "Cough.", "patient00001")
    assert study.images[0].view == "frontal"
    study = by_id(load("llava-rad", made("llava-rad", tmp_path / "b")))["s50000001"]
    assert study.labels == {"Edema": None, "Pleural Effusion": 1}
    assert (study.indication, study.patient, study.images[0].view) == ("Cough.", "p10000001", "frontal")
    study = by_id(load("rexrank", made("rexrank", tmp_path / "c")))["50000001"]
    assert (study.indication, study.comparison, study.patient) == ("Cough for weeks.", "None.", "p10000001")


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in "bcd":
        (tmp_path / name).mkdir()


def test_boxes(tmp_path: Path) -> None:
    (box,) = by_id(load("padchest-gr", made("padchest-gr", tmp_path)))["st1"].images[0].boxes["pleural effusion"]
    assert (box.left, box.top, box.right, box.bottom) == (0.1, 0.2, 0.3, 0.4)
    study = by_id(load("vinbigdata", made("vinbigdata", tmp_path / "b")))["im001"]
    assert study.findings == "Cardiomegaly."
    (box,) = study.images[0].boxes["cardiomegaly"]
    assert (box.left, box.bottom) == (2 / 24, 20 / 24)


def test_questions(tmp_path: Path) -> None:
    (asked,) = by_id(load("rexvqa", made("rexvqa", tmp_path)))["st2"].questions
    assert asked.question == "Which finding is there? A. Effusion B. Mass C. None D. Fracture"
    assert (asked.answer, asked.closed, asked.rationale) == ("A. Effusion", True, "The angle is blunted.")
    assert asked.id == "q2"
    for name in ("conversations", "trl"):
        studies = by_id(load(name, made(name, tmp_path / ("b" if name == "trl" else "c"))))
        (asked,) = studies["3"].questions
        assert (asked.question, asked.answer, asked.closed) == ("Is there an effusion?", "yes", True)
        assert studies["3"].patient == "p3"


def test_conversations_of_several_turns_and_without_patients(tmp_path: Path) -> None:
    root = made("conversations", tmp_path)
    rows = json.loads((root / "radvlm.json").read_text())
    turns = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "left"}]
    rows[0]["conversations"] += turns
    for row in rows[:4]:
        del row["patient_id"]
    rows[1]["image"] = picture(root / "files/p10/p10000032/s50414267/x.png", 99).relative_to(root).as_posix()
    document(root / "radvlm.json", rows)
    loaded = load("conversations", root)
    assert by_id(loaded)["files-p10-p10000032-s50414267-x"].patient == "p10000032"
    assert Counter(row.reason.split(":")[0] for row in loaded.quarantined) == {"no patient": 3}
    loaded = load("conversations", root, options={"patient": "image"})
    assert sum(len(study.questions) for study in loaded.studies) == ROWS + 1
    assert any("1 have several turns" in note for note in loaded.notes)
    assert any("each image counts as a patient of its own" in note for note in loaded.notes)


def test_the_submission_of_rexrank(tmp_path: Path) -> None:
    root = made("rexrank", tmp_path)
    asked = root / "ReXRank_MIMICCXR_test.json"
    loaded = load("rexrank", root)
    assert {study.split for study in loaded.studies} == {"test"}
    answers = {study.id: f"Report of {study.id}." for study in loaded.studies}
    assert submission(asked, answers, tmp_path / "model.json") == ROWS
    written, given = json.loads((tmp_path / "model.json").read_text()), json.loads(asked.read_text())
    assert list(written) == list(given)
    assert all(written[key] == {**given[key], "model_prediction": answers[key]} for key in given)
    answers.popitem()
    with pytest.raises(DataError, match="1 of 15 studies"):
        submission(asked, answers, tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_slake_and_vqa_rad_by_body_part(tmp_path: Path) -> None:
    root = made("slake", tmp_path)
    assert len(load("slake", root, options={"body": "chest", "modality": "x-ray"}).studies) == 3
    assert len(load("slake", root, options={"body": "abdomen", "modality": "all"}).studies) == 10
    root = made("vqa-rad", tmp_path / "b")
    assert len(load("vqa-rad", root, options={"body": "head"}).studies) == 5


@pytest.mark.parametrize("name", ["vqa-rad", "vqa-rad-parquet"])
def test_the_published_split_of_vqa_rad_can_be_used_and_its_leak_is_said(name: str, tmp_path: Path) -> None:
    root = made(name, tmp_path)
    settings = LAYOUTS[name].settings.get("options", {})
    loaded = load(name, root, options={**settings, "split": "published"})
    tested = {"vqa-rad": 3, "vqa-rad-parquet": 4}[name]
    questions = Counter(study.split for study in loaded.studies for _ in study.questions)
    assert questions["test"] == tested
    assert questions.total() == ROWS + 1
    assert any(note.startswith("the published split leaks") for note in loaded.notes)
    assert any("image" in leak for leak in loaded.leaks)
    plain = load(name, root)
    assert not plain.leaks
    assert any("so it is not used" in note for note in plain.notes)


def test_an_archive_with_one_flipped_bit_is_an_error_or_loses_nothing(tmp_path: Path) -> None:
    root = made("openi-tgz", tmp_path)
    archive = root / "NLMCXR_reports.tgz"
    whole = archive.read_bytes()
    for place in range(12, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        archive.write_bytes(content)
        try:
            loaded = load("openi-tgz", root)
        except DataError:
            continue
        assert len(loaded.studies) + len(loaded.quarantined) == ROWS


def test_xml_in_an_unknown_encoding_is_quarantined(tmp_path: Path) -> None:
    root = made("openi-xml", tmp_path)
    for number, encoding in enumerate(["klingon", "utf-16", "latin-1", "utf-7"]):
        text = xml(number).replace("utf-8", encoding).replace("Cough.", "Café.")
        (root / "ecgen-radiology" / f"{number}.xml").write_bytes(text.encode("latin-1"))
    loaded = load("openi-xml", root)
    reasons = {row.id: row.reason for row in loaded.quarantined}
    assert set(reasons) == {"0.xml", "1.xml", "3.xml"}
    assert by_id(loaded)["CXR2"].indication == "Café."


def test_a_run_answers_the_studies_of_rexrank(tmp_path: Path, whole: Whole) -> None:
    root, run = made("rexrank", tmp_path), whole("chexalign").folder
    asked, to = root / "ReXRank_MIMICCXR_test.json", tmp_path / "model.json"
    studies = json.loads(asked.read_text())
    few = {key: studies[key] for key in list(studies)[:4]}
    few["50000001"]["findings"] = ""  # a study without reference is answered as well
    document(asked, few)

    def export(*more: str | Path) -> Result:
        words = ["export", run, to, "--to", "rexrank", "--asked", asked, *more]
        return CliRunner().invoke(app, [str(word) for word in words])

    done = export()
    assert done.exit_code == 0, done.output
    assert done.output.replace("\n", "").find("4 reports by") >= 0
    written = json.loads(to.read_text())
    assert list(written) == list(few)
    assert all(written[key].pop("model_prediction") for key in few)
    assert written == few
    assert "is there already" in export().output
    to.unlink()
    next((root / "files").rglob("00000002-pa.jpg")).unlink()
    done = export()
    assert done.exit_code == 2
    assert "1 of 4 studies" in " ".join(done.output.split())
    assert "image missing" in done.output
    assert not to.exists()
    assert export("--unpaired").exit_code == 2
    done = CliRunner().invoke(app, ["export", str(run), str(to), "--to", "rexrank"])
    assert done.exit_code == 2
    assert "--asked" in done.output


def test_images_may_be_of_another_kind_and_gone(tmp_path: Path) -> None:
    root = made("rexrank", tmp_path)
    images = sorted((root / "files").rglob("*.jpg"))
    shutil.move(images[0], images[0].with_suffix(".png"))
    images[1].unlink()
    loaded = load("rexrank", root)
    assert len(loaded.studies) == ROWS - 1
    assert [row.reason.split(":")[0] for row in loaded.quarantined] == ["image missing"]


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("rexvqa", "metadata/test_vqa_data.json", "no test_vqa_data.json, so its test part is not the published one"),
        ("llava-rad", LAYOUTS["llava-rad"].files[1], "so its validation part is not the published one"),
        ("slake", "test.json", "slake: no test.json, so its test part is not the published one"),
    ],
)
def test_a_part_of_a_published_split_that_is_not_there_is_said(name: str, file: str, said: str, tmp_path: Path) -> None:
    root = made(name, tmp_path)
    assert not any("not the published" in note for note in load(name, root).notes)
    (root / file).unlink()
    assert any(said in note for note in load(name, root).notes)


@pytest.mark.parametrize("name", ["openi-kaggle", "vinbigdata", "nih", "slake", "mimic-cxr", "padchest-gr", "r2gen"])
def test_tables_may_be_packed_by_gzip_or_not(name: str, tmp_path: Path) -> None:
    root = made(name, tmp_path)
    before = len(load(name, root).studies)
    for file in LAYOUTS[name].files:
        (root / f"{file}.gz").write_bytes(gzip.compress((root / file).read_bytes()))
        (root / file).unlink()
    assert len(load(name, root).studies) == before


def test_what_a_layout_lacks_is_named(tmp_path: Path) -> None:
    root = made("openi-kaggle", tmp_path)
    (root / "indiana_projections.csv").unlink()
    with pytest.raises(DataError, match=r"indiana_projections\.csv does, and is not under data\.root"):
        load("openi-kaggle", root)
    (tmp_path / "other").mkdir()
    root = made("nih", tmp_path / "other")
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match=r"15 rows of .* have no image"):
        load("nih", root)
