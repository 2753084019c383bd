"""``radpref data``: look at where studies come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides
from radpref.rooms import data

data_app = typer.Typer(name="data", help="Look at where studies come from.", no_args_is_help=True)


@data_app.callback()
def group() -> None:
    """Look at where studies come from."""


@data_app.command("preview", context_settings=TAKES_OVERRIDES)
def preview(
    context: typer.Context,
    to: Annotated[Path, typer.Option("--to", help="The picture to write (PNG).")] = Path("preview.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet.")] = 24,
    recipe: Annotated[str, typer.Option(help="The recipe whose data section is used.")] = "chexalign",
) -> None:
    """Draw a contact sheet of images, with lesion masks where they are known (--data phantom, --data.root ...)."""
    with friendly():
        loaded = config.load(recipe, overrides=overrides(context.args))
        data.preview_sheet(loaded.recipe.data, count=count, seed=loaded.recipe.run.seed).save(to, format="PNG")
        out.print(f"written to {to}", highlight=False, markup=False)
