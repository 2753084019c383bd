"""The gate that all sources pass: splits by patient, leaks, caps, and the one decoding of every image."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import radpref.data.gate as gate
from radpref.config import DataSection
from radpref.data import SOURCES, DataError, Found, leakage, load_studies
from radpref.data.admission import Book
from radpref.data.source import NoOptions, Source
from radpref.data.splits import draw, joined, split_of
from radpref.files import StoreError
from radpref.images import image_hash
from radpref.records import ImageFile, Split, Study, View
from tests.published import dicom


def study(number: int, patient: str | None = None, path: str | None = None, split: Split = "train") -> Study:
    images = (ImageFile(path=path or f"/images/{number}.png"),)
    return Study(id=f"s{number}", patient=patient or f"p{number}", images=images, findings="Clear lungs.", split=split)


def image(path: Path, number: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (20, 20), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """A list that stands as the data source ``table``; a test fills it."""
    studies: list[Study] = []
    given = Source("table", "a list", lambda section, options, cache, seed: Found(list(studies)), NoOptions)
    monkeypatch.setattr("radpref.data.load.SOURCES", {**SOURCES, "table": given})
    return studies


def split_by_patient(studies: list[Study], seed: int, **shares: float) -> list[Study]:
    return [row.model_copy(update={"split": split_of(draw(seed, row.patient), **shares)}) for row in studies]


# ---- splits

PATIENTS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=60)


@settings(deadline=None)
@given(PATIENTS, PATIENTS, st.integers(0, 5))
def test_a_split_does_not_move_when_rows_are_added(some: list[str], more: list[str], seed: int) -> None:
    def split(patients: list[str]) -> dict[str, str]:
        rows = [study(n, patient) for n, patient in enumerate(patients)]
        done = split_by_patient(rows, seed=seed, validation_share=0.2, test_share=0.3)
        assert not leakage(done, lambda image: image.path)
        return {row.patient: row.split for row in done}

    before, after = split(some), split([*more, *some])
    assert all(after[patient] == before[patient] for patient in some)


def test_shares_and_seeds() -> None:
    rows = [study(n) for n in range(4000)]
    one = split_by_patient(rows, seed=1, validation_share=0.1, test_share=0.2)
    counts = Counter(row.split for row in one)
    assert counts["test"] == pytest.approx(800, abs=80)
    assert counts["validation"] == pytest.approx(400, abs=60)
    two = split_by_patient(rows, seed=2, validation_share=0.1, test_share=0.2)
    assert sum(a.split != b.split for a, b in zip(one, two, strict=True)) > 1000


def test_leakage_counts_patients_studies_and_images(tmp_path: Path) -> None:
    same = image(tmp_path / "a.png", 1)
    copy = image(tmp_path / "b.png", 1)
    other = image(tmp_path / "c.png", 2)
    rows = [study(1, "p", same), study(2, "q", copy, "test"), study(3, "p", other, "validation")]
    assert leakage(rows) == [
        "1 patient in more than one split (1 in train and validation)",
        "1 image in more than one split (1 in train and test)",
    ]
    again = [study(1, "a", same), study(1, "b", other, "test")]
    assert leakage(again) == ["1 study id in more than one split (1 in train and test)"]
    assert not leakage(rows[:1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_patients_that_share_an_image_become_one(links: list[tuple[int, int]]) -> None:
    rows = [study(n, f"p{patient}", f"/{path}.png") for n, (patient, path) in enumerate(links)]
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row.images[0].path, set()).add(row.patient)
    names = joined(groups.values())
    renamed = [row.model_copy(update={"patient": names.get(row.patient, row.patient)}) for row in rows]
    parts = {row.patient: {f"p{patient}"} for row, (patient, _) in zip(renamed, links, strict=True)}
    for row, (patient, _) in zip(renamed, links, strict=True):
        parts[row.patient].add(f"p{patient}")
    assert all(name == min(members) for name, members in parts.items())
    assert len(names) == len({row.patient for row in rows}) - len(parts)
    holders: dict[str, set[str]] = {}
    for row in renamed:
        holders.setdefault(row.images[0].path, set()).add(row.patient)
    assert all(len(patients) == 1 for patients in holders.values())


# ---- load_studies


def test_caps_take_the_same_studies_first_whatever_the_cap(tmp_path: Path, source: list[Study]) -> None:
    source += [study(n, path=image(tmp_path / f"{n}.png", n)) for n in range(120)]

    def load(**caps: int) -> dict[str, list[str]]:
        section = DataSection(source="table", **caps)
        found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for row in load_studies(section, tmp_path / "cache", 5).studies:
            found[row.split].append(row.id)
        return found

    whole, few = load(), load(train=9, validation=2, test=5)
    assert [len(few[split]) for split in ("train", "validation", "test")] == [9, 2, 5]
    assert all(whole[split][: len(few[split])] == few[split] for split in whole)
    source.reverse()
    assert load(train=9, validation=2, test=5) == few


def test_every_beginning_holds_the_splits_in_proportion(tmp_path: Path, source: list[Study]) -> None:
    source += [study(n, path=image(tmp_path / f"{n}.png", n)) for n in range(100)]
    studies = load_studies(DataSection(source="table"), tmp_path / "cache", 5).studies
    whole = Counter(row.split for row in studies)
    for length in range(0, 101, 10):
        part = Counter(row.split for row in studies[:length])
        assert all(abs(part[split] - whole[split] * length / 100) <= 2 for split in whole)


def test_an_image_in_two_splits_stays_in_the_held_out_one(tmp_path: Path, source: list[Study]) -> None:
    source += [study(n, path=image(tmp_path / f"{n}.png", n)) for n in range(60)]
    before = {row.id: row.split for row in load_studies(DataSection(source="table"), tmp_path / "c", 5).studies}
    held_out = next(number for number in range(60) if before[f"s{number}"] == "test")
    trained = next(number for number in range(60) if before[f"s{number}"] == "train")
    Image.open(tmp_path / f"{held_out}.png").save(tmp_path / "other.tif")  # another file, the same picture
    source[trained] = study(trained, path=str(tmp_path / "other.tif"))
    loaded = load_studies(DataSection(source="table"), tmp_path / "c", 5)
    after = {row.id: row.split for row in loaded.studies}
    assert after == {key: split for key, split in before.items() if key != f"s{trained}"}
    assert [(row.id, row.reason) for row in loaded.quarantined] == [
        (f"s{trained}", "image shared: the same picture is in test")
    ]


def test_a_picture_nearly_of_a_held_out_study_is_left_out(tmp_path: Path, source: list[Study]) -> None:
    def wave(number: int) -> Image.Image:
        rng = np.random.default_rng(number)
        grid = np.kron(rng.integers(0, 200, (8, 8)), np.ones((20, 20))).astype(np.uint8)
        return Image.fromarray(grid).resize((160, 160), Image.Resampling.BICUBIC)

    for number in range(60):
        wave(number).save(tmp_path / f"{number}.png")
    source += [study(n, path=str(tmp_path / f"{n}.png")) for n in range(60)]
    section = DataSection(source="table")
    before = {row.id: row.split for row in load_studies(section, tmp_path / "c", 5).studies}
    held_out = [number for number in range(60) if before[f"s{number}"] != "train"]
    trained = [number for number in range(60) if before[f"s{number}"] == "train"]
    wave(held_out[0]).save(tmp_path / f"{trained[0]}.jpg", quality=80)
    wave(held_out[1]).point(lambda value: value + 10).save(tmp_path / f"{trained[1]}.png")
    wave(held_out[2]).crop((2, 2, 158, 158)).save(tmp_path / f"{trained[2]}.png")
    source[trained[0]] = study(trained[0], path=str(tmp_path / f"{trained[0]}.jpg"))
    loaded = load_studies(section, tmp_path / "c", 5)
    assert {row.id for row in loaded.quarantined} == {f"s{number}" for number in trained[:3]}
    assert all(row.reason.startswith("image nearly shared") for row in loaded.quarantined)
    assert sum("nearly the same picture" in note for note in loaded.notes) >= 1
    kept = load_studies(DataSection(source="table", near_duplicates="note"), tmp_path / "c", 5)
    assert len(kept.studies) == 60
    assert any("kept, as data.near_duplicates says" in note for note in kept.notes)
    assert len(load_studies(DataSection(source="table", near_duplicates="ignore"), tmp_path / "c", 5).studies) == 60


def test_text_burned_in_is_said_and_can_be_refused(tmp_path: Path, source: list[Study]) -> None:
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (20, 20), dtype=np.uint8)
        dicom(tmp_path / f"{number}.dcm", noise, BurnedInAnnotation="YES" if number == 2 else "NO")
    source += [study(n, path=str(tmp_path / f"{n}.dcm")) for n in range(6)]
    for _ in range(2):  # the second time from the memory of images
        loaded = load_studies(DataSection(source="table"), tmp_path / "cache", 1)
        assert len(loaded.studies) == 6
        assert any(note.startswith("1 images have text burned in") for note in loaded.notes)
    loaded = load_studies(DataSection(source="table", burned_in="refuse"), tmp_path / "cache", 1)
    assert {row.id: row.reason.split(":")[0] for row in loaded.quarantined} == {
        "s2#image-1": "text burned in",
        "s2": "no usable image left",
    }


def test_images_are_decoded_within_a_number_of_pixels() -> None:
    room, inside, most = gate.Room(10), 0, 0
    lock = threading.Lock()

    def hold(size: int) -> None:
        nonlocal inside, most
        with room.of(size):
            with lock:
                inside += size
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= size

    sizes = [3, 4, 10, 25, 1, 0, 9, 6] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, sizes))
    assert most == 25  # the one that is larger than the room was alone in it
    assert inside == 0


def test_one_path_for_many_patients_is_split_together(tmp_path: Path, source: list[Study]) -> None:
    shared = image(tmp_path / "a.png", 0)
    source += [study(n, path=shared if n < 20 else image(tmp_path / f"{n}.png", n)) for n in range(40)]
    loaded = load_studies(DataSection(source="table"), tmp_path / "cache", 1)
    assert len(loaded.studies) == 40
    assert len({row.split for row in loaded.studies if row.images[0].path == shared}) == 1
    assert any(note.startswith("19 patients share an image") for note in loaded.notes)
    assert not leakage(loaded.studies)


def test_laterals_alone_are_no_study_and_frontals_come_first(tmp_path: Path, source: list[Study]) -> None:
    numbers = count()

    def images(*views: View) -> tuple[ImageFile, ...]:
        return tuple(ImageFile(path=image(tmp_path / f"{(n := next(numbers))}.png", n), view=view) for view in views)

    Path(lost := image(tmp_path / "lost.png", 5)).unlink()
    source += [
        study(1).model_copy(update={"images": images("lateral", "unknown", "frontal")}),
        study(2).model_copy(update={"images": images("lateral", "lateral")}),
        study(3).model_copy(update={"images": (*images("lateral"), ImageFile(path=lost, view="frontal"))}),
    ]
    loaded = load_studies(DataSection(source="table"), tmp_path / "cache", 1)
    assert [[image.view for image in row.images] for row in loaded.studies] == [["frontal", "unknown", "lateral"]]
    assert {row.id: row.reason.split(":")[0] for row in loaded.quarantined} == {
        "s2": "no frontal image",
        "s3#image-1": "image missing",
        "s3": "no frontal image",
    }


def test_a_prior_that_is_not_there_is_not_named(tmp_path: Path, source: list[Study]) -> None:
    source += [study(n, "p", image(tmp_path / f"{n}.png", n)) for n in range(2)]
    source[0] = source[0].model_copy(update={"prior": "s1"})
    source[1] = source[1].model_copy(update={"prior": "gone"})
    loaded = load_studies(DataSection(source="table"), tmp_path / "cache", 1)
    assert {row.id: row.prior for row in loaded.studies} == {"s0": "s1", "s1": None}


def test_images_are_decoded_once_and_again_when_they_change(
    tmp_path: Path, source: list[Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look = gate._look
    monkeypatch.setattr(gate, "_look", lambda path: (looked.append(Path(path).name), look(path))[1])
    source += [study(n, path=image(tmp_path / f"{n}.png", n)) for n in range(6)]
    (tmp_path / "5.png").write_bytes(b"broken")
    counted: list[int] = []

    def load() -> set[str]:
        looked.clear()
        counted.clear()
        studies = load_studies(DataSection(source="table"), tmp_path / "cache", 1, counted.append).studies
        assert all(row.images[0].digest == image_hash(row.images[0]) for row in studies)
        return {row.id for row in studies}

    assert load() == {f"s{n}" for n in range(5)}
    assert sorted(looked) == [f"{n}.png" for n in range(6)]
    assert sum(counted) == 6
    load()
    assert looked == ["5.png"]  # an image that failed may have been repaired
    with (tmp_path / "cache" / "images-checked.jsonl").open("a") as file:
        file.write('["1:2:3:half a li')  # the line that a killed run was writing
    image(tmp_path / "5.png", 5)
    image(tmp_path / "0.png", 77)
    assert len(load()) == 6
    assert sorted(looked) == ["0.png", "5.png"]
    load()
    assert looked == []


def test_errors_of_the_section(tmp_path: Path, source: list[Study]) -> None:
    source += [study(1, path=image(tmp_path / "a.png", 1))]
    with pytest.raises(DataError, match="did you mean 'phantom'"):
        load_studies(DataSection.model_construct(source="phantoms"), tmp_path, 0)
    with pytest.raises(DataError, match="leave nothing to train on"):
        load_studies(DataSection.model_construct(source="table", validation_share=0.5, test_share=0.5), tmp_path, 0)


def test_the_built_in_world_passes_the_gate(tmp_path: Path) -> None:
    section = DataSection.model_validate(
        {"source": "phantom", "train": 6, "validation": 3, "test": 4, "phantom": {"size": 64, "lateral_share": 1.0}}
    )
    loaded = load_studies(section, tmp_path, 0)
    assert not loaded.quarantined
    assert Counter(row.split for row in loaded.studies) == {"train": 6, "validation": 3, "test": 4}
    assert all([image.view for image in row.images] == ["frontal", "lateral"] for row in loaded.studies)
    assert list(load_studies(section, tmp_path, 0).studies) == list(loaded.studies)


def test_no_room_for_temporary_files_is_one_clear_error(
    tmp_path: Path, source: list[Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    source += [study(n, path=image(tmp_path / f"{n}.png", n)) for n in range(3)]

    def full(self: Book, row: Study, published: bool, reported: bool) -> str | None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Book, "_enter", full)
    with pytest.raises(StoreError, match="SQLITE_TMPDIR"):
        load_studies(DataSection(source="table"), tmp_path / "cache", 1)
