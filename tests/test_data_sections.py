"""Reports as one text, cut into sections: MIMIC-CXR's shapes, and those of other hospitals' exports."""

from __future__ import annotations

import pytest

from radpref.data.sections import sections
from radpref.data.views import view_of

WET = """\
                                 WET READ: ___ ___ ___ 10:38 PM
  Left basilar opacity, wet reading.
 ______________________________________________________________________________
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation.  Bilateral
 nodular opacities are nipple shadows.

 IMPRESSION:

 No acute process.
"""
ADDENDUM = """\
                                 FINAL ADDENDUM
 ADDENDUM:  The tube ends in the stomach.
 ______________________________________________________________________________
                                 FINAL REPORT
 CHEST, TWO VIEWS: ___

 HISTORY:  Cough.

 FINDINGS:  The lungs are clear.

 IMPRESSION:  No pneumonia.
"""
UNTITLED = """\
                                 FINAL REPORT
 INDICATION:  Cough.

 Portable chest.

 The lungs are clear. Heart normal.
"""


def test_a_wet_read_is_not_the_report() -> None:
    found = sections(WET, strict=True)
    assert found["findings"] == "There is no focal consolidation. Bilateral nodular opacities are nipple shadows."
    assert found["impression"] == "No acute process."
    assert found["indication"] == "___F with cough // eval for infection"
    assert "wet reading" in found["wet read"]
    assert not any("wet reading" in content for name, content in found.items() if name != "wet read")


def test_an_addendum_is_no_finding_and_a_title_no_section() -> None:
    found = sections(ADDENDUM, strict=True)
    assert (found["findings"], found["impression"]) == ("The lungs are clear.", "No pneumonia.")
    assert found["addendum"] == "The tube ends in the stomach."
    assert found["indication"] == "Cough."


def test_a_report_without_headings_ends_with_what_it_describes() -> None:
    assert sections(UNTITLED, strict=True)["last paragraph"] == "Portable chest. The lungs are clear. Heart normal."
    assert "findings" not in sections(UNTITLED, strict=True)
    assert sections("Clear lungs.", strict=True)["last paragraph"] == "Clear lungs."


def test_the_last_findings_that_say_something_count() -> None:
    text = "\n CHEST, PA AND LATERAL:  \n\n FINDINGS:  Old.\n\n PA AND LATERAL VIEWS OF THE CHEST:  New text.\n"
    assert sections(text, strict=True)["findings"] == "New text."


@pytest.mark.parametrize(
    "heading",
    ["FINDINGS", "FINDING", "FINDNGS", "FINDINDGS", "FINDINGS AND TECHNIQUE", "PORTABLE CHEST", "FRONTAL AND LATERAL"],
)
def test_headings_of_findings(heading: str) -> None:
    assert sections(f" HISTORY: x.\n {heading}: Clear.\n", strict=True)["findings"] == "Clear."


@pytest.mark.parametrize("heading", ["IMPRESSION", "IMPRESSON", "MPRESSION", "CONCLUSION", "FINDINGS AND IMPRESSION"])
def test_headings_of_impressions(heading: str) -> None:
    assert sections(f" HISTORY: x.\n {heading}: Clear.\n", strict=True)["impression"] == "Clear."


@pytest.mark.parametrize(
    "text",
    [
        "Findings: Lungs clear. No effusion. Impression: Normal chest.",
        "FINDINGS: Lungs clear. No effusion. IMPRESSION: Normal chest.",
        "Findings\nLungs clear. No effusion.\n\nImpression\nNormal chest.",
        "EXAM: chest\r\nFINDINGS:\r\nLungs clear.\r\nNo effusion.\r\nCONCLUSION: Normal chest.",
        "**Findings:** Lungs clear. No effusion.\n**Impression:** Normal chest.",
    ],
)
def test_other_writings(text: str) -> None:
    found = sections(text)
    assert found["findings"] == "Lungs clear. No effusion."
    assert found["impression"] == "Normal chest."


def test_a_word_in_a_sentence_is_no_heading() -> None:
    text = "The findings are unchanged; history: of cough is as before. No study for comparison."
    assert set(sections(text)) <= {"preamble", "last paragraph", "indication"}
    assert "findings" not in sections(text)


@pytest.mark.parametrize(
    ("said", "view"),
    [
        ("PA", "frontal"), ("AP SUPINE", "frontal"), ("Antero-posterior", "frontal"), ("postero-anterior", "frontal"),
        ("LL", "lateral"), ("left lateral", "lateral"), ("LATERAL", "lateral"), ("view1_frontal", "frontal"),
        ("view2_lateral", "lateral"), ("PA and lateral", "unknown"), ("", "unknown"), ("AP AXIAL", "frontal"),
    ],
)  # fmt: skip
def test_views(said: str, view: str) -> None:
    assert view_of(said) == view
