"""Comparison questions (CheXPO): how a finding has changed since the earlier image, what is new, what has gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from radpref.records import Finding, ImageFile, Study
from radpref.tasks.known import Known
from radpref.tasks.made import Made, Pen
from radpref.tasks.wording import listed, noun, where

OPENING = "The first image is the current one, the second an earlier one of the same patient. "
"""Before every comparison question: which image is which."""

_IS = {"new": "is new", "worse": "is worse", "better": "has improved", "unchanged": "is unchanged"}
_ASKED = {
    "new": "Is the {name} new since the earlier image?",
    "worse": "Has the {name} become worse since the earlier image?",
    "better": "Has the {name} improved since the earlier image?",
    "unchanged": "Is the {name} unchanged since the earlier image?",
}


def comparison(current: Study, now: Known, prior: Study, before: Known, *, seed: int) -> list[Made]:
    """All comparison questions about two studies of a patient: the first image of each, the current one first.

    A finding's change is what the current study states; without that, it is new where the prior is known not to show
    it. What has gone is what the prior shows and the current study is known not to.
    """
    pen = Pen(seed, current.id, "comparison")
    images = (current.images[0], prior.images[0])
    changed = [finding for found in now.present.values() if (finding := _dated(found, before)).change]
    gone = [finding for name, finding in before.present.items() if now.denies(name)]
    made = [question for finding in changed for question in _change(pen, images, finding, before)]
    if now.whole or changed or gone:
        made.append(_new(pen, images, [finding for finding in changed if finding.change == "new"]))
        made.append(_gone(pen, images, gone))
    return made


def _dated(finding: Finding, before: Known) -> Finding:
    if finding.change is None and before.denies(finding.name):
        return finding.model_copy(update={"change": "new"})
    return finding


def _change(pen: Pen, images: Sequence[ImageFile], finding: Finding, before: Known) -> Iterator[Made]:
    name, change = finding.name, finding.change
    assert change is not None
    earlier = before.present.get(name)
    graded = earlier is not None and earlier.severity and finding.severity and earlier.severity != finding.severity
    reason = f": it was {earlier.severity} and is {finding.severity} now" if earlier is not None and graded else ""
    place = f" {where(finding)}" if where(finding) else ""
    told = [f"the {name} {_IS[change]}{reason}.", f"the {name}{place} {_IS[change]}{reason}."]
    yield pen.ask(
        images, f"change-{name}", "change",
        [
            f"{OPENING}How has the {name} changed since the earlier image: is it new, worse, better or unchanged?",
            f"{OPENING}Compared with the earlier image, is the {name} new, worse, better or unchanged?",
        ],
        change, [text[0].upper() + text[1:] for text in told], closed=True, about=[finding],
    )  # fmt: skip
    asked = pen.chance("changed", name).choice(tuple(_ASKED))
    answer, word = ("yes", "Yes") if asked == change else ("no", "No")
    yield pen.ask(
        images, f"changed-{name}", "change", [OPENING + _ASKED[asked].format(name=name)], answer,
        [f"{word}, {text}" for text in told], closed=True, about=[finding],
    )  # fmt: skip


def _new(pen: Pen, images: Sequence[ImageFile], found: Sequence[Finding]) -> Made:
    questions = [
        f"{OPENING}Which findings are new since the earlier image?",
        f"{OPENING}What does the current image show that the earlier one does not?",
    ]
    if not found:
        rationales = ["None: no finding is new.", "There are none: nothing is new."]
        return pen.ask(images, "new", "new finding", questions, "none", rationales, closed=False)
    shown = listed([noun(finding) for finding in found])
    return pen.ask(
        images, "new", "new finding", questions, ", ".join(finding.name for finding in found),
        [f"Only the current image shows {shown}.", f"New since the earlier image: {shown}."], closed=False, about=found,
    )  # fmt: skip


def _gone(pen: Pen, images: Sequence[ImageFile], found: Sequence[Finding]) -> Made:
    questions = [
        f"{OPENING}Which findings of the earlier image have gone?",
        f"{OPENING}What does the earlier image show that the current one does not?",
    ]
    if not found:
        rationales = ["None: no finding has gone.", "There are none: all that was there is still there."]
        return pen.ask(images, "gone", "resolved finding", questions, "none", rationales, closed=False)
    shown = listed([noun(finding) for finding in found])
    return pen.ask(
        images, "gone", "resolved finding", questions, ", ".join(finding.name for finding in found),
        [f"Only the earlier image shows {shown}.", f"On the earlier image alone: {shown}."], closed=False, about=found,
    )  # fmt: skip
