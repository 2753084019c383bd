"""Tables as users have them, and what is wrong with them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from radpref.config import DataSection, RecipeError
from radpref.data import MAX_CHARACTERS, DataError, Loaded, load_studies
from radpref.data.source import RowError, inside, text_of

Rows = list[dict[str, Any]]
REPORT = "The heart is enlarged. No effusion."


def image(path: Path, number: int = 0, side: int = 24) -> str:
    """An image that differs from every other number's; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (side, side), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path.name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(40):
        image(folder / f"{number}.png", number)
    return folder


def rows(count: int = 40, **more: Any) -> Rows:
    return [
        {"id": f"s{n}", "patient": f"p{n // 2}", "images": [f"{n}.png"], "findings": f"{REPORT} {n}", **more}
        for n in range(count)
    ]


def jsonl(root: Path, table: Rows, name: str = "table.jsonl") -> None:
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")


def load(root: Path | None, **settings: Any) -> Loaded:
    cache = (root or Path(settings["file"]).parent).parent / "cache"
    given = {"source": "table", "root": None if root is None else str(root), **settings}
    return load_studies(DataSection.model_validate(given), cache, seed=3)


def reasons(loaded: Loaded) -> dict[str, str]:
    assert len({row.id for row in loaded.quarantined}) == len(loaded.quarantined)
    return {row.id: row.reason for row in loaded.quarantined}


# ---- the formats


def write_csv(root: Path, table: Rows, delimiter: str = ",", encoding: str = "utf-8", name: str = "table.csv") -> None:
    with (root / name).open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)


def write_parquet(root: Path, table: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), root / "table.parquet")


@pytest.mark.parametrize("write", [jsonl, write_csv, write_parquet])
def test_every_format_gives_the_same_studies(root: Path, write: Callable[[Path, Rows], None]) -> None:
    table = rows(impression="Cardiomegaly.", indication="dyspnea")
    write(root, table)
    loaded = load(root)
    assert not loaded.quarantined
    assert sorted(study.id for study in loaded.studies) == sorted(row["id"] for row in table)
    study = next(study for study in loaded.studies if study.id == "s7")
    assert (study.patient, study.findings, study.impression, study.indication) == (
        "p3",
        f"{REPORT} 7",
        "Cardiomegaly.",
        "dyspnea",
    )
    assert study.images[0].path == str((root / "7.png").resolve())
    assert {study.split for study in loaded.studies} == {"train", "validation", "test"}


@pytest.mark.parametrize("cell", ['["0.png", "1.png"]', "['0.png', '1.png']", "0.png;1.png", " 0.png ; 1.png "])
def test_several_images_in_a_cell_of_text(root: Path, cell: str) -> None:
    write_csv(root, [{"id": "a", "patient": "p", "images": cell, "findings": REPORT}])
    assert [Path(image.path).name for image in load(root).studies[0].images] == ["0.png", "1.png"]


