"""The pair stage: candidates ranked into preferences."""

from __future__ import annotations

from radpref.records import Completion, Judgement, Pair
from radpref.run.folder import Run, RunError
from radpref.stages.common import questions_of


def pair(run: Run, limit: int | None = None) -> str:
    """Rank each question's candidates into a pair of best and worst."""
    from radpref.pairs import rank, statistics

    section = run.recipe.pair
    if limit is not None:
        section = section.model_copy(update={"limit": min(limit, section.limit or limit)})
    questions = questions_of(run, "train")
    run.begin("pair")
    ranked = rank(
        questions, run.rows("sample", "completions", Completion), run.rows("judge", "judgements", Judgement), section
    )
    run.table("pair", "pairs", Pair).write(ranked.pairs)
    facts = {"dropped": ranked.dropped, "unscored": ranked.unscored, "statistics": statistics(ranked.pairs)}
    run.write_json(facts, "pair", "statistics.json")
    lost = ", ".join(f"{reason} {n}" for reason, n in ranked.dropped.items())
    if not ranked.pairs:
        unscored = ", ".join(f"{reason} {n}" for reason, n in ranked.unscored.items())
        raise RunError(
            f"no question gave a pair: {lost or 'there are no candidates'}; unscored candidates: "
            f"{unscored or 'none'}. Sample more candidates (sample.n), raise sample.temperature, lower pair.margin, "
            "or, where candidates are cut, raise sample.max_new_tokens."
        )
    run.finish("pair", run.digest("pair", "pairs"), pairs=len(ranked.pairs), dropped=ranked.dropped)
    return f"{len(ranked.pairs)} pairs from {len(questions)} questions" + (f" ({lost})" if lost else "")
