"""Metrics of questions: closed forms, twins, baselines, tables."""

from __future__ import annotations

import pytest

from radpref.evaluation import (
    VQA_BASELINES,
    compare,
    definition,
    headline,
    markdown_table,
    measure_questions,
    metrics_json,
    question_baselines,
)
from radpref.judges import JUDGES, Case, reward_function
from radpref.records import ImageFile, Question
from radpref.tasks import negated


def question(key: str, answer: str, *, kind: str = "presence", closed: bool = True, task: str = "basic") -> Question:
    return Question(
        id=key,
        study=key,
        patient=f"p{key[0]}",
        split="test",
        images=(ImageFile(path=f"/{key}.png"),),
        prompt=f"Is there a mass on {kind}?",
        reference=f"{answer}.",
        answer=answer,
        kind=kind,
        closed=closed,
        task=task,
    )


QUESTIONS = [
    question("a1", "yes"),
    question("a2", "no"),
    question("b1", "left lower lobe", kind="location", closed=False),
    question("b2", "no", task="region"),
]
ANSWERS = {"a1": "Yes, there is.", "a2": "It is abnormal.", "b1": "In the left upper lobe", "b2": "No."}


def test_accuracies_by_hand() -> None:
    found = measure_questions("m", QUESTIONS, ANSWERS, resamples=100)
    assert found.value("vqa_accuracy_all") == 0.5
    assert found.value("vqa_accuracy_closed") == pytest.approx(2 / 3)
    assert found.value("vqa_accuracy_open") == 0.0
    assert found.value("vqa_accuracy_kind=presence") == pytest.approx(2 / 3)
    assert found.value("vqa_accuracy_task=region") == 1.0
    assert found.value("vqa_accuracy_of=basic/presence") == 0.5
    assert found.value("vqa_accuracy_macro_kinds") == pytest.approx((2 / 3 + 0) / 2)
    assert found.value("vqa_token_recall_open") == pytest.approx(2 / 3)
    assert found.value("vqa_undecided_share") == pytest.approx(1 / 3)
    assert found.value("vqa_yes_share") == pytest.approx(1 / 3)
    assert found.value("vqa_accuracy_blank") is None
    row = next(metric for metric in found.metrics if metric.name == "vqa_accuracy_closed")
    assert (row.n, row.unit) == (3, "patient")
    assert row.low is not None
    assert row.high is not None
    assert row.low <= 2 / 3 <= row.high


def test_an_empty_answer_is_wrong_and_a_missing_one_is_refused() -> None:
    found = measure_questions("m", QUESTIONS, dict.fromkeys(ANSWERS, ""), resamples=100)
    assert found.value("vqa_accuracy_all") == 0.0
    assert found.value("vqa_empty_share") == 1.0
    assert found.unscored("answer") == {"the candidate has no words": 4}
    with pytest.raises(ValueError, match="no answer"):
        measure_questions("m", QUESTIONS, {"a1": "yes"}, resamples=100)


def test_consistency_with_the_negation() -> None:
    twins = [twin for row in QUESTIONS if (twin := negated(row)) is not None]
    assert [twin.id for twin in twins] == ["a1~negated", "a2~negated", "b2~negated"]
    said = {
        "a1": "yes",
        "a1~negated": "no",
        "a2": "yes",
        "a2~negated": "no",
        "b1": "",
        "b2": "no",
        "b2~negated": "no",
    }
    found = measure_questions("m", QUESTIONS, said, controls=twins, resamples=100)
    assert found.value("vqa_consistency_negation") == pytest.approx(2 / 3)
    assert found.value("vqa_accuracy_both_negation") == pytest.approx(1 / 3)


def test_what_is_reached_without_the_image() -> None:
    blank = [row.model_copy(update={"id": f"{row.id}~blank"}) for row in QUESTIONS]
    swapped = [row.model_copy(update={"id": f"{row.id}~swapped"}) for row in QUESTIONS[:2]]
    said = ANSWERS | {row.id: "no" for row in blank} | {row.id: "yes" for row in swapped}
    found = measure_questions("m", QUESTIONS, said, controls=[*blank, *swapped], resamples=100)
    assert found.value("vqa_accuracy_blank") == 0.5
    assert found.value("vqa_gain_blank") == 0.0
    assert found.value("vqa_accuracy_swapped") == 0.5
    assert found.value("vqa_gain_swapped") == 0.0  # on the two that were swapped, one is right with the image
    assert found.questions == ("a1", "a2", "b1", "b2")


def test_baselines_answer_what_is_usual_in_train() -> None:
    train = [
        question("t1", "No"),
        question("t2", "no"),
        question("t3", "yes"),
        question("t4", "right", kind="location", closed=False),
        question("t5", "yes", task="region").model_copy(update={"prompt": "Is there a cat?"}),
    ]
    test = [*QUESTIONS, QUESTIONS[0].model_copy(update={"id": "c1", "prompt": "is there a CAT?"})]
    found = question_baselines(train, test)
    assert tuple(found) == VQA_BASELINES
    usual, by_words = (found[name] for name in VQA_BASELINES)
    assert usual == {"a1": "no", "a2": "no", "b1": "right", "b2": "yes", "c1": "no"}
    assert by_words["c1"] == "yes"
    assert by_words["b2"] == "no"  # the same words were asked of whole images, and answered no
    assert question_baselines([], test) == {}


def test_two_systems_are_compared_on_every_accuracy() -> None:
    many = [question(f"{letter}{n}", "yes") for letter in "abcdefgh" for n in range(3)]
    first = measure_questions("before", many, {row.id: "no" for row in many}, resamples=100)
    second = measure_questions("after", many, {row.id: "yes" for row in many}, resamples=100)
    names = headline(metric.name for metric in second.metrics)
    rows = {row.name: row for row in compare(first, second, metrics=names, resamples=300)}
    assert rows["vqa_accuracy_all"].difference == 1.0
    assert rows["vqa_accuracy_all"].p < 0.05
    assert rows["vqa_accuracy_kind=presence"].n == 24
    assert "vqa_accuracy_open" not in rows


def test_tables_name_every_metric() -> None:
    found = measure_questions("m", QUESTIONS, ANSWERS, resamples=100)
    table = markdown_table(found.metrics)
    assert "Accuracy, closed" in table
    assert "| Accuracy, location |" in table
    content = metrics_json(found.metrics, [])
    assert all(content["rules"][metric.name] for metric in found.metrics)
    assert definition("vqa_accuracy_kind=view").title == "Accuracy, view"
    with pytest.raises(KeyError):
        definition("vqa_accuracy_nonsense")


def test_the_judge_of_answers() -> None:
    judge = JUDGES["answer"]()
    cases = [
        Case("1", "q", "No.", "The lungs are abnormal.", "no", True),
        Case("2", "q", "No.", "No, none.", "no", True),
        Case("3", "q", "A report.", "Another report."),
        Case("4", "q", "No.", " ", "no", True),
    ]
    assert [row.score for row in judge(cases)] == [0.0, 1.0, None, None]
    assert "lc-answer" not in JUDGES
    reward = reward_function(judge)
    said = ["Yes.", "No."]
    assert reward(["", ""], said, reference=["No.", "No."], answer=["no", "no"], closed=[True, True]) == [0.0, 1.0]
