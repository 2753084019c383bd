"""``radpref data inspect``: a clean table is told as it is, a messy export with all that is wrong with it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from radpref.config import DataSection
from radpref.data import DataError, load_studies
from radpref.data.inspect import Inspection, inspect, section_for
from radpref.data.languages import language_of
from tests.published import LAYOUTS, TEXT, picture

GERMAN = "Kein Erguss und kein Pneumothorax. Das Herz ist nicht vergrößert, die Lunge ist frei."


def look(file: Path, **more: Any) -> Inspection:
    return inspect(section_for(str(file), **more), file.parent.parent / "cache")


def messy(root: Path) -> Path:
    """An export as a hospital's system writes it: a row an image, odd names, and something wrong with most of it."""
    rows = []
    for number in range(40):
        picture(root / "img" / f"{number}.png", number, 48)
        rows.append(
            {
                "AccessionNumber": f"A{number // 2:04}",
                "MRN": f"{number // 4}",
                "StudyDate": f"{1 + number % 28:02}/0{1 + number % 9}/2021",
                "ViewPosition": "LATERAL" if number % 2 == 0 else "PA",
                "ImagePath": f"img/{number}.png",
                "ReportText": f"FINDINGS: {TEXT.format(number // 2)} IMPRESSION: Effusion." if number % 2 == 0 else "",
                "Edema": str(number % 2),
                "Comment": "nan",
            }
        )
    for number in (4, 6):
        rows[number]["ReportText"] = f"FINDINGS: {GERMAN}"
    for number in (8, 10, 12):
        rows[number]["ReportText"] = ""
    rows[14]["ImagePath"] = "img/not there.png"
    rows[16]["MRN"] = ""
    rows[17]["MRN"] = ""
    shutil.copy(root / "img" / "20.png", root / "img" / "copy of 20.png")
    rows[22]["ImagePath"] = "img/copy of 20.png"
    Image.open(root / "img" / "24.png").save(root / "img" / "26.jpg", quality=95)
    rows[26]["ImagePath"] = "img/26.jpg"
    (root / "img" / "28.png").write_bytes((root / "img" / "28.png").read_bytes()[:300])
    Image.new("L", (48, 48), 9).save(root / "img" / "30.png")
    rows.append(dict(rows[32]))
    rows.append({**rows[34], "ReportText": "FINDINGS: Another text altogether."})
    path = root / "Export 2021.csv"
    with path.open("w", newline="", encoding="cp1252") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
        file.write("A9999;1;one cell too few\r\n")
    return path


def test_a_messy_export_is_told_with_all_that_is_wrong(tmp_path: Path) -> None:
    path = messy(tmp_path / "data")
    found = look(path)
    assert found.columns is not None
    assert {name: found.columns.of[name] for name in ("id", "patient", "images", "view", "report", "date")} == {
        "id": "AccessionNumber",
        "patient": "MRN",
        "images": "ImagePath",
        "view": "ViewPosition",
        "report": "ReportText",
        "date": "StudyDate",
    }
    assert (found.counts["rows"], found.counts["images"], found.counts["missing"]) == (43, 38, 1)
    assert found.reasons["duplicate id"] == 2
    assert found.reasons["no patient"] == 2
    assert found.reasons["no findings"] == 3
    assert found.reasons["row broken"] == 1
    assert found.reasons["image missing"] == 1
    assert found.counts["broken"] == 2
    assert found.views == {"lateral": 19, "frontal": 19}
    assert found.languages == {"English": 14, "German": 2}
    assert found.doubled["images"] == 1
    assert found.doubled["nearly"] >= 2  # the copy and the one that was saved as JPEG
    assert found.empty["MRN"] == 2
    assert found.empty["Comment"] == 42
    assert found.labels == {"Edema": (20, 22, 0)}
    text = "\n".join(found.lines())
    for words in (
        "1 of 38 images are not there",
        "2 of 16 reports are not in English",
        "rows would be quarantined",
        "images are the bytes of another file",
        "of the decoded images are nearly another's",
        "read as cp1252",
        "nearest earlier one by date",
    ):
        assert words in text
    for identifier in ("A0001", "copy of 20", "not there.png", "Derrame", GERMAN[:12]):
        assert identifier not in text
    assert found.picture is not None
    assert found.picture.size[0] > 100


def test_what_inspect_says_is_what_a_run_does(tmp_path: Path) -> None:
    path = messy(tmp_path / "data")
    found = look(path)
    section = yaml.safe_load(found.recipe())["data"]
    assert section["table"]["patient"] == "MRN"
    loaded = load_studies(DataSection.model_validate(section), tmp_path / "run", 17)
    told = sum(n for reason, n in found.reasons.items() if "decoded" not in reason and reason != "image missing")
    refused = [row for row in loaded.quarantined if "#" not in row.id and "usable" not in row.reason]
    assert len([row for row in refused if not row.reason.startswith(("image", "no frontal"))]) == told


def test_a_clean_table_has_no_warnings(tmp_path: Path) -> None:
    root = tmp_path / "data"
    rows = []
    for number in range(60):
        picture(root / f"{number}.png", number, 48)
        text = f"The heart is normal in size. There is no effusion. Number {number}."
        keys = {"id": f"s{number}", "patient": f"p{number // 2}", "image": f"{number}.png", "view": "PA"}
        rows.append({**keys, "findings": text})
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = look(root / "table.jsonl")
    assert found.warnings == ()
    assert found.reasons == {}
    assert sum(found.splits.values()) == 60
    assert "60 rows: 60 studies of 30 patients, 60 images" in found.lines()[0]


def test_a_table_without_patients_says_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS["table"].write(root)
    path = root / "export.csv"
    path.write_text(path.read_text().replace("mrn", "Kennung"))
    with pytest.raises(DataError, match=r"--data\.table\.patient study"):
        look(path)


@pytest.mark.parametrize("name", ["mimic-cxr", "openi-kaggle", "rexvqa", "slake"])
def test_other_sources_are_inspected_too(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    layout = LAYOUTS[name]
    layout.write(root)
    section = DataSection.model_validate({"source": layout.source, "root": str(root), **layout.settings})
    found = inspect(section, tmp_path / "cache")
    assert found.counts["studies"] == 15
    assert yaml.safe_load(found.recipe())["data"]["source"] == layout.source


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The lungs are clear. There is no pleural effusion.", "English"),
        ("No acute cardiopulmonary process.", "English"),
        (GERMAN, "German"),
        ("Sin derrame pleural. El corazón es de tamaño normal y los pulmones están bien.", "Spanish"),
        ("Pas d'épanchement pleural. Le coeur est de taille normale et les poumons sont clairs.", "French"),
        ("两肺未见明显异常。", "Chinese"),
        ("Clear.", "unknown"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language
