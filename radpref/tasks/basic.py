"""Basic questions (CheXPO): presence, abnormality, location, severity, type, view, and ones on a false premise.

Every rationale begins with the sentence that gives the answer, and names the evidence: side, place, severity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from radpref.records import Finding, ImageFile, Study
from radpref.tasks.known import Known, askable
from radpref.tasks.made import Made, Pen, draw_names
from radpref.tasks.wording import DEVICES, bare, is_many, listed, noun, place_of, where

GROUPS: Mapping[str, frozenset[str]] = {
    "pleural abnormality": frozenset({"pleural effusion", "pneumothorax", "pleural thickening"}),
    "focal lung lesion": frozenset({"nodule", "mass"}),
    "diffuse or regional lung abnormality": frozenset(
        {"consolidation", "lung opacity", "atelectasis", "edema", "interstitial opacity", "emphysema", "fibrosis"}
    ),
    "tube, line or device": DEVICES - {"support device"},
}
"""What a question of type asks between."""

_NORMAL = {
    "cardiomegaly": "The heart is normal in size.",
    "enlarged mediastinum": "The mediastinum is normal in width.",
}
"""What the absence of a finding means in other words."""
_SIDED = ("left", "right", "bilateral")
_SIDES = {"left": "left", "right": "right", "bilateral": "both sides"}


def basic(study: Study, known: Known, common: Mapping[str, int], *, seed: int, max_images: int) -> list[Made]:
    """All basic questions that the study answers, as many about findings that are there as about some that are not.

    ``common``: how often each finding is present in the training studies; those that are not there are drawn by it.
    """
    pen = Pen(seed, study.id, "basic")
    images = study.images[:max_images]
    present = list(known.present.values())
    denied = {name: count for name, count in common.items() if askable(name) and known.denies(name)}
    absent = draw_names(denied, max(len(present), 1), pen.chance("absent"))
    made = [*_abnormality(pen, images, known), *_type(pen, images, known), *_view(pen, images)]
    for finding in present:
        made += [_present(pen, images, finding), *_location(pen, images, finding), *_severity(pen, images, finding)]
    for number, name in enumerate(absent):
        made.append(_absent(pen, images, name))
        if number % 2 == 0:
            made.append(_false_premise(pen, images, name))
    return made


def evidence(finding: Finding) -> str:
    """What is known of the finding, as a sentence of its own; empty where that is nothing.

    ``The pleural effusion is mild and lies at the left base.``
    """
    parts = [f"is {finding.severity}" if finding.severity else "", f"lies {where(finding)}" if where(finding) else ""]
    said = " and ".join(filter(None, parts))
    return f"The {finding.name} {said}." if said else ""


def _present(pen: Pen, images: Sequence[ImageFile], finding: Finding) -> Made:
    name = finding.name
    verb = "are" if is_many(finding) else "is"
    rationales = [
        f"Yes, there {verb} {noun(finding)}.",
        f"Yes, the image shows {noun(finding)}.",
        f"Yes, {noun(finding)} {verb} seen.",
        f"Yes, there is {bare(finding)}. {evidence(finding)}".strip(),
    ]
    return pen.ask(
        images, f"presence-{name}", "presence", _presence(name), "yes", rationales, closed=True, about=[finding]
    )


def _absent(pen: Pen, images: Sequence[ImageFile], name: str) -> Made:
    denied = Finding(name=name, presence="absent")
    rationales = [
        f"No, there is no {name}.",
        f"No, the image shows no {name}.",
        f"No, there is no sign of {bare(denied)}.",
    ]
    if name in _NORMAL:
        rationales.append(f"No, there is no {name}. {_NORMAL[name]}")
    return pen.ask(
        images, f"presence-{name}", "presence", _presence(name), "no", rationales, closed=True, about=[denied]
    )


def _presence(name: str) -> list[str]:
    something = bare(Finding(name=name))
    return [
        f"Is there {something}?",
        f"Does the image show {something}?",
        f"Can {something} be seen?",
        f"Is {something} present on this image?",
        f"Is there evidence of {something}?",
    ]


def _abnormality(pen: Pen, images: Sequence[ImageFile], known: Known) -> Iterator[Made]:
    found = [finding for name, finding in known.present.items() if name not in DEVICES]
    shown = listed([noun(finding) for finding in found]) if found else ""
    whether = [
        "Is there any abnormality on this image?",
        "Is this image abnormal?",
        "Does the image show any abnormality?",
    ]
    which = [
        "Which abnormalities does the image show?",
        "What abnormalities are seen?",
        "Which findings are abnormal?",
    ]
    aside = " Leave tubes and devices aside."
    if found:
        yield pen.ask(
            images, "abnormality", "abnormality", [text + aside for text in whether], "yes",
            [f"Yes, the image shows {shown}.", f"Yes: {shown}."],
            closed=True, about=found,
        )  # fmt: skip
    if found and known.certain:
        yield pen.ask(
            images, "abnormalities", "abnormality", [text + aside for text in which],
            ", ".join(finding.name for finding in found),
            [f"The image shows {shown}.", f"Seen on this image: {shown}.", f"The image is abnormal: it shows {shown}."],
            closed=False, about=found,
        )  # fmt: skip
    if known.normal or (known.whole and not found):
        nothing = ["No, the image shows no abnormality.", "No, there is no abnormality.", "No, nothing is abnormal."]
        yield pen.ask(
            images, "abnormality", "abnormality", [text + aside for text in whether], "no", nothing, closed=True
        )
        yield pen.ask(
            images, "abnormalities", "abnormality", [text + aside for text in which], "none",
            ["None: the image shows no abnormality.", "There are none.", "No abnormality is seen."], closed=False,
        )  # fmt: skip


def _location(pen: Pen, images: Sequence[ImageFile], finding: Finding) -> Iterator[Made]:
    name, side = finding.name, finding.side
    if not where(finding) and not finding.place:
        return
    severity = f"{finding.severity} " if finding.severity else ""
    rationales = [
        f"The {severity}{name} lies {where(finding)}." if where(finding) else "",
        f"This is {noun(finding)}.",
    ]
    yield pen.ask(
        images, f"location-{name}", "location",
        [f"Where is the {name}?", f"Where does the {name} lie?", f"In which part of the chest is the {name}?"],
        place_of(finding), [text for text in rationales if text], closed=False, about=[finding],
    )  # fmt: skip
    if side is None:
        return
    lies = {"left": "on the left", "right": "on the right", "bilateral": "on both sides"}
    yield pen.ask(
        images, f"side-{name}", "location",
        [f"On which side is the {name}: left, right or both?", f"Is the {name} on the left, the right or both?"],
        _SIDES[side], [f"The {severity}{name} is {lies[side]}.", f"The image shows {noun(finding)}."],
        closed=True, about=[finding],
    )  # fmt: skip
    asked = pen.chance("sided", name).choice(_SIDED)
    answer, word = ("yes", "Yes") if asked == side else ("no", "No")
    yield pen.ask(
        images, f"sided-{name}", "location", [f"Is the {name} {lies[asked]}?", f"Does the {name} lie {lies[asked]}?"],
        answer, [f"{word}, the {name} is {lies[side]}.", f"{word}, the image shows {noun(finding)}."],
        closed=True, about=[finding],
    )  # fmt: skip


def _severity(pen: Pen, images: Sequence[ImageFile], finding: Finding) -> Iterator[Made]:
    name, severity = finding.name, finding.severity
    if severity is None:
        return
    place = f" {where(finding)}" if where(finding) else ""
    yield pen.ask(
        images, f"severity-{name}", "severity",
        [f"How severe is the {name}: mild, moderate or severe?", f"Is the {name} mild, moderate or severe?"],
        severity, [f"The {name}{place} is {severity}.", f"The image shows {noun(finding)}."],
        closed=True, about=[finding],
    )  # fmt: skip
    asked = pen.chance("graded", name).choice(("mild", "moderate", "severe"))
    answer, word = ("yes", "Yes") if asked == severity else ("no", "No")
    yield pen.ask(
        images, f"graded-{name}", "severity", [f"Is the {name} {asked}?", f"Would you call the {name} {asked}?"],
        answer, [f"{word}, the {name}{place} is {severity}.", f"{word}, the image shows {noun(finding)}."],
        closed=True, about=[finding],
    )  # fmt: skip


def _type(pen: Pen, images: Sequence[ImageFile], known: Known) -> Iterator[Made]:
    for group, names in GROUPS.items():
        found = [finding for name, finding in known.present.items() if name in names]
        if not found or names & known.open:
            continue
        shown = listed([noun(finding) for finding in found])
        yield pen.ask(
            images, f"type-{group}", "type",
            [f"What kind of {group} does the image show?", f"Which type of {group} is seen?"],
            ", ".join(finding.name for finding in found),
            [f"The image shows {shown}.", f"It is {shown}." if len(found) == 1 else f"They are {shown}."],
            closed=False, about=found,
        )  # fmt: skip
        if len(found) == 1 and len(names) == 2:
            first, second = (bare(Finding(name=name)) for name in sorted(names))
            yield pen.ask(
                images, f"which-{group}", "type", [f"Is the {group} {first} or {second}?"], found[0].name,
                [f"It is {noun(found[0])}.", f"The image shows {noun(found[0])}."], closed=True, about=found,
            )  # fmt: skip


def _view(pen: Pen, images: Sequence[ImageFile]) -> Iterator[Made]:
    told = [image for image in images if image.view != "unknown"]
    if not told:
        return
    image = pen.chance("view").choice(told)
    yield pen.ask(
        [image], "view", "view", ["Is this a frontal or a lateral image?", "Is the view frontal or lateral?"],
        image.view, [f"This is a {image.view} image.", f"The view is {image.view}."], closed=True,
    )  # fmt: skip


def _false_premise(pen: Pen, images: Sequence[ImageFile], name: str) -> Made:
    denied = Finding(name=name, presence="absent")
    return pen.ask(
        images, f"premise-{name}", "false premise",
        [f"Where is the {name}?", f"Where does the {name} lie?", f"On which side is the {name}?"]
        + ([] if name in DEVICES else [f"How severe is the {name}?"]),
        "none", [f"There is no {name} on this image.", f"None: the image shows no {name}."],
        closed=False, about=[denied],
    )  # fmt: skip
