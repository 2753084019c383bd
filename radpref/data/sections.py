"""A radiology report as one text, cut into its sections.

The rules are those that MIMIC-CXR's authors publish with it (MIT-LCP, ``mimic-cxr/txt``): a section begins at a line
whose first words stand in capitals before a colon; its name is brought to one of a few, and of several sections of one
name the last that is not empty counts, because a report begins with its preliminary reading (``WET READ``) and its
addenda. Reports that other hospitals export write headers in small letters, or everything on one line: for those,
headings that are known count wherever they stand.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

NAMES = {
    "findings": ("findings", "finding", "report", "description", "radiographic findings", "observations"),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "findings and impression", "findings/impression",
        "findings / impression", "opinion", "summary", "assessment", "interpretation",
    ),
    "indication": (
        "indication", "indications", "reason for examination", "reason for exam", "clinical indication", "history",
        "clinical history", "clinical information", "patient history", "reason for study", "clinical data",
        "clinical question", "reason", "clinical details", "pfi",
    ),
    "comparison": (
        "comparison", "comparisons", "reference exam", "comparison exam", "comparison film", "comparison study",
        "prior study", "compared to", "comparison studies",
    ),
    "examination": ("examination", "exam", "type of examination", "procedure", "study", "exam type"),
    "technique": ("technique", "techniques", "views", "projection"),
    "recommendations": ("recommendations", "recommendation", "recommendation(s)"),
    "notification": ("notification", "communication", "notifications"),
    "addendum": ("addendum", "addenda", "final addendum"),
    "wet read": ("wet read", "wetread", "preliminary report", "preliminary read", "preliminary"),
    "date": ("date", "date of exam", "dictated", "signed", "electronically signed by"),
    "comment": ("comment", "comments", "note"),
}  # fmt: skip
"""Section to the headings it goes by, in lower case."""
_OF = {heading: name for name, headings in NAMES.items() for heading in headings}
_ANY = "|".join(re.escape(heading) for heading in sorted(_OF, key=len, reverse=True))
_PARTS = ("impression", "findings", "comparison", "addendum", "history")
"""A heading that holds one of these words is that section, whatever else it says."""
_MISSPELT = ("findings", "impression", "indication", "comparison", "comparisons", "recommendation")
"""Headings that are known though a letter is wrong, as in ``IMPRSSION``."""
_EXAMINATION = re.compile(
    r"chest|portable|two views|one view|frontal|lateral|(?:pa|ap) (?:and|view)|ribs|bone window|radiograph|x-?ray"
)
"""A heading that names the examination: what stands below it describes the image."""
_CAPITALS = re.compile(r"(?:^|\n)[ \t]*([A-Z][A-Z ()/,-]*[A-Z)]):(?=\s)")
_KNOWN = re.compile(
    r"(?:^|\n|(?<=[.;:!?]\s)|(?<=\s\s))[ \t*#]*\b(" + _ANY
    + r")\b[ \t*]*(?::|(?=\r?\n[ \t]*\S))[ \t*]*",
    re.IGNORECASE,
)  # fmt: skip
_INLINE = re.compile(r"\b(" + _ANY.upper() + r"):")
_FINAL = re.compile(r"(?:^|\n)[ \t]*FINAL REPORT[ \t]*(?=\n)")
_FINAL_ADDENDUM = re.compile(r"(?:^|\n)[ \t]*FINAL ADDENDUM[ \t]*(?=\n)")
_RULE = re.compile(r"^[ \t]*[_=*-]{4,}[ \t]*$", re.MULTILINE)


def sections(text: str, *, strict: bool = False) -> dict[str, str]:
    """Section name (``NAMES``, ``last paragraph``, or the heading itself) to its text, blanks evened.

    Of a name that comes several times, the last section that says something counts. ``last paragraph`` is there where
    there are no findings: what follows the first paragraph of the last section that is not the impression, where
    reports without that heading describe the image. ``strict``: headings in capitals at the start of a line alone, as
    MIMIC-CXR has them.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, str] = {}
    last = ""
    for name, content in _cut(text, strict):
        content = _RULE.sub("", content).strip()
        if not any(letter.isalpha() for letter in content):  # "CHEST, TWO VIEWS: ___" is a title
            continue
        found[name] = content
        if name not in ("impression", "wet read", "addendum", "notification", "recommendations", "date"):
            last = content
    if "findings" not in found and last:
        paragraphs = [part for part in re.split(r"\n[ \t]*\n", last) if part.strip()]
        if len(paragraphs) > 1 or list(found) == ["preamble"]:
            found["last paragraph"] = "\n".join(paragraphs[1:] or paragraphs)
    return {name: " ".join(content.split()) for name, content in found.items()}


def _cut(text: str, strict: bool) -> Iterator[tuple[str, str]]:
    start, name = 0, "preamble"
    for begin, end, heading in _headings(text, strict):
        yield name, text[start:begin]
        start, name = end, heading
    yield name, text[start:]


def _headings(text: str, strict: bool) -> list[tuple[int, int, str]]:
    """Where headings begin and end, and which section each opens; ``FINAL REPORT`` ends what was preliminary."""
    marks = {match.start(): (match.start(), match.end(), _name(match[1])) for match in _CAPITALS.finditer(text)}
    if not strict:
        for pattern in (_KNOWN, _INLINE):
            for match in pattern.finditer(text):
                if not any(begin <= match.start(1) < end for begin, end, _ in marks.values()):
                    marks[match.start()] = (match.start(), match.end(), _OF[match[1].lower()])
    for match in _FINAL.finditer(text):
        marks.setdefault(match.start(), (match.start(), match.end(), "preamble"))
    for match in _FINAL_ADDENDUM.finditer(text):
        marks.setdefault(match.start(), (match.start(), match.end(), "addendum"))
    return [marks[place] for place in sorted(marks)]


def _name(heading: str) -> str:
    heading = " ".join(heading.lower().split())
    if heading in _OF:
        return _OF[heading]
    for part in _PARTS:
        if part in heading:
            return "indication" if part == "history" else part
    if near := difflib.get_close_matches(heading, _MISSPELT, n=1, cutoff=0.85):  # a letter lost, doubled, swapped
        return _OF[near[0]]
    return "findings" if _EXAMINATION.search(heading) else heading
