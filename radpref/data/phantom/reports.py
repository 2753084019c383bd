"""What a radiologist writes about a truth: five styles and a closed vocabulary.

What is to be said, and with which habits (``habits.Intended``), is settled before; what is written here says just
that. ``Report`` names the habits that it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from radpref.data.phantom.habits import CLEAN, Habits, dress, intend
from radpref.findings.grammar import ADVERBS, SIZES, Phrase, capital, many, many_places, noun, noun_kind, plural
from radpref.records import Change, Finding

Style = Literal["terse", "systematic", "narrative", "checklist", "dictated"]
STYLES: tuple[Style, ...] = ("terse", "systematic", "narrative", "checklist", "dictated")

_NORMAL_SAID = {"terse": 0.80, "systematic": 0.96, "narrative": 0.88, "checklist": 0.95, "dictated": 0.92}
"""Chance that an organ without a finding is said to be normal."""


@dataclass(frozen=True)
class Report:
    """A report, and what its writer left out, doubted or got wrong, as names of findings."""

    findings: str
    impression: str
    indication: str
    comparison: str
    style: Style
    omitted: tuple[str, ...]
    hedged: tuple[str, ...]
    uncompared: tuple[str, ...]
    reader: int
    """Which of the world's readers wrote it."""
    habits: tuple[str, ...]
    """All that departs from the truth, as ``habit: finding``; what was added, as ``added: sentence``."""


