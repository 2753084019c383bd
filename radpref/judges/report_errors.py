"""Findings-based GREEN: the score of Ostmeier et al. (2024), counted from the findings of both texts.

``score = matched / (matched + significant errors)``, 0 where nothing matched. What counts, and why:

- **A unit** is one asserted (present or uncertain) finding at one side and place. Repetitions are one unit;
  ``bilateral`` is two.
- **Wrong place and wrong severity** are one error each, never a false finding and a missing one: two charges for
  one slip reward silence. A *near miss* (the next band of the lung, one step of severity, a side left out) is
  matched and charged, half a credit; a wrong side, or the far end of either scale, is charged and not matched.
- **Agreed normals are not matched findings.** If they were, the report that denies everything would win wherever
  most things are absent. Where the reference asserts nothing of weight, that *is* its finding: a candidate that
  agrees with one of its normal statements has matched one.
- **Uncertain**: a hedged finding is asserted, on either side. What the reference only suspects may be left out
  (the error is listed as insignificant); what the candidate suspects alone is a false finding, or hedging would
  be free.
- **Minor findings** (lexicon: granuloma, degenerative change, ...) are listed where the texts differ, but weigh
  nothing, neither matched nor charged.
- **Kin** (lexicon): opacity, consolidation and pneumonia name one thing with more or less certainty; one is taken
  for the other where the places agree.
- **Comparisons** are judged on matched findings. New, worse, better are significant; unchanged is not.
- Of a finding that is called present and absent in one text, present counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from radpref.findings import COVERS, lexicon, read
from radpref.judges.case import Judge, Verdict, judge_by
from radpref.records import ErrorKind, Finding, ReportError

_SEVERITY = {"mild": 0, "moderate": 1, "severe": 2}
_BANDS = {"upper": 0, "mid": 1, "lower": 2}
_SIDES: dict[str | None, tuple[Literal["left", "right"] | None, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "bilateral": ("left", "right"),
    None: (None,),
}
_REMEMBERED = 1 << 12


@dataclass(frozen=True)
class _Report:
    """A text's asserted units and what it denies."""

    units: tuple[Finding, ...]
    denied: tuple[Finding, ...]
    readable: bool


@lru_cache(maxsize=_REMEMBERED)
def _report(text: str) -> _Report:
    findings = read(text)
    asserted = [finding for finding in findings if finding.presence != "absent"]
    return _Report(
        units=_units(asserted),
        denied=tuple(finding for finding in findings if finding.presence == "absent"),
        readable=bool(findings),
    )


