"""The stages in which a model answers: sample and answer on the training questions, validate, and predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from radpref.chat_client import TRANSIENT, ClientError
from radpref.config import Recipe
from radpref.records import Completion, Posed, Quarantined, Question, Record, System, Weights
from radpref.rooms import judges, models
from radpref.runs.context import Context, section_of
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Rows, Stage, TableOf
from radpref.runs.streams import asked
from radpref.runs.table import Merged
from radpref.stages import ports
from radpref.stages.identities import ASKED, BASE, COMPUTES, DEVICE, DRAWING, MEASURED_BY, SAMPLED_BY, shown
from radpref.stages.ports import (
    CHECKPOINTS,
    CHOICE,
    COMPLETIONS,
    CONTROLS,
    INTERPOLATED,
    MODEL,
    ROUNDS,
    TEST,
    TRAIN,
    TUNED,
    TWINS,
    VALIDATION,
)
from radpref.stages.sft import base

Answers = Sequence[Completion] | Quarantined


def _served(context: Context, weights: Weights, key: str, addresses: str, temperature: float | None) -> models.Served:
    """The server that answers for weights, which it has been seen to serve; the terminal says how."""

    def reached() -> models.Served:
        try:
            return models.reach(
                addresses, key, context.config.serve, section_of(weights), context.folder, temperature=temperature
            )
        except ClientError as error:
            name = models.served_name(weights.fingerprint)
            raise RunError(
                f"{error}\nThe model that has to answer is {weights.adapter or weights.path}, which `radpref "
                f"serve-command` of this run tells how to start, as {name}. The same command then goes on."
            ) from error

    return context.once(f"served {weights.fingerprint}", lambda: _noted(context, reached()))


def _noted(context: Context, served: models.Served) -> models.Served:
    context.note(served.told)
    return served


def _said(
    context: Context, weights: Weights, questions: Sequence[Question], by: Server, *, seed: int, n: int = 1,
    temperature: float | None = None, top_p: float = 1.0, scores: bool = False,
) -> Iterator[Answers]:  # fmt: skip
    """The answers of weights to some questions, by a server where there is one; numbers as of `models.generate`."""
    tokens = context.config.sample.max_new_tokens
    if by.addresses:
        served = _served(context, weights, by.key, by.addresses, temperature)
        return served.answers(
            questions, n=n, temperature=temperature, top_p=top_p, max_new_tokens=tokens, seed=seed, scores=scores
        )
    vlm, batch = context.load(weights), len(questions)
    found = models.generate(
        vlm, questions, n=n, temperature=temperature, top_p=top_p, max_new_tokens=tokens, batch=batch, seed=seed,
        scores=scores,
    )  # fmt: skip
    return (answers for _, answers in found)


def drawn(batch: Sequence[Question], context: Context, n: int) -> Iterator[Answers]:
    """``n`` answers of the fine-tuned model to each question of a batch, drawn as the recipe's sample section says."""
    recipe, section = context.config, context.config.sample
    return _said(
        context, context.fact(MODEL), batch, sampler(recipe), seed=recipe.run.seed, n=n,
        temperature=section.temperature, top_p=section.top_p,
    )  # fmt: skip


def greedy(
    context: Context, weights: Weights, questions: Sequence[Question], *, by: Server, scores: bool = False
) -> Iterator[Answers]:
    """Greedy answers to a batch of questions, by a server where there is one; nothing is drawn."""
    return _said(context, weights, questions, by, seed=0, scores=scores)


class Server(NamedTuple):
    """Who answers in place of this process, if anybody."""

    key: str
    addresses: str | None


def sampler(recipe: Recipe) -> Server:
    """Of the fine-tuned model's answers to training questions."""
    return Server("sample.server", recipe.sample.server)


def _measurer(recipe: Recipe) -> Server:
    """Of the answers of models that are compared."""
    return Server("evaluate.server", recipe.evaluate.server)


def _batch(recipe: Recipe, server: Server, own: int) -> int:
    """A server is kept busy by many questions: their batch is no batch of a model."""
    return 32 * recipe.serve.concurrency if server.addresses else own


