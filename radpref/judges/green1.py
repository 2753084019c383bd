"""`green-1`: findings-based GREEN (Ostmeier et al., 2024) by counts, kept as it was for comparison.

Its rules stand still; what it reads, the lexicon and the reader, does not. Edits of a model's words are still held
to it: whether an answer agrees with the truth is a question of errors, not of weights. For judging use `green`.

``score = matched / (matched + significant errors)``, 0 where nothing matched. What counts, and why:

- **A unit** is one asserted (present or uncertain) finding at one side and place. Repetitions are one unit;
  ``bilateral`` is two.
- **One slip is one error.** A finding at the wrong place, or of the wrong severity, is one error and never a false
  finding and a missing one: two charges for one slip reward silence. A *near miss* (the next band of the lung, one
  step of severity, a side left out, ``opacity`` for a consolidation) is matched and charged, half a credit; a wrong
  side, or the far end of either scale, is charged and not matched.
- **Agreed normals are not matched findings.** If they were, the report that denies everything would win wherever
  most things are absent. Where the reference asserts nothing of weight, that *is* its finding: a candidate that
  agrees with one of its normal statements has matched one.
- **Uncertain**: a hedged finding is asserted, on either side. What the reference only suspects may be left out
  (the error is listed as insignificant); what the candidate suspects alone is a false finding, or hedging would
  be free.
- **Minor findings** (lexicon: granuloma, degenerative change, ...) are listed where the texts differ, but weigh
  nothing, neither matched nor charged.
- **Names**: kin (lexicon: consolidation and pneumonia, edema and congestion) are taken for each other. What one text
  says twice, in general words and in particular ones, is neither false nor missing. A nodule called a mass is of the
  wrong size: a near miss of severity; a nodule and a mass in two sentences are two findings.
- **Comparisons** are judged on matched findings. New, worse, better are significant; unchanged is not.
- Of a finding that is called present and absent in one text, present counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from radpref.findings import COVERS, lexicon, read
from radpref.judges.case import Verdict
from radpref.judges.contract import Judge, judge_by
from radpref.judges.distances import off_place, unlike
from radpref.records import ErrorKind, Finding, ReportError, Side

_SEVERITY = {"mild": 0, "moderate": 1, "severe": 2}
_SIDES: dict[Side | None, tuple[Side | None, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "bilateral": ("left", "right"),
    None: (None,),
}
_REMEMBERED = 1 << 12
"""Reports kept as units: a reference is read once for all its candidates."""
_FAR = 2
"""A wrong side, or two steps on a scale of three; 1 is a near miss."""


@dataclass(frozen=True)
class _Report:
    """A text's asserted units and what it denies."""

    units: tuple[Finding, ...]
    denied: tuple[Finding, ...]
    readable: bool


@lru_cache(maxsize=_REMEMBERED)
def _report(text: str) -> _Report:
    findings = read(text)
    return _Report(
        units=_folded(_units(finding for finding in findings if finding.presence != "absent"), text),
        denied=tuple(finding for finding in findings if finding.presence == "absent"),
        readable=bool(findings),
    )


def compare(reference: str, candidate: str) -> Verdict:
    """Count what matched and every error between two reports; see the module's docstring for the rules."""
    told = _report(reference)
    if not told.readable:
        return Verdict(None, "no finding could be read in the reference")
    return _compared(told, _report(candidate), reference, candidate)


def compare_truth(truth: Sequence[Finding], candidate: str) -> Verdict:
    """`compare` against findings that are known to be there, and all that is there, in place of a reference.

    Nothing there is a truth like any other: a candidate that denies anything agrees with it.
    """
    return _compared(_known(truth), _report(candidate), "", candidate)


class Pairing(NamedTuple):
    """The units of two reports put together: one finding at one side and place each."""

    pairs: list[tuple[Finding, Finding]]
    """(the reference's, the candidate's)."""
    missing: list[Finding]
    false: list[Finding]


def pairing(reference: str | Sequence[Finding], candidate: str) -> Pairing:
    """Which finding of the reference (or of the truth) is which of the candidate; see the module's docstring."""
    text = reference if isinstance(reference, str) else ""
    told = _report(text) if isinstance(reference, str) else _known(reference)
    pairs, missing, false = _pair(told.units, _report(candidate).units, text, candidate)
    return Pairing(pairs, _once(missing, text), _once(false, candidate))


