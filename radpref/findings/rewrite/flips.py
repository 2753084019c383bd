"""Counterfactual text: one clinical attribute of one finding changed, and everything that follows from it (CheXPO).

A flip is written by rule, read again, and kept only where the two readings differ in exactly what was to be changed:
all mentions of the finding go with it, and so do names for the same thing in its sentence (``opacity, likely
atelectasis``). What the text denies in general words is made to agree (``otherwise clear``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal, NamedTuple, get_args

from radpref.findings.labels import CHEXPERT
from radpref.findings.lexicon import lexicon
from radpref.findings.reader import read
from radpref.findings.rewrite.attributes import turned
from radpref.findings.rewrite.presence import denied, is_device, stated
from radpref.findings.rewrite.sentences import contradictions, sentence_of, sentences
from radpref.records import Finding

Attribute = Literal["presence", "side", "place", "severity", "type", "change"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

_TYPES: dict[str, tuple[str, ...]] = {
    "consolidation": ("atelectasis", "mass"),
    "atelectasis": ("consolidation",),
    "lung opacity": ("nodule", "mass"),
    "pneumonia": ("atelectasis",),
    "nodule": ("mass",),
    "mass": ("nodule", "consolidation"),
    "pleural effusion": ("pneumothorax", "pleural thickening"),
    "pneumothorax": ("pleural effusion",),
    "pleural thickening": ("pleural effusion",),
    "cardiomegaly": ("enlarged mediastinum",),
    "enlarged mediastinum": ("cardiomegaly",),
    "edema": ("fibrosis",),
    "endotracheal tube": ("enteric tube",),
    "enteric tube": ("endotracheal tube",),
    "emphysema": ("fibrosis",),
    "fibrosis": ("emphysema",),
}
"""What a finding can be mistaken for."""
_ROUND = frozenset({"nodule", "mass"})
"""Findings that have a size, of which mild or severe is not said."""
_ON_BOTH_SIDES = frozenset(
    {"pleural effusion", "consolidation", "lung opacity", "atelectasis", "interstitial opacity", "nodule", "scarring"}
)
"""Findings of which bilateral ones are plausible where there is one."""
_PLACES: dict[str, tuple[str, ...]] = {
    "upper zone": ("mid zone", "lower zone"),
    "mid zone": ("upper zone", "lower zone"),
    "lower zone": ("upper zone", "mid zone"),
    "apex": ("base",),
    "base": ("upper zone", "mid zone"),
    "upper lobe": ("lower lobe",),
    "middle lobe": ("upper lobe",),
    "lower lobe": ("upper lobe",),
    "retrocardiac": ("upper zone",),
    "perihilar": ("lower zone",),
}
_STATIC = frozenset(
    {
        "rib fracture",
        "fracture",
        "hiatal hernia",
        "elevated hemidiaphragm",
        "hyperinflation",
        "emphysema",
        "fibrosis",
        "bronchiectasis",
        "pleural thickening",
    }
    | {name for name in CHEXPERT if is_device(name)}
)
"""Findings that get no better or worse from image to image."""
_CHANGES = {"new": ("unchanged",), "worse": ("better", "unchanged"), "better": ("worse", "unchanged"),
            "unchanged": ("new", "worse", "better")}  # fmt: skip
_STATABLE: dict[str, tuple[dict[str, Any], ...]] = {
    "pleural effusion": ({"side": "left", "severity": "mild"}, {"side": "right", "severity": "moderate"}),
    "pneumothorax": ({"side": "left", "severity": "mild"}, {"side": "right", "severity": "mild"}),
    "consolidation": ({"side": "left", "place": "lower zone"}, {"side": "right", "place": "upper zone"}),
    "lung opacity": ({"side": "left", "place": "lower zone"}, {"side": "right", "place": "mid zone"}),
    "atelectasis": ({"side": "left", "place": "base"}, {"side": "right", "place": "base"}),
    "nodule": ({"side": "left", "place": "upper zone"}, {"side": "right", "place": "mid zone"}),
    "mass": ({"side": "right", "place": "upper zone"}, {"side": "left", "place": "mid zone"}),
    "pneumonia": ({"side": "left", "place": "lower lobe"}, {"side": "right", "place": "lower lobe"}),
    "edema": ({"severity": "mild"}, {"severity": "moderate"}),
    "vascular congestion": ({"severity": "mild"},),
    "cardiomegaly": ({"severity": "mild"}, {"severity": "moderate"}),
    "enlarged mediastinum": ({},),
    "rib fracture": ({"side": "left"}, {"side": "right"}),
    "lymphadenopathy": ({},),
}
"""What a denied finding looks like where it is stated instead."""


class Difference(NamedTuple):
    """How two readings differ: one attribute of one finding."""

    finding: str
    attribute: Attribute
    before: str
    after: str


class Flip(NamedTuple):
    """A text with one attribute changed."""

    text: str
    finding: str
    attribute: Attribute
    before: str
    """The value that the attribute had; for ``type`` a finding's name, ``none`` where nothing was told."""
    after: str


