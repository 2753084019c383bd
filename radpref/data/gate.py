"""What is refused whatever the source: rows without a usable id, report (or question) or image, and broken images."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from radpref.data.disk import database
from radpref.data.source import quarantine
from radpref.findings.labelled import labelled
from radpref.images import ImageError, decode, image_hash, is_burned_in, near_hash, pixel_hash, pixels_of
from radpref.records import ImageFile, Quarantined, Study

MAX_CHARACTERS = 20_000
"""Longest findings section. The longest of Open-i has under 1,000; more is a whole record or an unclosed quote."""
MAX_ID = 200
PIXELS = 24_000_000
"""Pixels being decoded at the same time: two radiographs of usual size, or one image that is larger."""

# Marks of removed text: XXXX (Open-i), ___ (MIMIC-CXR), [** ... **] (MIMIC-III), <PHI>, [REDACTED]
_REMOVED = re.compile(r"X{3,}|\bx{3,}\b|_{2,}|\[\*\*.*?\*\*\]|<[A-Z_]+>|\[[A-Z ]+\]")
_VIEW_ORDER = {"frontal": 0, "unknown": 1, "lateral": 2}


def problem(study: Study, *, unreported: bool = False) -> str | None:
    """Why a study's row cannot be used; None where it can. Reads no image.

    ``unreported``: labels may stand in the place of a report.
    """
    if not 0 < len(study.id) <= MAX_ID or not study.id.isprintable():
        return f"id not usable: empty, more than {MAX_ID} characters, or not printable; check the column map"
    bare = unreported and not reported(study)
    if bare and not labelled(study.labels, study.marked):
        return "no findings: the section is empty, and no label says anything of the study"
    if not study.questions and not bare:  # a source of questions needs no report
        if not study.findings.strip():
            return "no findings: the section is empty"
        if not reported(study):
            return "no findings: nothing but marks of removed text (XXXX, ___) and punctuation"
    if len(study.findings) > MAX_CHARACTERS:
        return (
            f"report too long: {len(study.findings):,} characters, at most {MAX_CHARACTERS:,}; "
            "give the findings section alone"
        )
    return _image_problem(study.images)


def reported(study: Study) -> bool:
    """Whether a study's findings section has words, marks of removed text aside."""
    return any(letter.isalpha() for letter in _REMOVED.sub("", study.findings))


def frontal_first(study: Study) -> Study:
    images = tuple(sorted(study.images, key=lambda image: _VIEW_ORDER[image.view]))
    return study if images == study.images else study.model_copy(update={"images": images})


def _image_problem(images: Sequence[ImageFile]) -> str | None:
    if not images:
        return "no images"
    if all(image.view == "lateral" for image in images):
        return "no frontal image: laterals only"
    return None


@dataclass(frozen=True)
class Verdict:
    """What one reading of an image told."""

    reason: str | None
    """Why it cannot be used; None when it can."""
    pixels: str = ""
    """``images.pixel_hash`` of the decoded image."""
    digest: str = ""
    """``images.image_hash``: of the file's bytes."""
    near: str = ""
    """``images.near_hash``: close for pictures that are nearly the same."""
    burned_in: bool = False
    """Whether a DICOM header says that there is text in the pixels."""


