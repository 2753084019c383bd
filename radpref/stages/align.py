"""The stages that train on pairs, or on a judge's reward: prepare, align, control, grpo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radpref.config import AlignSection, Recipe, SftSection
from radpref.records import Pair, Question, System, Systems, Weights, reasons
from radpref.rooms import judges, losses, training
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.stage import Outcome, Ranks, Stage
from radpref.stages.identities import COMPUTES, DEVICE, JUDGE, NEEDS
from radpref.stages.judge import check_judge, section_of
from radpref.stages.ports import CHECKPOINTS, CONTROLS, MODEL, PAIRS, TRAIN

if TYPE_CHECKING:
    from radpref.training import Prepared


def _check_objective(recipe: Recipe) -> None:
    losses.objective(recipe.align)


PREPARED = ("align.batch", "align.max_length", "align.train_tower", "align.train_projector")


# ------------------------------------------------------------------------------------------ prepare


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
        context.folder.parent / "prepare",
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
    config=(*PREPARED, *COMPUTES),
    identities=(DEVICE, NEEDS),
    rooms=("models", "training", "losses"),
    check=_check_objective,
)


# ------------------------------------------------------------------------------------------ align


def _align(context: Context) -> Outcome:
    """Train on the pairs, once for every beta of the selection."""
    recipe = context.config
    start = context.fact(MODEL)
    betas = recipe.select.betas or (recipe.align.beta,)
    prepared = _prepared(context)
    vlm = context.load(start)
    found: list[System] = []
    for beta in betas:
        section = recipe.align.model_copy(update={"beta": beta})
        bar = context.steps(f"align {beta:g}")
        key = context.key(without=("select.betas", "align.beta"), beta=beta)
        folder = context.checkpoints(f"beta-{beta:g}", key, among=[f"beta-{other:g}" for other in betas])
        result = training.align(vlm, prepared, section, folder, seed=recipe.run.seed, max_steps=context.limit, log=bar)
        bar.close()
        if not result.finished:
            return Outcome(f"beta {beta:g}: step {result.step} of {result.steps} (--limit)", finished=False)
        found += [
            System(
                id=f"beta-{beta:g}-step-{one.step}",
                weights=_checkpoint(context, start, recipe.align, one),
                beta=beta,
                step=one.step,
            )
            for one in result.checkpoints
        ]
    shown = {"loss": "loss", "reward_margin": "margin", "reward_accuracy": "accuracy"}
    facts = ", ".join(f"{word} {result.last[name]:.3f}" for name, word in shown.items() if name in result.last)
    return Outcome(
        f"{result.steps} steps on {len(prepared.items)} items, betas {', '.join(f'{b:g}' for b in betas)}; {facts}",
        {"checkpoints": Systems(rows=tuple(found))},
        {"trainable": result.trainable, "steps": result.steps, "items": len(prepared.items)},
    )


def _checkpoint(context: Context, start: Weights, align: AlignSection, one: training.Checkpoint) -> Weights:
    """How a checkpoint is loaded: as an adapter on the fine-tuned model, or as a model of its own."""
    if not align.lora.rank:
        return context.weights(one.path)
    return context.weights(start.path, adapter=one.path, revision=start.revision)


ALIGN = Stage(
    name="align",
    help="Align the model with the pairs.",
    work=Ranks(_align),
    reads=(PAIRS, MODEL),
    writes=(CHECKPOINTS,),
    config=("align", "select.betas", "run.seed", *COMPUTES),
    identities=(DEVICE,),
    rooms=("models", "training", "losses"),
    check=_check_objective,
)


# ------------------------------------------------------------------------------------------ control


def _control(context: Context) -> Outcome:
    """SFT on the chosen side of the same pairs: what the pairs give without any preference.

    It has the adapter, batch and epochs of the alignment. Several learning rates are chosen among like checkpoints.
    """
    recipe = context.config
    if not recipe.evaluate.control:
        return Outcome("off", {"controls": Systems()})
    start = context.fact(MODEL)
    rates = recipe.evaluate.control_lrs or (recipe.align.lr,)
    lessons = [_lesson(pair) for pair in context.read(PAIRS)]
    found: list[System] = []
    for lr in rates:
        bar = context.steps(f"control {lr:g}")
        key = context.key(without=("evaluate.control_lrs", "align.lr"), lr=lr)
        result = training.sft(
            context.fresh(start),
            lessons,
            _lessons_section(recipe.align, lr),
            context.checkpoints(f"lr-{lr:g}", key, among=[f"lr-{other:g}" for other in rates]),
            seed=recipe.run.seed,
            max_steps=context.limit,
            log=bar,
        )
        bar.close()
        if not result.finished:
            return Outcome(f"lr {lr:g}: step {result.step} of {result.steps} (--limit)", finished=False)
        found.append(System(id=f"control-lr-{lr:g}", weights=context.weights(result.path), lr=lr, step=result.steps))
    rates_told = ", ".join(f"{lr:g}" for lr in rates)
    return Outcome(f"{result.steps} steps, lr {rates_told}", {"controls": Systems(rows=tuple(found))})


def _lesson(pair: Pair) -> Question:
    return Question(
        id=pair.id,
        study=pair.question,
        patient=pair.patient,
        split="train",
        images=pair.images,
        prompt=pair.prompt,
        reference=pair.chosen,
    )


def _lessons_section(align: AlignSection, lr: float) -> SftSection:
    return SftSection(
        lora=align.lora,
        lr=lr,
        warmup=align.warmup,
        epochs=align.epochs,
        batch=align.batch,
        accumulate=align.accumulate,
        weight_decay=align.weight_decay,
        schedule=align.schedule,
        optimizer=align.optimizer,
        gradient_checkpointing=align.gradient_checkpointing,
        train_projector=False,
        save_steps=align.save_steps,
    )


CONTROL = Stage(
    name="control",
    help="Train SFT on the chosen side of the same pairs, the control of every gain.",
    work=Ranks(_control),
    reads=(PAIRS, MODEL),
    writes=(CONTROLS,),
    config=(
        "evaluate.control",
        "evaluate.control_lrs",
        "align.lora",
        "align.lr",
        "align.warmup",
        "align.epochs",
        "align.batch",
        "align.accumulate",
        "align.weight_decay",
        "align.schedule",
        "align.optimizer",
        "align.gradient_checkpointing",
        "align.save_steps",
        "run.seed",
        *COMPUTES,
    ),
    identities=(DEVICE,),
    rooms=("models", "training"),
)


# ------------------------------------------------------------------------------------------ grpo


def _grpo(context: Context) -> Outcome:
    """Train on the judge's score of the model's own answers."""
    recipe = context.config
    section = section_of(context)
    reward = (
        judges.chexpo
        if recipe.grpo.reward == "chexpo"
        else judges.reward_function(judges.JUDGES[section.name](section), name=section.name)
    )
    bar = context.steps()
    result = training.grpo(
        context.fresh(context.fact(MODEL)),
        list(context.read(TRAIN)),
        reward,
        recipe.grpo,
        recipe.sample,
        context.checkpoints("training", context.key()),
        seed=recipe.run.seed,
        max_steps=context.limit,
        log=bar,
    )
    bar.close()
    context.write(QUARANTINED, result.quarantined)
    if not result.finished:
        return Outcome(f"step {result.step} of {result.steps} (--limit)", finished=False)
    trained = System(
        id=f"step-{result.step}", weights=context.weights(result.path), step=result.step, beta=recipe.grpo.beta
    )
    rewards = [entry["reward"] for entry in result.history if "reward" in entry]
    tenth = max(len(rewards) // 10, 1)
    first, last = (sum(part) / tenth for part in (rewards[:tenth], rewards[-tenth:]))
    return Outcome(
        f"{result.steps} steps, reward {first:.3f} to {last:.3f} on its own answers",
        {"checkpoints": Systems(rows=(trained,))},
        {"trainable": result.trainable, "steps": result.steps},
    )


def _check_grpo(recipe: Recipe) -> None:
    if recipe.grpo.reward == "judge":
        check_judge(recipe)


GRPO = Stage(
    name="grpo",
    help="Train on the judge's score of the model's own answers.",
    work=Ranks(_grpo),
    reads=(TRAIN, MODEL),
    writes=(CHECKPOINTS,),
    config=("grpo", "sample.temperature", "sample.top_p", "sample.max_new_tokens", "run.seed", *COMPUTES),
    identities=(DEVICE, JUDGE),
    rooms=("models", "training", "judges", "findings"),
    check=_check_grpo,
)

__all__ = ["ALIGN", "CONTROL", "GRPO", "PREPARE"]
