"""The sft stage: supervised fine-tuning on the reference reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from radpref.config import ModelSection, Recipe
from radpref.records import Weights
from radpref.rooms import models, training
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Ranks, Stage
from radpref.stages.identities import BASE, COMPUTES, DEVICE
from radpref.stages.ports import MODEL, TRAIN

if TYPE_CHECKING:
    from radpref.training import Training


def base(recipe: Recipe) -> Weights:
    """The model that the recipe names."""
    section = recipe.model
    return Weights(
        path=section.path,
        revision=section.revision,
        adapter=section.adapter,
        fingerprint=models.fingerprint(models.locate(section), section.adapter),
    )


def unfinished(result: Training, what: str = "") -> Outcome:
    """What is said of a training that the limit stopped."""
    return Outcome(f"{what}step {result.step} of {result.steps} (--limit)", finished=False)


def _sft(context: Context) -> Outcome:
    """Fine-tune on the training references, or take the model as it is where ``sft.enabled`` is false."""
    recipe = context.config
    start = base(recipe)
    if not recipe.sft.enabled:
        return Outcome("off: the model as it is", {"model": start.model_copy(update={"untouched": True})})
    every = list(context.read(TRAIN)) if context.has(TRAIN) else []
    questions = [question for question in every if question.reference]
    folder = context.checkpoints("training", context.key(without=("sft.interpolate",)))
    with context.training() as more:
        result = training.sft(models.merged(context.fresh(start)), questions, recipe.sft, folder, **more)
    context.write(QUARANTINED, result.quarantined)
    if not result.finished:
        return unfinished(result)
    made = context.weights(_between(context, start, result.path))
    left_out = f" ({len(every) - len(questions)} without a report are left out)" if len(every) > len(questions) else ""
    line = f"{result.steps} steps on {len(questions)} studies{left_out}, loss {result.loss:.3f}"
    return Outcome(line, {"model": made}, {"steps": result.steps, "trainable": result.trainable})


def _between(context: Context, start: Weights, tuned: Path) -> Path:
    """The fine-tuned model, or one on the way to it; another ``sft.interpolate`` needs no other training."""
    share = context.config.sft.interpolate
    if share == 1:
        return tuned
    path = tuned.with_name(f"{tuned.name}-{share:g}")
    write_between(context, start, ModelSection(path=str(tuned)), share, path)
    return path


def write_between(context: Context, given: Weights, trained: ModelSection, share: float, path: Path) -> None:
    """Save the model at a share of the way from the given one to a trained one, where it is not there yet."""
    if context.processes.first and not path.exists():
        start = models.merged(models.in_full(context.fresh(given)))
        training.interpolate(start, trained, share, path, context.config.run)


def _check(recipe: Recipe) -> None:
    """The model's files are there, and what is to be trained can be."""
    models.pick_device(recipe.run.device)
    models.locate(recipe.model)
    if recipe.model.quantize != "none":
        models.check_installed()
    if recipe.sft.enabled:
        training.check_settings("sft", recipe.sft, recipe.model.quantize, recipe.run.trackers)
    if recipe.sft.enabled and recipe.model.quantize != "none" and recipe.model.adapter:
        raise RunError(
            f"model.quantize {recipe.model.quantize} keeps weights in 4 bits, and model.adapter would have to be "
            "merged into them before another adapter is trained. Fine-tune nothing (--sft.enabled false), or set "
            "model.quantize none."
        )
    if not recipe.sft.enabled and recipe.model.adapter:
        raise RunError(
            "model.adapter with sft.enabled: false would put the alignment's adapter on top of another one. "
            "Merge the adapter into the model first (peft's merge_and_unload, then save_pretrained), and give "
            "the result as model.path."
        )


STAGE = Stage(
    name="sft",
    help="Supervised fine-tuning on the reference reports.",
    work=Ranks(_sft),
    may_read=(TRAIN,),
    writes=(MODEL,),
    config=("sft", "run.seed", "run.trackers", *COMPUTES),
    identities=(BASE, DEVICE),
    rooms=("models", "training"),
    check=_check,
)
