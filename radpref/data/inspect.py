"""What a data set holds and what is wrong with it, before anything is trained: counts, a picture, a recipe's section.

Every row is read and judged as the run would judge it; of the images all are looked for, and a sample is decoded. No
identifier and no text of a report is in what is told.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from radpref.config import DataSection
from radpref.data import table
from radpref.data.admission import Book
from radpref.data.columns import Columns, find_columns
from radpref.data.gate import ImageCheck, Verdict
from radpref.data.image_cells import EMPTY
from radpref.data.languages import language_of
from radpref.data.load import SOURCES
from radpref.data.near import HeldOut
from radpref.data.published import LABELS
from radpref.data.rows import Entry
from radpref.data.source import DataError, Found, listed, nearest
from radpref.data.splits import SPLITS, draw, leakage, split_of
from radpref.images import contact_sheet
from radpref.records import ImageFile, Quarantined, Study

DECODED = 300
"""Images that are decoded."""
SHOWN = 24
"""Images on the picture."""
_ENDS = 1 << 16


@dataclass(frozen=True)
class Inspection:
    """What was found. ``lines`` tells it; ``recipe`` is the section that reads it as it was read here."""

    section: DataSection
    columns: Columns | None
    """None for a source that is no table."""
    counts: dict[str, int]
    """Rows, studies, patients, images, questions, priors; ``missing``, ``decoded`` and ``broken`` images."""
    empty: dict[str, int]
    """Column to its empty cells, where there are any."""
    splits: dict[str, int]
    """Split to studies: the table's, or as patients would be drawn."""
    views: dict[str, int]
    reasons: dict[str, int]
    """Why rows would be quarantined, and how many."""
    languages: dict[str, int]
    words: tuple[int, ...]
    """Words of the reference reports: least, first quarter, middle, third quarter, most; empty without reports."""
    labels: dict[str, tuple[int, int, int]]
    """Label to how many are positive, negative and uncertain."""
    doubled: dict[str, int]
    """``texts``, ``images`` (the same bytes), ``nearly`` (of those decoded): how many are not the first so."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    picture: Image.Image | None = field(repr=False, default=None)
    """A contact sheet of ``SHOWN`` images."""

    def recipe(self) -> str:
        """The recipe's section ``data`` as YAML: what was found is named, so that it holds for the next export too."""
        section: dict[str, object] = {"source": self.section.source}
        section |= {key: value for key in ("root", "file") if (value := getattr(self.section, key)) is not None}
        if self.section.options:
            section["options"] = dict(self.section.options)
        if self.columns is not None:
            there = type(self.section.table).model_fields
            named = {name: column for name, column in self.columns.of.items() if name in there}
            section["table"] = named | ({"patient": "study"} if self.columns.alone else {})
        return yaml.safe_dump({"data": section}, sort_keys=False, allow_unicode=True)

    def lines(self) -> list[str]:
        """The findings in words, warnings first."""
        counts = self.counts
        told = [f"WARNING: {warning}" for warning in self.warnings]
        told.append(
            f"{counts['rows']:,} rows: {counts['studies']:,} studies of {counts['patients']:,} patients, "
            f"{counts['images']:,} images, {counts['questions']:,} questions, {counts['priors']:,} with a prior"
        )
        if self.columns is not None:
            told.append(f"columns: {self.columns.shown()}")
        told.append(f"splits: {_counted(self.splits)}")
        told.append(f"views of images: {_counted(self.views)}")
        if self.empty:
            told.append(f"empty cells: {_counted(self.empty)}")
        if self.words:
            least, _, middle, _, most = self.words
            told.append(
                f"reports: {middle} words in the middle, {least} to {most}; languages: {_counted(self.languages)}"
            )
        if self.labels:
            told.append(
                "labels (positive, negative, uncertain): "
                + "; ".join(f"{name} {yes:,}, {no:,}, {unsure:,}" for name, (yes, no, unsure) in self.labels.items())
            )
        told.append(
            f"doubled: {self.doubled['texts']:,} reports in the same words, {self.doubled['images']:,} images of the "
            f"same bytes, {self.doubled['nearly']:,} of {counts['decoded']:,} decoded images nearly as another"
        )
        told.append(
            f"images: {counts['missing']:,} missing; of {counts['decoded']:,} decoded {counts['broken']:,} are unusable"
        )
        total = sum(self.reasons.values())
        told.append(f"would be quarantined: {total:,}" + (f": {_counted(self.reasons)}" if total else ""))
        return [*told, *(f"note: {note}" for note in self.notes)]


def section_for(file: str, root: str | None = None, source: str = "table") -> DataSection:
    """The section of a recipe that names a file or folder, before its columns are looked at."""
    if source == "table":
        return DataSection(source=source, root=root, file=file)
    return DataSection(source=source, root=root or file, file=file if root else None)


