"""The aligned model as an ordinary checkpoint, and the pairs for another tool."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from radpref.files import new_folder, read_json, write_atomically
from radpref.records import System, reasons
from radpref.rooms import evaluation, formats, models
from radpref.runs.context import QUARANTINED, Left, section_of
from radpref.runs.folder import Run, RunError
from radpref.runs.stage import Road
from radpref.stages.ports import CHOICE, METRICS, PAIRS, STUDIES

CARD = "README.md"


def chosen_model(run: Run, road: Road) -> System:
    """The model that was selected, once it is seen that it lies there as it was.

    Raises:
        RunError: nothing has been selected yet, or it was trained anew since.
    """
    choice = Left(run, road).fact(CHOICE)
    if choice is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    weights = choice.chosen.weights
    section = section_of(weights)
    if models.fingerprint(models.locate(section), section.adapter) != weights.fingerprint:
        raise RunError(
            f"the model that was selected in {run.folder} has been trained anew since; `radpref run` (the same "
            "command as before) brings everything up to date."
        )
    return choice.chosen


def export_model(run: Run, road: Road, to: Path) -> str:
    """Write the chosen model, adapter merged, with its processor and a card, as an ordinary checkpoint.

    Raises:
        RunError: as `chosen_model`. StoreError: the folder holds something.
    """
    chosen = chosen_model(run, road)
    with new_folder(to) as part:
        models.save(models.merged(models.load(section_of(chosen.weights), run.recipe.run)), part)
        write_atomically(part / CARD, _card(run, road, to.name, adapter=False))
    return chosen.id


def export_adapter(run: Run, road: Road, to: Path) -> str:
    """Write the chosen adapter as PEFT reads it, with a card, for the model that the recipe names.

    Raises:
        RunError: as `chosen_model`; the model was trained in full, or the adapter is on a model that the run has
            fine-tuned, which nobody else has. StoreError: the folder holds something.
    """
    chosen = chosen_model(run, road)
    weights, given = chosen.weights, models.locate(run.recipe.model)
    if weights.adapter is None:
        raise RunError(
            f"{chosen.id} of {run.folder} has no adapter: it was trained in full. `--to model` writes the model."
        )
    if models.fingerprint(models.locate(section_of(weights))) != models.fingerprint(given):
        raise RunError(
            f"the adapter of {chosen.id} is on the model that {run.folder} has fine-tuned, without which it is of no "
            "use. `--to model` writes both as one."
        )
    with new_folder(to) as part:
        for name in ("adapter_model.safetensors", "adapter_config.json", models.BASE_RECORD):
            shutil.copyfile(Path(weights.adapter) / name, part / name)
        settings = part / "adapter_config.json"
        named = {**read_json(settings), "base_model_name_or_path": run.recipe.model.path}
        write_atomically(settings, json.dumps(named, indent=2, sort_keys=True) + "\n")
        write_atomically(part / CARD, _card(run, road, to.name, adapter=True))
    return chosen.id


def _card(run: Run, road: Road, name: str, *, adapter: bool) -> str:
    """README.md: what went in, what came out, and the recipe."""
    left = Left(run, road)
    counts = {f"{split} studies": n for split, n in left.counts(STUDIES).get("studies", {}).items()}
    counts |= {what: n for what, n in left.counts(PAIRS).items() if what == "pairs"}
    counts["quarantined rows"] = sum(len(run.table(stage.name, QUARANTINED)) for stage in road)
    metrics = list(left.table(METRICS) or ())
    shown = set(evaluation.headline(row.name for row in metrics))
    facts = models.facts_of_recipe(name, run.recipe, counts, [row for row in metrics if row.name in shown])
    return models.model_card(replace(facts, adapter=adapter))


def export_pairs(
    run: Run, road: Road, to: str, folder: Path, *, copy_images: bool = False, unpaired: bool = False
) -> str:
    """Write the run's pairs for the tool ``to``, a key of ``formats.WRITERS`` or ``ids``; returns a line about them.

    Raises:
        RunError: there are no pairs yet, the folder holds something, or no pair can be written.
    """
    table = Left(run, road).table(PAIRS)
    if table is None:
        raise RunError(f"there are no pairs in {run.folder} yet; `radpref pair {run.folder}` makes them.")
    with new_folder(folder) as part:
        written = formats.write_pairs(to, table, part, copy_images=copy_images, unpaired=unpaired)
        if not written.pairs:
            raise RunError(f"no pair can be written{reasons(written.quarantined)}; nothing was.")
    left = f"; {len(written.quarantined)} left out{reasons(written.quarantined)}" if written.quarantined else ""
    visual = f", {written.visual} visual" if written.visual else ""
    return f"{written.pairs} pairs, {written.rows} rows{visual}{left}"
