"""``load_studies``: from a section of the recipe to studies that can be used, split, checked and capped."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from radpref.config import DataSection
from radpref.data import (
    chexpert_plus,
    conversations,
    covid,
    llava_rad,
    mimic,
    ms_cxr,
    nih,
    openi,
    padchest_gr,
    r2gen,
    rexrank,
    rexvqa,
    table,
    vindr,
    vqa_mimic,
    vqa_rad,
    vqa_slake,
)
from radpref.data.admission import Book
from radpref.data.disk import room_on_disk
from radpref.data.gate import ImageCheck, Verdict, without_bad_images
from radpref.data.near import HeldOut
from radpref.data.source import DataError, Found, Loaded, NoOptions, Source, nearest, quarantine
from radpref.data.splits import SPLITS, leakage
from radpref.data.spool import Spool
from radpref.plugins import Extended
from radpref.records import Quarantined, Split, Study

UNREPORTED = "unreported"
"""Of the chosen studies, the training studies without a report."""
_PARTS = (*SPLITS, UNREPORTED)
_STEP = 1024
"""Most studies whose images are checked before the first of them is given out."""


def _phantom(section: DataSection, options: NoOptions, cache: Path, seed: int) -> Found:
    """The built-in world. Its own seed (``data.phantom.seed``) draws the patients; ``seed`` is not used."""
    from radpref.data.phantom import studies

    if section.phantom.unreported and section.unreported.use == "quarantine":
        raise DataError(
            f"data.phantom.unreported draws {section.phantom.unreported} studies without a report, and "
            "data.unreported.use is quarantine; set it to labels, or to template"
        )
    return Found(
        studies(
            section.phantom,
            train=section.train or section.phantom.train,
            validation=section.validation or section.phantom.validation,
            test=section.test or section.phantom.test,
            folder=cache / "phantom",
        ),
        split=True,
        distinct=True,
    )


_ALL: tuple[Source[Any], ...] = (
    Source("phantom", "the built-in world of drawn patients", _phantom, NoOptions, frozenset()),
    table.SOURCE,
    openi.SOURCE,
    mimic.SOURCE,
    chexpert_plus.SOURCE,
    padchest_gr.SOURCE,
    r2gen.SOURCE,
    rexrank.SOURCE,
    llava_rad.SOURCE,
    nih.SOURCE,
    covid.SOURCE,
    ms_cxr.SOURCE,
    vindr.SOURCE,
    vqa_rad.SOURCE,
    vqa_slake.SOURCE,
    *vqa_mimic.SOURCES,
    rexvqa.SOURCE,
    conversations.SOURCE,
)
SOURCES: Mapping[str, Source[Any]] = Extended("sources", {source.name: source for source in _ALL})
"""All data sets, by the name that ``data.source`` takes. A new one is a module with its ``SOURCE``, and a test;
other packages add to it (``radpref.plugins``)."""


def check(section: DataSection) -> None:
    """What can be known of a data section before any work. Raises DataError."""
    if section.source not in SOURCES:
        raise DataError(
            f"data.source {section.source!r} is none of {', '.join(SOURCES)}{nearest(section.source, SOURCES)}"
        )
    if section.validation_share + section.test_share >= 1:
        raise DataError("data.validation_share and data.test_share leave nothing to train on; lower them")
    SOURCES[section.source].check(section)
    if (other := second(section)) is not None:
        if section.unreported.use == "quarantine":
            raise DataError(
                f"data.unreported.source is {other.source!r}, whose studies are used without a report, and "
                "data.unreported.use is quarantine; set it to labels, or to template"
            )
        if other.source == section.source:
            raise DataError("data.unreported.source is data.source itself; name another one, or leave it out")
        SOURCES[other.source].check(other)


def load_studies(section: DataSection, cache: Path, seed: int, progress: Callable[[int], None] | None = None) -> Loaded:
    """Studies of ``section.source``, ready for use.

    Rows without a usable id, report or image are quarantined; every image of a chosen study is decoded once (the
    result is kept in ``cache``). Patients are split by hash unless the source has splits; those that it lacks
    are taken out of its train patients. ``section.train``, ``.validation``, ``.test`` take the first so many in
    the order of the hash. An image that stands in two splits keeps its held-out study and quarantines the other,
    where the split is ours. ``progress`` is called with the number of images that were just checked.

    Raises DataError: no such source, folder, file or column; nothing usable; a split of the source that leaks.
    StoreError: no room on the disk for the rows.
    """
    check(section)
    found = _read(section, cache, seed)
    with room_on_disk(), closing(Book(cache)) as book:
        return _load(found, book, section, cache, seed, ImageCheck(cache, progress))


def _read(section: DataSection, cache: Path, seed: int) -> Found:
    """What the source holds; references that it has written from labels are taken away where labels are used."""
    source = SOURCES[section.source]
    found = source.read(section, cache, seed)
    return _bare(found, "") if source.unreported and section.unreported.use != "quarantine" else found


def second(section: DataSection) -> DataSection | None:
    """The section that reads the source of studies without a report; None where there is none."""
    other = section.unreported
    if other.source is None:
        return None
    own = {"source": other.source, "root": other.root, "file": other.file, "options": other.options}
    return section.model_copy(update={**own, "unreported": other.model_copy(update={"source": None})})


def _bare(found: Found, prefix: str) -> Found:
    """The studies without their reports; with a prefix, of a second source: ids of their own, and all in train."""

    def studies() -> Iterator[Study | Quarantined]:
        for row in found.studies:
            if isinstance(row, Quarantined):
                yield row
                continue
            gone: dict[str, Any] = {"findings": "", "impression": "", "truth": None}
            if prefix:
                gone |= {"id": prefix + row.id, "patient": prefix + row.patient, "split": "train", "prior": None}
            yield row.model_copy(update=gone)

    return replace(found, studies=studies())


def _load(found: Found, book: Book, section: DataSection, cache: Path, seed: int, check: ImageCheck) -> Loaded:
    use = section.unreported.use
    book.admit(found.studies, published=found.split, use=use)
    notes = list(found.notes)
    if (other := second(section)) is not None:
        more = SOURCES[other.source].read(other, cache, seed)
        book.admit(_bare(more, f"{other.source}-").studies, published=True, use=use)
        notes += more.notes
    if not len(book):
        raise DataError(
            f"{section.source}: no usable study among {len(book.quarantined)} rows ({_reasons(book.reasons)})"
            + "".join(f"; {note}" for note in notes)
        )
    known: list[str] = []
    if found.split:  # images by path; their pixels are compared when they are decoded
        known = leakage(book.studies(), lambda image: image.path)
        if not found.leaky:
            _refuse_leaks(known)
    if joined := book.join_patients():
        notes.append(f"{joined:,} patients share an image with another patient and are split together with it")
    book.number_patients(seed)
    lacking = frozenset(SPLITS) - (book.splits() if found.split else {"train"})
    if lacking and "train" not in lacking:
        book.draw_splits({"validation": section.validation_share, "test": section.test_share}, lacking)
        notes.append(f"{' and '.join(sorted(lacking))} drawn by hash of the patient (seed {seed})")
    book.hold_back()
    caps: dict[Split, int | None] = {"train": section.train, "validation": section.validation, "test": section.test}
    chosen = Spool(Study, cache)
    counts: dict[str, int] = {}
    crowded = 0
    choice = _Choice(book, check, section, leaky=found.leaky, look_near=not found.distinct and not found.leaky)
    for split in reversed(SPLITS):  # held-out splits first, so that they keep shared images
        before = len(chosen)
        for study in choice.of(split, caps[split]):
            chosen.append(study)
            crowded += len(study.images) > section.max_images
        counts[split] = len(chosen) - before
        if counts[split] == caps[split] and book.count(split) > counts[split]:
            notes.append(
                f"data.{split} is {counts[split]:,}: of {book.count(split):,} {split} studies no more are used"
            )
    before = len(chosen)
    for study in choice.of("train", section.unreported.most, reported=False):
        chosen.append(study)
        crowded += len(study.images) > section.max_images
    counts[UNREPORTED] = len(chosen) - before
    if counts[UNREPORTED]:
        how = "one is written from the labels" if use == "template" else "they are judged by their labels"
        notes.append(f"{counts[UNREPORTED]:,} further training studies have no report: {how}")
    if crowded:
        notes.append(
            f"data.max_images is {section.max_images}: {crowded:,} studies have more images, of which the model is "
            "shown the first so many, frontals first"
        )
    known += [f"{n} studies whose image stands in {pair}" for pair, n in sorted(choice.leaks.items())]
    if not found.leaky:
        _refuse_leaks(known)
    elif known:
        notes.append(
            f"the published split leaks ({'; '.join(known)}): its results stand beside published ones on the same "
            "split, and beside no others"
        )
    if not len(chosen):
        raise DataError(f"{section.source}: no usable study left ({_reasons(book.reasons)})")
    notes.append(
        f"{section.source}: " + ", ".join(f"{counts[split]:,} {split}" for split in SPLITS) + " studies of "
        f"{book.patients():,} patients"
    )
    notes += choice.notes()
    if len(book.quarantined):
        notes.append(f"{len(book.quarantined):,} rows in quarantine: {_reasons(book.reasons)}")
    studies = Spool(Study, cache)
    for place in _in_step(counts):
        study = chosen[place]
        gone = study.prior is not None and not book.kept(study.prior)
        studies.append(study.model_copy(update={"prior": None}) if gone else study)
    return Loaded(studies, book.quarantined, notes, known)


class _Choice:
    """Which studies are used: those within the caps whose images decode and are shown in no split that came before.

    Images are checked in steps as they are needed, so that a cap saves the time for the rest.
    """

    def __init__(self, book: Book, check: ImageCheck, section: DataSection, *, leaky: bool, look_near: bool) -> None:
        self._book, self._check, self._section = book, check, section
        self._leaky = leaky
        self._near = look_near and section.near_duplicates != "ignore"
        self._held_out = HeldOut()
        self.leaks: Counter[str] = Counter()
        """Pairs of splits to studies of one picture, in the source's own splits."""
        self._alike: Counter[str] = Counter()
        self._burned_in = 0

    def of(self, split: Split, cap: int | None, *, reported: bool = True) -> Iterator[Study]:
        """The studies of a split, with a report or without; splits are asked for held-out ones first."""
        queue, taken, first = self._book.queue(split, reported=reported), 0, len(self._held_out)
        while cap is None or taken < cap:
            batch = list(islice(queue, _STEP if cap is None else min(max(cap - taken, 32), _STEP)))
            if not batch:
                return
            verdicts = self._check([image for study in batch for image in study.images])
            for study in batch:
                if taken == cap:
                    return
                if (usable := self._usable(study, verdicts, first)) is not None:
                    taken += 1
                    yield usable

    def _usable(self, study: Study, verdicts: dict[str, Verdict], first: int) -> Study | None:
        """The study as it is used, written into the book; None where it is not."""
        refuse = self._section.burned_in == "refuse"
        usable, bad = without_bad_images(study, verdicts, refuse_burned_in=refuse)
        for row in bad:
            self._book.refuse(row)
        if usable is None:
            return None
        shown = [verdicts[image.path] for image in usable.images]
        pixels = [verdict.pixels for verdict in shown]
        clash = self._book.clash(usable, pixels)
        if clash is not None:
            if self._leaky or clash[1]:
                self.leaks[f"{study.split} and {clash[0]}"] += 1
            else:
                self._book.refuse(quarantine(study.id, f"image shared: the same picture is in {clash[0]}"))
            if not self._leaky:
                return None
        if self._near and (other := self._alike_to(usable, verdicts, first)):
            self._alike[f"{study.split} and {other}"] += 1
            if self._section.near_duplicates == "quarantine":
                self._book.refuse(quarantine(study.id, f"image nearly shared: a picture of {other} is nearly the same"))
                return None
        self._burned_in += sum(verdict.burned_in for verdict in shown)
        self._book.keep(usable, pixels)
        if self._near and study.split != "train":
            for image in usable.images:
                self._held_out.add(image.path, verdicts[image.path].near, study.split)
        return usable

    def _alike_to(self, study: Study, verdicts: dict[str, Verdict], first: int) -> Split | None:
        """The more held-out split that has a picture nearly the same as one of the study's."""
        found = (self._held_out.find(image.path, verdicts[image.path].near, first) for image in study.images)
        return next((split for split in found if split is not None), None)

    def notes(self) -> list[str]:
        what = {"quarantine": "left out", "note": "kept, as data.near_duplicates says", "ignore": ""}
        notes = [
            f"{count:,} studies show nearly the same picture as one of another split ({pair}): the less held-out one "
            f"is {what[self._section.near_duplicates]}"
            for pair, count in sorted(self._alike.items())
        ]
        if self._burned_in:
            notes.append(
                f"{self._burned_in:,} images have text burned in, by their DICOM headers; look at them, or set "
                "data.burned_in to refuse"
            )
        return notes


def _in_step(counts: Mapping[str, int]) -> Iterator[int]:
    """Places of the chosen studies, in the order of ``counts``, in the order in which they are given out: in step with
    each other, so that the first so many studies hold the splits in proportion."""
    starts = dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))

    def ranks(part: str) -> Iterator[tuple[float, int, int]]:
        for rank in range(counts[part]):
            yield (rank + 0.5) / counts[part], _PARTS.index(part), starts[part] + rank

    for _, _, place in heapq.merge(*(ranks(part) for part in _PARTS)):
        yield place


def _refuse_leaks(problems: list[str]) -> None:
    if problems:
        raise DataError(
            f"the data set's own splits leak: {'; '.join(problems)}. Results on them would be too good. "
            "Take the rows out of train, or set data.table.split to '' to split by patient"
        )


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(8)) or "none"