def _known(truth: Sequence[Finding]) -> _Report:
    asserted = [finding for finding in truth if finding.presence != "absent"]
    denied = [finding for finding in truth if finding.presence == "absent"]
    nothing = [] if asserted or denied else [Finding(name=name, presence="absent") for name in COVERS]
    return _Report(units=_units(asserted), denied=(*denied, *nothing), readable=True)


def _compared(told: _Report, said: _Report, reference: str, candidate: str) -> Verdict:
    minor = lexicon().minor
    pairs, missing, false = _pair(told.units, said.units, reference, candidate)
    matched: list[Finding] = []
    errors: list[ReportError] = []
    for ours, theirs in pairs:
        weighs = ours.name not in minor and theirs.name not in minor
        found, slips = _slips(ours, theirs)
        errors += slips if weighs else [slip.model_copy(update={"significant": False}) for slip in slips]
        if found and weighs:
            matched.append(theirs)
    for unit in _once(missing, reference):
        denied = _denial(said.denied, unit)
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
    for unit in _once(false, candidate):
        denied = _denial(told.denied, unit)
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
    if not matched and not any(unit.presence == "present" and unit.name not in minor for unit in told.units):
        matched += _agreed_normal(told.denied, said.denied)
    charged = sum(error.significant for error in errors)
    score = len(matched) / (len(matched) + charged) if matched else 0.0
    return Verdict(score, matched=tuple(matched), errors=tuple(errors))


# ---------------------------------------------------------------- units


