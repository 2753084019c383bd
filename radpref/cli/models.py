"""``radpref models``: try a model before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides
from radpref.config import AlignSection, ModelSection, RunSection, SftSection
from radpref.rooms import models, training

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


@models_app.command(context_settings=TAKES_OVERRIDES)
def memory(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe, by name or path; overrides as for `radpref run`.")],
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of the recipe.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Of a row: images, prompt, and both answers.")] = 2048,
    processes: Annotated[int, typer.Option(min=1, help="Among which a batch is divided.")] = 1,
) -> None:
    """What a recipe's steps take in memory on each device, told from the model's config alone; nothing is loaded."""
    with friendly():
        found = config.load(recipe, preset=preset, overrides=overrides(context.args)).recipe
        read, quantized = models.read_config(found.model.path), found.model.quantize != "none"
        kind: Literal["float32", "bfloat16"] = "float32" if found.run.precision == "float32" else "bfloat16"
        sections: dict[str, AlignSection | SftSection] = {"sft": found.sft} if found.sft.enabled else {}
        sections["align"] = found.align
        table = Table("GiB", "weights", "kept", "gradients", "optimizer", "for a moment", "all")
        for name, section in sections.items():
            told = training.estimate(read, section, tokens=tokens, processes=processes, dtype=kind, quantized=quantized)
            table.add_row(*training.estimate_rows(name, told))
        out.print(table)
        out.print(f"{found.model.path} in {kind}, rows of {tokens} tokens; the allocator takes a tenth more")
