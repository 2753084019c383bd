"""Noun phrases and sentences for a finding: ``small left pleural effusion``, ``There is a nodule in the right apex.``

Words are chosen so that our own reader takes the finding out of them again; `tests/test_rewrite.py` holds that for
every name with every side, place and severity.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from radpref.findings.lexicon import lexicon
from radpref.records import Finding

Style = Literal["there", "seen", "plain"]
Kind = Literal["count", "plural", "mass"]

_NOUNS: dict[str, str] = {
    "edema": "pulmonary edema",
    "lung opacity": "opacity",
    "fracture": "bony fracture",
    "enlarged mediastinum": "mediastinal widening",
    "vascular congestion": "pulmonary vascular congestion",
    "heart failure": "congestive heart failure",
    "costophrenic blunting": "costophrenic angle blunting",
    "elevated hemidiaphragm": "hemidiaphragm elevation",
    "flattened diaphragm": "diaphragmatic flattening",
    "obstructive disease": "obstructive pulmonary disease",
    "chamber enlargement": "left ventricular enlargement",
    "low lung volumes": "low lung volumes",
    "degenerative change": "degenerative changes",
    "postoperative change": "postoperative changes",
    "surgical clips": "surgical clips",
    "external leads": "external leads",
    "sternotomy": "median sternotomy wires",
    "tortuous aorta": "tortuous aorta",
    "stent": "vascular stent",
    "pneumoperitoneum": "free intraperitoneal air",
    "infection": "infectious infiltrate",
    "bronchitis": "reactive airways disease",
}
"""Nouns of the findings that are not called by their name."""
_PLURAL = frozenset(
    {
        "low lung volumes",
        "degenerative change",
        "postoperative change",
        "surgical clips",
        "external leads",
        "sternotomy",
    }
)
_COUNT = frozenset(
    """pleural effusion;pneumothorax;lung opacity;interstitial opacity;nodule;mass;rib fracture;fracture;
    endotracheal tube;tracheostomy;enteric tube;central venous catheter;pacemaker;chest tube;support device;lucency;
    granuloma;hiatal hernia;tortuous aorta;deformity;calcification;pericardial effusion;aortic aneurysm;stent;
    foreign body;bone lesion;infection;bone abnormality;pleural abnormality;mediastinal shift""".replace("\n", "")
    .replace("    ", "")
    .split(";")
)
_SIZED = frozenset(
    {"pleural effusion", "pneumothorax", "pericardial effusion", "nodule", "mass", "hiatal hernia"}
    | {"pneumoperitoneum", "pneumomediastinum", "hemorrhage", "granuloma"}
)
SIZES = {"mild": "small", "moderate": "moderate", "severe": "large"}
GRADES = {"mild": "mild", "moderate": "moderate", "severe": "severe"}
ADVERBS = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
ADJECTIVES = {
    "apex": "apical",
    "base": "basilar",
    "perihilar": "perihilar",
    "peripheral": "peripheral",
    "retrocardiac": "retrocardiac",
    "diffuse": "diffuse",
}
"""Places that stand before their finding."""
NOUN_PLACES = {"perihilar": "perihilar region", "retrocardiac": "retrocardiac region", "peripheral": "periphery"}
"""Places that are no noun by their name."""
_BOTH = {"apex": "biapical", "base": "bibasilar", "diffuse": "diffuse"}
_TAILS = {
    "worse": ", increased from the prior",
    "better": ", decreased from the prior",
    "unchanged": ", unchanged from the prior",
}


class Phrase(NamedTuple):
    """A noun phrase without its article."""

    text: str
    kind: Kind

    @property
    def be(self) -> str:
        """The verb that it takes."""
        return "are" if self.kind == "plural" else "is"

    def with_article(self) -> str:
        """The phrase as it stands after ``There is``."""
        return f"{article(self.text)} {self.text}" if self.kind == "count" else self.text


def article(text: str) -> str:
    """``a`` or ``an``."""
    return "an" if text[:1].lower() in "aeiou" else "a"


def kind(name: str) -> Kind:
    """Whether a finding's noun is counted."""
    return "plural" if name in _PLURAL else "count" if name in _COUNT else "mass"


def sized(name: str) -> bool:
    """Whether a finding is small or large, rather than mild or severe."""
    return name in _SIZED


def noun(name: str) -> str:
    """What a finding is called in a sentence."""
    return _NOUNS.get(name, name)


def plural(word: str) -> str:
    """The plural of a noun phrase, by its last word."""
    if word.endswith("pneumothorax"):
        return word[:-1] + "ces"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if word.endswith("apex"):
        return word[:-2] + "ices"
    return word + ("" if word.endswith("bases") else "es" if word.endswith(("ss", "x")) else "s")


def singular(word: str) -> str:
    """The singular of a noun phrase, by its last word."""
    for ending, instead in (("pneumothoraces", "pneumothorax"), ("apices", "apex"), ("bases", "base"), ("ies", "y"),
                            ("sses", "ss")):  # fmt: skip
        if word.endswith(ending):
            return word[: -len(ending)] + instead
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "is", "us")) else word


def phrase(finding: Finding, said: str | None = None) -> Phrase:
    """The noun phrase of a finding with its severity, side and place; its change comes with the sentence.

    ``said`` is the noun as a text has it (``effusion``), used in place of the finding's own.
    """
    what, how = said or noun(finding.name), kind(finding.name)
    side, place = finding.side, finding.place
    if what == "opacity" and place is None:
        what = "lung opacity"
    if finding.name in lexicon().midline:
        side = place = None
    grade = ""
    if finding.severity and (finding.name, finding.severity) != ("nodule", "severe"):  # it would be a mass
        grade = (SIZES if sized(finding.name) else GRADES)[finding.severity] + " "
    if side == "bilateral" and how == "count":
        what, how = plural(singular(what)), "plural"
    elif how != "plural":
        what = singular(what)
    before, after = _where(side, place, what)
    return Phrase(f"{grade}{before}{what}{after}", how)


def _where(side: str | None, place: str | None, what: str) -> tuple[str, str]:
    """What stands before and after the noun to tell its side and place."""
    both = side == "bilateral"
    if place is None or place in what:
        return (f"{side} " if side else ""), ""
    if both and place in _BOTH:
        return _BOTH[place] + " ", ""
    if place == "lingula":
        return "", " in the lingula"
    if place in ADJECTIVES:
        return f"{side + ' ' if side else ''}{ADJECTIVES[place]} ", ""
    if both:
        return "", f" in both {plural(place)}"
    return "", f" in the {side + ' ' if side else ''}{place}"


def sentence(finding: Finding, style: Style = "plain", said: str | None = None) -> str:
    """A sentence that states the finding, without its full stop. Absent findings are denied, doubted ones hedged."""
    if finding.presence == "absent":
        what = said or noun(finding.name)
        return f"There is no {what}" if style == "there" else f"No {what}"
    words = phrase(finding, said)
    if finding.change == "new":
        words = Phrase(f"new {words.text}", words.kind)
    tail = _TAILS.get(finding.change or "", "")
    if finding.presence == "uncertain":
        return capital(f"possible {words.text}{tail}")
    if style == "there":
        return f"There {words.be} {words.with_article()}{tail}"
    if style == "seen":
        return capital(f"{words.with_article()} {words.be} seen{tail}")
    return capital(f"{words.text}{tail}")


def tail(change: str | None) -> str:
    """What is put behind a sentence to tell a change."""
    return _TAILS.get(change or "", "")


def capital(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """The first letter small again, but for abbreviations (``ET tube``)."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
