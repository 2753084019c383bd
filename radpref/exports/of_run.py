"""The aligned model as an ordinary checkpoint, and the pairs for another tool."""

from __future__ import annotations

from pathlib import Path

from radpref.files import new_folder, write_atomically
from radpref.records import System, reasons
from radpref.rooms import formats, models
from radpref.runs.context import Left, section_of
from radpref.runs.folder import Run, RunError
from radpref.runs.stage import Road
from radpref.stages.ports import CHOICE, METRICS, PAIRS, STUDIES


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
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: as `chosen_model`. StoreError: the folder holds something.
    """
    chosen, left = chosen_model(run, road), Left(run, road)
    with new_folder(to) as part:
        models.save(models.merged(models.load(section_of(chosen.weights), run.recipe.run)), part)
        counts = {f"{split} studies": n for split, n in left.counts(STUDIES).get("studies", {}).items()}
        counts |= {name: n for name, n in left.counts(PAIRS).items() if name == "pairs"}
        facts = models.facts_of_recipe(to.name, run.recipe, counts, list(left.table(METRICS) or ()))
        write_atomically(part / "README.md", models.model_card(facts))
    return chosen.id


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