class ImageCheck:
    """Decodes images once, in threads, and remembers the good ones by path, size and time of change.

    Only images that passed are remembered: an image that failed may be repaired, or its decoder installed, and is
    tried again. The memory is a file of JSON lines in ``cache``, appended while the check runs, so that a check
    that was killed goes on where it stopped; what it holds is looked up in a database on disk. Images of at most
    ``PIXELS`` pixels together are being decoded at any time, whatever the number of threads.
    """

    _VERSION = 2  # part of every key: raise it when decoding or hashing changes

    def __init__(self, cache: Path, progress: Callable[[int], None] | None = None) -> None:
        self._file = cache / "images-checked.jsonl"
        self._progress = progress or (lambda _: None)
        self._room = Room(PIXELS)
        self._known = database(
            "CREATE TABLE known (key TEXT PRIMARY KEY, pixels TEXT, digest TEXT, near TEXT, burned_in) WITHOUT ROWID;"
        )
        if self._file.is_file():
            with self._file.open("rb") as file:
                self._known.executemany(_INSERT, _remembered(file))

    def __call__(self, images: Sequence[ImageFile]) -> dict[str, Verdict]:
        """A verdict for the path of every image."""
        keys = {image.path: self._key(image.path) for image in images}
        verdicts = {path: found for path, key in keys.items() if (found := self._recall(key))}
        todo = [path for path in keys if path not in verdicts]
        self._progress(len(verdicts))
        if not todo:
            return verdicts
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
            if out.tell() and not self._ends_clean():
                out.write("\n")
            for path, verdict in zip(todo, pool.map(self._look, todo), strict=True):
                verdicts[path] = verdict
                if verdict.reason is None:
                    row = [keys[path], verdict.pixels, verdict.digest, verdict.near, int(verdict.burned_in)]
                    self._known.execute(_INSERT, row)
                    out.write(json.dumps(row) + "\n")
                self._progress(1)
        return verdicts

    def _look(self, path: str) -> Verdict:
        with self._room.of(pixels_of(path)):
            return _look(path)

    def _recall(self, key: str) -> Verdict | None:
        found = self._known.execute(
            "SELECT pixels, digest, near, burned_in FROM known WHERE key = ?", (key,)
        ).fetchone()
        return Verdict(None, found[0], found[1], found[2], bool(found[3])) if found else None

    def _key(self, path: str) -> str:
        try:
            stat = Path(path).stat()
        except (OSError, ValueError):
            return ""
        return f"{self._VERSION}:{stat.st_size}:{stat.st_mtime_ns}:{path}"

    def _ends_clean(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


_INSERT = "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?)"


def _remembered(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str, str, int]]:
    for line in lines:
        try:
            key, pixels, digest, near, burned_in = json.loads(line)
        except (ValueError, TypeError):
            continue  # the line that was being written when a run was killed, or another version's
        yield str(key), str(pixels), str(digest), str(near), int(burned_in)


class Room:
    """Lets in what fits: holders of at most ``size`` in all, or one that is larger, alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, wanted: int) -> Iterator[None]:
        """Wait for that much room, and give it back at the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + wanted <= self._size)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify_all()


def _look(path: str) -> Verdict:
    try:
        image, digest = decode(path), image_hash(ImageFile(path=path))
    except ImageError as error:
        return Verdict(error.reason)
    if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]  # RGB: one pair a channel
        return Verdict("image blank: every pixel has the same value; give the original image")
    return Verdict(None, pixel_hash(image), digest, near_hash(image), is_burned_in(path))


def without_bad_images(
    study: Study, verdicts: dict[str, Verdict], *, refuse_burned_in: bool = False
) -> tuple[Study | None, list[Quarantined]]:
    """The study with the images that decode, their digests filled in, and what goes into quarantine.

    None where no image is left, or laterals only.
    """
    bad: list[Quarantined] = []
    images: list[ImageFile] = []
    for number, image in enumerate(study.images, start=1):
        verdict = verdicts[image.path]
        reason = verdict.reason
        if reason is None and refuse_burned_in and verdict.burned_in:
            reason = "text burned in: the DICOM header says so, and data.burned_in is refuse"
        if reason is None:
            images.append(image.model_copy(update={"digest": verdict.digest}))
        else:
            bad.append(quarantine(f"{study.id}#image-{number}", reason))
    reason = "no usable image left" if not images else _image_problem(images)
    if reason:
        return None, [*bad, quarantine(study.id, f"{reason}: see its images")]
    return study.model_copy(update={"images": tuple(images)}), bad
