"""Which answers are right, and how sure the model was of each."""

from __future__ import annotations

from collections.abc import Iterable

from radpref.config import MineSection
from radpref.mining.confidence import answer_span, confidence, correct_reports
from radpref.records import Candidate, Judgement
from radpref.tasks import matches


def verdicts(
    answered: Iterable[Candidate], judgements: Iterable[Judgement], section: MineSection
) -> tuple[dict[str, bool], dict[str, float]]:
    """Question id to whether its answer is right, and to its confidence in [0, 1]; without those that cannot be told.

    Questions are right where their answers match, reports by what the judge says of them (``section.report_wrong``).
    """
    correct: dict[str, bool] = {}
    confidences: dict[str, float] = {}
    reports: set[str] = set()
    for row in answered:
        question, answer = row.question, row.completion
        assert answer is not None
        if question.task == "report":
            reports.add(question.id)
        elif question.answer:
            correct[question.id] = matches(answer.text, question.answer, question.closed, question.prompt)
        if (sure := _confidence(row, section)) is not None:
            confidences[question.id] = sure
    if reports:
        rows = (row for row in judgements if row.question in reports)
        correct |= correct_reports(rows, section.report_wrong, section.report_quantile)
    return correct, confidences


def _confidence(row: Candidate, section: MineSection) -> float | None:
    answer, question = row.completion, row.question
    if answer is None or answer.scores is None:
        return None
    over = None
    if section.tokens == "answer" and question.task != "report":
        over = answer_span(answer.text, question.answer)
    return confidence(answer.scores, section.confidence, over)
