"""Open-i in each layout that people have it in; small made-up copies, and the real images where they are there."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from radpref.config import DataSection, TaskSection
from radpref.data import DataError, Loaded, leakage, load_studies
from radpref.images import read_image
from radpref.tasks import report_question

pytestmark = pytest.mark.heavy

FINDINGS = "Heart size normal. No XXXX effusion."


def xml(uid: str, images: list[str], findings: str = FINDINGS) -> str:
    parents = "".join(f'<parentImage id="{name}"><caption>Chest</caption></parentImage>' for name in images)
    return f"""<?xml version="1.0" encoding="utf-8"?>
    <eCitation><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">dyspnea &amp; cough</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">Normal.</AbstractText>
    </Abstract></Article></MedlineCitation>{parents}</eCitation>"""


def image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (20, 20), dtype=np.uint8)
    Image.fromarray(noise).save(path)


REPORTS = {
    "1.xml": xml("1", ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]),
    "2.xml": xml("2", ["CXR2_IM-0652-1001"]),
    "3.xml": xml("3", ["CXR3_IM-0653-1001"], findings=""),
    "4.xml": xml("4", []),
    "5.xml": xml("5", ["CXR5_IM-0655-1001", "CXR5_IM-0655-2001"]),
}
BROKEN = {
    "6.xml": "<eCitation><uId id='CXR6'/>",
    "7.xml": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><eCitation><uId id="CXR7"/>&x;</eCitation>',
    "8.xml": "<other/>",
    "9.xml": "<eCitation>" + " " * 1_000_001 + "</eCitation>",
}


def archive(path: Path, reports: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as out:
        for name, text in reports.items():
            member = tarfile.TarInfo(f"ecgen-radiology/{name}")
            member.size = len(text.encode())
            out.addfile(member, io.BytesIO(text.encode()))


def load(root: Path, **settings: Any) -> Loaded:
    section = DataSection.model_validate({"source": "openi", "root": str(root), **settings})
    return load_studies(section, root.parent / "cache", 17)


def published(root: Path, suffix: str = ".png") -> None:
    """NLMCXR_png with the images of reports 1, 2, 3 and one of the two of report 5."""
    names = (
        "CXR1_1_IM-0001-3001",
        "CXR1_1_IM-0001-4001",
        "CXR2_IM-0652-1001",
        "CXR3_IM-0653-1001",
        "CXR5_IM-0655-1001",
    )
    for number, name in enumerate(names):
        image(root / "NLMCXR_png" / f"{name}{suffix}", number)


def check(loaded: Loaded) -> None:
    assert {study.id: len(study.images) for study in loaded.studies} == {"CXR1": 2, "CXR2": 1, "CXR5": 1}
    study = next(study for study in loaded.studies if study.id == "CXR1")
    assert (study.patient, study.findings, study.impression) == ("CXR1", FINDINGS, "Normal.")
    assert (study.indication, study.comparison) == ("dyspnea & cough", "None.")
    found = {row.id: row.reason.split(":")[0] for row in loaded.quarantined}
    assert found.items() >= {"CXR3": "no findings", "CXR4": "no images", "CXR5#image-2": "image missing"}.items()


def test_labels_by_hand_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    image(root / "1_IM-0001-4001.dcm.png", 1)
    row = {
        "uid": "1", "findings": FINDINGS, "images": [{"file": "1_IM-0001-4001.dcm.png", "projection": "Frontal"}],
        "chexpert_labeler_on_findings": {"Cardiomegaly": 1},
        "negbio_gold14": {"Effusion": 1, "Infiltration": 0, "Pleural_Thickening": 1, "Hernia": 0, "normal": 0, "x": 1},
    }  # fmt: skip
    (root / "reports.jsonl").write_text(json.dumps(row))
    assert load(root).studies[0].labels == {"Cardiomegaly": 1}
    by_hand = load(root, options={"labels": "manual"}).studies[0].labels
    # an infiltrate is an opacity, and other opacities are none of these labels; hernias were not looked for
    assert by_hand == {"pleural effusion": 1, "pleural thickening": 1, "No Finding": 0}
    row["negbio_gold14"]["Infiltration"] = 1  # type: ignore[index]
    (root / "reports.jsonl").write_text(json.dumps(row))
    assert load(root, options={"labels": "manual"}).studies[0].labels["lung opacity"] == 1
    (root / "reports.jsonl").write_text(json.dumps({**row, "negbio_gold14": None}))
    with pytest.raises(DataError, match=r"no row of reports\.jsonl has labels under 'negbio_gold14'"):
        load(root, options={"labels": "manual"})
    archive(root / "NLMCXR_reports.tgz", REPORTS)
    (root / "reports.jsonl").unlink()
    with pytest.raises(DataError, match=r"data\.options\.labels is manual, and NLMCXR_reports\.tgz has no labels"):
        load(root, options={"labels": "manual"})


@pytest.mark.parametrize("layout", ["archive", "folder", "named"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_published_layouts(tmp_path: Path, layout: str, suffix: str) -> None:
    root = tmp_path / "openi"
    published(root, suffix)
    settings = {}
    if layout == "archive":
        archive(root / "NLMCXR_reports.tgz", REPORTS | BROKEN)
    else:
        folder = root / "ecgen-radiology" if layout == "folder" else tmp_path / "reports"
        folder.mkdir()
        for name, text in (REPORTS | BROKEN).items():
            (folder / name).write_text(text)
        settings = {"file": str(folder)} if layout == "named" else {}
    loaded = load(root, **settings)
    check(loaded)
    found = {row.id: row.reason for row in loaded.quarantined}
    assert found["6.xml"] == "XML broken: ParseError"
    assert found["7.xml"] == "XML broken: EntitiesForbidden"
    assert found["8.xml"].startswith("XML of another kind")
    assert found["9.xml"].startswith("XML too large")
    assert any("views unknown" in note for note in loaded.notes)


def test_projections_put_the_frontal_image_first(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    published(root)
    archive(root / "NLMCXR_reports.tgz", REPORTS)
    lines = ["uid,filename,projection", "1,1_IM-0001-3001.dcm.png,Lateral", "1,1_IM-0001-4001.dcm.png,Frontal"]
    (root / "indiana_projections.csv").write_text("\n".join(lines))
    study = next(study for study in load(root).studies if study.id == "CXR1")
    assert [image.view for image in study.images] == ["frontal", "lateral"]
    assert study.images[0].path.endswith("CXR1_1_IM-0001-4001.png")


def row(uid: str, images: list[dict[str, Any]], findings: str = FINDINGS) -> dict[str, Any]:
    texts = {"comparison": "None.", "indication": "dyspnea & cough", "findings": findings, "impression": "Normal."}
    return {"uid": uid, "images": images, "chexpert_labeler_on_findings": {"Cardiomegaly": 0, "Edema": None}, **texts}


def picture(name: str | None, projection: str | None = "Frontal", view: str | None = None) -> dict[str, Any]:
    file = None if name is None else f"{name}.dcm.jpg"
    return {"xml_id": "", "file": file, "projection": projection, "view": view, "rows": 40, "cols": 20}


def test_the_jsonl_layout(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    for number, name in enumerate(("1_IM-1", "1_IM-2", "2_IM-1", "3_IM-1", "5_IM-1", "6_IM-1", "7_IM-1")):
        image(root / "images" / f"{name}.dcm.jpg", number)
    image(root / "other" / "2_IM-1.png", 2)  # the same image without loss is preferred
    (tmp_path / "7_IM-2.png").symlink_to(root / "images" / "7_IM-1.dcm.jpg")
    rows = [
        row("1", [picture("1_IM-1", "Lateral"), picture("1_IM-2")]),
        row("2", [picture("2_IM-1", None, "AP")]),
        row("3", [picture("3_IM-1")], findings=""),
        row("4", []),
        row("5", [picture("5_IM-1"), picture(None)]),
        row("6", [picture("6_IM-1", "Lateral", "LL")]),
        row("2", [picture("7_IM-1")]),
    ]
    lines = [*(json.dumps(one) for one in rows), '{"uid": "8"}', "[]", "{", ""]
    (root / "reports.jsonl").write_text("\n".join(lines))
    loaded = load(root)
    check(loaded)
    first = next(study for study in loaded.studies if study.id == "CXR1")
    assert [image.view for image in first.images] == ["frontal", "lateral"]
    assert read_image(first.images[0]).size == (10, 20)
    assert first.labels == {"Cardiomegaly": 0, "Edema": None}
    second = next(study for study in loaded.studies if study.id == "CXR2")
    assert second.images[0].view == "frontal"
    assert second.images[0].path.endswith("2_IM-1.png")
    found = {row.id: row.reason.split(":")[0] for row in loaded.quarantined}
    assert found["CXR6"] == "no frontal image"
    assert found["CXR2"] == "duplicate id"
    assert [found[f"line {n}"] for n in (8, 9, 10)] == ["row broken"] * 3


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    image(tmp_path / "out" / "CXR2_IM-0652-1001.png", 1)
    image(root / "CXR1_1_IM-0001-3001.png", 2)
    (root / "CXR2_IM-0652-1001.png").symlink_to(tmp_path / "out" / "CXR2_IM-0652-1001.png")
    archive(root / "NLMCXR_reports.tgz", REPORTS)
    assert {study.id for study in load(root).studies} == {"CXR1"}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    root.mkdir()
    with pytest.raises(DataError, match=r"data\.root is not set"):
        load_studies(DataSection(source="openi"), tmp_path, 0)
    with pytest.raises(DataError, match=r"looked for reports\.jsonl, NLMCXR_reports\.tgz"):
        load(root)
    archive(root / "NLMCXR_reports.tgz", REPORTS)
    with pytest.raises(DataError, match="holds no image of Open-i"):
        load(root)
    published(root)
    with pytest.raises(DataError, match=r"data\.file 'x' is no folder"):
        load(root, file="x")
    whole = (root / "NLMCXR_reports.tgz").read_bytes()
    (root / "NLMCXR_reports.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="download it again"):
        load(root)


# ---- the real images


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    section = DataSection(source="openi", root=str(shared_data / "iu_xray_256"))
    return load_studies(section, tmp_path_factory.mktemp("cache"), 17)


def test_real_counts(real: Loaded) -> None:
    counts = Counter(study.split for study in real.studies)
    assert sum(counts.values()) == 2366
    assert counts["train"] >= 1500
    assert counts["test"] >= 300
    assert counts["validation"] >= 150
    reasons = Counter(row.reason.split(":")[0] for row in real.quarantined)
    assert reasons == {"no findings": 469, "no frontal image": 126, "no images": 88, "image missing": 44}
    studies = sum("#image" not in row.id for row in real.quarantined)
    assert studies + 2366 == 3049  # nothing is lost
    assert not leakage(real.studies)


def test_real_images_have_their_aspect_and_their_order(real: Loaded) -> None:
    assert all(study.images[0].view == "frontal" for study in real.studies)
    for study in real.studies[:30]:
        for shown in study.images:
            picture = read_image(shown)
            assert shown.rows
            assert shown.cols
            assert max(picture.size) == 256
            assert picture.width / picture.height == pytest.approx(shown.cols / shown.rows, abs=0.02)


def test_real_questions(real: Loaded) -> None:
    questions = [report_question(study, TaskSection(), 2) for study in real.studies]
    assert len({question.id for question in questions}) == len(questions)
    assert all(1 <= len(question.images) <= 2 and question.images[0].view == "frontal" for question in questions)
    asked = [question for question in questions if "Indication:" in question.prompt]
    assert 0.8 < len(asked) / len(questions) < 0.98
    assert not any("XXXX" in question.prompt for question in questions)
    assert all(
        question.reference.split() == study.findings.split()
        for question, study in zip(questions, real.studies, strict=True)
    )
