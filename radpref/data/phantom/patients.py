"""Who is drawn and what they have: bodies, findings and earlier visits, all sampled from a seed.

Everything about a patient follows from ``SeedSequence((seed, index))``; what differs between two visits
(position, exposure, grain) follows from ``SeedSequence((seed, index, visit, view))``. Lengths are in units of half
the image's width: the image spans -1 to 1 in both directions, x to the right (the patient's left), y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from radpref.records import Change, Finding, Severity, Side

Visit = Literal["current", "prior"]

GRADED = (
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "lung opacity",
    "atelectasis",
    "edema",
    "cardiomegaly",
    "enlarged mediastinum",
    "pleural thickening",
)
DEVICES = ("endotracheal tube", "enteric tube", "central venous catheter", "pacemaker")
NAMES = (*GRADED, "nodule", "mass", "rib fracture", *DEVICES)
"""Every finding that a phantom can have."""

ZONES = ("upper zone", "mid zone", "lower zone")
SEVERITIES: tuple[Severity, ...] = ("mild", "moderate", "severe")


@dataclass(frozen=True)
class Lesion:
    """One finding with what its shape needs; ``dice`` are uniform numbers that stay the same between visits."""

    name: str
    side: Side | None
    place: str | None
    severity: Severity | None
    change: Change | None
    dice: tuple[float, ...]

    @property
    def grade(self) -> int:
        """0, 1, 2 for mild, moderate, severe; 0 for a finding without a severity."""
        return SEVERITIES.index(self.severity) if self.severity else 0

    @property
    def sides(self) -> tuple[int, ...]:
        """-1 for the patient's right (the image's left), 1 for the left; both for bilateral or without a side."""
        return {"right": (-1,), "left": (1,), "bilateral": (-1, 1), None: (-1, 1)}[self.side]

    def finding(self) -> Finding:
        return Finding(name=self.name, side=self.side, place=self.place, severity=self.severity, change=self.change)


@dataclass(frozen=True)
class Body:
    """A patient's build. Lengths in half image widths, contrasts as attenuation."""

    width: float  # inner half-width of the chest at its widest
    apex: float  # y of the lung apices
    base: float  # y of the costophrenic angles' level
    dome: float  # y of the right diaphragm's dome
    dome_gap: float  # how much lower the left dome is
    heart: float  # cardiothoracic ratio
    heart_y: float
    heart_tilt: float
    mediastinum: float  # half-width of the upper mediastinum
    knob: float  # radius of the aortic knob
    fat: float  # soft tissue beyond the chest wall
    breast: float  # contrast of breast shadows, 0 for none
    bone: float  # contrast of bone
    spacing: float  # between ribs
    rib_phase: float
    rib_slope: float
    clavicle: float  # y of the clavicles' inner ends
    vessels: tuple[int, int]  # which vessel trees
    vessel_gain: float
    bubble: float  # gastric bubble, 0 for none
    age: float  # years


@dataclass(frozen=True)
class Patient:
    """A patient with one visit, or an earlier and a current one."""

    index: int
    body: Body
    lesions: tuple[Lesion, ...]
    before: tuple[Lesion, ...] | None
    """What was there at the earlier visit; None for a patient without a prior."""
    lateral: float
    """Uniform number; the study has a lateral image where it is below ``lateral_share``."""

    def at(self, visit: Visit) -> tuple[Lesion, ...]:
        """The findings at a visit; ValueError where the patient has no such visit."""
        if visit == "current":
            return self.lesions
        if self.before is None:
            raise ValueError(f"patient {self.index} has no prior visit; draw the current one")
        return self.before


