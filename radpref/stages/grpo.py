"""The grpo stage: the judge as a reward, instead of pairs."""

from __future__ import annotations

from radpref.config import ModelSection
from radpref.files import content_key
from radpref.records import Quarantined
from radpref.run.folder import Run
from radpref.stages.common import (
    Steps,
    fine_tuned,
    keyed_folder,
    load,
    noted,
    questions_key,
    questions_of,
    shown,
)
from radpref.stages.judgements import judge_section, validation_scores


def grpo(run: Run, limit: int | None = None) -> str:
    """Train on the judge's score of the model's own answers, and score the validation studies before and after."""
    from radpref import models
    from radpref.judges import JUDGES, chexpo, reward_function, version

    recipe = run.recipe
    start, fingerprint = fine_tuned(run)
    questions = questions_of(run, "train")
    by = recipe.select.by
    rules = [version(name, recipe.judge) for name in (recipe.judge.name, by)]
    sample = recipe.sample
    settings = [recipe.grpo, recipe.judge.name, by, rules, sample.temperature, sample.top_p, sample.max_new_tokens]
    validation = questions_key(questions_of(run, "validation"))
    key = content_key("grpo", settings, recipe.run.seed, fingerprint, questions_key(questions), validation)
    if not run.begin("grpo", key):
        return "up to date"
    from radpref.training.grpo import grpo as train

    section = judge_section(run)
    reward = (
        chexpo if recipe.grpo.reward == "chexpo" else reward_function(JUDGES[section.name](section), name=section.name)
    )
    before = validation_scores(run, "grpo", "sft", start, fingerprint)
    folder = keyed_folder(run.path("grpo", "training"), key)
    bar = Steps("grpo")
    result = train(
        load(run, start),
        questions,
        reward,
        recipe.grpo,
        sample,
        folder,
        seed=recipe.run.seed,
        max_steps=limit,
        log=bar,
    )
    bar.close()
    run.table("grpo", "quarantined", Quarantined).write(result.quarantined)
    if not result.finished:
        return f"step {result.step} of {result.steps} (--limit)"
    model = ModelSection(path=str(result.path.absolute()))
    print_of = models.fingerprint(result.path)
    scores = validation_scores(run, "grpo", "trained", model, print_of)
    chosen = {
        "name": f"step {result.step}", "beta": recipe.grpo.beta, "step": result.step, "model": noted(run, model),
        "fingerprint": print_of, "scores": scores,
    }  # fmt: skip
    run.finish("grpo", key, by=by, before=before, tried=[chosen], chosen=chosen, trainable=result.trainable)
    rewards = [entry["reward"] for entry in result.history if "reward" in entry]
    tenth = max(len(rewards) // 10, 1)
    first, last = (sum(part) / tenth for part in (rewards[:tenth], rewards[-tenth:]))
    return (
        f"{result.steps} steps, reward {first:.3f} to {last:.3f} on its own answers; "
        f"{by} {shown(before[by])} to {shown(scores[by])} on validation"
    )
