"""The aligned model as an ordinary checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from radpref.runfolder import Run, RunError
from radpref.stages.common import load, located, outcome, print_of
from radpref.store import disk_errors


def export_model(run: Run, to: Path) -> None:
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: nothing has been selected yet, or it was trained anew since; or the folder holds something.
    """
    from radpref import models

    done = outcome(run)
    if done is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise RunError(f"{to} is there already; give a new or an empty folder.")
    model = located(run, done["chosen"]["model"])
    if print_of(model) != done["chosen"]["fingerprint"]:
        raise RunError(
            f"the model that was selected in {run.folder} has been trained anew since; `radpref run` (the same "
            "command as before) brings everything up to date."
        )
    to = to.absolute()
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with disk_errors(to):
        models.save(models.merged(load(run, model)), part)
        part.replace(to)
