"""The judge `labels`: the findings of a candidate report against a study's labels and boxes, where there is no report.

``score = earned / (earned + charged)``, GREEN's form, over the weights and shares of the judge `green`
(``green/weights.yaml``). A study's labels say what is there, perhaps on which side and in which zone, and what is not;
of all else nothing is known (``findings.labelled``).

- **A class counts once**: its weight is shared by the sides and places that its boxes tell. What the candidate says of
  it is earned: less by another reader's name, hedged, or without the side or place that is known; nothing on the wrong
  side. What is left out or wrong is charged once, what is denied a quarter more.
- **False** is what labels say is absent. A second side or place of what is known to be on one is false, and halves
  what the first one earns: naming both never pays more than a guess.
- **What labels do not know does not count**: no finding of an unlabelled class, no severity, no change, no side or
  place beside a label without any.
- **Normal regions** (lungs, pleura, heart and mediastinum): where labels only deny, one statement that the region, or
  anything labelled in it, is normal earns the region; "normal chest" earns .4 of each. Nobody is paid for listing
  denials. As in `green` they are paid in the share of the findings of weight that was found.
- **Hedges** earn .7, and cost .75 of a false finding; what is stated and denied earns nothing.
- **Uncertain labels** (-1) count by the rule in the judge's name: ``labels`` and ``labels-uncertain-positive`` take
  them for suspected, at half their weight; ``labels-uncertain-negative`` for absent; ``labels-uncertain-ignored`` for
  unknown.
- **Unscored**: no words, no report, no labels, and labels that deny nothing: with them listing everything would pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple, get_args

from radpref.config import JudgeSection
from radpref.findings import COVERS, lexicon, unreadable
from radpref.findings.labelled import NO_FINDING, finding_of, in_words, members, tellable
from radpref.judges.case import Case, Verdict, words
from radpref.judges.contract import Judge
from radpref.judges.distances import off_place, unlike
from radpref.judges.green.matching import Slip
from radpref.judges.green.normals import Normals, normals_of
from radpref.judges.green.statements import Denial, Told, Unit, told, unmasked
from radpref.judges.green.weights import WHOLE, digest, weights
from radpref.judges.green1 import Pairing
from radpref.records import ErrorKind, Finding, Judgement, ReportError, Side

Rule = Literal["uncertain-positive", "uncertain-negative", "uncertain-ignored"]
RULES: tuple[Rule, ...] = get_args(Rule)
VERSION = "1"
"""Raised by hand with the rules."""
OWED = ("lungs", "pleura", "heart and mediastinum")
"""Regions of which a report is expected to say that they are normal."""
NO_LABELS = "the study has no labels"
NO_NEGATIVE = "the labels say of nothing that it is absent, so that naming everything would pay"
NOTHING_COUNTS = "the labels say nothing that counts"

Labels = tuple[Finding, ...]
_SIDES: dict[Side | None, tuple[Side | None, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "bilateral": ("left", "right"),
    None: (None,),
}
_AS_WELL = "not there too"
_SPREAD = 0.5
"""Share of its weight that a finding keeps that is also put where it is not: less than a guess between two gains."""


class Due(NamedTuple):
    """A labelled finding at one side and place."""

    label: Finding
    """With one side, or none."""
    sure: bool
    weight: float
    """Its share of the class's weight."""
    grave: bool


class Match(NamedTuple):
    """What is due, and the candidate's finding that speaks of it."""

    due: Due
    unit: Unit
    credit: float
    slips: tuple[Slip, ...]


class Refuted(NamedTuple):
    """A finding of the candidate that labels contradict."""

    unit: Unit
    weight: float
    note: str


class Read(NamedTuple):
    """A candidate beside its labels."""

    matches: tuple[Match, ...]
    missing: tuple[tuple[Due, Denial | None], ...]
    """With the statement that denies it."""
    false: tuple[Refuted, ...]