def generator(*words: int) -> np.random.Generator:
    """A generator that depends on ``words`` (non-negative integers) alone, alike on every platform."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def sample(index: int, *, seed: int, prior_share: float = 0.25) -> Patient:
    """Sample patient ``index`` (>= 0) of world ``seed`` (>= 0).

    ``prior_share`` is the share of *studies* that have a prior: of p patients with two visits each makes two
    studies, so that share s needs p = s / (1 - s) of the patients, which caps it at one half.
    """
    rng = generator(seed, index)
    body = _body(rng)
    lesions = _lesions(rng)
    has_prior, lateral = rng.random(2)
    history = generator(seed, index, 1)
    before = None
    if has_prior < min(prior_share / max(1.0 - prior_share, 1e-9), 1.0):
        lesions, before = _history(lesions, history)
    return Patient(index, body, lesions, before, float(lateral))


def _body(rng: np.random.Generator) -> Body:
    u = rng.random(24).tolist()
    age = 20 + 70 * (u[0] + u[1]) / 2
    woman = u[2] < 0.5
    width = 0.66 + 0.09 * u[3]
    return Body(
        width=width,
        apex=-0.82 + 0.08 * u[4],
        base=0.80 + 0.06 * u[5],
        dome=0.33 + 0.15 * u[6] ** 1.3,
        dome_gap=0.02 + 0.05 * u[7],
        heart=0.40 + 0.085 * u[8],
        heart_y=0.23 + 0.07 * u[9],
        heart_tilt=0.10 + 0.25 * u[10],
        mediastinum=0.105 + 0.03 * u[11],
        knob=0.075 + 0.035 * u[12] * (0.5 + age / 120),
        fat=0.04 + 0.16 * u[13] ** 1.5,
        breast=(0.03 + 0.06 * u[14]) if woman else 0.0,
        bone=0.165 - 0.0008 * (age - 50) + 0.04 * u[15],
        spacing=0.150 + 0.025 * u[16],
        rib_phase=u[17],
        rib_slope=0.7 + 0.6 * u[18],
        clavicle=-0.56 + 0.10 * u[19],
        vessels=(int(u[20] * 1e6), int(u[21] * 1e6)),
        vessel_gain=0.75 + 0.5 * u[22],
        bubble=0.0 if u[23] < 0.3 else u[23],
        age=age,
    )


# What brings a patient to the image: a pattern, and in it findings with their chances. The shares are chosen for
# a long tail: a third normal, nothing above a fifth, the rarest at one to two in a hundred.
_PATTERNS: dict[str, tuple[float, dict[str, float]]] = {
    "normal": (0.33, {}),
    "heart failure": (
        0.10,
        {"cardiomegaly": 0.80, "edema": 0.62, "pleural effusion": 0.55, "pacemaker": 0.18, "atelectasis": 0.10},
    ),
    "intensive care": (
        0.075,
        {
            "endotracheal tube": 0.72,
            "enteric tube": 0.66,
            "central venous catheter": 0.60,
            "pleural effusion": 0.28,
            "atelectasis": 0.30,
            "edema": 0.18,
            "lung opacity": 0.20,
            "consolidation": 0.15,
            "pneumothorax": 0.10,
        },
    ),
    "infection": (
        0.13,
        {"consolidation": 0.48, "lung opacity": 0.50, "pleural effusion": 0.18, "atelectasis": 0.08},
    ),
    "tumour": (
        0.11,
        {
            "nodule": 0.52,
            "mass": 0.26,
            "enlarged mediastinum": 0.10,
            "pleural effusion": 0.16,
            "central venous catheter": 0.26,
            "pleural thickening": 0.06,
        },
    ),
    "injury": (
        0.055,
        {"rib fracture": 0.34, "pneumothorax": 0.55, "lung opacity": 0.15, "atelectasis": 0.16},
    ),
    "surgery": (
        0.07,
        {"atelectasis": 0.60, "pleural effusion": 0.35, "central venous catheter": 0.30, "enteric tube": 0.15},
    ),
    "rhythm": (0.03, {"pacemaker": 0.90, "cardiomegaly": 0.35}),
    "single": (
        0.10,
        {
            "pleural thickening": 0.11,
            "cardiomegaly": 0.24,
            "atelectasis": 0.28,
            "nodule": 0.14,
            "lung opacity": 0.08,
            "pneumothorax": 0.08,
            "enlarged mediastinum": 0.05,
            "rib fracture": 0.03,
        },
    ),
}
_SIDED = {"pleural effusion": 0.28, "consolidation": 0.12, "lung opacity": 0.15, "atelectasis": 0.30}
"""Chance of bilateral, for findings that can be."""


def _lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    point, main = rng.random(2).tolist()
    chances = _PATTERNS[_pick(point, {pattern: weight for pattern, (weight, _) in _PATTERNS.items()})][1]
    drawn = {name: (float(rng.random()) < chance, _lesion(name, rng)) for name, chance in chances.items()}
    chosen = [lesion for taken, lesion in drawn.values() if taken]
    if chances and not chosen:  # a reason to come leaves at least one trace
        chosen = [drawn[_pick(main, chances)][1]]
    return _reconcile(chosen)


def _pick(point: float, weights: Mapping[str, float]) -> str:
    """The name whose share of the weights holds ``point``, a uniform number."""
    point *= sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return list(weights)[-1]


def _lesion(name: str, rng: np.random.Generator) -> Lesion:
    """One finding with the usual side, place and severity; always draws the same count of numbers."""
    u = rng.random(20).tolist()
    side: Side | None = "left" if u[0] < 0.48 else "right"
    place: str | None = None
    severity: Severity | None = None
    if name in GRADED:
        severity = SEVERITIES[0 if u[1] < 0.42 else 1 if u[1] < 0.78 else 2]
    if name in _SIDED and u[2] < _SIDED[name]:
        side = "bilateral"
    if name in ("consolidation", "lung opacity"):
        place = ZONES[0 if u[3] < 0.24 else 1 if u[3] < 0.52 else 2]
    elif name in ("nodule", "mass"):
        place = ZONES[int(u[3] * 3)]
    elif name == "atelectasis":
        place = "base"
    elif name == "pleural thickening":
        place = "apex" if u[3] < 0.6 else "mid zone"
    elif name == "pneumothorax":
        place = "apex" if severity == "mild" else None
    elif name in ("edema", "cardiomegaly", "enlarged mediastinum", "endotracheal tube", "enteric tube"):
        side = None
    elif name == "central venous catheter":
        side = "right" if u[0] < 0.7 else "left"
    elif name == "pacemaker":
        side = "left" if u[0] < 0.85 else "right"
    return Lesion(name, side, place, severity, None, tuple(u[4:]))


def _taken(lesion: Lesion | None) -> set[Side]:
    """The sides that a finding is on; none for a finding that is not there."""
    return set() if lesion is None else {"left" if side > 0 else "right" for side in lesion.sides}


def _reconcile(lesions: Iterable[Lesion]) -> tuple[Lesion, ...]:
    """Keep what can be seen together: nothing is put where another finding hides it.

    A finding whose side is taken moves to the free side, or is left out where there is none.
    """
    found = {lesion.name: lesion for lesion in lesions}
    air, heart = found.get("pneumothorax"), found.get("cardiomegaly")
    if air:  # with fluid it would make a level, another picture
        found.pop("pleural effusion", None)
    if "edema" in found:  # a diffuse haze swallows smaller ones
        found.pop("lung opacity", None)
        found.pop("consolidation", None)
    fluid = found.get("pleural effusion")
    if fluid:
        huge = fluid.severity == "severe" and (heart or fluid.side == "bilateral")
        behind = fluid.severity == "mild" and heart and heart.severity == "severe"
        if huge or behind:
            fluid = found["pleural effusion"] = replace(fluid, severity="moderate")
    rib = found.get("rib fracture")
    if air and rib:
        found["rib fracture"] = replace(rib, side=air.side)

    wet = _taken(fluid) if fluid and fluid.severity != "mild" else set()
    flooded = wet if fluid and fluid.severity == "severe" else set()
    big_heart: set[Side] = {"left"} if heart and heart.severity != "mild" else set()
    taken: dict[str, Callable[[], set[Side]]] = {
        "consolidation": lambda: _taken(air) | flooded,
        "mass": lambda: _taken(air) | flooded,
        "atelectasis": lambda: _taken(air) | wet | big_heart,
        "pleural thickening": lambda: _taken(air) | flooded,
        "lung opacity": lambda: _taken(air) | flooded | _taken(found.get("consolidation")),
        "nodule": lambda: _taken(air) | flooded | _taken(found.get("mass")),
        "central venous catheter": lambda: _taken(found.get("pacemaker")),
    }
    for name, sides in taken.items():  # in this order: an earlier one takes its place from a later one
        lesion = found.get(name)
        if lesion is None or not _taken(lesion) & sides():
            continue
        both: tuple[Side, Side] = ("left", "right")
        free = [side for side in both if side not in sides()]
        if free:
            found[name] = replace(lesion, side=free[0])
        else:
            del found[name]

    thick = found.get("pleural thickening")
    if thick and fluid:
        thick = found["pleural thickening"] = replace(thick, place="apex")
    for name in ("consolidation", "mass", "lung opacity", "nodule"):
        lesion = found.get(name)
        if lesion is None:
            continue
        blocked = {"lower zone"} if _taken(lesion) & wet else set()
        if thick and _taken(lesion) & _taken(thick):
            blocked.add("upper zone" if thick.place == "apex" else "mid zone")
        if lesion.place in blocked:
            open_zones = [zone for zone in ZONES if zone not in blocked]
            found[name] = replace(lesion, place=open_zones[int(lesion.dice[0] * len(open_zones))])
    return tuple(found[name] for name in NAMES if name in found)


def _history(now: Iterable[Lesion], rng: np.random.Generator) -> tuple[tuple[Lesion, ...], tuple[Lesion, ...]]:
    """What is there now with its change, and what was there before (findings that have gone among them)."""
    current: list[Lesion] = []
    earlier: list[Lesion] = []
    for lesion in now:
        u = float(rng.random())
        grade, graded = lesion.grade, lesion.severity is not None
        fleeting = lesion.name not in ("cardiomegaly", "pleural thickening", "enlarged mediastinum", "pacemaker")
        if u < (0.22 if fleeting else 0.06):
            current.append(replace(lesion, change="new"))
        elif graded and u < 0.42 and grade > 0:
            current.append(replace(lesion, change="worse"))
            earlier.append(_regraded(lesion, grade - 1))
        elif graded and u < 0.62 and grade < 2 and fleeting:
            current.append(replace(lesion, change="better"))
            earlier.append(_regraded(lesion, grade + 1))
        else:
            current.append(replace(lesion, change="unchanged"))
            earlier.append(lesion)
    gone = rng.random(2).tolist()
    passing = ("pleural effusion", "pneumothorax", "consolidation", "edema", "endotracheal tube", "atelectasis")
    name = passing[int(gone[1] * len(passing))]
    extra = _lesion(name, rng)
    if gone[0] < 0.25 and all(lesion.name != name for lesion in current):
        earlier.append(extra)
    before = _reconcile(earlier)
    if {lesion.name: lesion for lesion in before} != {lesion.name: lesion for lesion in earlier}:
        # The earlier image would hide one of them: nothing has changed instead.
        earlier = [replace(lesion, change=None) for lesion in current]
        return tuple(replace(lesion, change="unchanged") for lesion in current), tuple(earlier)
    return tuple(current), before


def _regraded(lesion: Lesion, grade: int) -> Lesion:
    severity = SEVERITIES[grade]
    place = ("apex" if severity == "mild" else None) if lesion.name == "pneumothorax" else lesion.place
    return replace(lesion, severity=severity, place=place)
