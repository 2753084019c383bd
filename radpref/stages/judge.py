"""The judge stage: every candidate against its reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from radpref.config import JudgeSection, Recipe
from radpref.records import Candidate, Completion, Judgement, Question
from radpref.rooms import judges
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.table import Merged
from radpref.stages.identities import JUDGE
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, TRAIN

BATCH = 256
"""Candidates that are judged between two writes of the table."""


def candidates(questions: Iterable[Question], completions: Iterable[Completion]) -> Iterator[Candidate]:
    """Every answer with its question. Both come in the order of the questions; a question may have no answer."""
    coming = iter(completions)
    row = next(coming, None)
    for question in questions:
        while row is not None and row.question == question.id:
            yield Candidate(id=row.id, question=question, completion=row)
            row = next(coming, None)


def section_of(context: Context, name: str | None = None) -> JudgeSection:
    """The recipe's judge, or another one with its settings; answers of a server are kept in the stage's folder."""
    section = context.config.judge
    cache = section.cache or str(context.folder / "answers")
    return section.model_copy(update={"name": name or section.name, "cache": cache})


def scored(context: Context, name: str, rows: Iterable[Candidate]) -> list[Judgement]:
    """What a judge says of some candidates."""
    section = section_of(context, name)
    cases = [
        judges.Case(
            id=row.id,
            question=row.question.id,
            reference=row.question.reference,
            candidate=row.completion.text,
            answer=row.question.answer,
            closed=row.question.closed,
            prompt=row.question.prompt,
        )
        for row in rows
        if row.completion is not None
    ]
    return list(judges.JUDGES[section.name](section)(cases))


def _judged(batch: Sequence[Candidate], context: Context) -> list[list[Judgement]]:
    return [[row] for row in scored(context, context.config.judge.name, batch)]


def told(row: Candidate) -> list[object]:
    """What a judge is told of a candidate."""
    question, text = row.question, row.completion.text if row.completion is not None else ""
    asked = question.prompt if question.answer else ""  # of a report nobody asks
    return [question.reference, question.answer, question.closed, asked, text]


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
    help="Judge every candidate against its reference.",
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
        alone=True,
    ),
    reads=(TRAIN, COMPLETIONS),
    writes=(JUDGEMENTS,),
    identities=(JUDGE,),
    rooms=("judges", "findings"),
    check=check_judge,
)
