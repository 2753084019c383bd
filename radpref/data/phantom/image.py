"""From a patient to an image: anatomy, findings, devices, exposure, grain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radpref.data.phantom import anatomy, devices, lateral, lesions
from radpref.data.phantom.anatomy import Map, Mask, Pose, ramp
from radpref.data.phantom.habits import CLEAN, Habits
from radpref.data.phantom.patients import Lesion, Patient, Visit, generator, sample
from radpref.data.phantom.reports import Report, write
from radpref.records import Finding, View

STREAM = 3_000_000_000
"""First index of ``stream``: beyond the patients of every split."""


@dataclass(frozen=True)
class Phantom:
    """A drawn image with its truth."""

    index: int
    visit: Visit
    view: View
    image: NDArray[np.uint8]
    """(size, size), 0 black (air) to 255 white (metal)."""
    masks: dict[str, Mask]
    """Finding name to where it is, (size, size); on a lateral image only findings that show there."""
    truth: tuple[Finding, ...]
    report: Report


def draw(
    index: int,
    *,
    seed: int,
    size: int = 128,
    view: View = "frontal",
    visit: Visit = "current",
    prior_share: float = 0.25,
    habits: Habits = CLEAN,
) -> Phantom:
    """Draw one image of patient ``index`` (>= 0) of world ``seed`` (>= 0) at ``size`` by ``size`` pixels.

    The result follows from the arguments alone. ``prior_share`` decides which patients have an earlier visit
    (``patients.sample``) and with it whether findings carry a change; ``habits`` change the report alone. ValueError
    for ``visit="prior"`` of a patient without one, and for a view other than frontal and lateral.
    """
    patient = sample(index, seed=seed, prior_share=prior_share)
    return render(patient, seed=seed, size=size, view=view, visit=visit, habits=habits)


def stream(start: int, count: int, *, seed: int, size: int = 128) -> Iterator[Phantom]:
    """``count`` frontal images of patients that no split holds: ``STREAM + start`` and on."""
    for index in range(STREAM + start, STREAM + start + count):
        yield draw(index, seed=seed, size=size)


def render(
    patient: Patient,
    *,
    seed: int,
    size: int,
    view: View = "frontal",
    visit: Visit = "current",
    habits: Habits = CLEAN,
) -> Phantom:
    """``draw`` for a patient already sampled."""
    if view not in ("frontal", "lateral"):
        raise ValueError(f"a phantom has no {view} view; choose frontal or lateral")
    found = patient.at(visit)
    rng = generator(seed, patient.index, 2 if visit == "current" else 3, 0 if view == "frontal" else 1)
    u = rng.random(16).tolist()
    if view == "frontal":
        values, masks = _frontal(patient, found, size, u)
    else:
        body = lesions.reshape(patient.body, found)[0]
        values, masks = lateral.draw(body, found, size, u)
    return Phantom(
        index=patient.index,
        visit=visit,
        view=view,
        image=_develop(values, rng, u),
        masks=masks,
        truth=tuple(lesion.finding() for lesion in found),
        report=describe(patient, seed=seed, visit=visit, habits=habits),
    )


def describe(patient: Patient, *, seed: int, visit: Visit = "current", habits: Habits = CLEAN) -> Report:
    """The report of a visit, which depends on no image."""
    found = patient.at(visit)
    before = patient.before if visit == "current" else None
    names = {lesion.name for lesion in found}
    gone = tuple(lesion.finding() for lesion in before or () if lesion.name not in names)
    words = (seed, patient.index, 4 if visit == "current" else 5)
    truth = tuple(lesion.finding() for lesion in found)
    return write(truth, gone, before is not None, generator(*words), habits=habits, words=words)


def shown(patient: Patient, *, view: View, visit: Visit = "current") -> tuple[str, ...]:
    """Names of the findings that have a mask in a view."""
    return tuple(x.name for x in patient.at(visit) if view == "frontal" or x.name in lateral.SHOWN)


def _frontal(patient: Patient, found: tuple[Lesion, ...], size: int, u: list[float]) -> tuple[Map, dict[str, Mask]]:
    body, raised, broken, pushed = lesions.reshape(patient.body, found)
    pose = Pose(0.08 * (u[0] - 0.5), 0.08 * (u[1] - 0.5), 0.10 * (u[2] - 0.5), 2 * u[3] - 1, 0.93 + 0.10 * u[4])
    scene = anatomy.frontal(body, pose, size, raised=raised, broken=broken, pushed=pushed)
    scene.vessel_gain = body.vessel_gain
    at = {lesion.name: lesion for lesion in found}
    masks: dict[str, Mask] = {}
    for name, paint in lesions.PAINTERS.items():
        if name in at:
            masks[name] = paint(scene, at[name])
    if "rib fracture" in at:
        fracture = at["rib fracture"]
        masks["rib fracture"] = lesions.fracture(scene, fracture, broken[fracture.sides[0]], body)
    middle = 0.05 * pose.turn + pushed
    for name, attach in devices.PAINTERS.items():
        if name in at:
            masks[name] = attach(scene, at[name], body, middle)
    values = scene.attenuation()
    values += 0.010 * anatomy.cloud(size, u[10:13])
    _marker(values, u[13])
    return values, masks


def _marker(values: Map, u: float) -> None:
    """The technician's letter L at the upper corner of the patient's left side."""
    n = len(values)
    unit = max(1, n // 64)
    row, col = int(n * (0.03 + 0.05 * u)), n - 6 * unit - int(n * 0.03 * (1 + u))
    values[row : row + 5 * unit, col : col + unit] = 1.15
    values[row + 4 * unit : row + 5 * unit, col : col + 3 * unit] = 1.15


def _develop(values: Map, rng: np.random.Generator, u: list[float]) -> NDArray[np.uint8]:
    """Exposure, the image's curve, and grain that grows with attenuation. (n, n) float32 to uint8."""
    n = len(values)
    grain = rng.standard_normal((n, n), np.float32)
    gain, offset, bend = 0.86 + 0.26 * u[5], 0.12 * (u[6] - 0.5) - 0.08, 0.80 + 0.50 * u[7]
    values = values + grain * ((0.010 + 0.012 * u[8]) * (0.6 + 0.8 * values))
    shown = ramp((values + offset) * (gain / 1.08)) ** bend
    return (shown * 255.0 + 0.5).astype(np.uint8)
