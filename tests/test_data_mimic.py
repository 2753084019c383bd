"""MIMIC-CXR in its published layouts: sections, addenda and wet reads, priors, splits, labels."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mimic_layout
from radpref.config import DataSection, TaskSection
from radpref.data import DataError, Loaded, load_studies
from radpref.data.mimic_by_hand import corrected
from radpref.pipeline import run_all, run_stage_alone
from radpref.records import Study
from radpref.runs.folder import Run
from radpref.tasks import questions
from tests.published import FINDINGS, mimic, table
from tests.runs import counts, smallest


def load(root: Path, **more: Any) -> Loaded:
    section = DataSection.model_validate({"source": "mimic-cxr", "root": str(root), **more})
    return load_studies(section, root.parent / "cache", 3)


def by_id(loaded: Loaded) -> dict[str, Study]:
    return {study.id: study for study in loaded.studies}


@pytest.mark.parametrize("kind", [".jpg", ".png", ".dcm"])
def test_the_layouts_of_mimic_cxr(tmp_path: Path, kind: str) -> None:
    made = mimic(tmp_path / "mimic", 14, kind=kind)
    loaded = load(tmp_path / "mimic")
    studies = by_id(loaded)
    assert len(studies) + len(loaded.quarantined) == made
    assert Counter(row.reason.split(":")[0] for row in loaded.quarantined) == {"no findings": made * 3 // 7}
    for study in studies.values():
        assert [image.view for image in study.images] == ["frontal", "lateral"]
        number = int(study.findings.split()[-1].strip("."))
        assert study.findings == FINDINGS.format(number)
        assert study.patient.startswith("p1")
        assert study.labels == {"Edema": -1, "Pleural Effusion": 1, "Fracture": None}
        assert study.impression == "Small effusion."
        assert study.indication == "___ year old man with cough // pneumonia?"
    assert {study.split for study in studies.values()} == {"train", "validation", "test"}
    assert not any("drawn by hash" in note for note in loaded.notes)
    assert not any(word in study.findings for study in studies.values() for word in ("Wet", "Addendum", "PORTABLE"))


def test_priors_are_earlier_studies_that_can_be_used(tmp_path: Path) -> None:
    mimic(tmp_path / "mimic", 5, shapes=("plain", "no findings", "plain"), studies=3)
    studies = by_id(load(tmp_path / "mimic"))
    assert studies["s50000000"].prior is None
    assert studies["s50000002"].prior == "s50000000"  # the one between has no findings
    assert sum(study.prior is not None for study in studies.values()) == 5


def test_reports_without_findings_can_be_used_otherwise(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    mimic(root, 10, shapes=("no findings", "untitled", "plain"))
    assert len(load(root).studies) == 6
    loaded = load(root, options={"without_findings": "last-paragraph"})
    assert len(loaded.studies) == 13
    assert by_id(loaded)["s50000001"].findings == FINDINGS.format(1)
    loaded = load(root, options={"without_findings": "impression"})
    assert by_id(loaded)["s50000000"].findings == "Small effusion."
    with pytest.raises(DataError, match=r"data\.options\.without_findings is 'anything'"):
        load(root, options={"without_findings": "anything"})
    with pytest.raises(DataError, match="did you mean 'without_findings'"):
        load(root, options={"without_finding": "impression"})


def test_sections_that_were_cut_already_count(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    mimic(root, 5, shapes=("plain",))
    row = {
        "study": "s50000000",
        "impression": "Cut.",
        "findings": "Cut already.",
        "last_paragraph": "",
        "comparison": "",
    }
    table(root / "mimic_cxr_sectioned.csv", [row])
    studies = by_id(load(root))
    assert (studies["s50000000"].findings, studies["s50000000"].impression) == ("Cut already.", "Cut.")
    assert studies["s50000000"].indication  # which only the report itself has
    assert studies["s50000001"].findings == FINDINGS.format(1)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    mimic(root, 5, shapes=("plain",))
    (root / "files/p10/p10000000/s50000000.txt").unlink()
    for file in (root / "files/p10/p10000007/s50000010").iterdir():
        file.unlink()
    (root / "files/p10/p10000007/s50000011/00000003-lateral.jpg").unlink()
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    loaded = load(root)
    reasons = {row.id: row.reason.split(":")[0] for row in loaded.quarantined}
    assert reasons == {
        "s50000000": "report missing",
        "s50000010#image-1": "image missing",
        "s50000010#image-2": "image missing",
        "s50000010": "image missing",
        "s50000011#image-1": "image missing",
    }
    assert len(loaded.studies) == 8
    assert any("published split is not used" in note for note in loaded.notes)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    with pytest.raises(DataError, match=r"looked for mimic-cxr-2\.0\.0-metadata\.csv\.gz"):
        load(root)


def test_the_dicom_release_has_its_views_in_the_headers(tmp_path: Path) -> None:
    import pydicom

    root = tmp_path / "mimic"
    mimic(root, 5, kind=".dcm", shapes=("plain",))
    with gzip.open(root / "mimic-cxr-2.0.0-metadata.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = next(root.rglob(f"{row['dicom_id']}.dcm"))
        header = pydicom.dcmread(path)
        header.ViewPosition, header.StudyDate, header.StudyTime = row["ViewPosition"][:7], row["StudyDate"], "101500"
        header.save_as(path)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    keys = ("subject_id", "study_id", "dicom_id")
    table(root / "cxr-record-list.csv.gz", [{**{key: row[key] for key in keys}, "path": ""} for row in rows])
    studies = by_id(load(root))
    assert all([image.view for image in study.images] == ["frontal", "lateral"] for study in studies.values())
    assert sum(study.prior is not None for study in studies.values()) == 5


def test_a_cap_is_said(tmp_path: Path) -> None:
    mimic(tmp_path / "mimic", 10, shapes=("plain",))
    notes = load(tmp_path / "mimic", train=5).notes
    assert "data.train is 5: of 12 train studies no more are used" in notes


def test_comparison_questions_come_from_its_priors(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    mimic(root, 10, shapes=("plain",), studies=3)
    for path in root.rglob("s*2.txt"):  # the last study of each patient says what has changed
        path.write_text(path.read_text().replace("small left pleural", "larger left pleural"))
    studies = list(load(root).studies)
    task = TaskSection(kind="questions", asks=("comparison",))
    asked = questions(studies, task, max_images=2, folder=tmp_path / "marked", seed=0)
    assert {question.task for question in asked} == {"comparison"}
    assert {question.study for question in asked} <= {study.id for study in studies if study.prior}
    assert all(len(question.images) == 2 for question in asked)


# ---- the whole layout, simulated with every odd shape (benchmarks/mimic_layout.py does so with 2,000 studies)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, mimic_layout.Made]:
    root = tmp_path_factory.mktemp("mimic")
    return root, mimic_layout.write(root, 200)


def test_every_odd_shape_is_used_or_quarantined_as_it_was_made(
    simulated: tuple[Path, mimic_layout.Made], tmp_path: Path
) -> None:
    root, made = simulated
    facts = mimic_layout.read(root, tmp_path / "cache", made)
    assert facts["used"] + facts["quarantined"] == 200
    assert facts["used"] > 90
    assert facts["priors"] > 40
    wanted = "no findings, report missing, image missing, image cut short, no frontal image, split unknown, no study_id"
    assert set(facts["reasons"]) == set(wanted.split(", "))
    assert {"s50913680", "s50196495"} <= made.used.keys()  # which MIT-LCP cut by hand


@pytest.mark.slow
def test_it_runs_through_chexalign_and_comparison_questions(
    simulated: tuple[Path, mimic_layout.Made], tmp_path: Path
) -> None:
    root, _ = simulated
    given = ["data.source=mimic-cxr", f"data.root={root}"]
    # by words, since the films are noise, and what the model says of noise scores 0 by findings
    several = ("evaluate.control=false", "data.train=16", "sample.n=4", "judge.name=text", "select.by=text")
    run = Run(tmp_path / "chexalign", smallest("chexalign", *given, *several))
    run_all(run)
    assert counts(run, "pair")["pairs"] >= 8
    assert run.path("report.html").is_file()
    notes = [event["text"] for event in run.events() if event["event"] == "note"]
    assert any(note.startswith("data.train is 16: of ") for note in notes)
    chexpo = Run(tmp_path / "chexpo", smallest("chexpo", *given, "task.asks=[comparison]", "data.train=40"))
    run_stage_alone(chexpo, "studies")
    told = re.search(r"([\d,]+) questions: comparison", " ".join(str(event) for event in chexpo.events()))
    assert told is not None
    assert int(told[1].replace(",", "")) > 20


def test_what_was_cut_by_hand_stands_in_no_prompt() -> None:
    found = corrected("s50058765", "", {"indication": "The lungs are clear.", "comparison": "None."})
    assert found == {"findings": "The lungs are clear.", "comparison": "None."}
    found = corrected("s51410602", "x" * 47 + "The lungs are clear. ".ljust(273) + "y", {"indication": "Cough."})
    assert found == {"findings": "The lungs are clear.", "indication": "Cough."}
    untouched = {"findings": "Clear.", "indication": "Cough."}
    assert corrected("s50000000", "", untouched) is untouched
    assert "findings" not in corrected("s58235663", "", {"findings": "Dictated in error.", "examination": "Chest."})