class _Dice:
    """Choices from a generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, p: float) -> bool:
        return float(self.rng.random()) < p

    def pick(self, *options: str) -> str:
        return options[int(float(self.rng.random()) * len(options))]


def write(
    truth: Sequence[Finding],
    gone: Sequence[Finding],
    compared: bool,
    rng: np.random.Generator,
    *,
    habits: Habits = CLEAN,
    words: tuple[int, ...] = (0,),
) -> Report:
    """Write a report of ``truth``.

    ``gone`` are findings of the prior that are no longer there; ``compared`` says whether there is a prior at all.
    ``words`` (world, study) seed what ``habits`` do.
    """
    meant = intend(truth, gone, compared, habits, *words)
    dice = _Dice(rng)
    style = STYLES[int(float(rng.random()) * len(STYLES))]
    said: dict[str, list[str]] = {organ: [] for organ in _ORGANS}
    for finding in meant.stated:
        doubted = finding.name in meant.hedged
        said[_organ(finding.name)].append(_doubted(finding, dice) if doubted else _stated(finding, style, dice))
    for finding in meant.resolved:
        said[_organ(finding.name)].append(_resolved(finding, dice))
    seen = {finding.name for finding in meant.stated}
    text = _compose(style, said, seen, meant.compared, dice)
    text, added = dress(text, not meant.stated and not meant.resolved, habits, *words)
    doubted_ones = [finding for finding in meant.stated if finding.name in meant.hedged]
    return Report(
        findings=text,
        impression=_impression([f for f in meant.stated if f not in doubted_ones], doubted_ones, dice),
        indication=_indication({finding.name for finding in truth}, dice),
        comparison="Prior chest radiograph." if meant.compared else "None.",
        style=style,
        omitted=meant.names("omitted"),
        hedged=meant.names("hedged"),
        uncompared=meant.names("uncompared"),
        reader=meant.reader,
        habits=(*meant.habits, *added),
    )


_ORGANS = ("devices", "lungs", "pleura", "heart", "mediastinum", "bones", "rest")
_DEVICE_NAMES = ("endotracheal tube", "enteric tube", "central venous catheter", "pacemaker")
_LUNG_NAMES = ("consolidation", "lung opacity", "nodule", "mass", "atelectasis", "edema")


def _organ(name: str) -> str:
    if name in _DEVICE_NAMES:
        return "devices"
    if name in _LUNG_NAMES:
        return "lungs"
    return {"cardiomegaly": "heart", "enlarged mediastinum": "mediastinum", "rib fracture": "bones"}.get(name, "pleura")


# ---------------------------------------------------------------- one finding


def _grade(finding: Finding, dice: _Dice) -> str:
    if finding.severity is None:
        return ""
    if finding.name in ("pleural effusion", "pneumothorax"):
        return SIZES[finding.severity] + " "
    if finding.severity == "severe":
        return dice.pick("severe ", "severe ", "marked ")
    if finding.severity == "mild":
        return dice.pick("mild ", "mild ", "minimal ")
    return "moderate "


def _where(finding: Finding, what: str, grade: str, dice: _Dice) -> str:
    """``what`` with its side and place, before or after."""
    if finding.side == "bilateral":
        return f"{grade}{what} in both {many_places(finding.place or '')}"
    if dice.chance(0.5):
        return f"{grade}{finding.side} {finding.place} {what}"
    return f"{grade}{what} in the {finding.side} {finding.place}"


def _phrase(finding: Finding, dice: _Dice) -> Phrase:
    name, side, grade = finding.name, finding.side, _grade(finding, dice)
    both, how = side == "bilateral", noun_kind(name)
    if name == "pleural effusion":
        what = many(name) if both else Phrase(name, how)
        return Phrase(f"{grade}{side} {what.text}", what.kind)
    if name == "pneumothorax":
        apical = "apical " if finding.place == "apex" else ""
        return Phrase(f"{grade}{side} {apical}pneumothorax", how)
    if name == "consolidation":
        return Phrase(_where(finding, "consolidation", grade, dice), how)
    if name == "lung opacity":
        if both:
            return Phrase(_where(finding, plural(noun(name)), grade, dice), "plural")
        return Phrase(_where(finding, noun(name), grade, dice), how)
    if name in ("nodule", "mass"):
        return Phrase(_where(finding, name, "", dice), how)
    if name == "atelectasis":
        kind_of = dice.pick("atelectasis", "atelectasis", "linear atelectasis")
        if both:
            return Phrase(f"{grade}bibasilar {kind_of}" if dice.chance(0.6) else f"{grade}{kind_of} at both bases", how)
        text = f"{grade}{side} basilar {kind_of}" if dice.chance(0.5) else f"{grade}{kind_of} at the {side} base"
        return Phrase(text, how)
    if name == "edema":
        return Phrase(grade + dice.pick("pulmonary edema", "pulmonary edema", "interstitial edema"), how)
    if name == "cardiomegaly":
        return Phrase(f"{grade}cardiomegaly", how)
    if name == "enlarged mediastinum":
        return Phrase(f"{grade}mediastinal widening", how)
    if name == "rib fracture":
        return Phrase(dice.pick("displaced ", "", "") + f"{side} rib fracture", how)
    if name == "pleural thickening":
        if finding.place == "apex":
            return Phrase(f"{grade}{side} apical pleural thickening", how)
        return Phrase(_where(finding, "pleural thickening", grade, dice), how)
    if name == "endotracheal tube":
        return Phrase("endotracheal tube" + dice.pick("", " ending above the carina"), how)
    if name == "enteric tube":
        return Phrase("enteric tube" + dice.pick("", " ending in the stomach"), how)
    if name == "central venous catheter":
        return Phrase(f"{side} central venous catheter" + dice.pick("", " ending in the superior vena cava"), how)
    if name == "pacemaker":
        return Phrase(f"{side} chest wall pacemaker" if dice.chance(0.5) else f"{side} pacemaker", how)
    raise ValueError(f"no words for {name!r}; add them to radpref/data/phantom/reports.py")


_TAILS: dict[Change, tuple[str, ...]] = {
    "new": (", new from the prior",),
    "worse": (", increased from the prior", ", worse than on the prior", ", worsened since the prior"),
    "better": (", decreased from the prior", ", improved since the prior", ", improved"),
    "unchanged": (", unchanged from the prior", ", unchanged", ", stable"),
}


def _tail(finding: Finding, dice: _Dice) -> str:
    return dice.pick(*_TAILS[finding.change]) if finding.change else ""


def _changed(finding: Finding, phrase: Phrase, dice: _Dice) -> tuple[Phrase, str]:
    """The phrase with a change in front of it, or what follows it."""
    if finding.change == "new":
        return Phrase("new " + phrase.text, phrase.kind), ""
    if finding.change == "unchanged" and dice.chance(0.35):
        return Phrase(dice.pick("unchanged ", "stable ") + phrase.text, phrase.kind), ""
    return phrase, _tail(finding, dice)


def _stated(finding: Finding, style: Style, dice: _Dice) -> str:
    if finding.name in ("cardiomegaly", "enlarged mediastinum") and style != "terse" and dice.chance(0.5):
        grade = ADVERBS[finding.severity or "mild"]
        organ = f"heart is {grade} enlarged" if finding.name == "cardiomegaly" else f"mediastinum is {grade} widened"
        return f"The {organ}{_tail(finding, dice)}."
    phrase, tail = _changed(finding, _phrase(finding, dice), dice)
    if style in ("terse", "checklist", "systematic"):
        return capital(f"{phrase.text}{tail}.")
    if style == "dictated":
        verb = dice.pick("present", "noted")
        return capital(f"{phrase.with_article()} {phrase.be} {verb}{tail}.")
    if dice.chance(0.7):
        return f"There {phrase.be} {phrase.with_article()}{tail}."
    return capital(f"{phrase.with_article()} {phrase.be} seen{tail}.")


def _doubted(finding: Finding, dice: _Dice) -> str:
    phrase = _phrase(finding, dice)
    form = dice.pick("possible", "excluded", "represent", "suspected")
    if form == "possible":
        return f"Possible {phrase.text}."
    if form == "excluded":
        return capital(f"{phrase.with_article()} cannot be excluded.")
    if form == "represent":
        return f"Findings may represent {phrase.with_article()}."
    return capital(f"{phrase.with_article()} {phrase.be} suspected.")


def _resolved(finding: Finding, dice: _Dice) -> str:
    where = "" if finding.side is None else f"{finding.side} "
    both = finding.name == "pleural effusion" and finding.side == "bilateral"
    gone = many(finding.name) if both else Phrase(finding.name, "count")
    if finding.name in _DEVICE_NAMES:
        return f"The {where}{gone.text} has been removed."
    return f"The prior {where}{gone.text} {'have' if gone.kind == 'plural' else 'has'} resolved."


# ---------------------------------------------------------------- the whole report


def _normal(organ: str, seen: set[str], dice: _Dice) -> str:
    """What is said of an organ beside its findings: what is absent; empty where nothing is left to say."""
    if organ == "lungs":
        if not seen & set(_LUNG_NAMES):
            return dice.pick(
                "The lungs are clear.",
                "Lungs are clear without focal consolidation.",
                "No focal consolidation or edema.",
                "The lungs are well expanded and clear.",
            )
        if not seen & {"consolidation", "lung opacity"}:
            return dice.pick("No focal consolidation.", "No consolidation.")
        return "No edema." if "edema" not in seen else ""
    if organ == "pleura":
        if not seen & {"pleural effusion", "pneumothorax"}:
            return dice.pick(
                "No pleural effusion or pneumothorax.",
                "No pleural effusion or pneumothorax.",
                "There is no pleural effusion or pneumothorax.",
                "No effusion. No pneumothorax.",
            )
        if "pleural effusion" in seen:
            return dice.pick("No pneumothorax.", "There is no pneumothorax.") if "pneumothorax" not in seen else ""
        return dice.pick("No pleural effusion.", "There is no pleural effusion.")
    if organ == "heart" and "cardiomegaly" not in seen:
        return dice.pick("Heart size is normal.", "The heart is normal in size.", "No cardiomegaly.")
    if organ == "mediastinum" and "enlarged mediastinum" not in seen:
        return dice.pick("The mediastinum is unremarkable.", "Mediastinal and hilar contours are normal.")
    if organ == "rest":
        return dice.pick("The upper abdomen is unremarkable.", "No free air below the diaphragm.", "")
    if organ == "bones" and "rib fracture" not in seen:
        return dice.pick("No acute osseous abnormality.", "No rib fracture.", "The bones are intact.")
    return ""


_LABEL = {
    "devices": "Other",
    "lungs": "Lungs",
    "pleura": "Pleura",
    "heart": "Heart",
    "mediastinum": "Mediastinum",
    "bones": "Bones",
    "rest": "Abdomen",
}
_ORDER: dict[Style, tuple[str, ...]] = {
    "terse": ("devices", "heart", "lungs", "pleura", "mediastinum", "bones", "rest"),
    "systematic": ("lungs", "pleura", "heart", "mediastinum", "bones", "rest", "devices"),
    "narrative": ("lungs", "pleura", "heart", "mediastinum", "bones", "rest", "devices"),
    "checklist": ("devices", "lungs", "pleura", "heart", "mediastinum", "bones", "rest"),
    "dictated": ("heart", "mediastinum", "lungs", "pleura", "bones", "rest", "devices"),
}


def _rarely(organ: str, style: Style) -> float:
    return 0.55 if organ in ("mediastinum", "bones", "rest") and style in ("terse", "narrative") else 1.0


def _compose(style: Style, said: dict[str, list[str]], seen: set[str], compared: bool, dice: _Dice) -> str:
    normal = {organ: _normal(organ, seen, dice) for organ in _ORDER[style]}
    told = {organ for organ in normal if dice.chance(_NORMAL_SAID[style] * _rarely(organ, style))}
    spoken = [organ for organ in _ORDER[style] if said[organ] or (organ in told and normal[organ])]
    if len(spoken) < 3:  # even the tersest says more than one thing
        told |= {organ for organ in ("lungs", "pleura", "heart") if normal[organ]}
    parts = []
    for organ in _ORDER[style]:
        sentences = [*said[organ], *([normal[organ]] if organ in told and normal[organ] else [])]
        if sentences:
            parts.append((organ, " ".join(sentences)))
    opening = "Compared with the prior study. " if compared and style == "dictated" and dice.chance(0.5) else ""
    if style == "systematic":
        return " ".join(f"{_LABEL[organ]}: {text}" for organ, text in parts)
    if style == "checklist":
        return "\n".join(f"- {text}" for _, text in parts)
    return opening + " ".join(text for _, text in parts)


_WEIGHT = {
    "pneumothorax": 9,
    "mass": 8,
    "consolidation": 7,
    "edema": 7,
    "pleural effusion": 6,
    "enlarged mediastinum": 6,
    "rib fracture": 5,
    "nodule": 5,
    "lung opacity": 5,
    "cardiomegaly": 4,
    "atelectasis": 3,
    "pleural thickening": 2,
}


def _impression(sure: Sequence[Finding], doubted: Sequence[Finding], dice: _Dice) -> str:
    """The weightiest findings, at most three; devices only where there is nothing else."""
    ranked = sorted(
        (f for f in sure if f.name in _WEIGHT), key=lambda f: -_WEIGHT[f.name] - 2 * (f.severity == "severe")
    )[:3]
    lines = []
    for finding in ranked:
        phrase, tail = _changed(finding, _phrase(finding, dice), dice)
        if finding.name == "consolidation" and not tail and dice.chance(0.4):
            tail = ", suspicious for pneumonia"
        lines.append(capital(f"{phrase.text}{tail}."))
    lines += [f"Possible {_phrase(finding, dice).text}." for finding in doubted[: 3 - len(lines)]]
    if lines:
        return " ".join(lines)
    if sure:
        return dice.pick("Support devices in place. No acute abnormality.", "No acute cardiopulmonary abnormality.")
    return dice.pick("No acute cardiopulmonary abnormality.", "Normal chest radiograph.", "No acute abnormality.")


_COMMON = (
    "Cough.",
    "Shortness of breath.",
    "Chest pain.",
    "Fever.",
    "Preoperative evaluation.",
    "Follow-up.",
    "Weakness.",
    "Routine examination.",
)
_TOLD_BY = {
    "rib fracture": ("Trauma.", "Fall."),
    "pneumothorax": ("Trauma.", "Chest pain.", "Shortness of breath."),
    "endotracheal tube": ("Intubated.", "Intensive care."),
    "central venous catheter": ("Line placement.", "Intensive care."),
    "edema": ("Shortness of breath.", "Hypoxia."),
    "consolidation": ("Fever.", "Cough."),
    "mass": ("Weight loss.", "Cough."),
    "nodule": ("Weight loss.", "Follow-up."),
}
_RARE = ("Trauma.", "Fall.", "Weight loss.", "Hypoxia.", "Intensive care.", "Line placement.")


def _indication(seen: set[str], dice: _Dice) -> str:
    """Why the image was taken: told by a finding in one study out of five, else drawn regardless of them."""
    for name, reasons in _TOLD_BY.items():
        if name in seen and dice.chance(0.2):
            return dice.pick(*reasons)
    return dice.pick(*_COMMON, *_COMMON, *_RARE)