def inspect(section: DataSection, cache: Path, seed: int = 17) -> Inspection:
    """Read everything, decode a sample, and say what would happen.

    Raises DataError: no such source, file or column, as a run would raise it.
    """
    if section.source not in SOURCES:
        raise DataError(f"data.source {section.source!r} does not exist{nearest(section.source, SOURCES)}")
    seen = _Seen(seed)
    if section.source == "table":
        opened = table.open_table(section)
        columns: Columns | None = find_columns(section.table, opened.columns)
        assert columns is not None
        cells = _Cells(opened.columns)
        found = table.found(cells.watched(opened), columns, cache)
    else:
        columns, cells = None, _Cells(())
        found = SOURCES[section.source].read(section, cache, seed)
    book = Book(cache)
    try:
        book.admit(seen.watched(found), published=found.split)
        leaks = leakage(book.studies(), lambda image: image.path) if found.split else []
        check = ImageCheck(cache)
        sample = seen.sample()
        verdicts = check(sample)
        good = [image for image in sample if verdicts[image.path].reason is None]
        broken = Counter(str(verdicts[image.path].reason).split(":")[0] for image in sample if image not in good)
        reasons = Counter(book.reasons)
        reasons["image missing"] += seen.counts["missing"]
        for reason, count in broken.items():
            if reason != "image missing":
                reasons[f"{reason} (of {len(sample):,} decoded)"] += count
        counts = {
            **{name: seen.counts[name] for name in ("patients", "images", "questions", "priors", "missing")},
            "rows": cells.rows or seen.counts["studies"] + len(book.quarantined),
            "studies": len(book),
            "decoded": len(sample),
            "broken": len(sample) - len(good),
        }
        doubled = {"texts": seen.doubled_texts(), "images": seen.doubled_images(), "nearly": _nearly(good, verdicts)}
        inspection = Inspection(
            section=section,
            columns=columns,
            counts=counts,
            empty=cells.empty_cells(),
            splits=seen.splits(section, ready=found.split),
            views=dict(seen.views),
            reasons={reason: count for reason, count in reasons.most_common() if count},
            languages=dict(seen.languages.most_common()),
            words=seen.lengths(),
            labels=cells.labels() or seen.label_counts(),
            doubled=doubled,
            warnings=(),
            notes=tuple(found.notes),
            picture=contact_sheet([(image, image.view) for image in good[:SHOWN]]) if good else None,
        )
    finally:
        book.close()
    return _warned(inspection, leaks, seen)


class _Cells:
    """Counts over a table's cells as they go by."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self.rows = 0
        self._empty: Counter[str] = Counter()
        self._labels: dict[str, Counter[str]] = {name: Counter() for name in columns if name in LABELS}

    def watched(self, opened: table.Table) -> table.Table:
        return table.Table(opened.columns, self._watch(opened.rows), opened.roots, opened.notes)

    def _watch(self, rows: Iterable[Entry]) -> Iterator[Entry]:
        for entry in rows:
            self.rows += 1
            for name, cell in (entry.cells or {}).items():
                if cell is None or cell in ([], ()) or (isinstance(cell, str) and cell.strip().lower() in EMPTY):
                    self._empty[name] += 1
                if name in self._labels:
                    self._labels[name][str(cell).removesuffix(".0")] += 1
            yield entry

    def empty_cells(self) -> dict[str, int]:
        return {name: self._empty[name] for name in self._columns if self._empty[name]}

    def labels(self) -> dict[str, tuple[int, int, int]]:
        return {name: (found["1"], found["0"], found["-1"]) for name, found in self._labels.items()}


class _Seen:
    """Counts over the studies that a source gives, before the gate."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._seed = seed
        self.counts: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.patients: Counter[int] = Counter()
        self._splits: Counter[str] = Counter()
        self._numbers = array("d")
        self._words = array("q")
        self._texts: Counter[int] = Counter()
        self._sizes: dict[int, list[str]] = {}
        self._sample: list[ImageFile] = []
        self._labels: dict[str, Counter[int | None]] = {}

    def watched(self, found: Found) -> Iterator[Study | Quarantined]:
        for row in found.studies:
            if isinstance(row, Study):
                self._study(row)
            yield row

    def _study(self, study: Study) -> None:
        self.counts["studies"] += 1
        self.counts["images"] += len(study.images)
        self.counts["questions"] += len(study.questions)
        self.counts["priors"] += study.prior is not None
        key = _hash(study.patient)
        if key not in self.patients:
            self.counts["patients"] += 1
        self.patients[key] += 1
        self.views.update(image.view for image in study.images)
        self._splits[study.split] += 1
        self._numbers.append(draw(self._seed, study.patient))
        if study.findings.strip():
            self._words.append(len(study.findings.split()))
            self._texts[_hash(" ".join(study.findings.lower().split()))] += 1
            self.languages[language_of(study.findings)] += 1
        for name, value in study.labels.items():
            self._labels.setdefault(name, Counter())[value] += 1
        for image in study.images:
            self._image(image)

    def _image(self, image: ImageFile) -> None:
        try:
            size = Path(image.path).stat().st_size
        except (OSError, ValueError):
            self.counts["missing"] += 1
            return
        self._sizes.setdefault(size, []).append(image.path)
        self.counts["there"] += 1
        place = len(self._sample) if len(self._sample) < DECODED else self._rng.randrange(self.counts["there"])
        if place < len(self._sample):
            self._sample[place] = image
        elif place < DECODED:
            self._sample.append(image)

    def sample(self) -> list[ImageFile]:
        """As many images as are decoded, each as likely as any other."""
        return list({image.path: image for image in self._sample}.values())

    def splits(self, section: DataSection, *, ready: bool) -> dict[str, int]:
        counts = self._splits
        if not ready:
            validation, test = section.validation_share, section.test_share
            counts = Counter(split_of(n, validation_share=validation, test_share=test) for n in self._numbers)
        return {split: counts[split] for split in SPLITS}

    def lengths(self) -> tuple[int, ...]:
        return tuple(int(value) for value in np.quantile(self._words, (0, 0.25, 0.5, 0.75, 1))) if self._words else ()

    def doubled_texts(self) -> int:
        return self._texts.total() - len(self._texts)

    def doubled_images(self) -> int:
        """Images whose bytes are those of another file: of equal size, and alike at both ends."""
        doubled = 0
        for paths in self._sizes.values():
            different = set(paths)
            if len(different) > 1:
                doubled += len(different) - len({_ends(path) for path in different})
        return doubled

    def label_counts(self) -> dict[str, tuple[int, int, int]]:
        return {name: (found[1], found[0], found[-1]) for name, found in self._labels.items()}