def flip(text: str, seed: str | int, attributes: Sequence[Attribute] = ATTRIBUTES) -> Flip | None:
    """The first flip that the seed draws; None where the text offers nothing to change."""
    return next(flips(text, seed, attributes), None)


def flips(text: str, seed: str | int, attributes: Sequence[Attribute] = ATTRIBUTES) -> Iterator[Flip]:
    """Every flip that can be made of a text, in an order that the seed draws: attributes in turn, then findings.

    Presence, side, ... are equally likely where the text has them, however many findings it names.
    """
    chance = Random(f"{seed}")
    order = list(attributes)
    chance.shuffle(order)
    for attribute in order:
        wishes = list(_wishes(text, attribute, chance))
        chance.shuffle(wishes)
        for mention, value in wishes:
            if _said_already(text, mention, attribute, value):
                continue
            made = turn(text, mention, attribute, value)
            if made is not None:
                yield made


def _said_already(text: str, mention: Finding, attribute: Attribute, value: Any) -> bool:
    """Whether the text tells the new value of the same finding too: a second one, or one that a flip would merge."""
    if attribute in ("presence", "type"):
        return False
    return any(m.name == mention.name and getattr(m, attribute) == value for m in read(text))


def turn(text: str, mention: Finding, attribute: Attribute, value: Any) -> Flip | None:
    """One flip: ``mention``, read from ``text``, gets ``value``; None where no rewriting reads as wanted.

    Args:
        value: the new value, a finding's name for ``type``; for ``presence`` the ``Finding`` that is stated, or None
            for one that is denied.
    """
    if attribute == "presence":
        new = absent(text, mention.name) if value is None else present(text, value)
    else:
        new = changed(text, mention, attribute, value)
    if new is None or contradictions(new) - contradictions(text):
        return None
    told = difference(read(text), read(new))
    if told is None or told.attribute != attribute:
        return None
    return Flip(new, told.finding, attribute, told.before, told.after)


# ---------------------------------------------------------------- what can be changed


_MEASURED = re.compile(r"\b\d+(?:\.\d+)?\s*(?:mm|cm)\b", re.IGNORECASE)
"""A size in numbers, which a grade would have to fit."""
_FLUID = re.compile(r"\b(?:fluid|layering|amount|level|blunting|sulcus|angle|loculated|subpulmonic)\b", re.IGNORECASE)
"""Words that tell fluid, whatever it is called."""


def _entangled(text: str, mention: Finding) -> bool:
    """Whether the sentence calls the same thing by another name too: ``opacity, likely atelectasis``."""
    names = related(mention.name) - {mention.name}
    found = sentence_of(text, mention).mentions if mention.presence != "absent" else ()
    return any(m.name in names and m.presence != "absent" for m in found)


_STREAKY = re.compile(
    r"\b(?:patchy|hazy|streaky|linear|band-?like|(?:sub)?segmental|vague|ill-defined|air ?space|increased in)\b",
    re.IGNORECASE,
)
"""Shapes that a nodule or mass does not have."""


