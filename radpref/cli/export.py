"""``radpref export``: the aligned model, or the pairs for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from radpref.cli.terminal import friendly, out
from radpref.pipeline import road_of
from radpref.runs.folder import Run
from radpref.stages.export import export_model, export_pairs

ExportTarget = Literal["model", "trl", "llama-factory", "ms-swift", "ids"]


def export(
    folder: Annotated[Path, typer.Argument(help="The run folder.")],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must be new or empty.", metavar="FOLDER")],
    to: Annotated[
        ExportTarget,
        typer.Option("--to", help="model; or the pairs for trl, llama-factory or ms-swift; ids: no text, no images."),
    ],
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images as 8-bit PNG, as the model sees them.")
    ] = False,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="A row a side with a label, for KTO.")] = False,
) -> None:
    """Write the aligned model (adapter merged, with its processor), or the pairs in the layout of another tool."""
    with friendly():
        if to in ("model", "ids") and (copy_images or unpaired):
            raise typer.BadParameter(
                f"--copy-images and --unpaired are for pairs; --to {to} has neither images nor sides."
            )
        run = Run(folder)
        road = road_of(run.recipe)
        if to == "model":
            line = export_model(run, road, target)
        else:
            line = export_pairs(run, road, to, target, copy_images=copy_images, unpaired=unpaired)
        out.print(f"{line}, written to {target}", highlight=False, markup=False)
