"""``load_studies``: from a section of the recipe to studies that can be used, split, checked and capped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from radpref.config import DataSection
from radpref.data import covid, ms_cxr, nih, openi, table, vindr, vqa_mimic, vqa_rad, vqa_slake
from radpref.data.gate import ImageCheck, admit, without_bad_images
from radpref.data.source import DataError, Found, Loaded, Source, nearest, quarantine
from radpref.data.splits import SPLITS, draw, join_shared, leakage, split_by_patient
from radpref.records import Quarantined, Split, Study

PHANTOMS: dict[Split, int] = {"train": 2000, "validation": 200, "test": 400}
"""How many phantoms are drawn where the recipe sets no number."""


def phantom(section: DataSection, cache: Path, seed: int) -> Found:
    """The built-in world. Its own seed (``data.phantom.seed``) draws the patients; ``seed`` is not used."""
    from radpref.data.phantom import studies

    return Found(
        studies(
            section.phantom,
            train=section.train or PHANTOMS["train"],
            validation=section.validation or PHANTOMS["validation"],
            test=section.test or PHANTOMS["test"],
            folder=cache / "phantom",
        ),
        split=True,
    )


SOURCES: dict[str, Source] = {
    "phantom": phantom,
    "openi": openi.find,
    "table": table.find,
    "nih": nih.find,
    "covid": covid.find,
    "ms-cxr": ms_cxr.find,
    "vindr": vindr.find,
    "vqa-rad": vqa_rad.find,
    "slake": vqa_slake.find,
    "mimic-cxr-vqa": vqa_mimic.find_cxr_vqa,
    "mimic-diff-vqa": vqa_mimic.find_diff_vqa,
    "medical-cxr-vqa": vqa_mimic.find_medical_cxr_vqa,
}
"""All data sets, by the name that ``data.source`` takes. A new one is a function here and a test."""


def check(section: DataSection) -> None:
    """What can be known of a data section before any work. Raises DataError."""
    if section.validation_share + section.test_share >= 1:
        raise DataError("data.validation_share and data.test_share leave nothing to train on; lower them")


def load_studies(section: DataSection, cache: Path, seed: int, progress: Callable[[int], None] | None = None) -> Loaded:
    """Studies of ``section.source``, ready for use.

    Rows without a usable id, report or image are quarantined; every image of a chosen study is decoded once (the
    result is kept in ``cache``). Patients are split by hash unless the source has splits; those that it lacks
    are taken out of its train patients. ``section.train``, ``.validation``, ``.test`` take the first so many in
    the order of the hash. An image that stands in two splits keeps its held-out study and quarantines the other,
    where the split is ours. ``progress`` is called with the number of images that were just checked.

    Raises DataError: no such source, folder, file or column; nothing usable; a split of the source that leaks.
    """
    if section.source not in SOURCES:
        raise DataError(
            f"data.source {section.source!r} is none of {', '.join(SOURCES)}{nearest(section.source, SOURCES)}"
        )
    check(section)
    found = SOURCES[section.source](section, cache, seed)
    studies, refused = admit(found.studies)
    quarantined = [*found.quarantined, *refused]
    notes = list(found.notes)
    if not studies:
        raise DataError(f"{section.source}: no usable study among {len(quarantined)} rows ({_reasons(quarantined)})")
    published: dict[str, Split] = {study.id: study.split for study in studies} if found.split else {}
    if found.split:  # images by path; their pixels are compared when they are decoded
        _refuse_leaks(leakage(studies, {image.path: image.path for study in studies for image in study.images}))
    studies, joined = join_shared(studies)
    if joined:
        notes.append(f"{joined:,} patients share an image with another patient and are split together with it")
    studies, made = _split(studies, found.split, section, seed)
    notes += made
    chosen, refused, leaks = _choose(studies, published, section, seed, ImageCheck(cache, progress))
    _refuse_leaks(leaks)
    quarantined += refused
    if not chosen:
        raise DataError(f"{section.source}: no usable study left ({_reasons(quarantined)})")
    counts = Counter(study.split for study in chosen)
    notes.append(
        f"{section.source}: " + ", ".join(f"{counts[split]:,} {split}" for split in SPLITS) + " studies of "
        f"{len({study.patient for study in chosen}):,} patients"
    )
    if quarantined:
        notes.append(f"{len(quarantined):,} rows in quarantine: {_reasons(quarantined)}")
    return Loaded(chosen, _unique(quarantined), notes)


def _split(studies: list[Study], ready: bool, section: DataSection, seed: int) -> tuple[list[Study], list[str]]:
    """Studies with their splits; what the source lacks is drawn from its train patients."""
    have = {study.split for study in studies} if ready else {"train"}
    lacking = frozenset(split for split in SPLITS if split not in have)
    if not lacking or "train" not in have:
        return studies, []
    train = [study for study in studies if not ready or study.split == "train"]
    rest = [study for study in studies if ready and study.split != "train"]
    drawn = split_by_patient(
        train,
        seed=seed,
        validation_share=section.validation_share,
        test_share=section.test_share,
        only=lacking,
    )
    note = f"{' and '.join(sorted(lacking))} drawn by hash of the patient (seed {seed})"
    return [*drawn, *rest], [note]


def _choose(
    studies: list[Study], published: dict[str, Split], section: DataSection, seed: int, check: ImageCheck
) -> tuple[list[Study], list[Quarantined], list[str]]:
    """The studies within the caps whose images decode, held-out splits first so that they keep shared images.

    Images are checked in steps as they are needed, so that a cap saves the time for the rest.
    """
    caps: dict[Split, int | None] = {"train": section.train, "validation": section.validation, "test": section.test}
    chosen: dict[Split, list[Study]] = {split: [] for split in SPLITS}
    quarantined: list[Quarantined] = []
    owner: dict[str, Study] = {}
    leaks: Counter[str] = Counter()
    for split in reversed(SPLITS):
        queue = sorted(
            (study for study in studies if study.split == split),
            key=lambda study: (draw(seed, study.patient), study.id),
        )
        cap = len(queue) if caps[split] is None else int(caps[split] or 0)
        while queue and len(chosen[split]) < cap:
            step = max(cap - len(chosen[split]), 32)
            batch, queue = queue[:step], queue[step:]
            verdicts = check([image for study in batch for image in study.images])
            for study in batch:
                if len(chosen[split]) == cap:
                    break
                usable, bad = without_bad_images(study, verdicts)
                quarantined += bad
                if usable is None:
                    continue
                pixels = [verdicts[image.path].pixels for image in usable.images]
                other = next((owner[hashed] for hashed in pixels if hashed in owner), None)
                if other is not None and other.split != split:
                    if published.get(other.id) != published.get(study.id):
                        leaks[f"{split} and {other.split}"] += 1
                    else:
                        quarantined.append(quarantine(study.id, f"image shared: the same picture is in {other.split}"))
                    continue
                owner.update(dict.fromkeys(pixels, usable))
                chosen[split].append(usable)
    # in step with each other, so that the first so many studies hold the splits in proportion
    places = sorted(
        ((rank + 0.5) / len(studies_of), SPLITS.index(split), rank)
        for split, studies_of in chosen.items()
        for rank in range(len(studies_of))
    )
    result = [chosen[SPLITS[split]][rank] for _, split, rank in places]
    kept = {study.id for study in result}
    result = [
        study if study.prior is None or study.prior in kept else study.model_copy(update={"prior": None})
        for study in result
    ]
    return result, quarantined, [f"{n} studies whose image stands in {pair}" for pair, n in sorted(leaks.items())]


def _refuse_leaks(problems: list[str]) -> None:
    if problems:
        raise DataError(
            f"the data set's own splits leak: {'; '.join(problems)}. Results on them would be too good. "
            "Take the rows out of train, or set data.table.split to '' to split by patient"
        )


def _unique(quarantined: list[Quarantined]) -> list[Quarantined]:
    """The same rows with ids that are unique in their table: the second of an id ends in ``~2``."""
    seen: Counter[str] = Counter()
    rows = []
    for row in quarantined:
        seen[row.id] += 1
        rows.append(row if seen[row.id] == 1 else row.model_copy(update={"id": f"{row.id}~{seen[row.id]}"}))
    return rows


def _reasons(quarantined: list[Quarantined]) -> str:
    counts = Counter(row.reason.split(":")[0] for row in quarantined)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(8)) or "none"