def _wishes(text: str, attribute: Attribute, chance: Random) -> Iterator[tuple[Finding, Any]]:
    """(mention, new value), each finding once."""
    book = lexicon()
    found = read(text)
    told = {m.name for sentence in sentences(text) if _STREAKY.search(sentence.body) for m in sentence.mentions}
    asserted = [m for m in found if m.presence != "absent"]
    seen: set[tuple[Any, ...]] = set()
    for mention in asserted if attribute != "presence" else found:
        key = (mention.name, mention.side, mention.place, mention.severity, mention.change, mention.presence)
        general = mention.name in book.covers
        if key in seen or (general and attribute != "presence") or (mention.name in book.minor and not general):
            continue
        seen.add(key)
        if attribute in ("presence", "type") and _entangled(text, mention):
            continue
        match attribute:
            case "presence" if mention.presence != "absent":
                if mention.name not in book.covers:
                    yield mention, None
            case "presence":
                asserted_names = {m.name for m in asserted}
                names = (mention.name, *book.covers.get(mention.name, ()))
                for name in names:
                    if name in _STATABLE and name not in asserted_names:
                        yield mention, Finding(name=name, **chance.choice(_STATABLE[name]))
            case "side" if mention.side in ("left", "right") or (mention.name in _ON_BOTH_SIDES and mention.side):
                for side in ("left", "right", "bilateral"):
                    if side != mention.side and (side != "bilateral" or mention.name in _ON_BOTH_SIDES):
                        yield mention, side
            case "place" if mention.place is not None:
                for place in _PLACES.get(mention.place, ()):
                    yield mention, place
            case "severity" if mention.severity is not None and not _MEASURED.search(sentence_of(text, mention).body):
                for grade in ("mild", "moderate", "severe"):
                    if grade != mention.severity:
                        yield mention, grade
            case "change" if mention.change is not None:
                for change in _CHANGES[mention.change]:
                    if mention.name not in _STATIC or change in ("new", "unchanged"):
                        yield mention, change
            case "type":
                named = {m.name for m in found}
                for name in _TYPES.get(mention.name, ()):
                    shapeless = mention.severity is not None or mention.side == "bilateral" or mention.name in told
                    if mention.name == "pleural effusion" and _FLUID.search(sentence_of(text, mention).body):
                        continue
                    if name not in named and not (name in _ROUND and mention.name not in _ROUND and shapeless):
                        yield mention, name
            case _:
                pass


# ---------------------------------------------------------------- changing it


_MENTIONS = 12
"""Most mentions of one finding that are followed through a text."""


def changed(text: str, mention: Finding, attribute: Attribute, value: Any) -> str | None:
    """The text with every mention that shares the old value given the new one."""
    old = mention.name if attribute == "type" else getattr(mention, attribute)
    for _ in range(_MENTIONS):
        left = [m for m in read(text) if m.presence != "absent" and _shares(m, mention, attribute, old)]
        if not left:
            return text
        before = _statements(read(text))
        for candidate in turned(text, left[0], attribute, value, rebuild=False):
            after = _statements(read(candidate))
            if _step(before, after, left[0], attribute, old, value):
                text = candidate
                break
        else:
            return None
    return None


def _shares(other: Finding, mention: Finding, attribute: Attribute, old: Any) -> bool:
    """Whether another mention tells the same thing, and so has to change with this one."""
    if other.name != mention.name:
        return False
    if attribute == "type":
        return True
    if getattr(other, attribute) != old:
        return False
    return attribute == "side" or other.side in (None, mention.side) or mention.side is None


def _step(
    before: list[Finding], after: list[Finding], target: Finding, attribute: Attribute, old: Any, new: Any
) -> bool:
    """Whether a rewriting changed the target, and nothing but it and what it is also called."""
    gone, come = _less(before, after), _less(after, before)
    if not gone or len(gone) != len(come):
        return False
    if attribute == "type":
        return all(g.name == old and c == g.model_copy(update={"name": new}) for g, c in zip(gone, come, strict=True))
    names = related(target.name)
    key = target.model_copy(update={"span": None})
    return key in gone and all(
        g.name in names and getattr(g, attribute) == old and c == g.model_copy(update={attribute: new})
        for g, c in zip(gone, come, strict=True)
    )


def absent(text: str, name: str) -> str | None:
    """The text with every statement of the finding denied or dropped, and all others as they are."""
    others = [m for m in _statements(read(text)) if m.name != name]
    for _ in range(_MENTIONS):
        left = [m for m in read(text) if m.presence != "absent" and m.name == name]
        if not left:
            return text
        for candidate in denied(text, left[0], rebuild=False):
            after = read(candidate)
            still = sum(m.presence != "absent" and m.name == name for m in after)
            if still < len(left) and [m for m in _statements(after) if m.name != name] == others:
                text = candidate
                break
        else:
            return None
    return None


