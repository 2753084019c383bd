"""The sample stage: candidate reports."""

from __future__ import annotations

from radpref.files import content_key
from radpref.run.folder import Run
from radpref.stages.answers import answer
from radpref.stages.common import fine_tuned, load, questions_of


def sample(run: Run, limit: int | None = None) -> str:
    """N candidates for every training question, from the fine-tuned model."""
    section = run.recipe.sample
    model, fingerprint = fine_tuned(run)
    key = content_key("sample", section, fingerprint, run.recipe.run.seed)
    questions = questions_of(run, "train")
    run.begin("sample")
    rows, line = answer(run, "sample", "completions", lambda: load(run, model), questions, key, section, limit)
    if rows is not None:
        run.finish("sample", run.digest("sample", "completions"), completions=len(rows))
    return line