@dataclass(frozen=True)
class Known:
    """Labels, ready to be compared with."""

    due: tuple[Due, ...]
    absent: frozenset[str]
    """Findings that are known not to be there."""
    clean: bool
    """Whether nothing at all is there, devices and what is benign aside."""
    normal: Mapping[str, frozenset[str]]
    """Region that is normal as far as labels know, to what they deny of it."""


@lru_cache(maxsize=1 << 12)
def known(labels: Labels, rule: Rule = "uncertain-positive") -> Known:
    """What labels say under a rule."""
    book = weights()
    positive = {"present", "uncertain"} if rule == "uncertain-positive" else {"present"}
    negative = {"absent", "uncertain"} if rule == "uncertain-negative" else {"absent"}
    clean = any(label.name == NO_FINDING for label in labels)
    there = [label for label in labels if label.presence in positive and label.name != NO_FINDING]
    parts = [
        label if label.side == side else label.model_copy(update={"side": side})
        for label in dict.fromkeys(there)
        for side in _SIDES[label.side]
    ]
    due = []
    for part in parts:
        shared = sum(other.name == part.name for other in parts)
        weight = max(book.weight(name) for name in members(part.name)) / shared
        sure = part.presence == "present"
        grave = bool(members(part.name) & book.grave)
        due.append(Due(part, sure, weight if sure else weight * book.suspected, grave))
    named = frozenset().union(*(members(part.name) for part in parts))
    gone = [label.name for label in labels if label.presence in negative] + [NO_FINDING] * clean
    absent = frozenset().union(*(members(name) for name in gone)) - named
    open_ = {name for label in labels if label.presence == "uncertain" for name in members(label.name)}
    ill = {book.region.get(name) for name in named | open_}
    regions: dict[str, set[str]] = {}
    for name in absent - open_:
        regions.setdefault(book.region.get(name, ""), set()).add(name)
    normal = {region: frozenset(regions[region]) for region in OWED if region in regions and region not in ill}
    return Known(tuple(due), absent, clean, normal)


def compare_labels(labels: Labels, candidate: str, rule: Rule = "uncertain-positive") -> Verdict:
    """The verdict on a candidate; unscored where labels, or the candidate, tell too little."""
    if not labels:
        return Verdict(None, NO_LABELS)
    text = unmasked(candidate)
    if why := unreadable(text):
        return Verdict(None, f"the candidate is no report: {why}")
    facts = known(labels, rule)
    if not facts.absent:
        return Verdict(None, NO_NEGATIVE)
    said = told(text)
    return _judged(facts, said, beside(facts, said))


def pairing_of_labels(labels: Labels, candidate: str) -> Pairing:
    """Which labelled finding is which of the candidate, in the form of `pairing`, for an editor.

    What labels do not know is as the candidate has it. Missing is only what labels can tell (`findings.labelled`), and
    what the candidate denies although it is there.
    """
    facts = known(labels)
    read = beside(facts, told(unmasked(candidate)))
    missing = [
        due.label
        for due, denial in read.missing
        if due.sure and finding_of(due.label.name) and (denial is not None or tellable(due.label))
    ]
    return Pairing(
        pairs=[(_as_labelled(match), _of(match.unit)) for match in read.matches],
        missing=[label.model_copy(update={"name": finding_of(label.name)}) for label in missing],
        false=[_of(one.unit) for one in read.false],
    )


def _of(unit: Unit) -> Finding:
    return unit.finding.model_copy(update={"side": unit.side})


def _as_labelled(match: Match) -> Finding:
    """The candidate's finding with what labels say otherwise."""
    label, said = match.due.label, _of(match.unit)
    name = finding_of(label.name)
    changed = {
        "name": said.name if said.name in members(label.name) or name is None else name,
        "side": label.side or said.side,
        "place": label.place if label.place and off_place(label.place, said.place) else said.place,
        "span": None,
    }
    return said.model_copy(update=changed)


# ---------------------------------------------------------------- candidate and labels


