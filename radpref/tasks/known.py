"""What is known of a study, one entry a finding: from the truth, the report, or the images' masks and boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from radpref.findings import COVERS, lexicon, read
from radpref.images.masks import marked
from radpref.records import Finding, Side, Study

_VAGUE = frozenset({"support device", "volume loss", "lucency", "infection", "heart failure", "chamber enlargement"})


def askable(name: str) -> bool:
    """Whether a finding is asked about: named in itself, and of weight."""
    book = lexicon()
    return name in book.chexpert and name not in book.minor and name not in COVERS and name not in _VAGUE


@dataclass(frozen=True)
class Known:
    """The findings of one study."""

    present: Mapping[str, Finding]
    """By name; an attribute on which the source's statements disagree is None."""
    absent: frozenset[str]
    """Names that are denied. Where ``whole``, everything that is not ``present`` is absent."""
    open: frozenset[str]
    """Names that may be there by another name, or perhaps, and that nothing is asked about."""
    certain: bool
    """Whether nothing is hedged, so that the list of what is there is the whole list."""
    whole: bool
    """Whether the source tells all there is (a truth), so that what is not named is not there."""
    normal: bool
    """Whether the source says that there is nothing."""

    def denies(self, name: str) -> bool:
        """Whether the finding is known not to be there."""
        if name in self.present or name in self.open:
            return False
        return self.whole or name in self.absent


def known(study: Study) -> Known:
    """The study's truth if there is one, else what its report says; what only masks or boxes tell is added.

    A report's absence of something general (``lungs are clear``) denies what it covers, save what the report names.
    What a report leaves out is neither present nor absent.
    """
    whole = study.truth is not None
    findings = study.truth if study.truth is not None else read(study.findings)
    sure = [finding for finding in findings if finding.presence == "present"]
    if not whole:
        named = {finding.name for finding in findings}
        drawn = dict.fromkeys(name for image in study.images for name in marked(image))
        sure += [Finding(name=name) for name in drawn if name not in named]
    grouped: dict[str, list[Finding]] = {}
    for finding in sure:
        grouped.setdefault(finding.name, []).append(finding)
    present = {name: reduce(_merged, group) for name, group in grouped.items()}
    opened = {finding.name for finding in findings if finding.presence == "uncertain"} - set(present)
    denied = [finding for finding in findings if finding.presence == "absent"]
    absent = {finding.name for finding in denied if finding.side is None and finding.place is None}
    absent |= {name for finding in denied for name in COVERS.get(finding.name, ())}
    kin = {name for group in lexicon().kin if group & (set(present) | opened) for name in group}
    kin |= {general for general, names in lexicon().general.items() if names & (set(present) | opened)}
    normal = not present and not opened and (whole or len(absent) >= 3)
    return Known(
        {name: finding for name, finding in present.items() if askable(name)},
        frozenset(absent - set(present) - opened - (frozenset() if whole else kin)),
        frozenset(opened | (kin - set(present) if not whole else frozenset())),
        not opened,
        whole,
        normal,
    )


def vocabulary(studies: Iterable[Known]) -> dict[str, int]:
    """How often each finding is present, the most frequent first; what is denied but never present counts 0."""
    times: Counter[str] = Counter()
    for study in studies:
        times.update(study.present.keys())
        times.update(dict.fromkeys(filter(askable, study.absent), 0))
    return dict(sorted(times.items(), key=lambda entry: (-entry[1], entry[0])))


def _merged(first: Finding, second: Finding) -> Finding:
    """Two statements about one finding: left and right are bilateral, other differences are left open."""
    sides = {first.side, second.side}
    side: Side | None = "bilateral" if sides == {"left", "right"} else first.side if len(sides) == 1 else None
    return Finding(
        name=first.name,
        side=side,
        place=first.place if first.place == second.place else None,
        severity=first.severity if first.severity == second.severity else None,
        change=first.change if first.change == second.change else None,
    )
