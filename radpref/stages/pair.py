"""The pair stage: candidates ranked into preferences."""

from __future__ import annotations

from radpref.records import Completion, Judgement, Pair
from radpref.runfolder import Run, RunError
from radpref.stages.common import questions_of
from radpref.store import content_key


def pair(run: Run, limit: int | None = None) -> str:
    """Rank each question's candidates into a pair of best and worst."""
    from radpref.pairs import rank, statistics

    section = run.recipe.pair
    if limit is not None:
        section = section.model_copy(update={"limit": limit})
    questions = questions_of(run, "train")
    ranked = rank(
        questions, run.rows("sample", "completions", Completion), run.rows("judge", "judgements", Judgement), section
    )
    run.table("pair", "pairs", Pair).write(ranked.pairs)
    facts = {"dropped": ranked.dropped, "unscored": ranked.unscored, "statistics": statistics(ranked.pairs)}
    run.write_json(facts, "pair", "statistics.json")
    if not ranked.pairs:
        raise RunError(
            f"no question gave a pair: {ranked.dropped or 'there are no candidates'}, unscored: {ranked.unscored}. "
            "Sample more candidates (sample.n), raise sample.temperature, or lower pair.margin."
        )
    run.finish("pair", content_key(section), pairs=len(ranked.pairs), dropped=ranked.dropped)
    lost = ", ".join(f"{reason} {n}" for reason, n in ranked.dropped.items())
    return f"{len(ranked.pairs)} pairs from {len(questions)} questions" + (f" ({lost})" if lost else "")
