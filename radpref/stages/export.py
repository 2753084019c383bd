"""What leaves a run: the aligned model as an ordinary checkpoint, the pairs for another tool."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radpref.files import disk_errors
from radpref.records import Pair
from radpref.run.folder import Run, RunError
from radpref.stages.common import load, located, outcome, print_of, reasons


def export_model(run: Run, to: Path) -> str:
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: nothing has been selected yet, or it was trained anew since; or the folder holds something.
    """
    from radpref import models

    done = outcome(run)
    if done is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    _check_new(to)
    model = located(run, done["chosen"]["model"])
    if print_of(model) != done["chosen"]["fingerprint"]:
        raise RunError(
            f"the model that was selected in {run.folder} has been trained anew since; `radpref run` (the same "
            "command as before) brings everything up to date."
        )
    with _whole(to) as part:
        models.save(models.merged(load(run, model)), part)
    return str(done["chosen"].get("name", "the trained model"))


def export_pairs(run: Run, to: str, folder: Path, *, copy_images: bool = False, unpaired: bool = False) -> str:
    """Write the run's pairs for the tool ``to``, a key of ``formats.WRITERS`` or ``ids``; returns a line about them.

    Raises:
        RunError: there are no pairs yet, the folder holds something, or no pair can be written.
    """
    from radpref.formats import write_pairs

    if run.done("pair") is None:
        raise RunError(f"there are no pairs in {run.folder} yet; `radpref pair {run.folder}` makes them.")
    _check_new(folder)
    with _whole(folder) as part:
        written = write_pairs(to, run.rows("pair", "pairs", Pair), part, copy_images=copy_images, unpaired=unpaired)
        if not written.pairs:
            raise RunError(f"no pair can be written{reasons(written.quarantined)}; nothing was.")
    left = f"; {len(written.quarantined)} left out{reasons(written.quarantined)}" if written.quarantined else ""
    return (
        f"{written.pairs} pairs, {written.rows} rows" + (f", {written.visual} visual" if written.visual else "") + left
    )


def _check_new(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunError(f"{folder} is there already; give a new or an empty folder.")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write to that becomes ``folder`` in one step when the block ends, and not at all if it fails."""
    folder = folder.absolute()
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with disk_errors(folder):
            part.mkdir(parents=True)
            yield part
            part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
