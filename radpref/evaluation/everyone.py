"""All systems of a run and the trivial baselines, measured alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from radpref.config.schema import NormalsRule
from radpref.evaluation.baselines import Answers, baselines
from radpref.evaluation.measure import Measured, by_label, error_totals, measure
from radpref.evaluation.vqa import measure_questions, question_baselines
from radpref.records import Question

Kind = Literal["report", "questions"]


def measure_all(
    kind: Kind,
    said: Mapping[str, Answers],
    train: Iterable[Question],
    questions: Sequence[Question],
    twins: Sequence[Question] = (),
    *,
    resamples: int,
    seed: int,
    normals: NormalsRule = "weigh",
) -> dict[str, Measured]:
    """Every system, and what trivial answers reach, as reports or as answers to questions.

    Args:
        said: system to its answers by question id; of ``questions``, and of ``twins`` where questions are asked.
        train: what baselines know; gone through more than once.
        normals: of reports, as the recipe's ``judge.normals``.
    """
    if kind == "report":
        own = {name: {question.id: texts[question.id] for question in questions} for name, texts in said.items()}
        return {
            name: measure(name, questions, answers, resamples=resamples, seed=seed, normals=normals)
            for name, answers in (own | baselines(train, questions, seed)).items()
        }
    measured = {
        name: measure_questions(name, questions, texts, controls=twins, resamples=resamples, seed=seed)
        for name, texts in said.items()
    }
    return measured | {
        name: measure_questions(name, questions, answers, resamples=resamples, seed=seed)
        for name, answers in question_baselines(train, questions).items()
    }


def details(measured: Measured) -> dict[str, object]:
    """What the report shows of a system beside its metrics: errors by kind, unscored answers, CheXpert classes."""
    labels = [asdict(label) for label in by_label(measured)]
    return {"errors": error_totals(measured), "unscored": measured.unscored(), "labels": labels}
