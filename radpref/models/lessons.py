"""What the built-in model is taught before it writes reports: texts in which every word says what is on the image.

A report is mostly words that would be the same on any image. A small language model that is taught by reports alone
learns those, and says side and severity by habit. Findings in lists and questions about single findings have little
in them but name, side, place and severity, in an order that tells nothing. Each kind has a prompt of its own, so that
what is short here does not make reports short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from radpref.config import TaskSection
from radpref.data.phantom import NAMES, Phantom
from radpref.records import Finding, ImageFile, Study
from radpref.tasks import known
from radpref.tasks.basic import basic
from radpref.tasks.made import Made
from radpref.tasks.wording import listed, noun, place_of

Turn = tuple[str, str]
"""What is asked, and the answer."""

LIST = "List the findings, each with side, place and severity."
TELL = "Say in one sentence what the image shows."

_COMMON: Mapping[str, int] = dict.fromkeys(NAMES, 1)


def report(image: Phantom) -> list[Turn]:
    """The report of a phantom, asked for as `tasks.report_question` words it."""
    prompt = TaskSection().prompt
    return [(f"{prompt}\nIndication: {image.report.indication}", " ".join(image.report.findings.split()))]


def lessons(image: Phantom, rng: Random) -> list[Turn]:
    """All lessons about a phantom in an order drawn by ``rng``: its findings listed, told, and asked about one by one.

    Answers say what is true and can be seen: nothing of a finding that leaves no mask on the image (most do not on a
    lateral one), no change, and no side on a lateral image. The order of findings within an answer is drawn as well.
    """
    unseen: dict[str, Any] = {"change": None} if image.view == "frontal" else {"change": None, "side": None}
    shown = [finding.model_copy(update=unseen) for finding in image.truth if finding.name in image.masks]
    rng.shuffle(shown)
    turns = [(made.asked.question, made.asked.rationale) for made in _questions(image, shown, rng)]
    turns += [_list(shown), _tell(rng.sample(shown, len(shown)))]
    rng.shuffle(turns)
    return turns


def _questions(image: Phantom, shown: Sequence[Finding], rng: Random) -> list[Made]:
    study = Study(
        id=f"p{image.index}",
        patient=f"p{image.index}",
        images=(ImageFile(path="", view=image.view),),
        findings="",
        truth=tuple(shown),
    )
    return basic(study, known(study), _COMMON, seed=rng.getrandbits(32), max_images=1)


def _list(shown: Sequence[Finding]) -> Turn:
    entries = [f"{f.name}: {', '.join(filter(None, (place_of(f), f.severity))) or 'present'}" for f in shown]
    return LIST, "; ".join(entries) + "." if entries else "none."


def _tell(shown: Sequence[Finding]) -> Turn:
    text = f"The image shows {listed([noun(f) for f in shown])}." if shown else "The image shows no abnormality."
    return TELL, text
