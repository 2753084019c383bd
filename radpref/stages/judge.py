"""The judge stage: every candidate against its reference, or against the labels of its study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from radpref.config import JudgeSection, Recipe
from radpref.records import Candidate, Judgement
from radpref.rooms import judges
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.streams import candidates
from radpref.runs.table import Merged
from radpref.stages.identities import JUDGE
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, TRAIN

BATCH = 256
"""Candidates that are judged between two writes of the table."""


def section_of(context: Context, name: str | None = None) -> JudgeSection:
    """The recipe's judge, or another one with its settings."""
    section = context.cached(context.config.judge)
    return section.model_copy(update={"name": name or section.name})


def scored(context: Context, name: str, cases: Sequence[judges.Case]) -> Sequence[Judgement]:
    """What a judge says of some answers; what has labels and no reference is judged by those."""
    return judges.judging(section_of(context, name))(cases)


def _judged(batch: Sequence[Candidate], context: Context) -> list[list[Judgement]]:
    answered = [(row, row.completion.text) for row in batch if row.completion is not None]
    cases = [judges.Case.of(row.question, text, row.id) for row, text in answered]
    return [[row] for row in scored(context, context.config.judge.name, cases)]


def told(row: Candidate) -> list[object]:
    """What a judge is told of a candidate."""
    question, text = row.question, row.completion.text if row.completion is not None else ""
    asked = question.prompt if question.answer else ""  # of a report nobody asks
    labels = [] if question.reference else [label.model_dump() for label in question.labels]
    return [question.reference, question.answer, question.closed, asked, text, labels]


def _close(context: Context, merged: Merged) -> Outcome:
    unscored: Counter[str] = Counter()
    total, n = 0.0, 0
    for row in context.own(JUDGEMENTS):
        if row.score is None:
            unscored[str(row.unscored)] += 1
        else:
            total, n = total + row.score, n + 1
    mean = f"mean {total / n:.3f}" if n else "no score"
    return Outcome(f"{n} scored, {mean}; {unscored.total()} unscored", counts={"unscored": dict(unscored)})


def check_judge(recipe: Recipe) -> None:
    """Whether the judge could begin now: its server answers, its package is there."""
    judges.check(recipe.judge.name, recipe.judge)


STAGE = Stage(
    name="judge",
    help="Judge every candidate against its reference, or the labels of its study.",
    work=Rows(
        make=_judged,
        item=Candidate,
        items=lambda context: candidates(context.read(TRAIN), context.read(COMPLETIONS)),
        total=lambda context: len(context.read(COMPLETIONS)),
        into=JUDGEMENTS,
        content=told,
        batch=lambda recipe: BATCH,
        close=_close,
        unit="candidates",
        again=judges.transient,
        alone=lambda recipe: True,
    ),
    reads=(TRAIN, COMPLETIONS),
    writes=(JUDGEMENTS,),
    identities=(JUDGE,),
    rooms=("judges", "findings"),
    check=check_judge,
)