def beside(facts: Known, said: Told) -> Read:
    """The candidate's findings put together with what is due, the best agreement first, and what is left."""
    units = [unit if unit.doubt in (0, 1) else unit._replace(doubt=_doubt(unit, said)) for unit in said.units]
    graded = [
        (-match.credit, i, j, match)
        for i, due in enumerate(facts.due)
        for j, unit in enumerate(units)
        if (match := _match(due, unit)) is not None
    ]
    found: dict[int, Match] = {}
    taken: dict[int, str] = {}
    for _, i, j, match in sorted(graded, key=lambda one: one[:3]):
        again = j in taken and (match.unit.side is not None or taken[j] != match.due.label.name)
        if i not in found and not again:  # a finding without a side speaks of both
            found[i] = match
            taken[j] = match.due.label.name
    missing = [(due, _denial(due, said)) for i, due in enumerate(facts.due) if i not in found]
    left = [unit for j, unit in enumerate(units) if j not in taken]
    asides = [_false(unit, facts, "looked for") for unit in said.asides if not _mentioned(unit, facts, said)]
    false = [one for one in (*(_false(unit, facts) for unit in left), *asides) if one]
    spread = frozenset(one.unit.name for one in false if one.note == _AS_WELL)
    matches = tuple(_thinned(found[i], spread) for i in sorted(found))
    return Read(matches, tuple(missing), tuple({one.unit[:4]: one for one in reversed(false)}.values()))


def _doubt(unit: Unit, said: Told) -> float:
    """What a general denial of the same report leaves of a finding. A denial of its kin leaves all of it."""
    doubted = any(
        unit.name in COVERS.get(denial.name, ()) and not denial.otherwise() and not denial.qualified()
        for denial in said.denied
    )
    return unit.doubt if doubted else 1.0


def _thinned(match: Match, spread: frozenset[str]) -> Match:
    """A match less what its finding loses by being put elsewhere too."""
    if not spread & members(match.due.label.name) or match.credit == 0:
        return match
    slip = Slip("wrong_place", "put elsewhere too", _SPREAD, True)
    return match._replace(credit=match.credit * _SPREAD, slips=(*match.slips, slip))


@cache
def _likeness(label: str, name: str) -> int | None:
    """`unlike` of a finding and the nearest that a label speaks of."""
    kinds = [kind for member in members(label) if (kind := unlike(member, name)) is not None]
    if any(frozenset((member, name)) in weights().apart for member in members(label)):
        return None
    return min(kinds, default=None)


def _match(due: Due, unit: Unit) -> Match | None:
    label, book = due.label, weights()
    kind = _likeness(label.name, unit.name)
    if kind is None or (kind and due.grave and unit.name not in book.grave):
        return None
    slips = [*_slips(due, unit, kind)]
    credit = 1.0
    for slip in slips:
        credit *= slip.credit
    return Match(due, unit, credit, tuple(slips)) if kind < 2 or credit else None


def _slips(due: Due, unit: Unit, kind: int) -> Sequence[Slip]:
    label, credit = due.label, weights().credit
    slips: list[Slip] = []
    if kind == 1:
        slips.append(Slip("missing_finding", f"called {unit.name}", credit["kin"], False))
    elif kind == 2:
        general = unit.name in lexicon().general
        share = credit["general" if general else "particular"]
        slips.append(Slip("missing_finding" if general else "false_finding", f"called {unit.name}", share, False))
    elif kind == 3:
        slips.append(Slip("wrong_severity", f"called {unit.name}", credit["size class"], True))
    if due.sure and not unit.sure:
        slips.append(Slip("missing_finding", "only suspected", credit["hedged"], False))
    elif unit.sure and not due.sure:
        slips.append(Slip("false_finding", "stated, it is only suspected", credit["overstated"], False))
    if label.side and not unit.side:
        slips.append(Slip("wrong_place", f"side not told, it is {label.side}", credit["side"]["silent"], False))
    elif label.side and unit.side != label.side:
        slips.append(Slip("wrong_place", f"{unit.side} instead of {label.side}", credit["side"]["wrong"], True))
    if label.place and not unit.place:
        slips.append(Slip("wrong_place", f"place not told, it is {label.place}", credit["place"]["silent"], False))
    elif off := off_place(label.place, unit.place):
        note, share = f"{unit.place} instead of {label.place}", credit["place"]["near" if off == 1 else "wrong"]
        slips.append(Slip("wrong_place", note, share, True))
    if unit.doubt < 1:
        slips.append(Slip("missing_finding", "denied by the same report", unit.doubt, True))
    return slips


