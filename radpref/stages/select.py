"""The select stage: which checkpoint and beta."""

from __future__ import annotations

from radpref.config import ModelSection
from radpref.files import content_key
from radpref.run.folder import Run
from radpref.stages.common import fine_tuned, noted, print_of, questions_key, questions_of, shown
from radpref.stages.judgements import rank_of, validation_scores


def select(run: Run, limit: int | None = None) -> str:
    """Choose among checkpoints and betas by a judge's mean on the validation studies (greedy answers)."""
    from radpref.judges import version

    recipe = run.recipe
    start, fingerprint = fine_tuned(run)
    done = run.done("align")
    assert done is not None  # `pipeline` runs align first
    length, rules = recipe.sample.max_new_tokens, version(recipe.select.by, recipe.judge)
    questions = questions_key(questions_of(run, "validation"))
    key = content_key("select", recipe.select, rules, length, done["key"], fingerprint, questions)
    if not run.begin("select", key):
        return "up to date"
    if not questions_of(run, "validation"):
        return _last(run, key, start)
    before = validation_scores(run, "select", "sft", start, fingerprint)
    tried = []
    for one in done["runs"]:
        for checkpoint in one["checkpoints"] if recipe.select.checkpoints else one["checkpoints"][-1:]:
            name = f"beta-{one['beta']:g}-step-{checkpoint['step']}"
            model = _checkpoint_model(run, start, run.located(checkpoint["path"]))
            weights = print_of(model)
            scores = validation_scores(run, "select", name, model, weights)
            tried.append(
                {"name": name, "beta": one["beta"], "step": checkpoint["step"], "model": noted(run, model),
                 "fingerprint": weights, "scores": scores}
            )  # fmt: skip
    best = max(tried, key=lambda row: rank_of(row["scores"][recipe.select.by]))
    run.finish("select", key, by=recipe.select.by, before=before, tried=tried, chosen=best)
    score, base = best["scores"][recipe.select.by], before[recipe.select.by]
    return f"{best['name']} of {len(tried)}, {recipe.select.by} {shown(score)} ({shown(base)} before) on validation"


def _last(run: Run, key: str, start: ModelSection) -> str:
    """The last checkpoint, where there are no studies to choose on (``data.source: none``)."""
    done = run.done("align")
    assert done is not None  # `pipeline` runs align first
    (one,) = done["runs"]  # `check` has refused several betas
    last = one["checkpoints"][-1]
    model = _checkpoint_model(run, start, run.located(last["path"]))
    chosen = {
        "name": f"beta-{one['beta']:g}-step-{last['step']}", "beta": one["beta"], "step": last["step"],
        "model": noted(run, model), "fingerprint": print_of(model), "scores": {},
    }  # fmt: skip
    run.finish("select", key, by="", before={}, tried=[chosen], chosen=chosen)
    return f"{chosen['name']}, the last one: there are no studies to choose on"


def _checkpoint_model(run: Run, start: ModelSection, checkpoint: str) -> ModelSection:
    """How a checkpoint is loaded: as an adapter on the fine-tuned model, or as a model of its own."""
    if run.recipe.align.lora.rank:
        return ModelSection(path=start.path, revision=start.revision, adapter=checkpoint)
    return ModelSection(path=checkpoint)
