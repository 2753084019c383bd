"""``radpref models``: try a model before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from radpref.cli.terminal import friendly, out
from radpref.config import ModelSection, RunSection
from radpref.rooms import training

models_app = typer.Typer(name="models", help="Try a model before anything is trained.", no_args_is_help=True)


@models_app.callback()
def group() -> None:
    """Try a model before anything is trained."""


@models_app.command()
def check(
    path: Annotated[str, typer.Argument(help="builtin, a folder, or a model's name on the hub.")],
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter on top.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    width: Annotated[int, typer.Option(min=8, help="Width of the test images, in pixels.")] = 1024,
    height: Annotated[int, typer.Option(min=8, help="Their height.")] = 1024,
) -> None:
    """Load a model and send two prompts through every way: what is shared, kept and trained, and a step's memory."""
    with friendly():
        section = ModelSection(path=path, adapter=str(adapter) if adapter else None)
        run = RunSection.model_validate({"device": device, "precision": precision})
        found = training.check(section, run, size=(width, height))
        table = Table("what", "how it is", title=path, title_justify="left")
        for what, how in training.check_rows(found):
            table.add_row(what, how)
        out.print(table)
