"""Which finding of the reference is which of the candidate, and how much of its weight the candidate earns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from radpref.findings import lexicon
from radpref.judges.distances import off_place, unlike
from radpref.judges.green.statements import Unit, alike, in_one_sentence
from radpref.judges.green.weights import Weights, weights
from radpref.records import ErrorKind

_SEVERITY = {"mild": 0, "moderate": 1, "severe": 2}


class Slip(NamedTuple):
    """One thing that differs between two units that are one finding."""

    kind: ErrorKind
    note: str
    credit: float
    """Share of the weight that it leaves."""
    wrong: bool
    """False where the candidate only says less than the reference."""


class Match(NamedTuple):
    """A unit of the reference and the candidate's unit that speaks of it."""

    ours: Unit
    theirs: Unit
    credit: float
    """Share of the weight that is earned, 0 to 1: the product of the slips'."""
    slips: tuple[Slip, ...]


class Pairing(NamedTuple):
    """The units of two reports put together."""

    matches: list[Match]
    missing: list[Unit]
    false: list[Unit]


def pair(told: Sequence[Unit], said: Sequence[Unit], reference: str, candidate: str) -> Pairing:
    """Units of both reports put together, the best agreement first; then what is left on either side.

    What says again, in general words or by another name, what is matched is neither missing nor false.
    """
    graded: list[tuple[float, int, int, int, Match]] = []
    for i, ours in enumerate(told):
        for j, theirs in enumerate(said):
            kind = _likeness(ours, theirs)
            if kind is None:
                continue
            match = _match(ours, theirs, kind)
            if kind < 2 or match.credit > 0:
                graded.append((-match.credit, kind, i, j, match))
    graded.sort(key=lambda one: one[:4])
    mine: set[int] = set()
    taken: set[int] = set()
    matches: list[tuple[int, Match]] = []
    for _, _, i, j, match in graded:
        if i not in mine and j not in taken:
            mine.add(i)
            taken.add(j)
            matches.append((i, match))
    matches.sort(key=lambda one: one[0])
    found = [match for _, match in matches]
    missing = [unit for i, unit in enumerate(told) if i not in mine]
    false = [unit for j, unit in enumerate(said) if j not in taken]
    return Pairing(
        found,
        _once([u for u in missing if not any(_repeats(u, m.theirs, m.ours, reference) for m in found)], reference),
        _once([u for u in false if not any(_repeats(u, m.ours, m.theirs, candidate) for m in found)], candidate),
    )


def _likeness(ours: Unit, theirs: Unit) -> int | None:
    """`unlike`, where the two names may stand for each other here: nothing minor for what is not."""
    if ours.name == theirs.name:
        return 0
    kind = unlike(ours.name, theirs.name)
    if kind is None:
        return None
    book = weights()
    if (ours.name in book.grave) != (theirs.name in book.grave) or frozenset((ours.name, theirs.name)) in book.apart:
        return None
    return kind


def _match(ours: Unit, theirs: Unit, kind: int) -> Match:
    slips = tuple(_slips(ours, theirs, kind, weights()))
    credit = 1.0
    for slip in slips:
        credit *= slip.credit
    return Match(ours, theirs, credit, slips)


def _slips(ours: Unit, theirs: Unit, kind: int, book: Weights) -> list[Slip]:
    """Everything that differs; nothing where the candidate tells more than the reference, save a change."""
    credit, slips = book.credit, []
    if kind:
        slips.append(_name(ours, theirs, kind, book))
    if ours.sure != theirs.sure:
        if ours.sure:
            slips.append(Slip("missing_finding", "only suspected", credit["hedged"], False))
        else:
            slips.append(Slip("false_finding", "stated, it is only suspected", credit["overstated"], False))
    if ours.side and ours.side != theirs.side:
        if theirs.side:
            slips.append(Slip("wrong_place", f"{theirs.side} instead of {ours.side}", credit["side"]["wrong"], True))
        else:
            slips.append(Slip("wrong_place", f"side not told, it is {ours.side}", credit["side"]["silent"], False))
    if ours.place and ours.place != theirs.place and (slip := _place(ours, theirs, book)):
        slips.append(slip)
    if ours.severity and ours.severity != theirs.severity:
        slips.append(_severity(ours.severity, theirs.severity, credit["severity"]))
    if ours.change != theirs.change and (change := _change(ours.change, theirs.change, credit["change"])):
        slips.append(change)
    if ours.size and ours.size != theirs.size and (size := _measure(ours.size, theirs.size, book)):
        slips.append(size)
    if ours.number != theirs.number and (number := _number(ours.number, theirs.number, credit["count"])):
        slips.append(number)
    if ours.stage and ours.stage != theirs.stage:
        if theirs.stage:
            note = f"{theirs.stage} instead of {ours.stage}"
            slips.append(Slip("wrong_severity", note, credit["stage"]["wrong"], True))
        else:
            slips.append(Slip("wrong_severity", f"age not told, it is {ours.stage}", credit["stage"]["silent"], False))
    if theirs.doubt < ours.doubt:
        slips.append(Slip("missing_finding", "denied by the same report", theirs.doubt, True))
    return slips


