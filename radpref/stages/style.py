"""The style stage: are the answers still worded as the fine-tuned model words its own?

An aligned model may win by writing otherwise than the hospital does. What the model before alignment thinks of an
answer tells, in nats a token: an answer of its own costs few, one in strange words many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from radpref.records import Completion, Quarantined, Question, Styled
from radpref.rooms import grounding, images, models
from radpref.runs.context import Context
from radpref.runs.stage import Outcome, Rows, Stage
from radpref.runs.table import Merged
from radpref.stages.identities import COMPUTES, DEVICE
from radpref.stages.ports import PREDICTED, STYLED, TEST, TUNED


def _styled(batch: Sequence[Completion], context: Context) -> Iterator[Sequence[Styled] | Quarantined]:
    questions = context.once("questions", lambda: {row.id: row for row in context.read(TEST)})
    for one in costs(context.load(context.fact(TUNED)), questions, batch):
        yield one if isinstance(one, Quarantined) else [one]


def costs(
    vlm: models.Vlm, questions: Mapping[str, Question], batch: Sequence[Completion]
) -> Iterator[Styled | Quarantined]:
    """What every answer costs under a model, in one forward pass; ``questions`` are theirs, by id."""
    vlm.model.eval()
    refused = dict[str, Quarantined]()
    rows = []
    for one in batch:
        question = questions[one.question]
        try:
            pictures = [images.read_image(image) for image in question.images]
            rows.append((models.encode_prompt(vlm, question.prompt, pictures), models.encode_answer(vlm, one.text)))
        except models.ModelError:  # of the model and not of this answer
            raise
        except (images.ImageError, ValueError) as error:
            refused[one.id] = Quarantined(id=one.id, stage="style", reason=str(error))
    scores = iter(grounding.token_logps(vlm, rows))
    for one in batch:
        if one.id in refused:
            yield refused[one.id]
        else:
            logps = next(scores)
            yield Styled(
                id=one.id, system=one.system, question=one.question, nats=-float(logps.sum()), tokens=len(logps)
            )


def _answers(context: Context) -> Iterator[Completion]:
    """All measured answers to the test questions; those to their twins are short, and about another thing."""
    asked = context.once("asked", lambda: {row.id for row in context.read(TEST)})
    return (row for row in context.read(PREDICTED) if row.question in asked)


def _close(context: Context, merged: Merged) -> Outcome:
    return Outcome(f"{merged.rows} answers under the model before alignment")


STAGE = Stage(
    name="style",
    help="Measure how likely every answer is under the model before alignment.",
    work=Rows(
        make=_styled,
        item=Completion,
        items=_answers,
        total=lambda context: sum(1 for _ in _answers(context)),
        into=STYLED,
        content=lambda one: [one.question, one.text],
        batch=lambda recipe: recipe.evaluate.batch,
        close=_close,
        unit="answers",
    ),
    reads=(TEST, PREDICTED, TUNED),
    writes=(STYLED,),
    config=("evaluate.style", "evaluate.batch", *COMPUTES),
    identities=(DEVICE,),
    rooms=("grounding", "models", "images"),
)