def test_delimiters_quotes_and_a_byte_order_mark(root: Path) -> None:
    table = [{**row, "findings": 'He said "clear;\nno, effusion".'} for row in rows(3)]
    for delimiter, encoding in ((";", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-8")):
        write_csv(root, table, delimiter, encoding)
        loaded = load(root)
        assert not loaded.quarantined
        assert {study.findings for study in loaded.studies} == {'He said "clear;\nno, effusion".'}
        assert not [note for note in loaded.notes if "UTF-8" in note]


@pytest.mark.parametrize("write", [write_csv, None])
def test_latin_1_is_read_with_a_note(root: Path, write: Any) -> None:
    table = [{**row, "findings": "Cœur normal. Épanchement pleural à droite, 5 µm."} for row in rows(3)]
    if write:
        write_csv(root, table, encoding="cp1252")
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
        (root / "table.jsonl").write_bytes(text.encode("cp1252"))
    loaded = load(root)
    assert {study.findings for study in loaded.studies} == {"Cœur normal. Épanchement pleural à droite, 5 µm."}
    assert any("not UTF-8 and was read as cp1252" in note for note in loaded.notes)
    (root / "0.png").rename(root / "0é.png")


def test_an_absolute_file_with_and_without_a_root(root: Path, tmp_path: Path) -> None:
    jsonl(tmp_path, rows(4), "elsewhere.jsonl")
    assert len(load(root, file=str(tmp_path / "elsewhere.jsonl")).studies) == 4
    jsonl(root, rows(4))
    assert len(load(None, file=str(root / "table.jsonl")).studies) == 4


# ---- Hugging Face data sets


def hub(root: Path, count: int = 12) -> Any:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "findings": datasets.Value("string"),
            "uid": datasets.Value("int64"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": (root / f"{n}.png").read_bytes(), "path": None} for n in range(count)],
            "findings": [f"{REPORT} {n}" for n in range(count)],
            "uid": list(range(count)),
        },
        features=features,
    )


COLUMNS = {"id": "uid", "images": "image", "patient": "study"}


def test_a_data_set_on_disk_keeps_the_bytes_of_its_images(root: Path, tmp_path: Path) -> None:
    hub(root).save_to_disk(str(tmp_path / "hf"))
    loaded = load(tmp_path / "hf", table=COLUMNS)
    assert sorted(int(study.id) for study in loaded.studies) == list(range(12))
    for study in loaded.studies:
        kept = Path(study.images[0].path)
        assert kept.is_relative_to(tmp_path / "cache")
        assert kept.read_bytes() == (root / f"{study.id}.png").read_bytes()
    assert any("each study counts as a patient of its own" in note for note in loaded.notes)
    again = load(None, file=str(tmp_path / "hf"), table=COLUMNS)
    assert [study.id for study in again.studies] == [study.id for study in loaded.studies]


def test_the_parts_of_a_data_set_are_its_splits(root: Path, tmp_path: Path) -> None:
    import datasets

    whole = hub(root, 40)
    parts = datasets.DatasetDict({"train": whole.select(range(30)), "test": whole.select(range(30, 40))})
    parts.save_to_disk(str(tmp_path / "hf"))
    loaded = load(tmp_path / "hf", table=COLUMNS)
    split = {int(study.id): study.split for study in loaded.studies}
    assert {n for n in split if split[n] == "test"} == set(range(30, 40))
    assert {split[n] for n in range(30)} == {"train", "validation"}
    assert any("validation drawn by hash" in note for note in loaded.notes)
    mixed = load(tmp_path / "hf", table={**COLUMNS, "split": ""})
    assert {study.id for study in mixed.studies if study.split == "test"} != {str(n) for n in range(30, 40)}


def test_a_folder_that_datasets_can_read(root: Path, tmp_path: Path) -> None:
    hub(root).to_parquet(str(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"))
    assert len(load(None, file=str(tmp_path / "hub"), table=COLUMNS).studies) == 12


def test_a_path_in_a_data_set_stays_inside_too(root: Path, tmp_path: Path) -> None:
    import datasets

    outside = tmp_path / "secret.png"
    image(outside, 99)
    features = datasets.Features({"image": datasets.Image(), "findings": datasets.Value("string")})
    images = [{"bytes": None, "path": str(outside)}, {"bytes": (root / "0.png").read_bytes(), "path": "x"}]
    made = datasets.Dataset.from_dict({"image": images, "findings": [REPORT, REPORT]}, features=features)
    made.save_to_disk(str(tmp_path / "hf"))
    loaded = load(tmp_path / "hf", table={"id": "", "images": "image", "patient": "study"})
    # saving embeds what it can read; then there are only bytes, and nothing outside is opened by us
    for study in loaded.studies:
        assert Path(study.images[0].path).is_relative_to(tmp_path / "cache")
    assert len(loaded.studies) + len(loaded.quarantined) == 2


def test_a_name_on_the_hub_without_a_network_is_one_clear_error(root: Path) -> None:
    with pytest.raises(DataError, match="no path here, and as a data set of the hub it could not be loaded"):
        load(root, file="nobody/nothing-of-this-name")


# ---- rows that cannot be used


def test_bad_rows_are_quarantined_each_with_its_reason(root: Path, tmp_path: Path) -> None:
    image(tmp_path / "outside.png", 100)
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "inner.png").symlink_to(root / "20.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "away").symlink_to(tmp_path)
    noise = np.random.default_rng(1).integers(0, 255, (99, 99), dtype=np.uint8)
    Image.fromarray(noise).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:2000])
    Image.new("L", (1, 1)).save(root / "dot.png")
    Image.new("L", (50, 50), 7).save(root / "blank.png")
    bad: dict[str, dict[str, Any]] = {
        "up": {"images": ["../outside.png"]},
        "far": {"images": [str(tmp_path / "outside.png")]},
        "link": {"images": "link.png"},
        "away": {"images": "away/outside.png"},
        "loop": {"images": "loop.png"},
        "below": {"images": "loop.png/0.png"},
        "nul": {"images": "a\0b.png"},
        "url": {"images": "https://example.org/a.png"},
        "list": {"images": "[broken"},
        "kind": {"images": [3]},
        "none": {"images": []},
        "null": {"images": None},
        "lost": {"images": ["nothing.png"]},
        "cut": {"images": ["cut.jpg"]},
        "dot": {"images": ["dot.png"]},
        "blank": {"images": ["blank.png"]},
        "empty": {"findings": ""},
        "space": {"findings": " \n\t "},
        "absent": {"findings": None},
        "xxxx": {"findings": "XXXX XXXX. XXXX-xxxx, ___ [** 12 **]."},
        "long": {"findings": "No effusion. " * 4000},
        "map": {"findings": {"text": REPORT}},
        "flag": {"findings": True},
        "s1": {},
        "s1 ": {},
        "  ": {},
        "i" * 300: {},
    }
    table = [
        *rows(10),
        *(
            {"id": key, "patient": f"of {key}", "images": "30.png", "findings": REPORT} | row
            for key, row in bad.items()
        ),
    ]
    table.append({"id": "inner", "patient": "inner", "images": "inner.png", "findings": REPORT})
    table.append({"id": "back", "patient": "back", "images": str(root / "21.png"), "findings": REPORT})
    table.append({"id": "dos", "patient": "dos", "images": r".\22.png", "findings": REPORT})
    jsonl(root, table)
    with (root / "table.jsonl").open("a") as file:
        file.write('{"id": "broken", \n[1, 2]\n\n')
    loaded = load(root)
    found = reasons(loaded)
    expected = {
        "up": "path leads out of data.root",
        "far": "path leads out of data.root",
        "link": "path leads out of data.root",
        "away": "path leads out of data.root",
        "loop": "path cannot be followed",
        "below": "path cannot be followed",
        "nul": "path cannot be followed",
        "url": "image is a URL",
        "list": "images not readable",
        "kind": "image is neither path nor image",
        "none": "no images",
        "null": "no images",
        "lost": "no usable image left",
        "lost#image-1": "image missing",
        "cut#image-1": "image cut short",
        "cut": "no usable image left",
        "dot#image-1": "image too small",
        "dot": "no usable image left",
        "blank#image-1": "image blank",
        "blank": "no usable image left",
        "empty": "no findings: the section is empty",
        "space": "no findings: the section is empty",
        "absent": "no findings: the section is empty",
        "xxxx": "no findings: nothing but marks of removed text",
        "long": f"report too long: 51,999 characters, at most {MAX_CHARACTERS:,}",
        "map": "cell is no text",
        "flag": "cell is no text",
        "s1": "duplicate id",
        "s1~2": "duplicate id",
        "i" * 200: "id not usable",
        f"line {len(rows(10)) + list(bad).index('  ') + 1}": "no id",
    }
    for line in (len(table) + 1, len(table) + 2):
        expected[f"line {line}"] = "row broken: the line is no JSON object"
    assert found.keys() == expected.keys()
    for key, reason in expected.items():
        assert found[key].startswith(reason), key
    assert {study.id for study in loaded.studies} == {f"s{n}" for n in range(10)} | {"inner", "back", "dos"}
    assert all(Path(image.path).is_relative_to(root.resolve()) for study in loaded.studies for image in study.images)


def test_notes_and_errors_hold_no_identifier_and_no_text(root: Path) -> None:
    table = [{"id": "MRN-4711", "patient": "Doe^Jane", "images": "gone-4711.png", "findings": "secret"}]
    table += [{"id": "MRN-4711", "patient": "Doe^Jane", "images": "../4711.png", "findings": "secret"}]
    jsonl(root, [*rows(6), *table])
    loaded = load(root)
    assert loaded.quarantined
    for text in [*loaded.notes, *(row.reason for row in loaded.quarantined)]:
        assert not any(word in text for word in ("4711", "Doe", "secret"))


def test_one_bad_image_of_several_costs_the_image_and_not_the_study(root: Path) -> None:
    jsonl(root, [*rows(4), {"id": "two", "patient": "x", "images": ["gone.png", "9.png"], "findings": REPORT}])
    loaded = load(root)
    study = next(study for study in loaded.studies if study.id == "two")
    assert [Path(image.path).name for image in study.images] == ["9.png"]
    assert list(reasons(loaded)) == ["two#image-1"]


def test_broken_csv_rows(root: Path) -> None:
    write_csv(root, [{**row, "images": row["images"][0]} for row in rows(3)])
    with (root / "table.csv").open("a") as file:
        file.write('short,row\nx,y,30.png,No effusion, and more, cells\n\nq,p,31.png,"stray" quote\n')
        file.write('ok,ok,32.png,Clear.\nz,z,33.png,"never closed\nmore,and,more,rows\n')
    loaded = load(root)
    assert {study.id for study in loaded.studies} == {"s0", "s1", "s2", "ok"}
    found = reasons(loaded)
    assert found.keys() == {"line 5", "line 6", "line 8", "line 10", "more", "more#image-1"}
    assert found["line 5"].startswith("row broken: 2 cells under 4 columns")
    assert found["line 6"].startswith("row broken: 6 cells under 4 columns")


def test_whole_float_ids_and_odd_characters(root: Path) -> None:
    table = rows(2)
    table[0] |= {"id": 12.0, "findings": "Clear\x00 lungs\ud800."}
    table[1] |= {"id": 13}
    jsonl(root, table)
    found = {study.id: study.findings for study in load(root).studies}
    assert found["12"] == "Clear  lungs?."
    json.dumps(found["12"]).encode("utf-8")
    assert found["13"]


# ---- tables that cannot be used: an error before any work


def fails(root: Path | None, **settings: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load(root, **settings)
    return str(caught.value)


def test_a_missing_column_names_the_nearest(root: Path) -> None:
    jsonl(root, [{"id": row["id"], "patient": "p", "images": row["images"], "findungs": REPORT} for row in rows(3)])
    for number in range(40):  # not one image is looked at
        (root / f"{number}.png").unlink()
    message = fails(root)
    assert "no column of findings" in message
    assert "did you mean 'findungs'" in message
    assert "--data.table.findings" in message
    message = fails(root, table={"findings": "findungs", "impression": "imprssion"})
    assert "data.table.impression is 'imprssion'" in message
    jsonl(root, [{key: value for key, value in row.items() if key != "id"} for row in rows(3)])
    assert "set it to '' to number the rows" in fails(root)
    jsonl(root, [{key: value for key, value in row.items() if key != "images"} for row in rows(3)])
    assert "no column of images" in fails(root)


def test_no_patient_is_an_error_that_names_the_likeliest(root: Path) -> None:
    jsonl(root, [{"PatHash" if key == "patient" else key: cell for key, cell in row.items()} for row in rows(6)])
    message = fails(root)
    assert "the likeliest is 'PatHash'" in message
    assert "--data.table.patient study" in message
    assert len({study.patient for study in load(root, table={"patient": "PatHash"}).studies}) == 3
    loaded = load(root, table={"patient": "study"})
    assert len({study.patient for study in loaded.studies}) == 6
    assert any("each study counts as a patient of its own" in note for note in loaded.notes)
    jsonl(root, [{**row, "patient": " " if n == 3 else row["patient"]} for n, row in enumerate(rows(6))])
    assert reasons(load(root))["s3"].startswith("no patient")


def test_rows_can_be_numbered(root: Path) -> None:
    jsonl(root, [{"images": f"{n}.png", "findings": REPORT} for n in range(5)])
    loaded = load(root, table={"id": "", "patient": "study"})
    assert {study.id for study in loaded.studies} == {f"line-{n}" for n in range(1, 6)}


def test_tables_that_are_not_there(root: Path, tmp_path: Path) -> None:
    assert "holds none" in fails(root)
    jsonl(root, rows(3), "a.jsonl")
    assert "did you mean 'a.jsonl'" in fails(root, file="b.jsonl")
    jsonl(root, rows(3), "b.jsonl")
    assert "holds 'a.jsonl', 'b.jsonl'" in fails(root)
    assert "of kind '.xlsx'" in fails(root, file=Path(root / "a.xlsx").touch() or "a.xlsx")
    assert "does not exist" in fails(tmp_path / "nowhere")
    assert "is a file" in fails(root / "a.jsonl")
    with pytest.raises(DataError, match=r"neither data\.root nor data\.file"):
        load_studies(DataSection(source="table"), tmp_path, 0)
    (root / "cut.parquet").write_bytes(b"PAR1 and no more")
    assert "no Parquet file" in fails(root, file="cut.parquet")
    (root / "empty.csv").touch()
    assert "empty" in fails(root, file="empty.csv")
    (root / "twice.csv").write_text("id,images,findings,findings\n1,0.png,a,b\n")
    assert "columns of the same name: 'findings'" in fails(root, file="twice.csv")
    (root / "wide.csv").write_bytes("id,images".encode("utf-16")[:-1])
    assert "UTF-16" in fails(root, file="wide.csv")
    (tmp_path / "no").mkdir()
    assert "is no data set" in fails(None, file=str(tmp_path / "no"))


def test_nothing_usable_says_why(root: Path) -> None:
    jsonl(root, [{**row, "findings": "XXXX"} for row in rows(3)])
    message = fails(root)
    assert "no usable study" in message
    assert "3 no findings" in message
    jsonl(root, [{**row, "images": "gone.png"} for row in rows(3)])
    assert "image missing" in fails(root)


# ---- tables as hospitals write them


def test_usual_names_are_found_and_shown(root: Path) -> None:
    table = [
        {
            "StudyInstanceUID": f"1.2.{n}",
            "MRN": f"m{n // 2}",
            "ImagePath": f"{n}.png",
            "ViewPosition": "AP",
            "Report Text": f"INDICATION: cough. FINDINGS: {REPORT} IMPRESSION: Enlarged heart.",
        }
        for n in range(20)
    ]
    write_csv(root, table)
    loaded = load(root)
    study = next(study for study in loaded.studies if study.id == "1.2.3")
    assert (study.patient, study.images[0].view) == ("m1", "frontal")
    assert (study.findings, study.impression, study.indication) == (REPORT, "Enlarged heart.", "cough.")
    assert any("patient from 'MRN'" in note and "report from 'Report Text'" in note for note in loaded.notes)


def test_a_row_an_image_becomes_one_study_of_its_images(root: Path) -> None:
    table = [
        {"study_id": f"s{n // 2}", "subject_id": f"p{n // 4}", "path": f"{n}.png", "view": view, "findings": REPORT}
        for n, view in zip(range(20), ["LATERAL", "PA"] * 10, strict=True)
    ]
    table[5]["findings"] = ""  # the report stands with one of its images
    table.append({**table[0], "path": "30.png", "findings": "Another text."})
    table.append({**table[0], "path": "31.png", "subject_id": "p9"})
    table.append(table[0])
    write_csv(root, table)
    loaded = load(root)
    assert len(loaded.studies) == 10
    assert all([image.view for image in study.images] == ["frontal", "lateral"] for study in loaded.studies)
    assert Counter(row.reason.split(" (")[0] for row in loaded.quarantined) == {
        "duplicate id: an earlier row has it with another report": 1,
        "duplicate id: an earlier row has it with another patient": 1,
        "duplicate id: an earlier row says the same": 1,
    }


def test_the_report_may_stand_with_a_later_image(root: Path) -> None:
    write_csv(
        root,
        [
            {"study_id": "s", "patient": "p", "path": "0.png", "view": "LL", "findings": ""},
            {"study_id": "s", "patient": "p", "path": "1.png", "view": "PA", "findings": REPORT},
            {"study_id": "t", "patient": "q", "path": "2.png", "view": "PA", "findings": REPORT},
            {"study_id": "u", "patient": "r", "path": "3.png", "view": "PA", "findings": REPORT},
        ],
    )
    study = next(study for study in load(root).studies if study.id == "s")
    assert (study.findings, len(study.images)) == (REPORT, 2)


@pytest.mark.parametrize(
    "written",
    [
        "0.png;1.png", "0.png, 1.png", "0.png,1.png", "0.png|1.png", "0.png 1.png", "0.png\n1.png",
        '["0.png", "1.png"]',
        "['0.png', '1.png']", "['0.png' '1.png']", "('0.png', '1.png')", '"0.png";"1.png"', "0; 1", " 0.png ; 1.png ; ",
    ],
)  # fmt: skip
def test_several_images_in_any_usual_writing(root: Path, written: str) -> None:
    table: Rows = [{"id": "s", "patient": "p", "images": written, "view": "PA;LATERAL", "findings": REPORT}]
    write_csv(root, [*table, *({**row, "images": row["images"][0], "view": "PA"} for row in rows(20)[2:])])
    loaded = load(root)
    study = next(study for study in loaded.studies if study.id == "s")
    assert [(Path(image.path).name, image.view) for image in study.images] == [
        ("0.png", "frontal"),
        ("1.png", "lateral"),
    ]
    assert not loaded.quarantined


def test_names_with_commas_and_blanks_are_one_image(root: Path) -> None:
    (root / "Doe, Jane 1.png").write_bytes((root / "1.png").read_bytes())
    table = [*rows(9)[2:], {"id": "s", "patient": "p", "images": "Doe, Jane 1.png", "findings": REPORT}]
    jsonl(root, table)
    assert len(load(root).studies) == 8


def test_images_by_name_alone_are_found_once(root: Path) -> None:
    image(root / "files" / "p10" / "abc-1.png", 70)
    image(root / "files" / "p10" / "same.png", 71)
    image(root / "files" / "p11" / "same.png", 72)
    table: Rows = [
        {"study_id": "one", "subject_id": "a", "dicom_id": "abc-1", "findings": REPORT},
        {"study_id": "two", "subject_id": "b", "dicom_id": "same", "findings": REPORT},
        *({"study_id": f"n{n}", "subject_id": f"n{n}", "dicom_id": str(n), "findings": REPORT} for n in range(6)),
    ]
    write_csv(root, table)
    loaded = load(root)
    assert len(loaded.studies) == 7
    assert reasons(loaded)["two"].startswith("image not named: several folders")


def test_priors_by_date(root: Path) -> None:
    days = ["2021-03-04", "20210305", "2021-03-04 10:30", "", "2020-12-31T23:59:00", "2021-03-05"]
    table = [{**row, "patient": "p", "StudyDate": day} for row, day in zip(rows(6), days, strict=True)]
    table += [{**row, "id": f"q{n}", "patient": "q", "StudyDate": "2021-01-01"} for n, row in enumerate(rows(9)[6:])]
    write_csv(root, [{**row, "images": row["images"][0]} for row in table])
    loaded = load(root)
    priors = {study.id: study.prior for study in loaded.studies}
    assert priors == {
        "s4": None, "s0": "s4", "s2": "s0", "s1": "s2", "s5": "s2", "s3": None, "q0": None, "q1": None, "q2": None,
    }  # fmt: skip
    assert any("nearest earlier one by date" in note and "1 studies without a date" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("days", "prior", "said"),
    [
        (["03/04/2021", "25/03/2021"], {"s0": "s1", "s1": None}, "nearest earlier"),
        (["03/04/2021", "03/25/2021"], {"s0": None, "s1": "s0"}, "nearest earlier"),
        (["03/04/2021", "04/03/2021"], {"s0": None, "s1": None}, "day or month first"),
        (["25/03/2021", "03/25/2021"], {"s0": None, "s1": None}, "day or month first"),
        (["04.03.2021", "05.03.2021"], {"s0": None, "s1": "s0"}, "nearest earlier"),
    ],
)
def test_dates_that_read_two_ways(root: Path, days: list[str], prior: dict[str, str | None], said: str) -> None:
    table = [{**row, "images": row["images"][0], "date": day} for row, day in zip(rows(2), days, strict=True)]
    write_csv(root, table)
    loaded = load(root)
    assert {study.id: study.prior for study in loaded.studies} == prior
    assert any(said in note for note in loaded.notes)


def test_a_table_of_questions(root: Path) -> None:
    table = [
        {"image": f"{n // 2}.png", "patient": f"p{n // 4}", "question": ask, "answer": answer}
        for n, (ask, answer) in enumerate([("Is there an effusion?", "no"), ("Where is the mass?", "left")] * 6)
    ]
    table += [table[0], {**table[0], "question": " "}]
    write_csv(root, table)
    loaded = load(root)
    assert len(loaded.studies) == 6
    questions = [asked for study in loaded.studies for asked in study.questions]
    assert len(questions) == 12
    assert Counter(asked.closed for asked in questions) == {True: 6, False: 6}
    assert Counter(row.reason.split(":")[0] for row in loaded.quarantined) == {"duplicate id": 1, "no question": 1}


def test_a_file_packed_by_gzip_is_read_to_its_end(root: Path) -> None:
    write_csv(root, [{**row, "images": row["images"][0]} for row in rows(40)])
    content = (root / "table.csv").read_bytes()
    (root / "table.csv").unlink()
    (root / "table.csv.gz").write_bytes(gzip.compress(content))
    assert len(load(root).studies) == 40
    packed = bytearray(gzip.compress(content))
    packed[-6] ^= 1  # the check sum
    (root / "table.csv.gz").write_bytes(packed)
    assert "table.csv.gz cannot be read to its end" in fails(root)
    (root / "table.csv.gz").write_bytes(gzip.compress(content)[:-40])
    assert "table.csv.gz cannot be read to its end" in fails(root)


def test_keys_that_another_source_would_not_read_are_errors(root: Path, tmp_path: Path) -> None:
    jsonl(root, rows(3))
    for keys in ({"root": str(root)}, {"file": "studies.jsonl"}, {"root": str(tmp_path / "nowhere")}):
        with pytest.raises(DataError, match=r"data\.source is phantom, which reads neither"):
            load_studies(DataSection.model_validate({"source": "phantom", **keys}), tmp_path, 0)
    with pytest.raises(DataError, match="is no option of table"):
        load(root, options={"body": "chest"})
    with pytest.raises(DataError, match=r"set data\.source to table"):
        load_studies(DataSection.model_validate({"table": {"id": "uid"}}), tmp_path, 0)


# ---- splits that come with the table


def test_the_split_column_and_its_names(root: Path) -> None:
    names = ["train", "Training", "val", "dev", "TEST", "train"]
    jsonl(root, [{**row, "split": name, "patient": row["id"]} for row, name in zip(rows(6), names, strict=True)])
    loaded = load(root)
    assert {study.id: study.split for study in loaded.studies} == {
        "s0": "train",
        "s1": "train",
        "s2": "validation",
        "s3": "validation",
        "s4": "test",
        "s5": "train",
    }


def test_an_unknown_split_is_quarantined_and_a_wrong_column_is_an_error(root: Path) -> None:
    table = [{**row, "split": "train" if n else "fold-7"} for n, row in enumerate(rows(30))]
    jsonl(root, table)
    loaded = load(root)
    assert reasons(loaded)["s0"].startswith("split unknown")
    assert {study.split for study in loaded.studies} == {"train", "validation", "test"}
    assert "no cell of that column" in fails(root, table={"split": "findings"})


def test_a_published_split_that_leaks_is_refused_with_counts(root: Path) -> None:
    table = [{**row, "split": "test" if n % 2 else "train"} for n, row in enumerate(rows(10))]
    jsonl(root, table)
    message = fails(root)
    assert "5 patients in more than one split (5 in train and test)" in message
    assert "data.table.split" in message
    assert "p1" not in message
    assert load(root, table={"split": ""}).studies  # the way out that the message names
    images = [
        {**row, "patient": row["id"], "images": "0.png" if n < 2 else row["images"]} for n, row in enumerate(table)
    ]
    jsonl(root, images)
    assert "1 image in more than one split (1 in train and test)" in fails(root)
    Image.open(root / "0.png").save(root / "copy.tif")  # the same picture in another file
    images[1]["images"] = "copy.tif"
    jsonl(root, images)
    assert "1 studies whose image stands in train and test" in fails(root)


# ---- small parts


@settings(deadline=None)
@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.lists(st.text())))
def test_any_cell_becomes_text_that_can_be_written(cell: Any) -> None:
    text = text_of(cell)
    assert text.encode("utf-8").decode("utf-8") == text.strip()
    assert "\0" not in text


@settings(deadline=None)
@given(st.lists(st.sampled_from(["..", "/", "a", "\\", ".", "~", "link", "$HOME", "\0", " "]), max_size=12))
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp().resolve() / "root"
    root.mkdir(exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("/")
    with contextlib.suppress(RowError):
        assert inside(root, "".join(parts)).is_relative_to(root)


def test_every_reason_of_the_count_is_in_the_notes(root: Path) -> None:
    jsonl(root, [*rows(6), *({**row, "id": f"x{n}", "findings": ""} for n, row in enumerate(rows(4)))])
    loaded = load(root)
    assert Counter(row.reason for row in loaded.quarantined) == {"no findings: the section is empty": 4}
    assert "4 rows in quarantine: 4 no findings" in loaded.notes
