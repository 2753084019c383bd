"""``radpref headroom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radpref import config
from radpref.cli.run import RedoOption, default_folder
from radpref.cli.terminal import friendly, out, overrides
from radpref.headroom import headroom_of
from radpref.outside import is_there
from radpref.runs.folder import Run, read_recipe


def headroom(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="RUN|RECIPE", help="A run folder, or a recipe for a new one.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Run folder of a recipe; runs/RECIPE[-PRESET] if absent.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of the recipe.")] = None,
    redo: RedoOption = False,
) -> None:
    """Can alignment help? Greedy, best of k, consensus and the references on the validation studies, before training.

    Studies and fine-tuning are done where they are missing, and are the run's own: `radpref run` goes on from there.
    """
    with friendly():
        words = overrides(context.args)
        if is_there(Path(what) / "run.json"):
            folder, loaded = Path(what), read_recipe(Path(what))
            loaded = config.override(loaded, words) if words else loaded
        else:
            loaded = config.load(what, preset=preset, overrides=words)
            folder = out_folder or default_folder(what, preset)
        page = headroom_of(Run(folder, loaded), redo=redo)
        told = f"page: {page}   numbers: {Path(page).with_suffix('.json')}"
        out.print(told, highlight=False, markup=False, soft_wrap=True)
