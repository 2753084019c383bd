"""What readers make of a truth before they write it down: the habits of real references, each with its rate.

A world without habits (``CLEAN``) says all that is there and nothing else. In one with habits, references leave out,
doubt, grade and place wrongly, compare with images that nobody shows, carry forward what has gone, and add phrases and
small findings that no image shows: what a model that imitates them learns as well. The truth stays in `Study.truth`.

Where the rates of ``CLINICAL`` come from, and which of them are choices, is told in docs/phantom.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from radpref.config import PhantomSection
from radpref.data.phantom.patients import DEVICES, SEVERITIES, generator
from radpref.records import Change, Finding

READERS = 8
"""Readers of a world; each study is read by one of them."""
MISSED = {"mild": 0.47, "moderate": 0.29, "severe": 0.08, None: 0.19}
"""Share of findings that go unreported, by severity; None for what is not graded (nodule, mass, fracture)."""
HEDGED = {
    "pleural effusion": 0.11,
    "pneumothorax": 0.13,
    "consolidation": 0.65,
    "lung opacity": 0.045,
    "atelectasis": 0.50,
    "edema": 0.19,
    "cardiomegaly": 0.22,
    "enlarged mediastinum": 0.53,
    "pleural thickening": 0.42,
    "nodule": 0.14,
    "mass": 0.14,
    "rib fracture": 0.06,
}
"""Share of a finding's mentions that are uncertain."""
NORMAL = "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax."
"""The template of a report that has nothing to tell."""
_BOILERPLATE = (
    "Clinical correlation is recommended.",
    "Attention on follow-up is recommended.",
    "The examination is limited by portable technique.",
    "Evaluation is limited by patient rotation.",
    "Follow-up radiographs are recommended as indicated.",
)
_REMARKS: dict[str, int] = {
    "Degenerative changes of the thoracic spine.": 487,
    "Calcified granuloma.": 326,
    "Atherosclerotic calcification of the aorta.": 165,
    "Low lung volumes.": 159,
    "The aorta is tortuous.": 158,
    "Scattered scarring.": 135,
    "Scoliosis of the thoracic spine.": 90,
    "Median sternotomy wires.": 84,
    "Surgical clips in the upper abdomen.": 79,
    "Postoperative changes.": 50,
    "Flattened diaphragms.": 41,
    "External leads overlie the chest.": 41,
    "Osteopenia.": 22,
    "A stent is present.": 14,
}
"""The long tail: small findings that no phantom has, with their counts in the findings sections of Open-i."""
_CHANGES: dict[Change, float] = {"unchanged": 0.6, "worse": 0.15, "better": 0.15, "new": 0.1}
_WORDS: dict[str, tuple[str, ...]] = {
    "consolidation": ("airspace consolidation", "focal consolidation"),
    "opacity": ("airspace opacity", "infiltrate", "ground glass opacity", "airspace disease"),
    "opacities": ("airspace opacities", "ground glass opacities"),
    "linear atelectasis": ("plate-like atelectasis",),
    "atelectasis": ("plate-like atelectasis", "subsegmental atelectasis", "atelectatic change"),
    "zone": ("lung", "lung zone"),
    "small": ("trace", "tiny", "small to moderate", "very small"),
    "mild": ("slight", "minimal", "mild to moderate", "subtle"),
    "moderate": ("medium", "moderate to severe"),
    "severe": ("extensive", "very large", "massive"),
    "large": ("extensive", "very large", "massive"),
    "enteric tube": ("NG tube", "nasogastric tube"),
    "endotracheal tube": ("ET tube",),
    "pulmonary edema": ("interstitial edema", "alveolar edema"),
    "cardiomegaly": ("cardiac enlargement",),
}
"""Other words for what a report says, that a rule reader reads alike up to the band of a place."""
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Habits:
    """Rates from 0 (never) to 1, but for ``omission``, ``hedging`` and ``readers``."""

    template: float = 0.0
    """Chance that a report with nothing to tell is ``NORMAL``, word for word."""
    variety: float = 0.0
    """Chance that a word of a finding gives way to a rarer one."""
    omission: float = 0.0
    """How often findings go unreported, in units of ``MISSED``."""
    hedging: float = 0.0
    """How often findings are doubted, in units of ``HEDGED``."""
    readers: float = 0.0
    """How far readers lie apart: standard deviation of the log of their omission and hedging."""
    uncompared: float = 0.0
    """Chance that an unchanged finding is mentioned without saying so."""
    comparison: float = 0.0
    """Chance that a report of a study without a prior compares with one."""
    copied: float = 0.0
    """Chance that a finding which has gone since the prior is reported as still there."""
    boilerplate: float = 0.0
    """Chance of a phrase that says nothing of the image."""
    tail: float = 0.0
    """Chance of a remark on a small finding that no image shows."""
    side_slip: float = 0.0
    """Chance that a finding is put on the other side."""
    severity_slip: float = 0.0
    """Chance that a finding is graded one step off."""


CLEAN = Habits()
CLINICAL = Habits(
    template=0.9,
    variety=0.35,
    omission=1.0,
    hedging=1.0,
    readers=0.35,
    uncompared=0.06,
    comparison=0.20,
    copied=0.10,
    boilerplate=0.30,
    tail=0.49,
    side_slip=0.0007,
    severity_slip=0.17,
)
PRESETS = {"clean": CLEAN, "clinical": CLINICAL}


def habits_of(section: PhantomSection) -> Habits:
    """The habits of a world: those of ``reports``, with what ``habits`` sets put in their place."""
    preset, own = PRESETS[section.reports], section.habits
    given = {field.name: getattr(own, field.name) for field in fields(Habits)}
    return Habits(**{n: getattr(preset, n) if value is None else value for n, value in given.items()})


