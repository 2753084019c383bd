"""The prepare and align stages: the reference's log-probs, then training on the pairs."""

from __future__ import annotations

import shutil
from typing import Any

from radpref.config import AlignSection
from radpref.files import content_key
from radpref.records import Pair, Quarantined
from radpref.run.folder import Run, progress
from radpref.stages.common import Steps, fine_tuned, keyed_folder, load, pairs_from, reasons


def prepare(run: Run, limit: int | None = None) -> str:
    """Score both sides of every pair under the fine-tuned model, the reference of the alignment."""
    model, fingerprint = fine_tuned(run)
    key = content_key("prepare", _read(run.recipe.align), fingerprint, run.digest(pairs_from(run), "pairs"))
    if not run.begin("prepare", key):
        return "up to date"
    prepared = _prepared(run, load(run, model), limit)
    run.table("prepare", "quarantined", Quarantined).write(prepared.quarantined)
    line = f"{len(prepared.items)} items, {len(prepared.quarantined)} pairs quarantined{reasons(prepared.quarantined)}"
    if limit is not None:
        return f"{line}; {prepared.scored} answers done (--limit)"
    run.finish("prepare", key, items=len(prepared.items), quarantined=len(prepared.quarantined))
    return line


def _read(align: AlignSection) -> AlignSection:
    """The section without what the prepare stage does not read."""
    default = AlignSection()
    unread = {"objective", "beta", "lora", "lr", "warmup", "epochs", "accumulate", "weight_decay", "save_steps"}
    return align.model_copy(update={name: getattr(default, name) for name in unread})


def _prepared(run: Run, vlm: Any, limit: int | None = None) -> Any:
    from radpref import training

    pairs = run.rows(pairs_from(run), "pairs", Pair)
    bar: list[Any] = []

    def advance(done: int, total: int) -> None:
        if not bar:
            bar.append(progress(total=total, unit="answers", what="prepare"))
        bar[0].update(done - bar[0].n)

    prepared = training.prepare(vlm, pairs, run.recipe.align, run.path("prepare"), limit=limit, progress=advance)
    if bar:
        bar[0].close()
    return prepared


def align(run: Run, limit: int | None = None) -> str:
    """Train on the pairs, once for every beta of the selection."""
    from radpref import training

    recipe = run.recipe
    model, fingerprint = fine_tuned(run)
    betas = recipe.select.betas or (recipe.align.beta,)
    pairs = run.digest(pairs_from(run), "pairs")
    keys = {beta: content_key("align", _with_beta(run, beta), recipe.run.seed, fingerprint, pairs) for beta in betas}
    whole = content_key(list(keys.values()))
    if not run.begin("align", whole):
        return "up to date"
    vlm = load(run, model)
    prepared = _prepared(run, vlm)
    runs = []
    for beta, key in keys.items():
        folder = keyed_folder(run.path("align", f"beta-{beta:g}"), key)
        bar = Steps(f"align {beta:g}")
        result = training.align(
            vlm, prepared, _with_beta(run, beta), folder, seed=recipe.run.seed, max_steps=limit, log=bar
        )
        bar.close()
        if not result.finished:
            return f"beta {beta:g}: step {result.step} of {result.steps} (--limit)"
        runs.append(
            {
                "beta": beta,
                "checkpoints": [
                    {"path": run.noted(str(c.path.absolute())), "step": c.step} for c in result.checkpoints
                ],
            }
        )
    for folder in run.path("align").glob("beta-*"):
        if folder.name not in {f"beta-{beta:g}" for beta in betas}:
            shutil.rmtree(folder)
    run.finish("align", whole, runs=runs, trainable=result.trainable, steps=result.steps, items=len(prepared.items))
    shown = {"loss": "loss", "reward_margin": "margin", "reward_accuracy": "accuracy"}
    last = result.history[-1]
    facts = ", ".join(f"{word} {last[name]:.3f}" for name, word in shown.items() if name in last)
    return f"{result.steps} steps on {len(prepared.items)} items, betas {', '.join(f'{b:g}' for b in betas)}; {facts}"


def _with_beta(run: Run, beta: float) -> AlignSection:
    return run.recipe.align.model_copy(update={"beta": beta})
