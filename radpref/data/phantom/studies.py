"""Phantoms as studies on disk: images, masks, truth and report, drawn once and kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref.config import PhantomSection
from radpref.data.phantom.habits import habits_of
from radpref.data.phantom.image import describe, render, shown
from radpref.data.phantom.patients import NAMES, Patient, Visit, sample
from radpref.findings import lexicon
from radpref.records import Finding, ImageFile, Split, Study, View

DRAWING = 2
"""Version of the drawing, part of the images' folder: raise it with any change that changes a pixel or a mask."""
FIRST: dict[Split, int] = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
"""First patient of each split: splits share no patient, and asking for more of one changes none of another."""


def studies(section: PhantomSection, *, train: int, validation: int, test: int, folder: Path) -> list[Study]:
    """``train`` + ``validation`` + ``test`` studies with their images under ``folder``.

    ``section.unreported`` more are training studies, behind the others, whose report and truth are withheld: their
    labels say of every finding whether it is there, and where it is, as a data set's labels and boxes would.

    A patient with an earlier visit gives two studies, the earlier one first; both count, and where the count ends
    between them the later one is left out. A study depends on the section, its split and its patient alone, not on
    the counts. Images that are already there are kept: a file with the final name is whole (``_save``), and the
    folder's name carries all that decides its content. So a killed call goes on where it was.

    Returns the studies in a fixed order: train, validation, test; each image's path is absolute.
    """
    home = folder.resolve() / f"v{DRAWING}-seed{section.seed}-{section.size}px"
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    found = {split: list(_split(section, split, count, home)) for split, count in counts.items() if split != "train"}
    drawn = list(_split(section, "train", train + section.unreported, home))
    return [*drawn[:train], *map(withheld, drawn[train:]), *found["validation"], *found["test"]]


def withheld(study: Study) -> Study:
    """A phantom without its report: what labels and boxes would tell of its truth."""
    truth = study.truth or ()
    there = {finding.name for finding in truth}
    return study.model_copy(
        update={
            "findings": "",
            "impression": "",
            "comparison": "",
            "truth": None,
            "labels": {name: int(name in there) for name in NAMES},
            "marked": tuple(Finding(name=f.name, side=f.side, place=_zone(f.place)) for f in truth),
        }
    )


def _zone(place: str | None) -> str | None:
    """The zone of the lung that a box shows: of the base the lower one; None where it is no one zone's."""
    bands = lexicon().bands.get(place or "", ())
    return f"{next(iter(bands))} zone" if len(bands) == 1 else None


def _split(section: PhantomSection, split: Split, count: int, home: Path) -> Iterator[Study]:
    made, index = 0, FIRST[split]
    while made < count:
        patient = sample(index, seed=section.seed, prior_share=section.prior_share)
        visits: tuple[Visit, ...] = ("current",) if patient.before is None else ("prior", "current")
        for visit in visits[: count - made]:
            yield _study(section, patient, visit, split, home / split)
            made += 1
        index += 1


def _study(section: PhantomSection, patient: Patient, visit: Visit, split: Split, home: Path) -> Study:
    name = f"p{patient.index}"
    identity = f"{name}-{visit}"
    both = patient.lateral < section.lateral_share
    views: tuple[View, ...] = ("frontal", "lateral") if both else ("frontal",)
    home.mkdir(parents=True, exist_ok=True)
    images = tuple(_image(section, patient, visit, view, home / f"{identity}-{view}.png") for view in views)
    report = describe(patient, seed=section.seed, visit=visit, habits=habits_of(section))
    return Study(
        id=identity,
        patient=name,
        images=images,
        findings=report.findings,
        impression=report.impression,
        indication=report.indication,
        comparison=report.comparison,
        prior=f"{name}-prior" if visit == "current" and patient.before is not None else None,
        split=split,
        truth=tuple(lesion.finding() for lesion in patient.at(visit)),
    )


def _image(section: PhantomSection, patient: Patient, visit: Visit, view: View, path: Path) -> ImageFile:
    names = shown(patient, view=view, visit=visit) if section.masks else ()
    masks = {name: path.with_name(f"{path.stem}-{name.replace(' ', '_')}.png") for name in names}
    if not all(place.exists() for place in (path, *masks.values())):
        phantom = render(patient, seed=section.seed, size=section.size, view=view, visit=visit)
        _save(phantom.image, path)
        for name, place in masks.items():
            _save(phantom.masks[name].astype(np.uint8) * np.uint8(255), place)
    return ImageFile(
        path=str(path),
        view=view,
        rows=section.size,
        cols=section.size,
        masks={name: str(place) for name, place in masks.items()},
    )


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write beside the place and move: a file with the final name is whole."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    Image.fromarray(pixels).save(beside, format="PNG", compress_level=1)
    beside.replace(path)
