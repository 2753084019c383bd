"""The verdict on two reports: what is earned, what is charged, and the score that follows.

``score = earned / (earned + charged)``, GREEN's form (Ostmeier et al., 2024) with weights in the place of counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from radpref.config.schema import NormalsRule
from radpref.findings import COVERS
from radpref.judges.case import Verdict
from radpref.judges.distances import unlike
from radpref.judges.green.matching import Match, pair
from radpref.judges.green.normals import Normals, agreeing, normals_of
from radpref.judges.green.statements import Denial, Told, Unit, known, told
from radpref.judges.green.weights import WHOLE, Weights, weights
from radpref.records import ErrorKind, Finding, ReportError, Span

_REMEMBERED = 1 << 12
"""Reports kept as read: a reference is read once for all its candidates."""
NOTHING_READ = "no finding could be read in the reference"


class Report(NamedTuple):
    """A report as read."""

    told: Told
    normals: Normals
    named: tuple[Unit, ...]
    """Its units but those without a name: "there is disease"."""
    due: float
    """What its sure findings of weight weigh; 0 where it states none."""


@lru_cache(maxsize=_REMEMBERED)
def report_of(text: str) -> Report:
    """The statements of a report, which is `unmasked`."""
    return _report(told(text))


def report_of_truth(truth: Sequence[Finding]) -> Report:
    """What is known to be there, and that nothing else is, as a report would say it."""
    return _report(known(truth))


def _report(said: Told) -> Report:
    book = weights()
    named = tuple(unit for unit in said.units if unit.name not in COVERS)
    due = sum(_due(unit, book) for unit in named if unit.sure and unit.name in book.grave)
    return Report(said, normals_of(said), named, due)


class _Sheet:
    """What is earned and charged so far."""

    def __init__(self) -> None:
        self.matched: list[Finding] = []
        self.earned: list[float] = []
        self.errors: list[ReportError] = []
        self.sum_earned = self.sum_charged = 0.0

    def earn(self, finding: Finding, weight: float) -> None:
        if weight > 0:
            self.matched.append(finding)
            self.earned.append(weight)
            self.sum_earned += weight

    def charge(
        self,
        kind: ErrorKind,
        finding: str,
        weight: float,
        *,
        significant: bool,
        ours: Span | None = None,
        theirs: Span | None = None,
        note: str = "",
    ) -> None:
        self.sum_charged += weight
        self.errors.append(
            ReportError.of_checked(
                {
                    "kind": kind,
                    "finding": finding,
                    "significant": significant,
                    "reference_span": ours,
                    "candidate_span": theirs,
                    "note": note,
                    "weight": weight,
                }
            )
        )


def judged(ours: Report, theirs: Report, rule: NormalsRule = "weigh") -> Verdict:
    """The verdict on a candidate; unscored where nothing could be read in the reference."""
    reference, candidate = ours.told, theirs.told
    if not reference.readable:
        return Verdict(None, NOTHING_READ)
    book, sheet = weights(), _Sheet()
    # "There is disease" in a reference tells nothing to agree with, unless it tells nothing else.
    pairing = pair(ours.named or reference.units, candidate.units, reference.text, candidate.text)
    gate = _gate(ours.due, pairing.matches, book)
    for match in pairing.matches:
        _settle(sheet, match, gate, book)
    for unit in pairing.missing:
        _missing(sheet, unit, candidate, book)
    for unit in pairing.false:
        _false(sheet, unit, reference, book)
    for unit in candidate.asides:
        _aside(sheet, unit, reference, candidate, book)
    if rule != "none" or not ours.due:
        _normals(sheet, ours.normals, theirs.normals, gate, rule, book)
    total = sheet.sum_earned + sheet.sum_charged
    if not total:
        return Verdict(None, NOTHING_READ)
    return Verdict(
        sheet.sum_earned / total,
        matched=tuple(sheet.matched),
        errors=tuple(sheet.errors),
        earned=tuple(sheet.earned),
    )


def _due(unit: Unit, book: Weights) -> float:
    """The weight of a unit of the reference."""
    weight = book.weight(unit.name, unit.severity)
    return weight if unit.sure else weight * book.suspected


def _gate(due: float, matches: Iterable[Match], book: Weights) -> float:
    """Share of the findings of weight that was found: 1 where the reference states none.

    Minor findings and normal statements are paid in this share, so that they never pay for what is missed.
    """
    if not due:
        return 1.0
    found = sum(_due(m.ours, book) * m.credit for m in matches if m.ours.sure and m.ours.name in book.grave)
    return found / due


def _settle(sheet: _Sheet, match: Match, gate: float, book: Weights) -> None:
    ours, theirs, credit, slips = match
    due, grave = _due(ours, book), ours.name in book.grave
    sheet.earn(theirs.finding, due * credit * (1.0 if grave else gate))
    if not slips:
        return
    lost, shares = due * (1 - credit), sum(1 - slip.credit for slip in slips)
    for slip in slips:
        sheet.charge(
            slip.kind,
            ours.name,
            lost * (1 - slip.credit) / shares if shares else 0.0,
            significant=slip.wrong and grave,
            ours=ours.span,
            theirs=theirs.span,
            note=slip.note,
        )


def _missing(sheet: _Sheet, unit: Unit, candidate: Told, book: Weights) -> None:
    denied = _denial(candidate.denied, unit)
    sheet.charge(
        "missing_finding",
        unit.name,
        _due(unit, book) * (book.charge["denied"] if denied else 1.0),
        significant=unit.sure and unit.name in book.grave,
        ours=unit.span,
        theirs=denied.span if denied else None,
        note="denied" if denied else "",
    )


def _false(sheet: _Sheet, unit: Unit, reference: Told, book: Weights) -> None:
    weight = book.weight(unit.name, unit.severity)
    if unit.name in COVERS:  # disease without a name
        if any(other.name == unit.name or (other.sure and other.name in book.grave) for other in reference.units):
            return
        weight *= book.charge["vague"]
    denied = _denial(reference.denied, unit)
    unknown = unit.name not in book.of
    if not denied and (_only_mentioned(unit, reference) or (unknown and unit.name in reference.text)):
        return
    sheet.charge(
        "false_finding",
        unit.name,
        weight if unit.sure else weight * book.charge["hedged"],
        significant=unknown or unit.name in book.grave,
        ours=denied.span if denied else None,
        theirs=unit.span,
        note="denied by the reference" if denied else "",
    )


def _only_mentioned(unit: Unit, reference: Told) -> bool:
    return any(other.name == unit.name for other in reference.asides)


def _aside(sheet: _Sheet, unit: Unit, reference: Told, candidate: Told, book: Weights) -> None:
    """What is only looked for earns nothing; where the reference knows nothing of it, it is a suspicion and false."""
    mentioned = (*reference.units, *reference.asides, *candidate.units)
    if any(unlike(unit.name, other.name) in (0, 1, 2) for other in mentioned) or unit.name in COVERS:
        return
    denied = _denial(reference.denied, unit)
    if unit.name not in book.of and unit.name in reference.text and not denied:
        return
    sheet.charge(
        "false_finding",
        unit.name,
        book.weight(unit.name, unit.severity) * book.charge["looked for"],
        significant=unit.name not in book.of or unit.name in book.grave,
        ours=denied.span if denied else None,
        theirs=unit.span,
        note="looked for",
    )


def _denial(denied: Iterable[Denial], unit: Unit) -> Denial | None:
    for denial in denied:
        if denial.side and unit.side and denial.side != unit.side:
            continue
        if denial.name == unit.name or unit.name in COVERS.get(denial.name, ()):
            return denial
    return None


def _normals(sheet: _Sheet, ours: Normals, theirs: Normals, gate: float, rule: NormalsRule, book: Weights) -> None:
    """What both call normal, and what the candidate leaves out of it."""
    counted = float(book.normals["counted"])
    for region, denials in ours.regions.items():
        weight = book.regions["alone" if region == WHOLE and len(ours.regions) == 1 else region]
        share = counted if rule == "count" else weight / len(denials)
        paid = share if rule == "count" else share * gate
        silent: list[Denial] = []
        lost = 0.0
        for denial in denials:
            found, credit = agreeing(denial, region, ours, theirs)
            if found is not None:
                sheet.earn(found, paid * credit)
            if credit < 1:
                silent.append(denial)
                lost += 1 - credit
        if silent and rule != "count":
            sheet.charge(
                "missing_finding",
                region,
                share * lost,
                significant=False,
                ours=silent[0].span,
                note=f"not said to be absent: {', '.join(dict.fromkeys(denial.name for denial in silent))}",
            )
