"""What a report calls normal, by region, and how much of it another report says too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from radpref.judges.distances import unlike
from radpref.judges.green.statements import Denial, Told, region_of
from radpref.judges.green.weights import WHOLE, weights
from radpref.records import Finding

Said = tuple[Finding | None, float]
"""The statement that agrees with a denial, and the share of its weight that it earns."""


class Normals(NamedTuple):
    """The denials of a report that hold, by region."""

    regions: Mapping[str, tuple[Denial, ...]]
    """One denial of each name and region."""
    by_name: Mapping[str, Denial]
    general: Mapping[str, Denial]
    """Region to the general denial that speaks of it, whole among them."""
    asserted: frozenset[str]
    """Names that the report states as present or suspected."""
    said: dict[tuple[str, str], Said]
    """(name, region) of others' denials to what this report says of them, as far as it was asked."""
    qualified: frozenset[str]
    """Names of which only a kind is denied: ``no large effusion``."""


def normals_of(report: Told) -> Normals:
    """The report's denials but those that it contradicts itself."""
    book = weights()
    asserted = frozenset(unit.name for unit in report.units)
    struck = {unit.name for unit in report.units if unit.doubt == 0}
    sick = {book.region.get(unit.name) for unit in report.units if unit.name in book.grave}
    regions: dict[str, dict[str, Denial]] = {}
    by_name: dict[str, Denial] = {}
    general: dict[str, Denial] = {}
    for denial in report.denied:
        region = region_of(denial.name)
        if region is None or denial.name in struck:
            continue
        regions.setdefault(region, {}).setdefault(denial.name, denial)
        by_name.setdefault(denial.name, denial)
        if denial.name in book.general and (region not in sick or denial.otherwise()):
            general.setdefault(region, denial)
    every = {name: tuple(d.values()) for name, d in regions.items()}
    qualified = frozenset(name for name, denial in by_name.items() if denial.qualified())
    return Normals(every, by_name, general, asserted, {}, qualified)


def agreeing(denial: Denial, region: str, ours: Normals, theirs: Normals) -> Said:
    """The candidate's statement that agrees with a denial of the reference, and its share."""
    name = denial.name
    if name in ours.asserted:  # one side of what is there on the other: nothing general agrees with it
        same = theirs.by_name.get(name)
        return (same.finding, 1.0) if same is not None and same.side == denial.side else (None, 0.0)
    known = theirs.said.get((name, region))
    if known is None:
        known = theirs.said[name, region] = _agreeing(name, region, theirs)
    if name in theirs.qualified and name not in ours.qualified and name in theirs.by_name:
        return known[0], weights().normals["of a kind"]
    return known


def _agreeing(name: str, region: str, theirs: Normals) -> Said:
    shares = weights().normals
    if name in theirs.by_name:
        return theirs.by_name[name].finding, 1.0
    if region == WHOLE:
        regions = [r for r in theirs.regions if r != WHOLE]
        first = theirs.regions[regions[0]][0].finding if regions else None
        return first, min(1.0, shares["by region"] * len(regions))
    whole = theirs.general.get(WHOLE)
    in_general: Said = (whole.finding, shares["in general"]) if whole else (None, 0.0)
    if name in weights().general:  # the reference speaks of the region in general
        particular = theirs.regions.get(region)
        return (particular[0].finding, shares["in part"]) if particular else in_general
    if region in theirs.general:
        return theirs.general[region].finding, 1.0
    akin = {unlike(name, other.name): other.finding for other in theirs.regions.get(region, ())}
    for kind, share in ((1, "kin"), (2, "in part")):
        if kind in akin:
            return akin[kind], shares[share]
    return in_general
