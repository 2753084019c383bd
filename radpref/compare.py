"""Finished runs held against each other: which are seeds of one method, and what is more than chance between methods.

Read of a run is what its stages' marks say that its results follow from, and the sums by test patient that `evaluate`
leaves behind; nothing is computed of answers or models again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radpref.files import content_key
from radpref.pipeline import road_of
from radpref.rooms import evaluation
from radpref.runs.context import Left
from radpref.runs.folder import Run, RunError
from radpref.stages.evaluate import STAGE as EVALUATE
from radpref.stages.ports import BY_PATIENT, TEST

if TYPE_CHECKING:
    from radpref.evaluation import PatientSums

SEED_KEYS = ("run.seed", "data.phantom.seed")
"""What sets two runs of one method apart."""
_MEASURING = ("evaluate.", "report.", "headroom.")
"""Sections that say how a run is measured and shown, not what it makes."""
_RULERS = ("the lexicon", "the judges' rules", "the code of evaluation", "the code of judges", "the code of findings")
"""What `evaluate` measures with, as its mark names it."""


@dataclass(frozen=True)
class Finished:
    """What comparing needs of a finished run."""

    folder: Path
    kind: str
    """Of its task: ``report`` or ``questions``."""
    settings: Mapping[str, Any]
    """All that its results follow from, seeds apart: runs with the same are seeds of one method."""
    seed: tuple[Any, ...]
    """Values of ``SEED_KEYS``; of a run on other data than phantoms the second is None."""
    test: str
    """A digest of the test questions: ids, patients, references and truths."""
    rulers: Mapping[str, str]
    """Versions of the judges, the lexicon and the rules that it was measured by."""
    systems: tuple[str, ...]
    columns: tuple[str, ...]
    """What is counted by patient."""

    def sums(self, system: str) -> PatientSums:
        """What a system counts by patient. Raises RunError where there is no such system."""
        if system not in self.systems:
            there = ", ".join(repr(name) for name in self.systems)
            raise RunError(f"{self.folder} has no system {system!r}; measured are {there}.")
        table = Run(self.folder).table(EVALUATE.name, BY_PATIENT)
        rows = (row for row in table if row.system == system)
        return evaluation.sums_of(rows, self.columns, self.test)


def read_finished(folder: Path) -> Finished:
    """A finished run, to be compared.

    Raises:
        RunError: no run, one that has not been measured to the end, or one measured before sums by patient were kept;
            with what to do.
    """
    run = Run(folder)
    road = road_of(run.recipe)
    if EVALUATE not in road:
        raise RunError(f"{folder} has no studies, so that nothing of it was measured; there is nothing to compare.")
    mark = run.mark(EVALUATE.name)
    if mark is None:
        raise RunError(f"{folder} has not been measured to the end. `radpref run {folder}` goes on with it.")
    if BY_PATIENT.name not in mark.tables:
        raise RunError(
            f"{folder} was measured by a version that kept no sums by patient. `radpref evaluate {folder} --redo` "
            "measures it again (seconds to minutes; no model is run), `radpref report` then writes its page."
        )
    settings: dict[str, Any] = {}
    for stage in road[: road.index(EVALUATE) + 1]:
        known = run.mark(stage.name)
        if known is None:
            raise RunError(f"`{stage.name}` of {folder} has not finished. `radpref run {folder}` goes on with it.")
        settings |= known.basis.config
        if stage is not EVALUATE:
            settings |= {name: value for name, value in known.basis.identity.items() if name != "the kind of device"}
    seed = tuple(settings.pop(key, None) for key in SEED_KEYS)
    phantom = settings.get("data.source", run.recipe.data.source) == "phantom"
    return Finished(
        folder=folder,
        kind=run.recipe.task.kind,
        settings={key: value for key, value in sorted(settings.items()) if not key.startswith(_MEASURING)},
        seed=seed if phantom else (seed[0], None),
        test=_test(run),
        rulers={name: value for name, value in mark.basis.identity.items() if name in _RULERS},
        systems=tuple(mark.counts["systems"]),
        columns=tuple(mark.counts["columns"]),
    )


def _test(run: Run) -> str:
    """What the test questions ask and are held against, wherever their images lie."""
    table = Left(run, road_of(run.recipe)).table(TEST)
    rows = () if table is None else table
    return content_key(
        [
            content_key(
                [row.id, row.patient, row.reference, row.answer, row.truth and [f.model_dump() for f in row.truth]]
            )
            for row in rows
        ]
    )
