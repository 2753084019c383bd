"""The pair stage of method pairs: preferences that were made elsewhere, kept apart from what is measured on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from radpref.records import Pair, Quarantined, Study
from radpref.run.folder import Run, RunError, progress
from radpref.stages.common import reasons


def given_pairs(run: Run, limit: int | None = None) -> str:
    """Read ``pair.file``; a pair about a held-out study, its patient or its image is quarantined.

    Raises:
        DataError: the file cannot be read.
        RunError: no pair is left.
    """
    from radpref.formats import read_pairs
    from radpref.pairs import statistics

    section, data = run.recipe.pair, run.recipe.data
    assert section.file is not None  # `check` has seen to it
    run.begin("pair")
    bar = progress(total=None, unit="images", what="pair")
    found = read_pairs(
        section.file,
        run.path("pair"),
        root=Path(section.root) if section.root else None,
        also=[Path(folder) for folder in (data.root, run.folder) if folder],
        limit=min((count for count in (limit, section.limit) if count is not None), default=None),
        progress=bar.update,
    )
    bar.close()
    held = _HeldOut(run)
    leaks = [Quarantined(id=p.id, stage="pair", reason=why) for p in found.pairs if (why := held.reason(p))]
    leaking = {row.id for row in leaks}
    pairs = [pair for pair in found.pairs if pair.id not in leaking]
    quarantined = [*found.quarantined, *leaks]
    run.table("pair", "quarantined", Quarantined).write(quarantined)
    if not pairs:
        raise RunError(
            f"no pair is left of {len(quarantined)}{reasons(quarantined)}. See "
            f"{run.path('pair', 'quarantined.jsonl')}; pairs must not be about what results are measured on."
        )
    run.table("pair", "pairs", Pair).write(pairs)
    dropped = Counter(row.reason.split(":")[0] for row in quarantined)
    facts = {"dropped": dropped, "unscored": {}, "statistics": statistics(pairs)}
    run.write_json(facts, "pair", "statistics.json")
    for note in found.notes:
        run.event("pair", "note", text=note)
    run.finish("pair", run.digest("pair", "pairs"), pairs=len(pairs), dropped=dropped)
    return f"{len(pairs)} pairs; {len(quarantined)} quarantined{reasons(quarantined)}"


class _HeldOut:
    """What results are measured on and chosen by: studies, patients and images of validation and test."""

    def __init__(self, run: Run) -> None:
        from radpref.data.gate import ImageCheck

        studies = [study for study in run.rows("studies", "studies", Study) if study.split != "train"]
        images = [image for study in studies for image in study.images]
        # decoded when the studies were read; pixels tell an image that was saved anew
        verdicts: dict[str, Any] = ImageCheck(run.path("studies"))(images)
        self._check = ImageCheck(run.path("pair"))
        self._pixels = {verdict.pixels for verdict in verdicts.values() if verdict.reason is None}
        self._patients = {study.patient for study in studies}
        self._studies = {study.id for study in studies}

    def reason(self, pair: Pair) -> str | None:
        """Why a pair must not be trained on; None when it may."""
        if pair.question in self._studies:
            return "study held out: the pair is about a study of validation or test"
        if pair.patient in self._patients:
            return "patient held out: the pair is about a patient of validation or test"
        if any(verdict.pixels in self._pixels for verdict in self._check(pair.images).values()):
            return "image held out: the same picture is in validation or test"
        return None
