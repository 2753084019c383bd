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


# ---------------------------------------------------------------- with the question in view

ASKED = [
    # question, reference, closed, answer, right
    ("Is the trachea midline?", "Yes", True, "midline", True),
    ("Is the trachea midline?", "Yes", True, "The trachea is midline.", True),
    ("Is the trachea midline?", "Yes", True, "It is not midline.", False),
    ("Is the trachea midline?", "Yes", True, "The trachea is deviated to the right.", False),
    ("Is the trachea midline?", "No", True, "deviated", True),
    ("Is the trachea midline?", "No", True, "midline", False),
    ("Is there no pneumothorax?", "Yes", True, "No pneumothorax.", True),
    ("Is there no pneumothorax?", "Yes", True, "There is no pneumothorax.", True),
    ("Is there no pneumothorax?", "No", True, "There is a pneumothorax.", True),
    ("Is there no pneumothorax?", "Yes", True, "Yes", True),
    ("Is there no pneumothorax?", "Yes", True, "No", False),
    ("Is there a pneumothorax?", "No", True, "No pneumothorax", True),
    ("Is there a pneumothorax?", "Yes", True, "There is a small pneumothorax.", True),
    ("Is there a pneumothorax?", "No", True, "Absent", True),
    ("Is there a pneumothorax?", "Yes", True, "present", True),
    ("Is there a pneumothorax?", "No", True, "not seen", True),
    ("Is there a pneumothorax?", "Yes", True, "A pneumothorax is seen on the left.", True),
    ("Is the heart enlarged?", "No", True, "The heart is normal in size.", True),
    ("Is the heart enlarged?", "Yes", True, "cardiomegaly", True),
    ("Is the heart enlarged?", "Yes", True, "normal", False),
    ("Is the heart enlarged?", "No", True, "normal", True),
    ("Is the heart normal?", "Yes", True, "normal", True),
    ("Is the heart normal?", "No", True, "enlarged", True),
    ("Is the effusion on the left?", "Yes", True, "left", True),
    ("Is the effusion on the left?", "No", True, "It is on the right.", True),
    ("Is the effusion on the left?", "Yes", True, "right", False),
    ("Isn't the aorta enlarged?", "No", True, "The aorta is not enlarged.", True),
    ("Are the lungs not clear?", "No", True, "The lungs are clear.", True),
    ("Are the lungs not clear?", "Yes", True, "clear lungs", False),
    ("Are the lungs clear?", "Yes", True, "lungs clear", True),
    ("Are the lungs clear?", "No", True, "There is consolidation in the left lower lobe.", True),
    ("Does this patient have pneumonia?", "No", True, "The lungs are clear.", True),
    ("Does the image show an effusion?", "Yes", True, "Effusion", True),
    ("Is there an effusion?", "Yes", True, "Edema", False),
    ("Is there an effusion?", "No", True, "Edema", False),
    ("Is there an effusion?", "No", True, "Unlikely", True),
    ("Is there an effusion?", "Yes", True, "I do not know", False),
    ("Is there an effusion?", "No", True, "I do not know", False),
    ("Is there an effusion?", "No", True, "It is not possible to say.", False),
    ("Where is the lesion?", "left lower lobe", False, "lower lobe of the left lung", True),
    ("Where is the lesion?", "right upper lobe", False, "In the upper right lobe", True),
    ("Where is the lesion?", "RUL", False, "right upper lobe", True),
    ("What is seen?", "pleural effusions", False, "pleural effusion", True),
    ("What is seen?", "infiltrates", False, "infiltrate", True),
    ("What organ is enlarged?", "heart", False, "cardiac enlargement", True),
    ("What is abnormal?", "cardiomegaly", False, "The heart is enlarged.", True),
    ("What type of image is this?", "chest x-ray", False, "radiograph of the chest", True),
    ("What plane is this?", "PA", False, "posteroanterior", True),
    ("Which side is the effusion on?", "left", False, "on the patient's left side", True),
    ("Which side is the effusion on?", "left", False, "right side", False),
    ("Where is the opacity?", "bases of both lungs", False, "bibasilar", True),
    ("How many nodules?", "2", False, "two nodules", True),
    ("How many nodules?", "two", False, "There are 2.", True),
    ("How many nodules?", "2", False, "3", False),
    ("Is the trachea midline or deviated?", "midline", True, "The trachea is in the midline.", True),
    ("Is the trachea midline or deviated?", "midline", True, "It is central.", True),
    ("Is the trachea midline or deviated?", "midline", True, "not deviated", True),
    ("Is the trachea midline or deviated?", "midline", True, "deviated", False),
    ("How is the heart size?", "normal", False, "within normal limits", True),
    ("How is the heart size?", "normal", False, "unremarkable", True),
    ("How is the heart size?", "enlarged", False, "cardiomegaly", True),
    ("How is the heart size?", "normal", False, "The heart is not enlarged", True),
    ("What is the abnormality?", "fracture of the ribs", False, "rib fractures", True),
    ("What does the image show?", "lung nodules", False, "nodules in the lung", True),
    ("What is the position of the tube?", "above the carina", False, "carina above", True),
    ("What is in the image?", "atelectasis", False, "collapse of the lung", True),
    ("Which lobe?", "left lower", False, "lower left lobe", True),
    ("Is this an axial image?", "Yes", True, "axial", True),
    ("Is this an axial image?", "No", True, "coronal", True),
    ("Is this a CT or an MRI?", "CT", True, "computed tomography", True),
    ("Is this a CT or an MRI?", "CT", True, "MRI", False),
    ("What is the size of the heart?", "enlarged", False, "normal", False),
    ("Where is the mass?", "posterior", False, "behind", True),
    ("Are there multiple or just 1 metastatic focus?", "one", True, "just one", True),
]


@pytest.mark.parametrize(
    ("question", "reference", "closed", "answer", "right"), ASKED, ids=[f"{q} {r}: {a}" for q, r, _, a, _ in ASKED]
)
def test_with_the_question_in_view(question: str, reference: str, closed: bool, answer: str, right: bool) -> None:
    assert matches(answer, reference, closed, question) is right


@pytest.mark.parametrize(("question", "answer"), [(q, r) for q, r, c, _, _ in ASKED if c and r in ("Yes", "No")])
def test_yes_and_no_are_themselves_whatever_was_asked(question: str, answer: str) -> None:
    other = {"Yes": "No", "No": "Yes"}[answer]
    assert matches(answer, answer, True, question)
    assert not matches(other, answer, True, question)


def test_without_the_question_an_answer_without_yes_or_no_says_neither() -> None:
    assert not matches("midline", "Yes", True)
