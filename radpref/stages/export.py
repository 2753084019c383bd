"""The aligned model as an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path

from radpref.recipe import ModelSection
from radpref.runfolder import Run, RunError
from radpref.stages.common import load


def export_model(run: Run, to: Path) -> None:
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: nothing has been selected yet, or the folder holds something.
    """
    from radpref import models

    done = run.done("select")
    if done is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    if to.exists() and any(to.iterdir()):
        raise RunError(f"{to} is not empty; give a new folder.")
    models.save(models.merged(load(run, ModelSection.model_validate(done["chosen"]["model"]))), to)