def _units(asserted: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per name, side and place; a vaguer mention of the same thing is part of the fuller one."""
    units: list[Finding] = []
    split = [
        finding if finding.side == side else finding.model_copy(update={"side": side})
        for finding in asserted
        for side in _SIDES[finding.side]
    ]
    # Those that tell their side and place come first, so that the vaguer find what they belong to.
    for finding in sorted(split, key=lambda finding: (finding.side is None, finding.place is None)):
        same = [index for index, unit in enumerate(units) if _same(unit, finding)]
        for index in same:
            units[index] = _merged(units[index], finding)
        if not same:
            units.append(finding)
    return tuple(units)


def _folded(units: Sequence[Finding], text: str) -> tuple[Finding, ...]:
    """Without general names that their sentence makes particular: ``left opacity, likely atelectasis`` is one."""
    kept = list(units)
    for unit in units:
        for index, particular in enumerate(kept):
            if (
                particular.name in lexicon().general.get(unit.name, ())
                and particular.presence == "present"
                and _alike(unit, particular, text)
            ):
                side = None if particular.name in lexicon().midline else particular.side or unit.side
                kept[index] = _merged(particular, unit).model_copy(update={"side": side})
                kept.remove(unit)
                break
    return tuple(kept)


def _same(unit: Finding, vaguer: Finding) -> bool:
    return (
        unit.name == vaguer.name
        and (vaguer.side is None or unit.side == vaguer.side)
        and (vaguer.place is None or unit.place == vaguer.place or not _off_place(unit, vaguer))
    )


def _merged(unit: Finding, other: Finding) -> Finding:
    """Both mentions as one; where they disagree the first holds, but what is present is not uncertain."""
    return unit.model_copy(
        update={
            "presence": "present" if "present" in (unit.presence, other.presence) else "uncertain",
            "place": unit.place or other.place,
            "severity": unit.severity or other.severity,
            "change": unit.change or other.change,
        }
    )


# ---------------------------------------------------------------- distances


def _off_place(first: Finding, second: Finding) -> int:
    return off_place(first.place, second.place)


def _off(reference: Finding, candidate: Finding) -> tuple[int, str]:
    """How far the candidate's place is off (0 agrees, 1 a near miss, 2 wrong), and what to tell a reader."""
    if reference.side and candidate.side and reference.side != candidate.side:
        return _FAR, f"{candidate.side} instead of {reference.side}"
    if off := _off_place(reference, candidate):
        return off, f"{candidate.place} instead of {reference.place}"
    if reference.side and not candidate.side:
        return 1, f"side not told, it is {reference.side}"
    return 0, ""


def _steps(first: Finding, second: Finding) -> int:
    """Steps of severity between two findings; 0 where either tells none."""
    if first.severity is None or second.severity is None:
        return 0
    return abs(_SEVERITY[first.severity] - _SEVERITY[second.severity])


# ---------------------------------------------------------------- pairs and errors


def _pair(
    reference: Sequence[Finding], candidate: Sequence[Finding], told: str, said: str
) -> tuple[list[tuple[Finding, Finding]], list[Finding], list[Finding]]:
    """Units of both reports put together, the best agreement first; then what is left on either side.

    ``told`` and ``said`` are the texts that the units stand in.
    """
    grades = []
    for i, ours in enumerate(reference):
        for j, theirs in enumerate(candidate):
            kind, off = unlike(ours.name, theirs.name), _off(ours, theirs)[0]
            if kind is not None and (kind < 2 or off < _FAR):
                grades.append((off == _FAR, kind, off, _steps(ours, theirs), i, j))
    paired: dict[int, int] = {}
    taken: set[int] = set()
    for *_, i, j in sorted(grades):
        if i not in paired and j not in taken:
            paired[i] = j
            taken.add(j)
    missing = [unit for i, unit in enumerate(reference) if i not in paired]
    false = [unit for j, unit in enumerate(candidate) if j not in taken]
    pairs = [(reference[i], candidate[j]) for i, j in sorted(paired.items())]
    return (
        pairs,
        [unit for unit in missing if not any(_repeats(unit, theirs, ours, told) for ours, theirs in pairs)],
        [unit for unit in false if not any(_repeats(unit, ours, theirs, said) for ours, theirs in pairs)],
    )


def _once(units: Sequence[Finding], text: str) -> list[Finding]:
    """Without those that say again what another says: a consolidation that is a pneumonia is missed once.

    Of two, the one of weight stays: of ``scarring or atelectasis`` the atelectasis.
    """
    kept: list[Finding] = []
    for unit in sorted(units, key=lambda unit: unit.name in lexicon().minor):
        if not any(_alike(unit, other, text) for other in kept):
            kept.append(unit)
    return kept


def _alike(first: Finding, second: Finding, text: str) -> bool:
    """Whether two units of one text, left alone, are one thing under two names."""
    kind = unlike(first.name, second.name)
    apart = (first.side and second.side and first.side != second.side) or _off_place(first, second)
    return not apart and (kind == 1 or (kind in (2, 3) and _in_one_sentence(first, second, text)))


def _repeats(unit: Finding, other: Finding, twin: Finding, text: str) -> bool:
    """Whether ``unit``, left alone, only says again or more vaguely what the other text does say.

    ``other`` stands in the other text and is paired with ``twin``, which stands with the unit in ``text``. In one
    sentence a general name repeats its particular (an opacity called atelectasis). In several sentences kin still
    repeat each other, but not with another severity, and nothing of weight repeats what is minor.
    """
    if unit.name == other.name:
        return unit.side is None or other.side is None
    if (unit.side and other.side and unit.side != other.side) or _off_place(unit, other):
        return False
    kind = unlike(unit.name, other.name)
    if kind is not None and _in_one_sentence(unit, twin, text):
        return kind in (1, 3) or other.name in lexicon().general.get(unit.name, ())
    minor = lexicon().minor
    return kind == 1 and not _steps(unit, other) and (unit.name in minor or other.name not in minor)


def _in_one_sentence(first: Finding, second: Finding, text: str) -> bool:
    if first.span is None or second.span is None:
        return False
    start, end = min(first.span.end, second.span.end), max(first.span.start, second.span.start)
    return not any(stop in text[start:end] for stop in (". ", ".\n", "\n\n"))


def _slips(ours: Finding, theirs: Finding) -> tuple[bool, list[ReportError]]:
    """Whether a pair is matched, and the errors within it."""
    found = True
    slips: list[ReportError] = []

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

    off, note = _off(ours, theirs)
    steps = _steps(ours, theirs)
    if off:
        slip("wrong_place", note)
        found = off < _FAR
    if unlike(ours.name, theirs.name) == 2:
        slip("missing_finding" if theirs.name in lexicon().general else "false_finding", f"called {theirs.name}")
    if unlike(ours.name, theirs.name) == 3:
        slip("wrong_severity", f"called {theirs.name}")
    if steps:
        slip("wrong_severity", f"{theirs.severity} instead of {ours.severity}")
        found = found and steps < _FAR
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


def _denial(denied: Sequence[Finding], unit: Finding) -> Finding | None:
    return next((denial for denial in denied if _denies(denial, unit)), None)


def _agreed_normal(told: Sequence[Finding], said: Sequence[Finding]) -> list[Finding]:
    """The first normal statement of the candidate that agrees with one of the reference: at most one."""
    for theirs in said:
        for ours in told:
            if _denies(ours, theirs) or _denies(theirs, ours) or (theirs.name in COVERS and ours.name in COVERS):
                return [theirs]
    return []


judge: Judge = judge_by("green-1", compare, version=lexicon().digest, free=True)
"""Findings-based GREEN; see the module's docstring."""
