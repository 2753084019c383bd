"""Whether an answer is right: the traps of substrings, sides, sets, negation and synonyms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.tasks import answer_set, matches, normalise, polarity, stated

RIGHT = [
    # yes and no
    ("No, it is normal.", "no", True),
    ("There is no pneumothorax.", "No", True),
    ("Yes.", "yes", True),
    ("The lungs are clear, so the answer is: no", "no", True),
    ("Yes, mild.", "Yes, mild", True),
    ("It could be. Answer: no", "no", True),
    ("none", "none", False),
    ("There is no pneumothorax on this image, so it has no side.", "none", False),
    # sides, places, synonyms
    ("Left.", "left", False),
    ("On the left side of the patient", "left side", True),
    ("both lungs", "bilateral", True),
    ("left and right", "both sides", True),
    ("The right lower lobe", "right lower lobe", False),
    ("RLL", "right lower lobe", False),
    ("right lung base", "right base", False),
    ("pleural fluid on the right", "right sided pleural effusion", False),
    ("posterior-anterior", "PA", True),
    ("X-ray", "chest x-ray", False),
    ("twelve", "12", False),
    ("nodule", "nodules", False),
    ("nodular opacity", "nodular opacities", False),
    ("small", "mild", False),
    ("It is stable.", "unchanged", False),
    ("bigger than before", "worse", False),
    ("left, not right", "left", False),
    ("On the right", "right lung", False),
    ("the right lower lobe", "right lung", False),
    ("both", "bilateral lungs", False),
    ("upper right lobe", "right upper lobe", False),
    # findings and sets
    ("The heart is enlarged.", "cardiomegaly", False),
    ("pneumothorax and cardiomegaly", "cardiomegaly, pneumothorax", False),
    ("An opacity consistent with pneumonia", "pneumonia", False),
    ("Cardiac enlargement with oedema", "cardiomegaly with pulmonary edema", False),
    ("cardiomegaly, no effusion", "cardiomegaly", False),
    ("It may be right at first sight. The answer is left", "left", False),
]

WRONG = [
    # what a substring would take for no
    ("The lungs are abnormal.", "no", True),
    ("It is not enlarged.", "no", True),
    ("Northern, known, nodule", "no", True),
    ("Yesterday's image", "yes", True),
    ("No, it is normal.", "yes", True),
    ("Yes, there is no doubt about it.", "no", True),
    ("", "no", True),
    # sides and other words that exclude each other
    ("left and right", "left", False),
    ("right", "left", True),
    ("bilateral", "left", False),
    ("left lower lobe", "right lower lobe", False),
    ("right lower lobe and left upper lobe", "right upper lobe", False),
    ("not on the left", "left", False),
    ("right shoulder", "right lung", False),
    ("right", "right lower lung", False),
    ("left lower lobe", "right lung", False),
    ("moderate", "mild", True),
    ("mild and severe", "mild", True),
    ("a space", "pa", True),
    ("AP", "PA", True),
    ("lateral", "frontal", True),
    ("worse", "better", True),
    # findings and sets
    ("no pneumothorax", "pneumothorax", False),
    ("without cardiomegaly", "cardiomegaly", False),
    ("cardiomegaly", "cardiomegaly, pneumothorax", False),
    ("cardiomegaly, edema, pneumothorax", "cardiomegaly, pneumothorax", False),
    ("pleural effusion, pneumothorax, edema, mass", "pneumothorax", False),
    ("Right pleural effusion and left pneumothorax", "left pleural effusion and right pneumothorax", False),
    ("on the left", "none", False),
    ("", "left", False),
    ("...", "left", False),
    ("The scan is hard to read. Left perhaps.", "right", False),
]


@pytest.mark.parametrize(("answer", "reference", "closed"), RIGHT)
def test_right_answers_match(answer: str, reference: str, closed: bool) -> None:
    assert matches(answer, reference, closed), (normalise(answer), normalise(reference))


@pytest.mark.parametrize(("answer", "reference", "closed"), WRONG)
def test_wrong_answers_do_not(answer: str, reference: str, closed: bool) -> None:
    assert not matches(answer, reference, closed), (normalise(answer), normalise(reference))


def test_the_first_yes_or_no_word_counts() -> None:
    assert polarity("No. Yes.") == "no"
    assert polarity("unknown, notable, abnormal") is None
    assert polarity("Reasoning: no sign of it. Answer: yes") == "yes"


def test_the_stated_part_is_the_marked_one_or_the_first_sentence() -> None:
    assert stated("Left. The right is clear.") == "Left"
    assert stated("I think so.\n<answer>right</answer> done") == "right"
    assert stated("The lesion measures 2.5 cm on the left. Nothing else.") == "The lesion measures 2.5 cm on the left"


def test_a_list_is_a_set() -> None:
    assert answer_set("Edema, a nodule and the mass") == answer_set("mass; nodules, edema")
    assert answer_set("left and right") == frozenset({"bilateral"})


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=30), st.booleans())
def test_no_text_breaks_it(answer: str, reference: str, closed: bool) -> None:
    assert matches(answer, reference, closed) in (True, False)


@settings(deadline=None)
@given(
    st.sampled_from([reference for _, reference, _ in RIGHT + WRONG]), st.booleans(), st.sampled_from([".", "!", ""])
)
def test_a_reference_matches_itself(reference: str, closed: bool, end: str) -> None:
    assert matches(reference.upper() + end, reference, closed)


def test_the_references_of_vqa_rad_match_themselves(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "vqa_rad" / "chest_qa.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        closed = row["answer_type"].strip() == "CLOSED"
        assert matches(str(row["answer"]), str(row["answer"]), closed), row["qid"]
    # every yes or no is told apart from the other
    yes = [row for row in rows if str(row["answer"]).strip().lower() == "yes"]
    assert len(yes) > 100
    assert not any(matches("no", str(row["answer"]), True) for row in yes)
