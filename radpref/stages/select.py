"""The select stage: which checkpoint and beta, and which control."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.config import Recipe
from radpref.records import Choice, System
from radpref.rooms import judges
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Stage, Whole
from radpref.stages.answers import texts_of, validated_systems
from radpref.stages.identities import FREE_JUDGES, SELECTING_JUDGE
from radpref.stages.judge import scored
from radpref.stages.ports import (
    CHECKPOINTS,
    CHOICE,
    CONTROLS,
    INTERPOLATED,
    MODEL,
    TUNED,
    VALIDATED,
    VALIDATION,
    before,
)


def _select(context: Context) -> Outcome:
    """Choose among checkpoints, betas and controls by a judge's mean on the validation studies (greedy answers)."""
    by = context.config.select.by
    start, *models = [_with_scores(context, system) for system in validated_systems(context)]
    controls = tuple(system for system in models if system.beta is None and system.lr is not None)
    tried = tuple(system for system in models if system not in controls)

    def best(rows: Sequence[System]) -> System:
        return max(rows, key=lambda row: -1.0 if (score := row.scores[by]) is None else score)

    chosen = best(tried)
    control = best(controls) if controls else None
    choice = Choice(by=by, before=start, tried=tried, chosen=chosen, controls=controls, control=control)
    other = f"; control {control.id}, {shown(control.scores[by])}" if control else ""
    return Outcome(
        f"{chosen.id} of {len(tried)}, {by} {shown(chosen.scores[by])} ({shown(start.scores[by])} before) on "
        f"validation{other}",
        {"choice": choice},
    )


def _with_scores(context: Context, system: System) -> System:
    """Mean scores of a model's answers to the validation questions, by judge, with the mean number of words.

    Judges that need nothing but the texts are always there, and the one that selects.
    """
    questions = context.once("questions", lambda: list(context.read(VALIDATION)))
    answers = texts_of(iter(context.read(VALIDATED)), questions, system.id)
    cases = [judges.Case.of(question, answers[question.id]) for question in questions]
    scores: dict[str, float | None] = {}
    for name in dict.fromkeys((*judges.FREE, context.config.select.by)):
        found = [row.score for row in scored(context, name, cases) if row.score is not None]
        scores[name] = sum(found) / len(found) if found else None
    scores["words"] = sum(len(text.split()) for text in answers.values()) / len(answers)
    return system.model_copy(update={"scores": scores})


def shown(score: float | None) -> str:
    return "unscored" if score is None else f"{score:.3f}"


def _check(recipe: Recipe) -> None:
    judges.check(recipe.select.by, recipe.judge)


STAGE = Stage(
    name="select",
    help="Choose the checkpoint and beta on the validation studies.",
    work=Whole(_select),
    reads=(VALIDATION, VALIDATED, TUNED, CHECKPOINTS),
    may_read=(CONTROLS, INTERPOLATED),
    writes=(CHOICE,),
    config=("select.checkpoints",),
    identities=(SELECTING_JUDGE, FREE_JUDGES),
    rooms=("judges", "findings"),
    check=_check,
)


def _last(context: Context) -> Outcome:
    """The last checkpoint, where there are no studies to choose on (``data.source: none``)."""
    rows, model = context.fact(CHECKPOINTS).rows, context.fact(MODEL)
    choice = Choice(by="", before=System(id=before(model), weights=model), tried=rows, chosen=rows[-1])
    return Outcome(f"{rows[-1].id}, the last one: there are no studies to choose on", {"choice": choice})


LAST = Stage(
    name="select",
    help="Take the last checkpoint.",
    work=Whole(_last),
    reads=(MODEL, CHECKPOINTS),
    writes=(CHOICE,),
)
