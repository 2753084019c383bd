"""The sft stage: supervised fine-tuning on the reference reports."""

from __future__ import annotations

from radpref.config import ModelSection
from radpref.files import content_key
from radpref.records import Quarantined
from radpref.run.folder import Run, RunError
from radpref.stages.common import Steps, keyed_folder, load, noted, print_of, questions_key, questions_of


def sft(run: Run, limit: int | None = None) -> str:
    """Fine-tune on the training references, or take the model as it is where ``sft.enabled`` is false."""
    recipe = run.recipe
    questions = questions_of(run, "train")
    base = print_of(recipe.model)
    if not recipe.sft.enabled:
        if recipe.model.adapter and recipe.align.lora.rank:
            raise RunError(
                "model.adapter with sft.enabled: false would put the alignment's adapter on top of another one. "
                "Merge the adapter into the model first (peft's merge_and_unload, then save_pretrained), and give "
                "the result as model.path."
            )
        key = content_key("sft off", base)
        run.finish("sft", key, model=noted(run, recipe.model), fingerprint=base)
        return "off: the model as it is"
    key = content_key("sft", recipe.sft, recipe.run.seed, base, questions_key(questions))
    if not run.begin("sft", key):
        return "up to date"
    from radpref import models, training

    folder = keyed_folder(run.path("sft", "training"), key)
    bar = Steps("sft")
    result = training.sft(
        models.merged(load(run, recipe.model)),
        questions,
        recipe.sft,
        folder,
        seed=recipe.run.seed,
        max_steps=limit,
        log=bar,
    )
    bar.close()
    run.table("sft", "quarantined", Quarantined).write(result.quarantined)
    if not result.finished:
        return f"step {result.step} of {result.steps} (--limit)"
    run.finish(
        "sft",
        key,
        model=noted(run, ModelSection(path=str(result.path.absolute()))),
        fingerprint=models.fingerprint(result.path),
        trainable=result.trainable,
        steps=result.steps,
    )
    return f"{result.steps} steps on {len(questions)} studies, loss {result.loss:.3f}"