def _lost(row: Completion | Quarantined) -> bool:
    """Whether an answer is missing for a reason that may be gone by now."""
    return isinstance(row, Quarantined) and row.reason.startswith(TRANSIENT)


def consensus(context: Context, weights: Weights, questions: Sequence[Question], n: int) -> list[Answers]:
    """Of ``n`` answers drawn at temperature 1 to each question the one that the others agree with most; of 1, that."""
    by, seed = _measurer(context.config), context.config.run.seed
    said = _said(context, weights, questions, by, seed=seed, n=n, temperature=1.0)
    drawn = list(zip(questions, said, strict=True))
    several = [(question, own) for question, own in drawn if n > 1 and not isinstance(own, Quarantined)]
    among = judges.among(context.config.task.kind)
    agreed = judges.agreement([(question, [row.text for row in own]) for question, own in several], among)
    best = {question.id: max(range(n), key=next(agreed).__getitem__) for question, _ in several}
    return [own if isinstance(own, Quarantined) else [own[best.get(question.id, 0)]] for question, own in drawn]


def _answered(context: Context, merged: Merged) -> Outcome:
    cut = sum(not row.finished for row in context.own(COMPLETIONS))
    return Outcome(f"{merged.rows} answers for {merged.items} studies, {cut} cut")


SAMPLING = Rows(
    make=lambda batch, context: drawn(batch, context, context.config.sample.n),
    item=Question,
    items=lambda context: asked(context.read(TRAIN), context.config.sample),
    total=lambda context: sum(1 for _ in asked(context.read(TRAIN), context.config.sample)),
    into=COMPLETIONS,
    content=shown,
    batch=lambda recipe: _batch(recipe, sampler(recipe), recipe.sample.batch),
    close=_answered,
    again=_lost,
    alone=lambda recipe: bool(recipe.sample.server),
)
_ANSWERING = replace(
    SAMPLING,
    make=lambda batch, context: greedy(context, context.fact(MODEL), batch, by=sampler(context.config), scores=True),
    batch=lambda recipe: _batch(recipe, sampler(recipe), recipe.evaluate.batch),
)
SAMPLE = Stage(
    name="sample",
    help="Sample candidate reports from the fine-tuned model.",
    work=SAMPLING,
    reads=(TRAIN, MODEL),
    writes=(COMPLETIONS,),
    config=(
        *ASKED,
        "sample.n",
        "sample.temperature",
        "sample.top_p",
        "sample.max_new_tokens",
        "sample.batch",
        "run.seed",
        *COMPUTES,
    ),
    identities=(DEVICE, SAMPLED_BY),
    rooms=("models",),
)
ANSWER = replace(
    SAMPLE,
    name="answer",
    help="The fine-tuned model's own greedy answers to the training questions.",
    work=_ANSWERING,
    config=(*ASKED, "sample.max_new_tokens", "evaluate.batch", *COMPUTES),
)


# ------------------------------------------------------------------------------------------ several systems


def _answer_posed(batch: Sequence[Posed], context: Context) -> Iterator[Answers]:
    """Answers of the system that a batch's questions are put to."""
    system, questions = batch[0].system, [one.question for one in batch]
    said = (
        consensus(context, system.weights, questions, system.drawn)
        if system.drawn
        else greedy(context, system.weights, questions, by=_measurer(context.config))
    )
    for one, answers in zip(batch, said, strict=True):
        if isinstance(answers, Quarantined):
            yield answers.model_copy(update={"id": one.id})
        else:
            own = [(row, {"id": f"{system.id}:{row.id}", "system": system.id}) for row in answers]
            yield [row.model_copy(update=named) for row, named in own]


