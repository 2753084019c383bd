"""Reports of MIMIC-CXR that its authors sectioned by hand, because their headings are missing or wrong.

Study numbers, sections and characters are facts of the published reports, taken from MIT-LCP's repository
``mimic-cxr`` (``txt/section_parser.py`` at 3190146, MIT licence, copyright 2019 MIT Laboratory for Computational
Physiology; Johnson et al., Sci Data 2019;6:317). ``mimic_cxr_sectioned.csv`` leaves these reports out.
"""

from __future__ import annotations

MISPLACED: dict[str, tuple[int, ...]] = {
    "comment": (56451190,),
    "examination": (50743547, 53356173, 55157853, 59215320, 59363654),
    "indication": (50058765, 51491012, 51966317, 54365831, 54654948, 55124749, 57936451),
    "recommendations": (50913680, 56482935, 58157373, 58375018, 59067458, 59087630, 59768032),
    "technique": (50808053, 53202765, 59279892),
}
"""A section, by our name for it, to the studies whose description of the image stands in it."""
DESCRIBED: dict[int, tuple[int, int]] = {
    50196495: (59, 399),
    50525523: (201, 349),
    51410602: (47, 320),
    52119491: (179, 454),
    52648681: (292, 631),
    52674888: (145, 296),
    53182247: (59, 412),
    53488209: (149, 475),
    53514462: (73, 377),
    54875119: (234, 988),
    54986978: (59, 306),
    55258338: (192, 568),
    56412866: (522, 822),
    56579911: (59, 218),
    56760320: (219, 457),
    57150433: (61, 394),
    57564132: (233, 554),
    59003148: (262, 505),
    59330497: (140, 655),
    59505494: (59, 450),
    59562049: (158, 348),
    59889364: (172, 453),
    59982525: (313, 717),
}
"""Studies to the characters of their report that describe the image, where no heading does."""
SILENT = (
    50798377,
    52035334,
    53071062,
    53607029,
    54168089,
    54231141,
    56724958,
    58235663,
)
"""Studies whose report describes no image."""


def corrected(study: str, text: str, found: dict[str, str]) -> dict[str, str]:
    """The sections of a report as its authors corrected them by hand; ``found`` itself for every other study.

    ``study``: as ``s50913680``; ``text``: the whole report; ``found``: what the rules for headings found in it. What
    becomes the findings stands nowhere else any more, so that no prompt holds its own answer.
    """
    number = int(study[1:]) if study[1:].isdigit() else 0
    if number in SILENT:
        return {name: said for name, said in found.items() if name not in ("findings", "impression", "last paragraph")}
    if number in DESCRIBED:
        first, last = DESCRIBED[number]
        described = " ".join(text[first:last].split())
    else:
        place = next((name for name, studies in MISPLACED.items() if number in studies), "")
        described = found.get(place, "")
    if not described:
        return found
    return {**{name: said for name, said in found.items() if described not in said}, "findings": described}
