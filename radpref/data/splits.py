"""Splits by patient that do not move when rows are added, and the check that nothing leaks between them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from radpref.images import image_hash
from radpref.records import ImageFile, Split, Study

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def draw(seed: int, patient: str) -> float:
    """A uniform number in [0, 1) that depends on nothing but the seed and the patient."""
    digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(
    number: float,
    *,
    validation_share: float,
    test_share: float,
    only: frozenset[Split] = frozenset({"validation", "test"}),
) -> Split:
    """The split of a patient whose ``draw`` is ``number``: all studies of one patient fall together.

    ``test_share`` and ``validation_share`` are expected shares of patients. A patient's split depends on seed,
    shares and patient only, so it stays when studies are added. ``only`` limits which held-out splits are made.
    """
    if number < test_share:
        return "test" if "test" in only else "train"
    if number < test_share + validation_share:
        return "validation" if "validation" in only else "train"
    return "train"


def leakage(studies: Iterable[Study], key: Callable[[ImageFile], str] | None = None) -> list[str]:
    """What stands in more than one split: a sentence each for patients, study ids and images; empty when clean.

    ``key`` tells images apart. Without it ``ImageFile.digest`` serves, and where that is empty the image's bytes are
    read (ImageError if they cannot be). The sentences hold counts and no identifiers. Memory does not grow with the
    studies.
    """
    key = key or (lambda image: image.digest or image_hash(image))
    kinds = ("patient", "study id", "image")

    def facts() -> Iterable[tuple[int, str, int]]:
        for study in studies:
            split = SPLITS.index(study.split)
            yield 0, study.patient, split
            yield 1, study.id, split
            for image in study.images:
                yield 2, key(image), split

    database = sqlite3.connect("")  # a file of its own that is gone when closed
    try:
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("CREATE TABLE seen (kind, value, split)")
        database.executemany("INSERT INTO seen VALUES (?, ?, ?)", facts())
        crossing = database.execute(
            "SELECT kind, group_concat(DISTINCT split) FROM seen GROUP BY kind, value HAVING count(DISTINCT split) > 1"
        )
        found: list[Counter[frozenset[int]]] = [Counter() for _ in kinds]
        for kind, splits in crossing:
            found[kind][frozenset(map(int, splits.split(",")))] += 1
    finally:
        database.close()
    return [_sentence(what, counts) for what, counts in zip(kinds, found, strict=True) if counts]


def joined(groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Patients that stand in one group (they share an image file) become one: who is called what from now on.

    A patient takes the least name of all that are linked to it, so that they are split together; those that keep
    their own name are left out. A table of many questions on one image, without a patient column, needs this.
    """
    parent: dict[str, str] = {}

    def root(patient: str) -> str:
        while parent.setdefault(patient, patient) != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for patients in groups:
        first, *others = sorted({root(patient) for patient in patients})
        for other in others:
            parent[other] = first
    return {patient: name for patient in list(parent) if (name := root(patient)) != patient}


def _sentence(what: str, crossing: Counter[frozenset[int]]) -> str:
    pairs = Counter({" and ".join(SPLITS[number] for number in sorted(found)): n for found, n in crossing.items()})
    places = ", ".join(f"{count} in {pair}" for pair, count in sorted(pairs.items()))
    total = pairs.total()
    return f"{total} {what}{'s' if total > 1 else ''} in more than one split ({places})"