def posing(
    systems: Callable[[Context], Sequence[System]], questions: Callable[[Context], Iterable[Question]],
    into: TableOf[Record],
) -> Rows[Posed]:  # fmt: skip
    """The work of putting every question to every system, one system after the other."""

    def posed(context: Context) -> Iterator[Posed]:
        rows = list(questions(context))
        for system in systems(context):
            for question in rows:
                yield Posed(id=f"{system.id}:{question.id}", system=system, question=question)

    return Rows(
        make=_answer_posed,
        item=Posed,
        items=posed,
        total=lambda context: len(systems(context)) * sum(1 for _ in questions(context)),
        into=into,
        content=lambda one: [one.system.weights.fingerprint, one.system.drawn, shown(one.question)],
        batch=lambda recipe: _batch(recipe, _measurer(recipe), recipe.evaluate.batch),
        again=_lost,
        alone=lambda recipe: bool(recipe.evaluate.server),
        whose=lambda one: one.system.id,
        close=lambda context, merged: Outcome(f"{merged.rows} answers of {len(systems(context))} models"),
        unit="answers",
    )


def last_of_each(checkpoints: Iterable[System]) -> tuple[System, ...]:
    """The last checkpoint of each beta."""
    return tuple({row.beta: row for row in checkpoints}.values())


def validated_systems(context: Context) -> list[System]:
    """The model before alignment, its checkpoints that may be chosen, the controls, and what lies on the way there."""
    checkpoints = context.fact(CHECKPOINTS).rows
    if not context.config.select.checkpoints:
        checkpoints = last_of_each(checkpoints)
    controls = context.fact(CONTROLS).rows if context.has(CONTROLS) else ()
    between = context.fact(INTERPOLATED).rows if context.has(INTERPOLATED) else ()
    model = context.fact(TUNED)
    return [System(id=ports.before(model), weights=model), *checkpoints, *controls, *between]


VALIDATE = Stage(
    name="validate",
    help="Greedy answers of every checkpoint to the validation questions.",
    work=posing(validated_systems, lambda context: context.read(VALIDATION), ports.VALIDATED),
    reads=(VALIDATION, TUNED, CHECKPOINTS),
    may_read=(CONTROLS, INTERPOLATED),
    writes=(ports.VALIDATED,),
    config=("sample.max_new_tokens", "evaluate.batch", "select.checkpoints", *COMPUTES),
    identities=(DEVICE, MEASURED_BY),
    rooms=("models",),
)


def measured_systems(context: Context) -> list[System]:
    """The models that are measured: base, sft where it was fine-tuned, aligned, what rounds chose, the control."""
    choice = context.fact(CHOICE)
    model = context.fact(TUNED)
    start = ports.before(model)
    named = {start: model, ports.AFTER: choice.chosen.weights}
    if context.has(ROUNDS):
        named |= {row.id: row.weights for row in context.fact(ROUNDS).rows}
    if choice.control is not None:
        named[ports.CONTROL] = choice.control.weights
    given = base(context.config)
    if given.fingerprint != named[start].fingerprint:
        named = {ports.UNTOUCHED: given, **named}
    return [System(id=name, weights=weights) for name, weights in named.items()]


def predicted_systems(context: Context) -> list[System]:
    """The models that are measured, and how else than greedily the one before and the one after alignment answer."""
    systems = measured_systems(context)
    section = context.config.evaluate
    ways = {f"consensus of {section.consensus}": section.consensus, "drawn": int(section.drawn)}
    more = [
        row.model_copy(update={"id": f"{row.id}, {way}", "drawn": drawn})
        for row in systems
        if row.id in (ports.before(context.fact(TUNED)), ports.AFTER)
        for way, drawn in ways.items()
        if drawn
    ]
    return [*systems, *more]


PREDICT = Stage(
    name="predict",
    help="Answers of every measured system to the test questions.",
    work=posing(predicted_systems, lambda context: [*context.read(TEST), *context.read(TWINS)], ports.PREDICTED),
    reads=(TEST, TWINS, TUNED, CHOICE),
    may_read=(ROUNDS,),
    writes=(ports.PREDICTED,),
    config=("sample.max_new_tokens", "evaluate.batch", *COMPUTES),
    identities=(BASE, DEVICE, DRAWING, MEASURED_BY),
    rooms=("models",),
)


def texts_of(rows: Iterable[Completion], questions: Sequence[Question], system: str) -> dict[str, str]:
    """A system's answers by question id; one that could not be made is an empty text, which scores as one."""
    said = {row.question: row.text for row in rows if row.system == system}
    return {question.id: said.get(question.id, "") for question in questions}
