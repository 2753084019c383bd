"""``radpref data``: look at where studies come from."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides
from radpref.files import replacing, write_atomically
from radpref.outside import shown
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
        sheet = data.preview_sheet(loaded.recipe.data, count=count, seed=loaded.recipe.run.seed)
        with replacing(to) as file:
            sheet.save(file, format="PNG")
        out.print(f"written to {to}", highlight=False, markup=False)


@data_app.command("inspect", context_settings=TAKES_OVERRIDES)
def inspect(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The table, or the folder of a data set.")],
    source: Annotated[str, typer.Option(help="A name of data.source.")] = "table",
    to: Annotated[Path | None, typer.Option("--out", help="Write the recipe's data section (YAML) there.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Write a sheet of the images (PNG) there.")] = None,
) -> None:
    """Tell what a data set holds and what is wrong with it, and write the recipe's section that reads it.

    Keys of the recipe are given as in a run: --data.table.patient mrn, --data.root FOLDER.
    """
    with friendly():
        section = data.section_for(file, source=source)
        recipe = config.override(config.load("chexalign"), {f"data.{k}": v for k, v in section.model_dump().items()})
        if words := overrides(context.args):
            recipe = config.override(recipe, words)
        with TemporaryDirectory() as cache:
            found = data.inspect_data(recipe.recipe.data, Path(cache), recipe.recipe.run.seed)
            for line in found.lines():
                out.print(shown(line), highlight=False, markup=False)
            if picture is not None and found.picture is not None:
                with replacing(picture) as sheet:
                    found.picture.save(sheet, format="PNG")
                out.print(f"images on {picture}", highlight=False, markup=False)
        if to is not None:
            write_atomically(to, found.recipe())
            out.print(f"recipe's section written to {to}", highlight=False, markup=False)
