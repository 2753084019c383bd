"""The embed and mine stages: what questions are compared by, and which of them are worth a pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from radpref.config import MineSection
from radpref.records import ImageVector, Quarantined, Question, Shown
from radpref.rooms import mining, models
from radpref.runs.context import Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Rows, Stage, Whole
from radpref.runs.streams import asked, candidates
from radpref.stages.identities import ASKED, COMPUTES, DEVICE, READER
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, MINED, MODEL, TRAIN, VECTORS


def _asked(context: Context) -> Iterator[Question]:
    """The training questions that may be mined."""
    return asked(context.read(TRAIN), context.config.sample)


def _images(context: Context) -> Iterator[Shown]:
    """Every image of the training questions once, where the recipe compares images."""
    section, seen = context.config.mine, set[str]()
    for question in _asked(context) if section.k and section.image else ():
        for image in question.images:
            if image.digest not in seen:
                seen.add(image.digest)
                yield Shown(id=image.digest, image=image)


def _embedded(batch: Sequence[Shown], context: Context) -> Iterator[list[ImageVector] | Quarantined]:
    section = context.config.mine
    device = models.pick_device(context.config.run.device)
    encode = (
        context.once("encoder", lambda: mining.image_encoder(str(section.image_model), device))
        if section.image_model
        else mining.tower(context.load(context.fact(MODEL)))
    )
    for image, row in mining.image_vectors(encode, [one.image for one in batch], batch=len(batch)):
        yield row if isinstance(row, Quarantined) else [mining.packed(image.digest, row)]


EMBED = Stage(
    name="embed",
    help="Encode the images that questions are compared by.",
    work=Rows(
        make=_embedded,
        item=Shown,
        items=_images,
        total=lambda context: sum(1 for _ in _images(context)),
        into=VECTORS,
        content=lambda one: one.id,
        batch=lambda recipe: recipe.mine.image_batch,
        close=lambda context, merged: Outcome(f"{merged.rows} images" if merged.items else "images are not compared"),
        unit="images",
    ),
    reads=(TRAIN, MODEL),
    writes=(VECTORS,),
    config=(*ASKED, "mine.k", "mine.image", "mine.image_model", "mine.image_batch", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models", "mining", "images"),
)


def _mine(context: Context) -> Outcome:
    """Which training questions are hard, what lies near them, and how many of each to take."""
    section = context.config.mine
    questions = mining.remembered(_asked(context))
    answered = candidates(_asked(context), context.read(COMPLETIONS))
    correct, confidences = mining.verdicts(answered, context.read(JUDGEMENTS), section)
    if not correct:
        raise RunError(
            f"none of {len(questions)} answers could be scored, so that there is nothing to mine. Questions need an "
            "answer, reports a judge that scores."
        )
    if not confidences:
        raise RunError(
            "no answer has the log-probs of its tokens, by which hard questions are found. A server has to give them "
            "(vLLM and SGLang do; `transformers serve` does not): name another in sample.server, or none."
        )
    found = mining.mine(
        questions,
        correct,
        confidences,
        _vectors(context, questions, section),
        section,
        seed=context.config.run.seed,
        resamples=context.config.evaluate.resamples,
    )
    context.write(MINED, found.rows)
    summary = found.summary
    counts = ", ".join(f"{name} {count}" for name, count in summary.cells.items())
    if not found.rows:
        raise RunError(
            f"no question of {len(questions)} is hard ({counts}), so that there is nothing to align with. Ask more "
            "questions (task.per_study), or harder ones (task.asks), or add right-unsure to mine.cells."
        )
    return Outcome(
        f"{summary.taken} of {len(questions)} questions mined: {summary.hard} hard, {summary.neighbours} neighbours, "
        f"{summary.unscored} unscored ({counts})",
        counts={"summary": summary.model_dump(mode="json")},
    )


def _vectors(context: Context, asked: Sequence[mining.Asked], section: MineSection) -> dict[str, mining.Vectors]:
    """What questions are compared by, as far as the recipe weighs it."""

    def of(texts: Iterable[str]) -> mining.Rows:
        if section.text_model is None:
            return mining.text_vectors(texts, section.text_dims)
        device = str(models.pick_device(context.config.run.device))
        return mining.sentence_vectors(texts, section.text_model, device=device)

    def images() -> mining.Rows:
        stored = ((row.id, mining.unpacked(row)) for row in context.read(VECTORS))
        return mining.mean_vectors(_asked(context), stored)

    make: dict[str, Callable[[], mining.Rows]] = {
        "question": lambda: of(question.prompt for question in _asked(context)),
        "rationale": lambda: of(question.reference for question in _asked(context)),
        "finding": lambda: mining.finding_vectors([question.names for question in asked])[0],
        "image": images,
    }
    return {name: made() for name, made in make.items() if section.k and getattr(section, name)}


MINE = Stage(
    name="mine",
    help="Find the training questions that are worth a pair.",
    work=Whole(_mine),
    reads=(TRAIN, COMPLETIONS, JUDGEMENTS, VECTORS),
    writes=(MINED,),
    config=("mine", *ASKED, "run.seed", "evaluate.resamples"),
    identities=(READER, DEVICE),
    rooms=("mining", "tasks", "evaluation"),
)
