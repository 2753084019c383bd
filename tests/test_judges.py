"""Judges: objects with a name, a version and a check; when there is nothing to judge; length control; text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.config import JudgeSection
from radpref.findings import lexicon
from radpref.judges import (
    FREE,
    JUDGES,
    Case,
    Judge,
    JudgeError,
    LengthControlled,
    Verdict,
    check,
    judge_by,
    length_controlled,
    version,
)
from radpref.records import Judgement
from tests.test_judges_green1 import REPORTS


def judge(reference: str, candidate: str, name: str = "green") -> Judgement:
    (judgement,) = JUDGES[name]()([Case("a/0", "a", reference, candidate)])
    return judgement


# ---------------------------------------------------------------- no judgement


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize(
    ("reference", "candidate", "reason"),
    [
        ("", "No effusion.", "reference has no words"),
        ("XXXX. ___ XXXX", "No effusion.", "reference has no words"),
        ("[removed]", "No effusion.", "reference"),
        ("No effusion.", "", "candidate has no words"),
        ("No effusion.", " \n. ", "candidate has no words"),
    ],
)
def test_unscored(name: str, reference: str, candidate: str, reason: str) -> None:
    judgement = judge(reference, candidate, name)
    assert judgement.score is None
    assert judgement.unscored is not None
    assert reason in judgement.unscored


def test_green_needs_a_reference_it_can_read() -> None:
    assert judge("The sky is blue.", "Left effusion.").unscored == "no finding could be read in the reference"


def test_a_judge_that_fails_costs_one_case() -> None:
    def moody(reference: str, candidate: str) -> Verdict:
        if "bad" in candidate:
            raise ZeroDivisionError("division by zero")
        return Verdict(0.5)

    judgements = judge_by("moody", moody)([Case(str(i), "q", "a", c) for i, c in enumerate(("good", "bad", "ok"))])
    assert [j.score for j in judgements] == [0.5, None, 0.5]
    assert judgements[1].unscored == "the judge failed: ZeroDivisionError: division by zero"


def test_equal_pairs_are_compared_once() -> None:
    asked: list[str] = []

    def counting(reference: str, candidate: str) -> Verdict:
        asked.append(candidate)
        return Verdict(1.0)

    cases = [Case(str(i), str(i), "one", text) for i, text in enumerate(["a", "b", "a", "a", "b"])]
    judgements = judge_by("counting", counting)(cases)
    assert asked == ["a", "b"]
    assert [(j.id, j.question) for j in judgements] == [(c.id, c.question) for c in cases]


# ---------------------------------------------------------------- length


def test_length_control() -> None:
    reference = "Left pleural effusion."
    assert judge(reference, "Left pleural effusion seen now indeed.", "lc-green").score == pytest.approx(1 / 2)
    assert judge(reference, "Left effusion.", "lc-green").score == 1, "a shorter one keeps its score"
    judgement = judge(reference, f"{reference} {reference}", "lc-text")
    assert (judgement.judge, judgement.words, judgement.reference_words) == ("lc-text", 6, 3)


def test_length_control_leaves_what_is_unscored() -> None:
    judgement = length_controlled(Judgement(id="a", question="a", judge="x", score=None, unscored="why", words=3))
    assert (judgement.score, judgement.unscored, judgement.judge) == (None, "why", "lc-x")


# ---------------------------------------------------------------- text similarity


def test_text_similarity() -> None:
    reference = "Small left pleural effusion."
    scores = [
        judge(reference, candidate, "text").score or 0
        for candidate in (
            reference,
            "Small left pleural effusions.",
            "Small left effusion.",
            "Effusion left small pleural.",
            "Normal heart.",
        )
    ]
    assert scores[0] == pytest.approx(1)
    assert scores[0] > scores[1] > scores[4]
    assert scores[0] > scores[2] > scores[4]
    assert scores[0] > scores[3] > scores[4], "the order of words has weight"


@given(st.sampled_from(REPORTS), st.sampled_from(REPORTS))
@settings(max_examples=50, deadline=None)
def test_text_similarity_is_symmetric_and_bounded(first: str, second: str) -> None:
    there, back = judge(first, second, "text").score, judge(second, first, "text").score
    assert there is not None
    assert 0 <= there <= 1
    assert there == pytest.approx(back)
    assert judge(first, first.upper(), "text").score == pytest.approx(1)


# ---------------------------------------------------------------- the contract


def test_every_judge_is_an_object_with_a_name_a_version_and_a_check() -> None:
    section = JudgeSection(server="http://localhost:1/v1", model="m")
    made = {name: make(section) for name, make in JUDGES.items()}
    assert all(isinstance(judge, Judge) and judge.name == name for name, judge in made.items())
    versions = [judge.version for judge in made.values()]
    assert len(set(versions)) == len(versions), "no two judges share a version"
    assert {name for name, judge in made.items() if judge.free} == set(FREE)
    assert set(FREE) == {"green", "green-1", "text", "lc-green", "lc-green-1", "lc-text"}


def test_the_version_belongs_to_the_judge() -> None:
    section = JudgeSection()
    assert lexicon().digest in version("green", section)
    assert version("green", section) != version("green", JudgeSection(normals="count"))
    assert version("green", section) == JUDGES["green"](section).version
    with pytest.raises(KeyError):
        version("nobody", section)


def test_a_check_is_the_judges_own() -> None:
    class Absent:
        name, version, free = "absent", "absent-1", False

        def check(self, section: JudgeSection) -> None:
            raise JudgeError("not there")

        def __call__(self, cases: object) -> list[Judgement]:
            return []

    assert isinstance(Absent(), Judge)
    with pytest.raises(JudgeError, match="not there"):
        LengthControlled(Absent()).check(JudgeSection())
    check("green", JudgeSection())