def _name(ours: Unit, theirs: Unit, kind: int, book: Weights) -> Slip:
    credit, note = book.credit, f"called {theirs.name}"
    if kind == 1:
        return Slip("missing_finding", note, credit["kin"], False)
    if kind == 3:
        return Slip("wrong_severity", note, credit["size class"], True)
    if theirs.name in lexicon().general:
        return Slip("missing_finding", note, credit["general"], True)
    return Slip("false_finding", note, credit["particular"], True)


def _place(ours: Unit, theirs: Unit, book: Weights) -> Slip | None:
    tips, device = book.tips, book.region.get(ours.name) == "devices"
    credit = book.credit["tip" if device else "place"]
    if not theirs.place:
        what = "tip" if device else "place"
        return Slip("wrong_place", f"{what} not told, it is {ours.place}", credit["silent"], False)
    note = f"{theirs.place} instead of {ours.place}"
    if device:
        here, there = tips.get(ours.place or "", ours.place), tips.get(theirs.place, theirs.place)
        return None if here == there else Slip("wrong_place", note, credit["wrong"], True)
    off = off_place(ours.place, theirs.place)
    return Slip("wrong_place", note, credit["near" if off == 1 else "wrong"], True) if off else None


def _severity(ours: str, theirs: str | None, credit: dict[str, float]) -> Slip:
    if theirs is None:
        return Slip("wrong_severity", f"severity not told, it is {ours}", credit["silent"], False)
    steps = abs(_SEVERITY[ours] - _SEVERITY[theirs])
    return Slip("wrong_severity", f"{theirs} instead of {ours}", credit["near" if steps == 1 else "wrong"], True)


def _change(ours: str | None, theirs: str | None, credit: dict[str, float]) -> Slip | None:
    """New, worse and better are told or not; ``unchanged`` is what is left where nothing is told."""
    if theirs in (None, "unchanged") and ours in (None, "unchanged"):
        return None
    if theirs is None:
        return Slip("missing_comparison", f"it is {ours}", credit["silent"], True)
    instead = f" instead of {ours}" if ours else ""
    return Slip("false_comparison", f"{theirs}{instead}", credit["wrong"], True)


def _measure(ours: float, theirs: float | None, book: Weights) -> Slip | None:
    credit = book.credit["size"]
    if not theirs:
        return Slip("wrong_severity", f"size not told, it is {ours:g} mm", credit["silent"], False)
    ratio = max(ours, theirs) / min(ours, theirs)
    if ratio <= book.near:
        return None
    note = f"{theirs:g} mm instead of {ours:g} mm"
    return Slip("wrong_severity", note, credit["near" if ratio <= book.far else "wrong"], True)


def _number(ours: int | str | None, theirs: int | str | None, credit: dict[str, float]) -> Slip | None:
    """``several`` is any number from two on."""
    if ours is None:
        return None
    if theirs is None:
        if ours == 1:
            return None
        return Slip("wrong_severity", f"number not told, it is {ours}", credit["silent"], False)
    several = [n != 1 for n in (ours, theirs)]
    if several[0] != several[1]:
        return Slip("wrong_severity", f"{theirs} instead of {ours}", credit["wrong"], True)
    if isinstance(ours, str) or isinstance(theirs, str):
        return None
    return Slip("wrong_severity", f"{theirs} instead of {ours}", credit["near"], True)


# ---------------------------------------------------------------- what is said twice


def _once(units: Sequence[Unit], lower: str) -> list[Unit]:
    """Without those that say again what another says: a consolidation that is a pneumonia is missed once.

    Of two, the weightier stays.
    """
    if len(units) < 2:
        return list(units)
    kept: list[Unit] = []
    for unit in sorted(units, key=lambda unit: -weights().weight(unit.name, unit.severity)):
        if not any(alike(unit, other, lower) for other in kept):
            kept.append(unit)
    return kept


def _repeats(unit: Unit, other: Unit, twin: Unit, lower: str) -> bool:
    """Whether ``unit``, left alone, only says again or more vaguely what the other text does say.

    ``other`` stands in the other text and is paired with ``twin``, which stands with the unit in ``lower``. In one
    sentence a general name repeats its particular (an opacity called atelectasis). In several sentences kin still
    repeat each other, but not with another severity. Nothing of weight only repeats what is minor.
    """
    if unit.name == other.name:
        return unit.side is None or other.side is None
    kind = unlike(unit.name, other.name)
    if kind is None or (unit.side and other.side and unit.side != other.side):
        return False
    if off_place(unit.place, other.place) or frozenset((unit.name, other.name)) in weights().apart:
        return False
    grave = weights().grave
    if unit.name in grave and other.name not in grave:
        return False
    if in_one_sentence(unit, twin, lower):
        return kind in (1, 3) or other.name in lexicon().general.get(unit.name, ())
    return kind == 1 and not (unit.severity and other.severity and unit.severity != other.severity)
