"""The stages that train on pairs, or on a judge's reward: prepare, align, control, grpo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from radpref.config import Recipe, SftSection
from radpref.records import Question, System, Systems, reasons
from radpref.rooms import judges, losses, training
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.stage import Outcome, Ranks, Stage
from radpref.runs.streams import asked
from radpref.stages.identities import ASKED, COMPUTES, DEVICE, JUDGE, NEEDS
from radpref.stages.judge import check_judge, section_of
from radpref.stages.ports import CHECKPOINTS, CONTROLS, MODEL, PAIRS, TRAIN, TUNED
from radpref.stages.sft import unfinished

if TYPE_CHECKING:
    from radpref.training import Aligned, Prepared, Training, Tuned

T = TypeVar("T", bound="Training")


def _check_objective(recipe: Recipe) -> None:
    losses.objective(recipe.align)


def _check_align(recipe: Recipe) -> None:
    _check_objective(recipe)
    training.check_settings("align", recipe.align, recipe.model.quantize, recipe.run.trackers)


def _prepared(context: Context) -> Prepared:
    """Every pair checked, and what the objective reads of the reference, computed or read from its cache."""
    bar = context.progress(total=None, unit="answers", what="prepare")

    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    found = training.prepare(
        context.load(context.fact(MODEL)),
        list(context.read(PAIRS)),
        context.config.align,
        context.beside("prepare"),
        limit=context.limit,
        progress=advance,
        processes=context.processes,
    )
    bar.close()
    return found


def _prepare(context: Context) -> Outcome:
    """Score both sides of every pair under the fine-tuned model, the reference of the alignment."""
    prepared = _prepared(context)
    context.write(QUARANTINED, prepared.quarantined)
    lost = f"{len(prepared.quarantined)} pairs quarantined{reasons(prepared.quarantined)}"
    line = f"{len(prepared.items)} items, {lost}"
    if context.limit is not None:
        return Outcome(f"{line}; {prepared.scored} answers done (--limit)", finished=False)
    return Outcome(line, counts={"items": len(prepared.items), "quarantined": len(prepared.quarantined)})


PREPARE = Stage(
    name="prepare",
    help="Compute the reference log-probabilities of the pairs.",
    work=Ranks(_prepare),
    reads=(PAIRS, MODEL),
    config=("align.batch", "align.max_length", "align.train_tower", "align.train_projector", *COMPUTES),
    identities=(DEVICE, NEEDS),
    rooms=("models", "training", "losses"),
    check=_check_objective,
)


# ------------------------------------------------------------------------------------------ align, control


def _for_each(
    context: Context, key: str, values: Sequence[float], among: str, train: Callable[[float, Path], T]
) -> list[T]:
    """Train once for every value of a key of the recipe, of which ``among`` lists several, each in a folder of its own.

    The list ends with the first training that the limit stopped.
    """
    name, found = key.rpartition(".")[2], list[T]()
    for value in values:
        own = context.key(without=(key, among), **{name: value})
        folder = context.checkpoints(f"{name}-{value:g}", own, among=[f"{name}-{other:g}" for other in values])
        found.append(train(value, folder))
        if not found[-1].finished:
            break
    return found


def _align(context: Context) -> Outcome:
    """Train on the pairs, once for every beta of the selection."""
    recipe, start = context.config, context.fact(MODEL)
    betas = recipe.select.betas or (recipe.align.beta,)
    prepared = _prepared(context)
    vlm = context.load(start)

    def train(beta: float, folder: Path) -> Aligned:
        section = recipe.align.model_copy(update={"beta": beta})
        with context.training(f"align {beta:g}") as more:
            return training.align(vlm, prepared, section, folder, **more)

    results = _for_each(context, "align.beta", betas, "select.betas", train)
    last, found = results[-1], list[System]()
    if not last.finished:
        return unfinished(last, f"beta {betas[len(results) - 1]:g}: ")
    for beta, result in zip(betas, results, strict=True):
        for one in result.checkpoints:  # an adapter on the fine-tuned model, or a model of its own
            weights = (
                context.weights(start.path, adapter=one.path, revision=start.revision)
                if recipe.align.lora.rank
                else context.weights(one.path)
            )
            found.append(System(id=f"beta-{beta:g}-step-{one.step}", weights=weights, beta=beta, step=one.step))
    shown = {"loss": "loss", "reward_margin": "margin", "reward_accuracy": "accuracy"}
    facts = ", ".join(f"{word} {last.last[name]:.3f}" for name, word in shown.items() if name in last.last)
    return Outcome(
        f"{last.steps} steps on {len(prepared.items)} items, betas {', '.join(f'{b:g}' for b in betas)}; {facts}",
        {"checkpoints": Systems(rows=tuple(found))},
        {"trainable": last.trainable, "steps": last.steps, "items": len(prepared.items)},
    )


ALIGN = Stage(
    name="align",
    help="Align the model with the pairs.",
    work=Ranks(_align),
    reads=(PAIRS, MODEL),
    writes=(CHECKPOINTS,),
    config=("align", "select.betas", "run.seed", "run.trackers", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models", "training", "losses"),
    check=_check_align,
)

SHARED = ("lora", "warmup", "epochs", "batch", "accumulate", "weight_decay", "schedule", "optimizer",
          "gradient_checkpointing", "save_steps")  # fmt: skip
"""What the control has of the alignment, beside its learning rate where none is given."""


def _control(context: Context) -> Outcome:
    """SFT on the chosen side of the same pairs: what the pairs give without any preference.

    It has the adapter, batch and epochs of the alignment. Several learning rates are chosen among like checkpoints.
    """
    recipe, start = context.config, context.fact(TUNED)
    if not recipe.evaluate.control:
        return Outcome("off", {"controls": Systems()})
    rates = recipe.evaluate.control_lrs or (recipe.align.lr,)
    shared = {name: getattr(recipe.align, name) for name in SHARED}
    lessons = [
        Question(id=pair.id, study=pair.question, patient=pair.patient, split="train", images=pair.images,
                 prompt=pair.prompt, reference=pair.chosen)
        for pair in context.read(PAIRS)
    ]  # fmt: skip

    def train(lr: float, folder: Path) -> Tuned:
        section = SftSection(**shared, lr=lr, train_projector=False)
        with context.training(f"control {lr:g}") as more:
            return training.sft(context.fresh(start), lessons, section, folder, **more)

    results = _for_each(context, "align.lr", rates, "evaluate.control_lrs", train)
    if not results[-1].finished:
        return unfinished(results[-1], f"lr {rates[len(results) - 1]:g}: ")
    found = [
        System(id=f"control-lr-{lr:g}", weights=context.weights(result.path), lr=lr, step=result.steps)
        for lr, result in zip(rates, results, strict=True)
    ]
    line = f"{results[-1].steps} steps, lr {', '.join(f'{lr:g}' for lr in rates)}"
    return Outcome(line, {"controls": Systems(rows=tuple(found))})


CONTROL = Stage(
    name="control",
    help="Train SFT on the chosen side of the same pairs, the control of every gain.",
    work=Ranks(_control),
    reads=(PAIRS, TUNED),
    writes=(CONTROLS,),
    config=("evaluate.control", "evaluate.control_lrs", "align.lr", *(f"align.{name}" for name in SHARED), "run.seed",
            "run.trackers", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models", "training"),
)  # fmt: skip


# ------------------------------------------------------------------------------------------ grpo


def _grpo(context: Context) -> Outcome:
    """Train on the judge's score of the model's own answers."""
    recipe, section = context.config, section_of(context)
    reward = (
        judges.chexpo
        if recipe.grpo.reward == "chexpo"
        else judges.reward_function(judges.judging(section), name=section.name)
    )
    folder = context.checkpoints("training", context.key())
    with context.training("grpo") as more:
        model, questions = context.fresh(context.fact(MODEL)), list(asked(context.read(TRAIN), recipe.sample))
        result = training.grpo(model, questions, reward, recipe.grpo, recipe.sample, folder, **more)
    context.write(QUARANTINED, result.quarantined)
    if not result.finished:
        return unfinished(result)
    weights = context.weights(result.path)
    trained = System(id=f"step-{result.step}", weights=weights, step=result.step, beta=recipe.grpo.beta)
    first, last = result.rewards
    return Outcome(
        f"{result.steps} steps, reward {first:.3f} to {last:.3f} on its own answers",
        {"checkpoints": Systems(rows=(trained,))},
        {"trainable": result.trainable, "steps": result.steps},
    )


def _check_grpo(recipe: Recipe) -> None:
    training.check_settings("grpo", recipe.grpo, recipe.model.quantize, recipe.run.trackers)
    if recipe.grpo.reward == "judge":
        check_judge(recipe)


GRPO = Stage(
    name="grpo",
    help="Train on the judge's score of the model's own answers.",
    work=Ranks(_grpo),
    reads=(TRAIN, MODEL),
    writes=(CHECKPOINTS,),
    config=("grpo", *ASKED, "sample.temperature", "sample.top_p", "sample.max_new_tokens", "run.seed",
            "run.trackers", *COMPUTES),
    identities=(DEVICE, JUDGE),
    rooms=("models", "training", "judges", "findings"),
    check=_check_grpo,
)  # fmt: skip
