"""Tables of judgements, and a model's scores on the validation studies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from radpref.config import JudgeSection, ModelSection
from radpref.files import content_key
from radpref.records import Completion, Judgement, Question
from radpref.run.folder import Run, progress
from radpref.stages.answers import greedy
from radpref.stages.common import batched, questions_of


def judge_rows(
    run: Run,
    stage: str,
    name: str,
    section: JudgeSection,
    questions: Sequence[Question],
    completions: Sequence[Completion],
    limit: int | None = None,
) -> tuple[list[Judgement] | None, str]:
    """Fill a table of judgements; None instead of rows when ``limit`` left some undone.

    What failed for a reason that may be gone (a server that was busy or away) is asked again.
    """
    from radpref.judges import JUDGES, transient, version

    judging = JUDGES[section.name](section)
    rules = version(section.name, section)
    asked = {question.id: question for question in questions}
    table = run.table(stage, name, Judgement)
    keys = {
        row.id: content_key("judge", rules, section.name, *_told(asked[row.question]), row.text) for row in completions
    }
    known = {row.id: table.get(row.id, keys[row.id]) for row in completions}
    todo = [row for row in completions if not (before := known[row.id]) or transient(before)]
    now = todo[:limit]
    began = time.monotonic()
    bar = progress(total=len(completions), done=len(completions) - len(todo), unit="reports", what=name)
    for chunk in batched(now, 256):
        cases = [_case(row.id, asked[row.question], row.text) for row in chunk]
        judged = judging(cases)
        table.append((keys[row.id], row) for row in judged)
        bar.update(len(chunk))
    bar.close()
    rate = f", {len(now) / max(time.monotonic() - began, 1e-9):.0f} a second" if now else ""
    if len(now) < len(todo):
        return None, f"{len(completions) - len(todo) + len(now)} of {len(completions)} judged (--limit){rate}"
    rows = table.finish(row.id for row in completions)
    scores = [row.score for row in rows if row.score is not None]
    mean = f"mean {sum(scores) / len(scores):.3f}" if scores else "no score"
    return rows, f"{len(scores)} scored, {mean}; {len(rows) - len(scores)} unscored{rate}"


def validation_scores(
    run: Run, stage: str, name: str, model: ModelSection, fingerprint: str
) -> dict[str, float | None]:
    """Mean scores of greedy answers on the validation studies, by judge, with the mean number of words.

    Judges that need nothing but the texts are always there, and the one that selects.
    """
    from radpref.judges import FREE, JUDGES

    questions = questions_of(run, "validation")
    answers = greedy(run, stage, name, model, fingerprint, questions, run.recipe.evaluate.batch)
    cases = [_case(q.id, q, answers[q.id]) for q in questions]
    scores: dict[str, float | None] = {}
    for judge_name in dict.fromkeys((*FREE, run.recipe.select.by)):
        judge = JUDGES[judge_name](judge_section(run, judge_name))
        found = [row.score for row in judge(cases) if row.score is not None]
        scores[judge_name] = sum(found) / len(found) if found else None
    scores["words"] = sum(len(text.split()) for text in answers.values()) / len(answers)
    return scores


def _told(question: Question) -> list[Any]:
    """What a judge is told of a question besides the candidate."""
    return [question.reference, question.answer, question.closed] if question.answer else [question.reference]


def _case(identifier: str, question: Question, text: str) -> Any:
    from radpref.judges import Case

    return Case(identifier, question.id, question.reference, text, question.answer, question.closed)


def judge_section(run: Run, name: str | None = None) -> JudgeSection:
    """The recipe's judge, or another one with its settings; answers of a server are kept in the run folder."""
    section = run.recipe.judge
    return section.model_copy(
        update={"name": name or section.name, "cache": section.cache or str(run.path("judge", "answers"))}
    )


def rank_of(score: float | None) -> float:
    return -1.0 if score is None else score