@dataclass(frozen=True)
class Intended:
    """What a reader sets out to write."""

    stated: tuple[Finding, ...]
    """Findings as they will be stated, right or wrong."""
    hedged: frozenset[str]
    """Names of those that will be doubted."""
    resolved: tuple[Finding, ...]
    """Findings of the prior that will be said to have gone."""
    compared: bool
    """Whether the report speaks of a prior."""
    reader: int
    habits: tuple[str, ...]
    """What departs from the truth, as ``habit: finding``, in the order of the truth."""

    def names(self, habit: str) -> tuple[str, ...]:
        """Findings (or the remark) that a habit has touched."""
        return tuple(entry.partition(": ")[2] for entry in self.habits if entry.partition(": ")[0] == habit)


def intend(truth: Sequence[Finding], gone: Sequence[Finding], compared: bool, habits: Habits, *words: int) -> Intended:
    """What the reader of a study makes of its truth.

    ``gone`` are findings of the prior that are no longer there; ``words`` seed the choices: the world, then the
    study. The same words make the same choices for a finding whatever other habits there are.
    """
    rng = generator(*words, 6)
    reader = int(rng.random() * READERS)
    spread = generator(words[0], 0, 0, 9, reader).standard_normal(2) * habits.readers
    lenient, doubtful = np.exp(spread - habits.readers**2 / 2).tolist()
    unseen = not compared and rng.random() < habits.comparison
    stated: list[Finding] = []
    hedged: set[str] = set()
    noted: list[str] = []
    for finding in truth:
        said, notes = _say(finding, habits, lenient, doubtful, unseen, rng.random(8).tolist())
        noted += [f"{note}: {finding.name}" for note in notes]
        if said is not None:
            stated.append(said)
            hedged |= {finding.name} if "hedged" in notes else set()
    resolved = []
    for finding in gone:
        kept, told = rng.random(2).tolist()
        if kept < habits.copied:
            stated.append(finding.model_copy(update={"change": "unchanged"}))
            noted.append(f"copied: {finding.name}")
        elif told < 0.7:
            resolved.append(finding)
    speaks = compared or (unseen and any(finding.change for finding in stated))
    return Intended(tuple(stated), frozenset(hedged), tuple(resolved), speaks, reader, tuple(noted))


def _say(
    finding: Finding, habits: Habits, lenient: float, doubtful: float, unseen: bool, u: Sequence[float]
) -> tuple[Finding | None, list[str]]:
    """A finding as it will be stated, None if not at all, and which habits did that."""
    device = finding.name in DEVICES
    steady = finding.change in (None, "unchanged")
    missed = 0.0 if device or not steady else MISSED[finding.severity] * habits.omission * lenient
    if u[0] < missed:
        return None, ["omitted"]
    notes, said = [], finding
    if finding.change == "unchanged" and u[1] < habits.uncompared:
        said = said.model_copy(update={"change": None})
        notes.append("uncompared")
    if unseen and u[2] < 0.6:
        said = said.model_copy(update={"change": _drawn(_CHANGES, u[3])})
        notes.append("compared")
    if said.side in ("left", "right") and u[4] < habits.side_slip:
        said = said.model_copy(update={"side": "left" if said.side == "right" else "right"})
        notes.append("other side")
    if said.severity and u[5] < habits.severity_slip:
        grade = SEVERITIES.index(said.severity)
        step = 1 if grade == 0 or (grade == 1 and u[6] < 0.5) else -1
        said = said.model_copy(update={"severity": SEVERITIES[grade + step]})
        notes.append("other severity")
    if said.change is None and u[7] < HEDGED.get(said.name, 0.0) * habits.hedging * doubtful:
        notes.append("hedged")
    return said, notes


def _drawn(weights: dict[Change, float], point: float) -> Change:
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return "unchanged"


def dress(text: str, empty: bool, habits: Habits, *words: int) -> tuple[str, tuple[str, ...]]:
    """The text with the template, rarer words, a phrase or a remark where the habits have them, and which it got.

    ``empty``: whether the report has nothing to tell. ``words`` seed the choices.
    """
    u = generator(*words, 7).random(5).tolist()
    if empty and u[0] < habits.template:
        text = NORMAL
    rng = generator(*words, 8)

    def other(match: re.Match[str]) -> str:
        chance, which = rng.random(2).tolist()
        options = _WORDS[match.group().lower()]
        if chance >= habits.variety:
            return match.group()
        new = options[int(which * len(options))]
        return new[0].upper() + new[1:] if match.group()[0].isupper() else new

    if habits.variety and not empty:
        sentences = re.split(r"(?<=[.\n])(?=\s|-)", text)
        text = "".join(
            sentence
            if re.search(r"\b(?:no|not|without)\b", sentence, re.IGNORECASE)
            else re.sub(r"\b([Aa])n? (?=([A-Za-z]))", _article, _WORD.sub(other, sentence))
            for sentence in sentences
        )
    extra: list[str] = []
    if u[1] < habits.tail:
        extra.append(_weighted(_REMARKS, u[2]))
    if u[3] < habits.boilerplate:
        extra.append(_BOILERPLATE[int(u[4] * len(_BOILERPLATE))])
    listed = text.startswith("- ")
    for sentence in extra:
        text += f"\n- {sentence}" if listed else f" {sentence}"
    return text, tuple(f"added: {sentence}" for sentence in extra)


def _article(match: re.Match[str]) -> str:
    return match.group(1) + ("n " if match.group(2) in "aeiouEN" else " ")  # an ET tube, an NG tube


def _weighted(weights: dict[str, int], point: float) -> str:
    point *= sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return next(iter(weights))
