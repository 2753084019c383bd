"""Phantoms on disk: splits, priors, masks, resuming."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radpref.config import PhantomSection
from radpref.data.phantom import contact_sheet, draw, studies
from radpref.records import Study

MODULE = importlib.import_module("radpref.data.phantom.studies")
"""The module; the package's name ``studies`` is its function."""
SECTION = PhantomSection(size=48, masks=True, lateral_share=0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    return studies(SECTION, train=60, validation=20, test=20, folder=tmp_path_factory.mktemp("phantom"))


def test_counts_and_splits_without_shared_patients(made: list[Study]) -> None:
    by_split = {split: [s for s in made if s.split == split] for split in ("train", "validation", "test")}
    assert {split: len(rows) for split, rows in by_split.items()} == {"train": 60, "validation": 20, "test": 20}
    assert len({study.id for study in made}) == len(made)
    patients = [{study.patient for study in rows} for rows in by_split.values()]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_images_and_masks_are_there_and_are_what_draw_draws(made: list[Study]) -> None:
    for study in made[:15]:
        visit = "prior" if study.id.endswith("prior") else "current"
        for image in study.images:
            drawn = draw(int(study.patient[1:]), seed=0, size=48, view=image.view, visit=visit)
            with Image.open(image.path) as picture:
                assert picture.mode == "L"
                assert (np.asarray(picture) == drawn.image).all()
            assert set(image.masks) == set(drawn.masks)
            for name, path in image.masks.items():
                with Image.open(path) as picture:
                    assert ((np.asarray(picture) > 0) == drawn.masks[name]).all()
            assert study.truth == drawn.truth
            assert study.findings == drawn.report.findings


def test_priors_are_studies_of_the_same_patient_and_split(made: list[Study]) -> None:
    by_id = {study.id: study for study in made}
    linked = [study for study in made if study.prior]
    assert linked
    for study in linked:
        prior = by_id[study.prior or ""]
        assert (prior.patient, prior.split, prior.prior) == (study.patient, study.split, None)
        assert study.comparison != prior.comparison


def test_shares_of_priors_and_laterals(tmp_path: Path) -> None:
    section = PhantomSection(size=32, lateral_share=0.2, prior_share=0.25)
    rows = studies(section, train=600, validation=1, test=1, folder=tmp_path)
    assert 0.2 < np.mean([study.prior is not None for study in rows]) < 0.3
    assert 0.15 < np.mean([len(study.images) == 2 for study in rows]) < 0.26
    none = PhantomSection(size=32, lateral_share=0, prior_share=0)
    plain = studies(none, train=40, validation=1, test=1, folder=tmp_path)
    assert all(study.prior is None and len(study.images) == 1 and not study.images[0].masks for study in plain)


def test_a_study_does_not_depend_on_how_many_are_asked_for(tmp_path: Path, made: list[Study]) -> None:
    fewer = studies(SECTION, train=7, validation=3, test=2, folder=tmp_path)
    by_id = {study.id: study for study in made}
    for study in fewer:
        other = by_id[study.id]
        assert study.model_dump(exclude={"images"}) == other.model_dump(exclude={"images"})
        for image, twin in zip(study.images, other.images, strict=True):
            assert Path(image.path).read_bytes() == Path(twin.path).read_bytes()


def test_a_killed_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after some files, with half a file beside its place: the rest is drawn, what is whole is not."""
    whole = studies(SECTION, train=12, validation=2, test=2, folder=tmp_path / "whole")
    saved = 0
    save = MODULE._save

    def dying(pixels: object, path: Path) -> None:
        nonlocal saved
        if saved == 9:
            path.with_name(path.name + ".1.tmp").write_bytes(b"\x89PNG half")
            raise KeyboardInterrupt
        saved += 1
        save(pixels, path)

    monkeypatch.setattr(MODULE, "_save", dying)
    with pytest.raises(KeyboardInterrupt):
        studies(SECTION, train=12, validation=2, test=2, folder=tmp_path / "cut")
    monkeypatch.setattr(MODULE, "_save", save)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.png")}
    assert len(before) == 9
    resumed = studies(SECTION, train=12, validation=2, test=2, folder=tmp_path / "cut")
    last = max(before.values())
    assert sum(path.stat().st_mtime_ns > last for path in before) <= 6  # one image's files at most are drawn again
    for study, twin in zip(resumed, whole, strict=True):
        for image, other in zip(study.images, twin.images, strict=True):
            assert Path(image.path).read_bytes() == Path(other.path).read_bytes()
            for name, path in image.masks.items():
                assert Path(path).read_bytes() == Path(other.masks[name]).read_bytes()
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.png")}
    assert studies(SECTION, train=12, validation=2, test=2, folder=tmp_path / "cut") == resumed
    assert again == {path: path.stat().st_mtime_ns for path in again}


def test_contact_sheet_of_studies(made: list[Study]) -> None:
    sheet = contact_sheet(made[:5], columns=3, tile=64)
    assert sheet.width == 192
