"""Rounds: sampling, judging and aligning again from the newest model, on studies that no round has had yet.

Each round has a part of the training studies, and the stages of the method up to the selection, under names of their
own (``sample-2``). Ports do the rest: a stage reads what the nearest one before it has written, so that all of a round
reads its part of the questions and its model; what is measured at the end is held against the fine-tuned model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from radpref.records import Question, System, Systems, Weights
from radpref.rooms import models
from radpref.runs.context import Context, section_of
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Ranks, Road, Stage
from radpref.runs.streams import asked
from radpref.stages.identities import ASKED, COMPUTES, DEVICE
from radpref.stages.ports import AFTER, ALL_TRAIN, CHOICE, MODEL, ROUNDS, TRAIN


def in_rounds(road: Road, count: int) -> Road:
    """A method's stages with those between ``sft`` and ``predict`` gone through ``count`` times.

    The control, which is held against the last alignment, is trained in the last round alone.

    Raises:
        RunError: the method has no answers of its own to draw anew.
    """
    if count == 1:
        return road
    names = [stage.name for stage in road]
    if not {"sample", "answer"} & set(names):
        raise RunError(
            f"align.rounds is {count}, and rounds are for methods that make their pairs of the model's newest answers: "
            "chexalign, firempo, chexpo. Set align.rounds 1."
        )
    start, end = names.index("sft") + 1, names.index("predict")
    found = list(road[:start])
    for number in range(1, count + 1):
        stages = [stage for stage in road[start:end] if number == count or stage.name != "control"]
        found += [_opening(number, count), *(_of_round(stage, number) for stage in stages)]
    return [*found, *road[end:]]


def _of_round(stage: Stage, number: int) -> Stage:
    suffix = "" if number == 1 else f"-{number}"
    return replace(stage, name=f"{stage.name}{suffix}", suffix=suffix)


def _opening(number: int, count: int) -> Stage:
    """The stage that begins a round: its part of the questions and, from the second on, the model to go on from."""
    later = number > 1
    return Stage(
        name=f"round-{number}",
        help=f"Begin round {number}.",
        work=Ranks(_opened(number, count)),
        reads=(ALL_TRAIN, CHOICE) if later else (ALL_TRAIN,),
        may_read=(ROUNDS,) if later else (),
        writes=(TRAIN, MODEL, ROUNDS) if later else (TRAIN,),
        config=("align.rounds", *ASKED, *(COMPUTES if later else ())),
        identities=(DEVICE,) if later else (),
        rooms=("models",) if later else (),
    )


def _opened(number: int, count: int) -> Callable[[Context], Outcome]:
    def work(context: Context) -> Outcome:
        rows = context.write(TRAIN, part(asked(context.read(ALL_TRAIN), context.config.sample), number - 1, count))
        if context.processes.share(rows) == 0:
            raise RunError(
                f"round {number} of {count} has no training study; there are too few of them. Lower align.rounds."
            )
        if number == 1:
            return Outcome(f"{rows} questions")
        chosen = context.fact(CHOICE).chosen
        before = context.fact(ROUNDS).rows if context.has(ROUNDS) else ()
        named = chosen.model_copy(update={"id": f"{AFTER}, round {number - 1}"})
        facts = {"model": _whole(context, chosen), "rounds": Systems(rows=(*before, named))}
        return Outcome(f"{rows} questions, from {chosen.id}", facts)

    return work


def _whole(context: Context, system: System) -> Weights:
    """A model's weights with its adapter folded in, which an adapter of the next round can be put on."""
    if system.weights.adapter is None:
        return system.weights
    folder = context.folder / "model"
    if context.processes.first:
        models.save(models.merged(models.load(section_of(system.weights), context.config.run)), folder)
    return context.weights(folder)


def part(questions: Iterable[Question], number: int, count: int) -> Iterator[Question]:
    """The questions of every ``count``-th study, from study ``number`` (0 and up) on; a study's stand together."""
    for at, (_, own) in enumerate(groupby(questions, key=lambda question: question.study)):
        if at % count == number:
            yield from own