def _nearly(images: Sequence[ImageFile], verdicts: Mapping[str, Verdict]) -> int:
    """How many pictures are nearly the same as an earlier one."""
    seen = HeldOut()
    doubled = 0
    for image in images:
        hashed = verdicts[image.path].near
        doubled += seen.find(image.path, hashed, len(seen)) is not None
        seen.add(image.path, hashed, "train")
    return doubled


def _warned(found: Inspection, leaks: list[str], seen: _Seen) -> Inspection:
    counts, studies = found.counts, max(1, found.counts["studies"])
    most = max(seen.patients.values(), default=0)
    reports = sum(found.languages.values())
    english = found.languages.get("English", 0) + found.languages.get("unknown", 0)
    refused = sum(count for reason, count in found.reasons.items() if "decoded)" not in reason)
    checks = [
        (bool(leaks), f"the splits leak: {'; '.join(leaks)}; a run refuses them"),
        (
            found.columns is not None and found.columns.alone,
            "each study counts as a patient of its own, as data.table.patient says; intervals will be over studies",
        ),
        (
            found.columns is not None and not found.columns.alone and studies > 20 and counts["patients"] >= studies,
            "every study is of another patient: is the column of patients really one?",
        ),
        (
            most > max(20, 0.1 * studies),
            f"one patient has {most:,} studies: is a default value among the patients?",
        ),
        (counts["missing"] > 0, f"{counts['missing']:,} of {counts['images']:,} images are not there; see data.root"),
        (
            found.views.get("unknown", 0) > 0.5 * max(1, counts["images"]),
            f"the view of {found.views.get('unknown', 0):,} images is unknown, so laterals may stand before frontals",
        ),
        (found.views.get("lateral", 0) > found.views.get("frontal", 0) > 0, "there are more laterals than frontals"),
        (
            reports > english,
            f"{reports - english:,} of {reports:,} reports are not in English, and judges read English",
        ),
        (refused > 0.05 * max(1, counts["rows"]), f"{refused:,} of {counts['rows']:,} rows would be quarantined"),
        (
            found.doubled["texts"] > 0.2 * max(1, reports),
            f"{found.doubled['texts']:,} reports stand in the words of another: normal templates, or rows given twice",
        ),
        (
            found.doubled["images"] > 0,
            f"{found.doubled['images']:,} images are the bytes of another file",
        ),
        (found.doubled["nearly"] > 0, f"{found.doubled['nearly']:,} of the decoded images are nearly another's"),
        (
            bool(found.words) and (found.words[2] < 5 or found.words[2] > 300),
            "the reports are unusually short or long: is the column of findings really one?",
        ),
        (min(found.splits.values()) == 0, f"a split is empty: {_counted(found.splits)}"),
    ]
    warnings = tuple(text for wrong, text in checks if wrong)
    return replace(found, warnings=warnings)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _ends(path: str) -> bytes:
    """A hash of a file's first and last 64 KiB."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(_ENDS, file.seek(0, 2) - _ENDS))
            digest.update(file.read(_ENDS))
    except OSError:
        digest.update(path.encode("utf-8", "replace"))
    return digest.digest()


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in counts.items()]
    return ", ".join(shown[:12]) + (f" and {listed(list(counts)[12:])}" if len(shown) > 12 else "") or "none"
