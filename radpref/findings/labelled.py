"""Labels as statements: what a data set's labels and boxes say of a study, and the same in words.

A statement is a `Finding` whose name is a finding of the lexicon or a CheXpert class (``Lung Lesion``); what is not
stated is not known. ``No Finding`` says that nothing is there but devices and what the lexicon calls benign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from radpref.findings.labels import CHEXPERT, CLASSES_14
from radpref.findings.lexicon import lexicon
from radpref.findings.rewrite.phrases import sentence
from radpref.records import Finding, Presence

NO_FINDING = "No Finding"
_PRESENCE: dict[int, Presence] = {1: "present", 0: "absent", -1: "uncertain"}


def labelled(values: Mapping[str, int | None], marked: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """What labels (1 positive, 0 negative, -1 uncertain, None blank) and marked findings say together.

    A marked finding stands in the place of the label that it bears out. Blank labels, labels of a name that is neither
    finding nor class, and a ``No Finding`` that is not positive say nothing.
    """
    told = list(marked)
    shown = {finding.name for finding in marked}
    for name, value in values.items():
        if value is None or not members(name) or (name == NO_FINDING and value != 1):
            continue
        if not members(name) & shown or (
            name != NO_FINDING and value == 0 and name in CLASSES_14 and name not in shown
        ):
            told.append(Finding(name=name, presence=_PRESENCE[value]))
    return tuple(told)


@cache
def members(name: str) -> frozenset[str]:
    """The findings that a label speaks of: itself, or those of the class; empty for what is neither."""
    if name == NO_FINDING:
        counted = lexicon().benign
        return frozenset(n for n, label in CHEXPERT.items() if n not in counted and label != "Support Devices")
    if name in CLASSES_14:
        return frozenset(n for n, label in CHEXPERT.items() if label == name)
    return frozenset({name}) & CHEXPERT.keys()


@cache
def finding_of(name: str) -> str | None:
    """The one finding that a label names: ``Edema`` is edema; None where a class is of several (``Lung Lesion``)."""
    known = members(name)
    return name.lower() if name.lower() in known else next(iter(known)) if len(known) == 1 else None


def tellable(label: Finding) -> bool:
    """Whether a label knows enough to be stated: which finding it is, and its side where it has one."""
    name = finding_of(label.name)
    return name is not None and (label.side is not None or name in lexicon().midline)


def in_words(labels: Sequence[Finding]) -> str:
    """A plain report that says what labels say and nothing else: what is there, then what is not.

    Devices that are absent go unsaid, as in reports, and so does the absence of something general (an opacity) beside
    what is of its kind.
    """
    there = [label for label in labels if label.presence != "absent" and label.name != NO_FINDING]
    named = frozenset().union(*(members(label.name) for label in there))
    general = {name for name, kinds in lexicon().general.items() if kinds & named}
    gone = [
        one
        for one in labels
        if one.presence == "absent" and not _devices(one.name) and finding_of(one.name) not in general
    ]
    said = [_sentence(label) for label in (*there, *gone)]
    if any(label.name == NO_FINDING for label in labels):
        said.append("No acute disease")
    return " ".join(f"{text}." for text in dict.fromkeys(said))


def _devices(name: str) -> bool:
    return all(CHEXPERT[member] == "Support Devices" for member in members(name))


def _sentence(label: Finding) -> str:
    name = finding_of(label.name)
    if name is not None:
        return sentence(label.model_copy(update={"name": name}))
    what = label.name.lower()
    hedged = f"Possible {what}" if label.presence == "uncertain" else label.name.capitalize()
    return f"No {what}" if label.presence == "absent" else hedged
