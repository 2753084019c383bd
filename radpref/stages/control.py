"""The control stage: what the pairs give without any preference."""

from __future__ import annotations

from typing import Any

from radpref.config import AlignSection, ModelSection, SftSection
from radpref.files import content_key
from radpref.records import Pair, Question
from radpref.run.folder import Run
from radpref.stages.common import Steps, fine_tuned, keyed_folder, load, noted, shown
from radpref.stages.judgements import rank_of, validation_scores


def control(run: Run, limit: int | None = None) -> str:
    """SFT on the chosen side of the same pairs: what the pairs give without any preference.

    It has the adapter, batch and epochs of the alignment; of several learning rates the one that does best on the
    validation studies, by the judge that also chooses the aligned model, is taken.
    """
    from radpref import models, training
    from radpref.judges import version

    recipe = run.recipe
    if not recipe.evaluate.control:
        run.finish("control", "off")
        return "off"
    start, fingerprint = fine_tuned(run)
    rates = recipe.evaluate.control_lrs or (recipe.align.lr,)
    sections = {lr: _control_section(recipe.align, lr) for lr in rates}
    pairs = run.digest("pair", "pairs")
    keys = {
        lr: content_key("control", section, recipe.run.seed, fingerprint, pairs) for lr, section in sections.items()
    }
    length, rules = recipe.sample.max_new_tokens, version(recipe.select.by, recipe.judge)
    whole = content_key(list(keys.values()), recipe.select.by, rules, length)
    if not run.begin("control", whole):
        return "up to date"
    lessons = [
        Question(
            id=row.id, study=row.question, patient=row.patient, split="train", images=row.images, prompt=row.prompt,
            reference=row.chosen,
        )
        for row in run.rows("pair", "pairs", Pair)
    ]  # fmt: skip
    tried: list[dict[str, Any]] = []
    for lr, section in sections.items():
        folder = keyed_folder(run.path("control", f"lr-{lr:g}"), keys[lr])
        bar = Steps(f"control {lr:g}")
        result = training.sft(
            load(run, start), lessons, section, folder, seed=recipe.run.seed, max_steps=limit, log=bar
        )
        bar.close()
        if not result.finished:
            return f"lr {lr:g}: step {result.step} of {result.steps} (--limit)"
        model = ModelSection(path=str(result.path.absolute()))
        scores = validation_scores(run, "control", f"lr-{lr:g}", model, models.fingerprint(result.path))
        tried.append({"lr": lr, "model": noted(run, model), "scores": scores})
    best = max(tried, key=lambda one: rank_of(one["scores"][recipe.select.by]))
    run.finish("control", whole, tried=tried, chosen=best)
    return f"{result.steps} steps, lr {best['lr']:g}, {recipe.select.by} {shown(best['scores'][recipe.select.by])}"


def _control_section(align: AlignSection, lr: float) -> SftSection:
    return SftSection(
        lora=align.lora, lr=lr, warmup=align.warmup, epochs=align.epochs, batch=align.batch,
        accumulate=align.accumulate,
        weight_decay=align.weight_decay, train_projector=False, save_steps=align.save_steps,
    )  # fmt: skip
