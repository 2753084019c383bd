"""The judge stage: every candidate against its reference."""

from __future__ import annotations

from collections import Counter

from radpref.records import Completion
from radpref.run.folder import Run
from radpref.stages.common import questions_of
from radpref.stages.judgements import judge_rows, judge_section


def judge(run: Run, limit: int | None = None) -> str:
    """Judge every candidate against the reference of its question."""
    completions = run.rows("sample", "completions", Completion)
    run.begin("judge")
    rows, line = judge_rows(
        run, "judge", "judgements", judge_section(run), questions_of(run, "train"), completions, limit
    )
    if rows is not None:
        unscored = Counter(row.unscored for row in rows if row.unscored)
        run.finish("judge", run.digest("judge", "judgements"), judgements=len(rows), unscored=dict(unscored))
    return line
