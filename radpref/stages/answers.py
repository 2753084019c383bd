"""The stages in which a model answers: sample and answer on the training questions, validate, and predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from radpref.records import Completion, Posed, Quarantined, Question, System, Weights
from radpref.rooms import models
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.table import Merged
from radpref.stages.identities import BASE, COMPUTES, DEVICE, shown
from radpref.stages.ports import (
    AFTER,
    BEFORE,
    CHECKPOINTS,
    CHOICE,
    COMPLETIONS,
    CONTROL,
    CONTROLS,
    MODEL,
    PREDICTED,
    TEST,
    TRAIN,
    TWINS,
    VALIDATED,
    VALIDATION,
)
from radpref.stages.sft import base

Answers = Sequence[Completion] | Quarantined


def _sampled(batch: Sequence[Question], context: Context) -> Iterator[Answers]:
    section = context.config.sample
    return (
        answers
        for _, answers in models.generate(
            context.load(context.fact(MODEL)),
            batch,
            n=section.n,
            temperature=section.temperature,
            top_p=section.top_p,
            max_new_tokens=section.max_new_tokens,
            batch=len(batch),
            seed=context.config.run.seed,
        )
    )


def _greedy(context: Context, weights: Weights, questions: Sequence[Question], scores: bool = False) -> list[Answers]:
    """Greedy answers to a batch of questions."""
    return [
        answers
        for _, answers in models.generate(
            context.load(weights),
            questions,
            max_new_tokens=context.config.sample.max_new_tokens,
            batch=len(questions),
            seed=0,  # nothing is drawn
            scores=scores,
        )
    ]


def _train(context: Context) -> Iterator[Question]:
    return iter(context.read(TRAIN))


def _answered(context: Context, merged: Merged) -> Outcome:
    cut = sum(not row.finished for row in context.own(COMPLETIONS))
    return Outcome(f"{merged.rows} answers for {merged.items} studies, {cut} cut")


SAMPLE = Stage(
    name="sample",
    help="Sample candidate reports from the fine-tuned model.",
    work=Rows(
        make=_sampled,
        item=Question,
        items=_train,
        total=lambda context: len(context.read(TRAIN)),
        into=COMPLETIONS,
        content=shown,
        batch=lambda recipe: recipe.sample.batch,
        close=_answered,
    ),
    reads=(TRAIN, MODEL),
    writes=(COMPLETIONS,),
    config=("sample", "run.seed", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models",),
)

ANSWER = Stage(
    name="answer",
    help="The fine-tuned model's own greedy answers to the training questions.",
    work=Rows(
        make=lambda batch, context: _greedy(context, context.fact(MODEL), batch, scores=True),
        item=Question,
        items=_train,
        total=lambda context: len(context.read(TRAIN)),
        into=COMPLETIONS,
        content=shown,
        batch=lambda recipe: recipe.evaluate.batch,
        close=_answered,
    ),
    reads=(TRAIN, MODEL),
    writes=(COMPLETIONS,),
    config=("sample.max_new_tokens", "evaluate.batch", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models",),
)


# ------------------------------------------------------------------------------------------ several systems


def answer_posed(batch: Sequence[Posed], context: Context) -> Iterator[Answers]:
    """Greedy answers of the systems that a batch's questions are put to."""
    for _, group in groupby(batch, key=lambda one: one.system.id):
        posed = list(group)
        for one, answers in zip(
            posed, _greedy(context, posed[0].system.weights, [p.question for p in posed]), strict=True
        ):
            if isinstance(answers, Quarantined):
                yield answers.model_copy(update={"id": one.id})
            else:
                yield [
                    row.model_copy(update={"id": f"{one.system.id}:{row.id}", "system": one.system.id})
                    for row in answers
                ]


def _content(one: Posed) -> list[object]:
    return [one.system.weights.fingerprint, shown(one.question)]


def posed(systems: Sequence[System], questions: Iterable[Question]) -> Iterator[Posed]:
    """Every question put to every system, one system after the other."""
    rows = list(questions)
    for system in systems:
        for question in rows:
            yield Posed(id=f"{system.id}:{question.id}", system=system, question=question)


def validated_systems(context: Context) -> list[System]:
    """The model before alignment, its checkpoints that may be chosen, and the controls."""
    checkpoints = context.fact(CHECKPOINTS).rows
    if not context.config.select.checkpoints:
        checkpoints = tuple({row.beta: row for row in checkpoints}.values())  # the last of each beta
    controls = context.fact(CONTROLS).rows if context.has(CONTROLS) else ()
    return [System(id=BEFORE, weights=context.fact(MODEL)), *checkpoints, *controls]


VALIDATE = Stage(
    name="validate",
    help="Greedy answers of every checkpoint to the validation questions.",
    work=Rows(
        make=answer_posed,
        item=Posed,
        items=lambda context: posed(validated_systems(context), context.read(VALIDATION)),
        total=lambda context: len(validated_systems(context)) * len(context.read(VALIDATION)),
        into=VALIDATED,
        content=_content,
        batch=lambda recipe: recipe.evaluate.batch,
        close=lambda context, merged: Outcome(f"{merged.rows} answers of {len(validated_systems(context))} models"),
        unit="answers",
    ),
    reads=(VALIDATION, MODEL, CHECKPOINTS),
    may_read=(CONTROLS,),
    writes=(VALIDATED,),
    config=("sample.max_new_tokens", "evaluate.batch", "select.checkpoints", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models",),
)


def measured_systems(context: Context) -> list[System]:
    """The models that are measured: base, sft, aligned, the control."""
    choice = context.fact(CHOICE)
    named = {BEFORE: context.fact(MODEL), AFTER: choice.chosen.weights}
    if choice.control is not None:
        named[CONTROL] = choice.control.weights
    given = base(context.config)
    if given.fingerprint != named[BEFORE].fingerprint:
        named = {"base": given, **named}
    return [System(id=name, weights=weights) for name, weights in named.items()]


def _asked(context: Context) -> list[Question]:
    return [*context.read(TEST), *context.read(TWINS)]


PREDICT = Stage(
    name="predict",
    help="Greedy answers of every measured system to the test questions.",
    work=Rows(
        make=answer_posed,
        item=Posed,
        items=lambda context: posed(measured_systems(context), _asked(context)),
        total=lambda context: len(measured_systems(context)) * len(_asked(context)),
        into=PREDICTED,
        content=_content,
        batch=lambda recipe: recipe.evaluate.batch,
        close=lambda context, merged: Outcome(f"{merged.rows} answers of {len(measured_systems(context))} systems"),
        unit="answers",
    ),
    reads=(TEST, TWINS, MODEL, CHOICE),
    writes=(PREDICTED,),
    config=("sample.max_new_tokens", "evaluate.batch", *COMPUTES),
    identities=(BASE, DEVICE),
    rooms=("models",),
)


def texts_of(rows: Iterator[Completion], questions: Sequence[Question], system: str) -> dict[str, str]:
    """A system's answers by question id; one that could not be made is an empty text, which scores as one."""
    said = {row.question: row.text for row in rows if row.system == system}
    return {question.id: said.get(question.id, "") for question in questions}
