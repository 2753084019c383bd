"""The stages that pair the model's own words or the references: answer, and pair of FiRe-MPO and of CheXPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radpref.config import EditSection
from radpref.files import content_key
from radpref.records import Completion, MinedQuestion, Pair, Quarantined
from radpref.run.folder import Run, RunError
from radpref.stages.answers import answer
from radpref.stages.common import fine_tuned, load, questions_of

if TYPE_CHECKING:
    from radpref.pairs import Built


def own_answers(run: Run, limit: int | None = None) -> str:
    """The fine-tuned model's own greedy answer to every training question."""
    model, fingerprint = fine_tuned(run)
    section = run.recipe.sample.model_copy(update={"batch": run.recipe.evaluate.batch})
    key = content_key("own answers", section.max_new_tokens, fingerprint)
    questions = questions_of(run, "train")
    run.begin("answer")
    rows, line = answer(
        run, "answer", "completions", lambda: load(run, model), questions, key, section, limit, greedy=True
    )
    if rows is not None:
        run.finish("answer", run.digest("answer", "completions"), completions=len(rows))
    return line


def edited_pairs(run: Run, limit: int | None = None) -> str:
    """The model's own answers, edited where they are wrong, or made minimally wrong where they are right (FiRe-MPO).

    ``limit`` edits so many questions and stops.
    """
    from radpref.pairs import EDITORS, edit_pairs

    questions = questions_of(run, "train")[:limit]
    section = _edit_section(run)
    run.begin("pair")
    answers = run.rows("answer", "completions", Completion)
    built = edit_pairs(questions, answers, EDITORS[section.editor](section), section)
    return _finish(run, built, len(questions), limit)


def counterfactual_pairs(run: Run, limit: int | None = None) -> str:
    """The reference answers of the mined questions against themselves with one attribute flipped (CheXPO).

    With ``pair.rejected: sampled`` the rejected side is the model's own wrong answer instead. ``limit`` takes so many
    questions and stops.
    """
    from radpref.pairs import EDITORS, against_own, counterfactuals
    from radpref.pairs.counterfactual import single

    section = _edit_section(run)
    mined = {row.id for row in run.rows("mine", "mined", MinedQuestion)}
    questions = [question for question in questions_of(run, "train") if question.id in mined][:limit]
    run.begin("pair")
    if run.recipe.pair.rejected == "sampled":
        built = against_own(questions, run.rows("mine", "answers", Completion))
    else:
        built = counterfactuals(questions, EDITORS[section.editor](single(section)), section)
    return _finish(run, built, len(questions), limit)


def _edit_section(run: Run) -> EditSection:
    """The section with a chat editor's cache in the run folder."""
    section = run.recipe.edit
    return section.model_copy(update={"cache": section.cache or str(run.path("pair", "answers"))})


def _finish(run: Run, built: Built, asked: int, limit: int | None) -> str:
    """Write the pairs, with what became of the other questions."""
    from radpref.pairs import statistics

    lost = ", ".join(f"{reason} {n}" for reason, n in sorted(built.dropped.items(), key=lambda item: -item[1]))
    pairs = built.pairs[: run.recipe.pair.limit]
    if not pairs:
        raise RunError(f"no question of {asked} gave a pair: {lost or 'there are no questions'}.")
    run.table("pair", "pairs", Pair).write(pairs)
    failed = [Quarantined(id=one.id, stage="pair", reason=one.failed) for one in built.edits if one.failed]
    run.table("pair", "dropped", Quarantined).write(failed)
    facts = {"dropped": built.dropped, "unscored": {}, "statistics": statistics(pairs)}
    run.write_json(facts, "pair", "statistics.json")
    line = f"{len(pairs)} pairs from {asked} questions" + (f" ({lost})" if lost else "")
    if limit is None:
        run.finish("pair", run.digest("pair", "pairs"), pairs=len(pairs), dropped=built.dropped)
    return line if limit is None else f"{line} (--limit)"