def _false(unit: Unit, facts: Known, note: str = "") -> Refuted | None:
    """What labels contradict of a finding that speaks of nothing due; None where they do not."""
    book = weights()
    share = book.charge["looked for"] if note else 1.0 if unit.sure else book.charge["hedged"]
    if unit.name in COVERS:  # disease without a name
        vague = not facts.due and bool(facts.absent) and not note
        return Refuted(unit, book.weight("acute disease") * book.charge["vague"] * share, "") if vague else None
    own = [due for due in facts.due if unit.name in members(due.label.name)]
    if own:
        elsewhere = all(
            (due.label.side and unit.side and due.label.side != unit.side) or off_place(due.label.place, unit.place)
            for due in own
        )
        return Refuted(unit, book.weight(unit.name) * share, _AS_WELL) if elsewhere else None
    if any(_repeats(unit, due) for due in facts.due):
        return None
    if unit.name in facts.absent or (facts.clean and unit.name not in book.of):
        return Refuted(unit, book.weight(unit.name) * share, note)
    return None


def _repeats(unit: Unit, due: Due) -> bool:
    """Whether a finding only says by another or a more general name what is due."""
    apart = due.label.side and unit.side and due.label.side != unit.side
    return not apart and _likeness(due.label.name, unit.name) in (1, 2) and not off_place(due.label.place, unit.place)


def _mentioned(unit: Unit, facts: Known, said: Told) -> bool:
    return any(unlike(unit.name, other.name) in (0, 1, 2) for other in said.units) or any(
        unit.name in members(due.label.name) for due in facts.due
    )


def _denial(due: Due, said: Told) -> Denial | None:
    """The statement that denies what is due."""
    for denial in said.denied:
        if denial.side and due.label.side and denial.side != due.label.side:
            continue
        if denial.name in members(due.label.name) or members(due.label.name) & set(COVERS.get(denial.name, ())):
            return None if denial.qualified() or denial.otherwise() else denial
    return None


# ---------------------------------------------------------------- the sheet


def _judged(facts: Known, said: Told, read: Read) -> Verdict:
    book = weights()
    matched: list[Finding] = []
    earned: list[float] = []
    errors: list[ReportError] = []
    owed = sum(due.weight for due in facts.due if due.sure and due.grave)
    found = sum(match.due.weight * match.credit for match in read.matches if match.due.sure and match.due.grave)
    gate = found / owed if owed else 1.0

    def earn(finding: Finding, weight: float) -> None:
        if weight > 0:
            matched.append(finding)
            earned.append(weight)

    for match in read.matches:
        due = match.due
        earn(match.unit.finding, due.weight * match.credit * (1.0 if due.grave else gate))
        lost, shares = due.weight * (1 - match.credit), sum(1 - slip.credit for slip in match.slips)
        for slip in match.slips:
            share = lost * (1 - slip.credit) / shares if shares else 0.0
            significant = slip.wrong and due.grave
            errors.append(_error(slip.kind, due.label.name, share, significant, match.unit, note=slip.note))
    for due, denial in read.missing:
        weight = due.weight * (book.charge["denied"] if denial else 1.0)
        note = "denied" if denial else ""
        errors.append(_error("missing_finding", due.label.name, weight, due.sure and due.grave, denial, note=note))
    for unit, weight, note in read.false:
        errors.append(_error("false_finding", unit.name, weight, unit.name not in lexicon().minor, unit, note=note))
    normals = normals_of(said)
    for region, denied in facts.normal.items():
        weight = book.regions[region]
        statement, credit = _said_normal(region, denied, normals)
        if statement is not None:
            earn(statement, weight * credit * gate)
        if credit < 1:
            errors.append(
                _error("missing_finding", region, weight * (1 - credit), False, None, note="not said to be normal")
            )
    total = sum(earned) + sum(error.weight for error in errors)
    if not total:
        return Verdict(None, NOTHING_COUNTS)
    return Verdict(sum(earned) / total, matched=tuple(matched), errors=tuple(errors), earned=tuple(earned))


