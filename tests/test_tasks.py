"""The report task: what is asked, and what the answer is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.config import TaskSection
from radpref.records import Finding, ImageFile, Study, View
from radpref.tasks import MAX_INDICATION, clean_indication, report_question


def study(indication: str = "", findings: str = "Clear lungs.", views: tuple[View, ...] = ("frontal",)) -> Study:
    images = tuple(ImageFile(path=f"/{n}.png", view=view) for n, view in enumerate(views))
    return Study(
        id="s/1",
        patient="p",
        images=images,
        findings=findings,
        indication=indication,
        split="test",
        truth=(Finding(name="edema"),),
    )


def test_the_question_carries_the_study() -> None:
    question = report_question(study("dyspnea", "  Clear\n\tlungs.  No  effusion. "), TaskSection(prompt="Report."), 2)
    assert question.id == "s/1:report"
    assert (question.study, question.patient, question.split, question.task) == ("s/1", "p", "test", "report")
    assert question.prompt == "Report.\nIndication: dyspnea"
    assert question.reference == "Clear lungs. No effusion."
    assert question.truth == (Finding(name="edema"),)


def test_without_an_indication_the_prompt_is_the_instruction() -> None:
    assert report_question(study("XXXX."), TaskSection(prompt="Report."), 2).prompt == "Report."
    assert report_question(study("cough"), TaskSection(prompt="Report.", indication=False), 2).prompt == "Report."


def test_no_more_images_than_asked_for() -> None:
    many = study(views=("frontal", "frontal", "unknown", "lateral"))
    paths = [[image.path for image in report_question(many, TaskSection(), most).images] for most in (1, 2, 8)]
    assert paths == [["/0.png"], ["/0.png", "/1.png"], ["/0.png", "/1.png", "/2.png", "/3.png"]]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Chest pain.", "Chest pain."),
        ("XXXX-year-old XXXX with chest pain.", "chest pain."),
        ("XXXX-year-old male, chest pain.", "male, chest pain."),
        ("XXXX year old with a XXXX.", ""),
        ("XXXX-year-old male with XXXX, XXXX, and XXXX.", "male."),
        ("XXXX-year-old male with XXXX and asthma.", "male with asthma."),
        ("___ year old woman with dyspnea // eval for pneumonia", "woman with dyspnea // eval for pneumonia"),
        ("___M with cough", "M with cough"),
        ("INDICATION: History: XXXX, cough", "cough"),
        ("Pain in the XXXX.", "Pain."),
        ("The patient is 46 years old.", "The patient is 46 years old."),
        ("XXXXyo with 53XXXX pain", "53 pain"),
        ("CHF", "CHF"),
        ("cp", "cp"),
        ("XXXX, XXXX", ""),
        ("", ""),
        ("...", ""),
        (" fever \n and  chills ", "fever and chills"),
    ],
)
def test_an_indication_is_cleaned(text: str, clean: str) -> None:
    assert clean_indication(text) == clean


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=400),
        st.lists(st.sampled_from(["XXXX", "___", "with", "and", "of", ".", ",", "the", "year", "old", "pain"])).map(
            " ".join
        ),
    )
)
def test_cleaning_is_short_one_line_and_stable(text: str) -> None:
    clean = clean_indication(text)
    assert len(clean) <= MAX_INDICATION + 4
    assert "\n" not in clean
    assert "XXXX" not in clean
    assert clean == " ".join(clean.split())


def test_a_long_indication_is_cut_at_a_word() -> None:
    clean = clean_indication("cough and fever " * 200)
    assert MAX_INDICATION - 20 < len(clean) <= MAX_INDICATION + 4
    assert clean.endswith((" cough ...", " fever ...", " and ..."))