def _units(asserted: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per name, side and place; a vaguer mention of the same thing is part of the fuller one."""
    split = [
        finding if finding.side == side else finding.model_copy(update={"side": side})
        for finding in asserted
        for side in _SIDES[finding.side]
    ]
    units: list[Finding] = []
    for finding in split:
        for index, unit in enumerate(units):
            if _same(unit, finding):
                units[index] = _merged(unit, finding)
                break
        else:
            units.append(finding)
    # A mention without a side, read before the sides were told, belongs to them.
    return tuple(
        unit
        for unit in units
        if not any(other is not unit and other.name == unit.name and _vaguer(unit, other) for other in units)
    )


def _same(unit: Finding, other: Finding) -> bool:
    return (
        unit.name == other.name
        and (unit.side == other.side or unit.side is None or other.side is None)
        and (unit.place == other.place or unit.place is None or other.place is None)
    )


def _vaguer(unit: Finding, other: Finding) -> bool:
    return unit.side is None and other.side is not None and (unit.place is None or unit.place == other.place)


def _merged(unit: Finding, other: Finding) -> Finding:
    """Both mentions as one; where they disagree, the first holds, but what is present is not uncertain."""
    return unit.model_copy(
        update={
            "presence": "present" if "present" in (unit.presence, other.presence) else "uncertain",
            "side": unit.side or other.side,
            "place": unit.place or other.place,
            "severity": unit.severity or other.severity,
            "change": unit.change or other.change,
        }
    )


def _distance(reference: Finding, candidate: Finding) -> tuple[int, str]:
    """How far the candidate's place is off: 0 agrees, 1 a near miss, 2 wrong; and what to tell a reader."""
    if reference.side and candidate.side and reference.side != candidate.side:
        return 2, f"{candidate.side} instead of {reference.side}"
    bands = lexicon().bands
    here, there = bands.get(reference.place or ""), bands.get(candidate.place or "")
    off = 0
    if here and there:
        off = min(abs(_BANDS[a] - _BANDS[b]) for a in here for b in there)
    if off:
        return off, f"{candidate.place} instead of {reference.place}"
    if reference.side and not candidate.side:
        return 1, f"side not told, it is {reference.side}"
    return 0, ""


def _kin(first: str, second: str) -> bool:
    return any(first in group and second in group for group in lexicon().kin)


def compare(reference: str, candidate: str) -> Verdict:
    """Count what matched and every error between two reports; see the module's docstring for the rules."""
    told, said = _report(reference), _report(candidate)
    if not told.readable:
        return Verdict(None, "no finding could be read in the reference")
    minor = lexicon().minor
    pairs, missing, false = _pair(told.units, said.units)
    matched: list[Finding] = []
    errors: list[ReportError] = []
    for ours, theirs in pairs:
        weighs = ours.name not in minor and theirs.name not in minor
        found, slips = _slips(ours, theirs)
        errors += [slip if weighs else slip.model_copy(update={"significant": False}) for slip in slips]
        if found and weighs:
            matched.append(theirs)
    for unit in missing:
        denied = next((d for d in said.denied if _denies(d, unit)), None)
        errors.append(
            ReportError(
                kind="missing_finding",
                finding=unit.name,
                significant=unit.presence == "present" and unit.name not in minor,
                reference_span=unit.span,
                candidate_span=denied.span if denied else None,
                note="denied" if denied else "",
            )
        )
    for unit in false:
        denied = next((d for d in told.denied if _denies(d, unit)), None)
        errors.append(
            ReportError(
                kind="false_finding",
                finding=unit.name,
                significant=unit.name not in minor,
                reference_span=denied.span if denied else None,
                candidate_span=unit.span,
                note="denied by the reference" if denied else "",
            )
        )
    if not matched and not any(u.presence == "present" and u.name not in minor for u in told.units):
        matched += _agreed_normal(told.denied, said.denied)
    charged = sum(error.significant for error in errors)
    score = len(matched) / (len(matched) + charged) if matched else 0.0
    return Verdict(score, matched=tuple(matched), errors=tuple(errors))


def _pair(
    reference: Sequence[Finding], candidate: Sequence[Finding]
) -> tuple[list[tuple[Finding, Finding]], list[Finding], list[Finding]]:
    """Units of both reports put together, the best agreement first; then what is left on either side.

    What is left and is kin to, or a vaguer mention of, something already paired at the same place is neither
    missing nor false: it has been said.
    """
    grades = sorted(
        (_grade(ours, theirs), i, j)
        for i, ours in enumerate(reference)
        for j, theirs in enumerate(candidate)
        if ours.name == theirs.name or (_kin(ours.name, theirs.name) and not _distance(ours, theirs)[0])
    )
    paired: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in grades:
        if i not in paired and j not in taken:
            paired[i] = j
            taken.add(j)
    missing = [
        unit
        for i, unit in enumerate(reference)
        if i not in paired and not any(_told(candidate[j], unit) for j in taken)
    ]
    false = [
        unit
        for j, unit in enumerate(candidate)
        if j not in taken and not any(_told(reference[i], unit) for i in paired)
    ]
    return [(reference[i], candidate[j]) for i, j in sorted(paired.items())], missing, false


def _grade(ours: Finding, theirs: Finding) -> tuple[bool, int, int]:
    return ours.name != theirs.name, _distance(ours, theirs)[0], _steps(ours, theirs)


def _steps(ours: Finding, theirs: Finding) -> int:
    if ours.severity is None or theirs.severity is None:
        return 0
    return abs(_SEVERITY[ours.severity] - _SEVERITY[theirs.severity])


def _told(unit: Finding, other: Finding) -> bool:
    """Whether ``other`` has been said by ``unit`` in other words."""
    if unit.name == other.name:
        return unit.side is None or other.side is None
    return (
        _kin(unit.name, other.name)
        and not (unit.side and other.side and unit.side != other.side)
        and _distance(unit, other)[0] < 2
    )


def _slips(ours: Finding, theirs: Finding) -> tuple[bool, list[ReportError]]:
    """Whether a pair is matched, and the errors within it."""
    found, slips = True, []

    def slip(kind: ErrorKind, note: str, significant: bool = True) -> None:
        slips.append(
            ReportError(
                kind=kind,
                finding=ours.name,
                significant=significant,
                reference_span=ours.span,
                candidate_span=theirs.span,
                note=note,
            )
        )

    off, note = _distance(ours, theirs)
    if off:
        slip("wrong_place", note)
        found = off < 2
    steps = _steps(ours, theirs)
    if steps and found:
        slip("wrong_severity", f"{theirs.severity} instead of {ours.severity}")
        found = steps < 2
    if found and ours.change != theirs.change:
        if theirs.change:
            of = f" instead of {ours.change}" if ours.change else ""
            slip("false_comparison", f"{theirs.change}{of}", theirs.change != "unchanged" or ours.change is not None)
        else:
            slip("missing_comparison", f"it is {ours.change}", ours.change != "unchanged")
    return found, slips


def _denies(denial: Finding, unit: Finding) -> bool:
    if denial.side and unit.side and denial.side != unit.side:
        return False
    return denial.name == unit.name or unit.name in COVERS.get(denial.name, ())


def _agreed_normal(told: Sequence[Finding], said: Sequence[Finding]) -> list[Finding]:
    """The first normal statement of the candidate that agrees with one of the reference, as a list of at most one."""
    for theirs in said:
        for ours in told:
            if _denies(ours, theirs) or _denies(theirs, ours) or (theirs.name in COVERS and ours.name in COVERS):
                return [theirs]
    return []


green: Judge = judge_by("green", compare)
"""Findings-based GREEN; see the module's docstring."""
