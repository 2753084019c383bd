"""Tables of answers: sampled or greedy, of any model, computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from radpref.config import ModelSection, SampleSection
from radpref.files import content_key
from radpref.records import Completion, Quarantined, Question
from radpref.run.folder import Run, progress
from radpref.stages.common import batched, load, question_key, reasons


def answer(
    run: Run,
    stage: str,
    name: str,
    model: Callable[[], Any],
    questions: Sequence[Question],
    key: str,
    section: SampleSection,
    limit: int | None = None,
    *,
    greedy: bool = False,
    scores: bool = False,
) -> tuple[list[Completion] | None, str]:
    """Fill a table of completions, generating only what is missing or depends on something that changed.

    Work is done in whole batches whose members follow from the list of questions alone: rounding in a batch depends
    on its other rows, and so a resumed run meets the same batches as one that was never stopped. Rows are None when
    ``limit`` (rounded up to whole batches) left some undone.
    """
    from radpref.models import generate

    n = 1 if greedy else section.n
    table = run.table(stage, name, Completion)
    failed = run.table(stage, f"{name}-quarantined", Quarantined)
    keys = {question.id: content_key(key, question_key(question)) for question in questions}

    def complete(question: Question) -> bool:
        row_key = keys[question.id]
        if failed.get(question.id, row_key):
            return True
        return all(table.get(f"{question.id}/{index}", row_key) for index in range(n))

    batches = list(batched(questions, section.batch))
    todo = [batch for batch in batches if not all(map(complete, batch))]
    now = todo if limit is None else todo[: -(-limit // section.batch)]
    tokens, began = 0, time.monotonic()
    if now:
        bar = progress(total=len(questions), done=len(questions) - sum(map(len, todo)), unit="studies", what=name)
        results = generate(
            model(),
            [question for batch in now for question in batch],
            n=n,
            temperature=None if greedy else section.temperature,
            top_p=1.0 if greedy else section.top_p,
            max_new_tokens=section.max_new_tokens,
            batch=section.batch,
            seed=run.recipe.run.seed,
            scores=scores,
        )
        for group in batched(results, section.batch):
            good = [(keys[q.id], row) for q, rows in group if not isinstance(rows, Quarantined) for row in rows]
            table.append(good)
            failed.append((keys[q.id], rows) for q, rows in group if isinstance(rows, Quarantined))
            tokens += sum(row.tokens for _, row in good)
            bar.update(len(group))
        bar.close()
    rate = f", {tokens / max(time.monotonic() - began, 1e-9):.0f} tokens/s" if now else ""
    if len(now) < len(todo):
        left = sum(map(len, todo)) - sum(map(len, now))
        return None, f"{len(questions) - left} of {len(questions)} studies (--limit){rate}"
    rows = table.finish(f"{question.id}/{index}" for question in questions for index in range(n))
    failures = failed.finish(question.id for question in questions if failed.get(question.id, keys[question.id]))
    cut = sum(not row.finished for row in rows)
    quarantined = f", {len(failures)} quarantined{reasons(failures)}" if failures else ""
    return rows, f"{len(rows)} answers for {len(questions)} studies, {cut} cut{quarantined}{rate}"


def greedy(
    run: Run, stage: str, name: str, model: ModelSection, fingerprint: str, questions: Sequence[Question], batch: int
) -> dict[str, str]:
    """Greedy answers by question id; an answer that could not be made is an empty text, which scores as one."""
    section = run.recipe.sample.model_copy(update={"batch": batch})
    key = content_key("greedy", section.max_new_tokens, fingerprint)
    rows, _ = answer(run, stage, f"answers-{name}", lambda: load(run, model), questions, key, section, greedy=True)
    texts = {row.question: row.text for row in rows or []}
    return {question.id: texts.get(question.id, "") for question in questions}