def _error(
    kind: ErrorKind, finding: str, weight: float, significant: bool, where: Unit | Denial | None, note: str
) -> ReportError:
    span = where.span if where is not None else None
    return ReportError(
        kind=kind, finding=finding, significant=significant, candidate_span=span, weight=weight, note=note
    )


def _said_normal(region: str, denied: frozenset[str], normals: Normals) -> tuple[Finding | None, float]:
    """The best statement that a region is normal, and the share of its weight that it earns."""
    shares = weights().normals
    if region in normals.general:
        return normals.general[region].finding, 1.0
    best: tuple[Finding | None, float] = (None, 0.0)
    whole = normals.general.get(WHOLE)
    if whole is not None:
        best = (whole.finding, shares["in general"])
    for denial in normals.regions.get(region, ()):
        if denial.name in denied or any(unlike(denial.name, name) in (1, 2) for name in denied):
            share = shares["of a kind"] if denial.name in normals.qualified else 1.0
            if share > best[1]:
                best = (denial.finding, share)
    return best


# ---------------------------------------------------------------- the judge


@dataclass(frozen=True)
class LabelJudge:
    """A judge of reports by labels alone; what a reference says plays no part."""

    name: str
    rule: Rule
    free: bool = False
    """It needs labels."""

    @property
    def version(self) -> str:
        return f"{self.name}-{self.rule}-{VERSION}-{digest()}-{lexicon().digest}"

    def check(self, section: JudgeSection) -> None:
        """It needs nothing."""

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        verdicts = {key: _verdict(*key, self.rule) for key in dict.fromkeys(map(_key, cases))}
        return [self._judgement(case, verdicts[_key(case)]) for case in cases]

    def _judgement(self, case: Case, found: Verdict) -> Judgement:
        return Judgement(
            id=case.id,
            question=case.question,
            judge=self.name,
            score=found.score,
            unscored=found.unscored,
            matched=found.matched,
            errors=found.errors,
            earned=found.earned,
            words=len(words(unmasked(case.candidate))),
            reference_words=_length(case.labels),
        )


def _key(case: Case) -> tuple[Labels, str]:
    return case.labels, case.candidate


def _verdict(labels: Labels, candidate: str, rule: Rule) -> Verdict:
    if not words(unmasked(candidate)):
        return Verdict(None, "the candidate has no words")
    return compare_labels(labels, candidate, rule)


@lru_cache(maxsize=1 << 12)
def _length(labels: Labels) -> int:
    """Words of the plain report that says what labels say: what length control holds a candidate against."""
    return max(len(words(in_words(labels))), 1)


def make(rule: Rule, name: str = "") -> Judge:
    """The judge of a rule; ``labels-{rule}`` where no name is given."""
    return LabelJudge(name or f"labels-{rule}", rule)


@dataclass(frozen=True)
class OrLabels:
    """A judge of references, and one of labels for what has no reference.

    Each judgement has the name of the judge that made it: scores of one question can be compared, those of a question
    with a reference and one without cannot.
    """

    judge: Judge
    labels: Judge

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def version(self) -> str:
        return f"{self.judge.version}, {self.labels.version}"

    @property
    def free(self) -> bool:
        return self.judge.free

    def check(self, section: JudgeSection) -> None:
        self.judge.check(section)

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        bare = [bool(case.labels) and not case.reference.strip() for case in cases]
        judged = iter(self.judge([case for case, alone in zip(cases, bare, strict=True) if not alone]))
        by_labels = iter(self.labels([case for case, alone in zip(cases, bare, strict=True) if alone]))
        return [next(by_labels if alone else judged) for alone in bare]


__all__ = ["RULES", "OrLabels", "Rule", "compare_labels", "known", "make", "pairing_of_labels"]