def present(text: str, finding: Finding) -> str | None:
    """The text with the finding stated; what else it says of other findings stays."""
    before = _statements(read(text))
    for candidate in stated(text, finding):
        after = _statements(read(candidate))
        come = _less(after, before)
        told = [m for m in come if m.name == finding.name and m.presence == "present"]
        gone = _less(before, after)
        if told and len(come) == len(told) and all(_implied(m, finding) for m in gone):
            return candidate
    return None


def _implied(gone: Finding, finding: Finding) -> bool:
    """Whether a denial that is gone was one of the finding now stated."""
    named = gone.name == finding.name or finding.name in lexicon().covers.get(gone.name, ())
    return gone.presence == "absent" and named


# ---------------------------------------------------------------- reading it again


def difference(before: Sequence[Finding], after: Sequence[Finding]) -> Difference | None:
    """The one attribute of one finding in which two readings differ; None where they differ in none or in more.

    Repeated statements count once. A finding that becomes absent may be denied or not mentioned any more, and one
    that becomes present may be said with any side, place and severity: these are told with it. Other names for the
    same thing (lexicon: kin, general names) may change with it in the same attribute, but not in presence.
    """
    old, new = _statements(before), _statements(after)
    gone, come = _less(old, new), _less(new, old)
    if not gone and not come:
        return None
    names = {m.name for m in (*gone, *come)}
    stated_now = {m.name for m in come if m.presence != "absent"}
    stated_then = {m.name for m in gone if m.presence != "absent"}
    if len(stated_now) == 1 and not stated_then:
        (name,) = stated_now
        one = next(m for m in come if m.name == name)
        fresh = not any(m.name == name and m.presence != "absent" for m in old)
        if fresh and all(m.name == name for m in come) and all(_implied(m, one) for m in gone):
            return Difference(name, "presence", "absent", one.presence)
    if len(stated_then) == 1 and not stated_now and len(names) == 1:
        (name,) = stated_then
        if not any(m.name == name and m.presence != "absent" for m in new):
            return Difference(name, "presence", next(m for m in gone if m.name == name).presence, "absent")
    return _attribute_difference(gone, come)


def _attribute_difference(gone: Sequence[Finding], come: Sequence[Finding]) -> Difference | None:
    if not gone or not come or any(m.presence == "absent" for m in (*gone, *come)):
        return None
    keys: tuple[tuple[str, Attribute], ...] = (
        ("name", "type"), ("side", "side"), ("place", "place"), ("severity", "severity"), ("change", "change")
    )  # fmt: skip
    for field, attribute in keys:
        values = {getattr(m, field) for m in gone}, {getattr(m, field) for m in come}
        if len(values[0]) != 1 or len(values[1]) != 1 or values[0] == values[1]:
            continue
        (was,), (now,) = values
        first = gone[0].name
        if attribute != "type" and not all(m.name in related(first) for m in gone):
            continue
        if {_key(m.model_copy(update={field: now})) for m in gone} == {_key(m) for m in come}:
            told = max(gone, key=lambda m: (m.name not in lexicon().general, m.name)).name
            return Difference(told, attribute, str(was or "none").lower(), str(now or "none").lower())
    return None


def _key(finding: Finding) -> tuple[Any, ...]:
    return (finding.name, finding.presence, finding.side, finding.place, finding.severity, finding.change)


def _statements(findings: Sequence[Finding]) -> list[Finding]:
    """Findings without spans, each once, in order."""
    kept: dict[tuple[Any, ...], Finding] = {}
    for finding in findings:
        kept.setdefault(_key(finding), finding.model_copy(update={"span": None}))
    return list(kept.values())


def _less(first: Sequence[Finding], second: Sequence[Finding]) -> list[Finding]:
    known = {_key(m) for m in second}
    return [m for m in first if _key(m) not in known]


def related(name: str) -> frozenset[str]:
    """A finding's name with the names that may stand for the same thing."""
    book = lexicon()
    found = {name} | book.general.get(name, frozenset())
    found |= {general for general, names in book.general.items() if name in names}
    for group in (*book.kin, *book.sizes):
        if name in group:
            found |= group
    return frozenset(found)
