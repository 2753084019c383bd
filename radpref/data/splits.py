"""Splits by patient that do not move when rows are added, and the check that nothing leaks between them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from radpref.images import image_hash
from radpref.records import Split, Study

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def draw(seed: int, patient: str) -> float:
    """A uniform number in [0, 1) that depends on nothing but the seed and the patient."""
    digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_by_patient(
    studies: Iterable[Study],
    *,
    seed: int,
    validation_share: float,
    test_share: float,
    only: frozenset[Split] = frozenset({"validation", "test"}),
) -> list[Study]:
    """Every study with its split drawn from its patient: all studies of one patient fall together.

    ``test_share`` and ``validation_share`` are expected shares of patients. A patient's split depends on seed,
    shares and patient only, so it stays when studies are added. ``only`` limits which held-out splits are made.
    """

    def of(patient: str) -> Split:
        number = draw(seed, patient)
        if number < test_share:
            return "test" if "test" in only else "train"
        if number < test_share + validation_share:
            return "validation" if "validation" in only else "train"
        return "train"

    return [study.model_copy(update={"split": of(study.patient)}) for study in studies]


def leakage(studies: Iterable[Study], hashes: Mapping[str, str] | None = None) -> list[str]:
    """What stands in more than one split: a sentence each for patients, study ids and images; empty when clean.

    ``hashes``: an image's path to its hash. Without it ``ImageFile.digest`` serves, and where that is empty the image's
    bytes are read (ImageError if they cannot be).
    The sentences hold counts and no identifiers.
    """

    def of(path: str) -> str:
        return hashes[path] if hashes is not None else images[path].digest or image_hash(images[path])

    images = {image.path: image for study in studies for image in study.images}
    where: dict[str, dict[str, set[Split]]] = {"patient": {}, "study id": {}, "image": {}}
    for study in studies:
        where["patient"].setdefault(study.patient, set()).add(study.split)
        where["study id"].setdefault(study.id, set()).add(study.split)
        for image in study.images:
            where["image"].setdefault(of(image.path), set()).add(study.split)
    return [sentence for what, splits in where.items() if (sentence := _sentence(what, splits.values()))]


def join_shared(studies: Sequence[Study]) -> tuple[list[Study], int]:
    """Patients that share an image file become one patient (the least id), so that they are split together.

    Returns the studies and the number of patients that were joined to another. A table of many questions on one
    image, without a patient column, needs this.
    """
    parent: dict[str, str] = {}

    def root(patient: str) -> str:
        while parent.setdefault(patient, patient) != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    holders: defaultdict[str, set[str]] = defaultdict(set)
    for study in studies:
        for image in study.images:
            holders[image.path].add(study.patient)
    for patients in holders.values():
        if len(patients) > 1:
            roots = sorted(root(patient) for patient in patients)
            for other in roots[1:]:
                parent[other] = roots[0]
    joined = sum(root(patient) != patient for patient in list(parent))
    if not joined:
        return list(studies), 0
    return [
        study if root(study.patient) == study.patient else study.model_copy(update={"patient": root(study.patient)})
        for study in studies
    ], joined


def _sentence(what: str, splits: Iterable[set[Split]]) -> str:
    crossing = [found for found in splits if len(found) > 1]
    if not crossing:
        return ""
    pairs = Counter(" and ".join(name for name in SPLITS if name in found) for found in crossing)
    places = ", ".join(f"{count} in {pair}" for pair, count in sorted(pairs.items()))
    return f"{len(crossing)} {what}{'s' if len(crossing) > 1 else ''} in more than one split ({places})"
