"""``radpref export``: the aligned model, the pairs for another tool, or a leaderboard's file of its reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from radpref.cli.terminal import friendly, out
from radpref.exports import export_adapter, export_model, export_pairs, export_rexrank
from radpref.pipeline import road_of
from radpref.runs.folder import Run

ExportTarget = Literal["model", "adapter", "trl", "llama-factory", "ms-swift", "ids", "rexrank"]


def export(
    folder: Annotated[Path, typer.Argument(help="The run folder.")],
    target: Annotated[
        Path, typer.Argument(help="The folder to write, new or empty; for rexrank a file.", metavar="TO")
    ],
    to: Annotated[
        ExportTarget,
        typer.Option(
            "--to",
            help="model, adapter merged; adapter, for PEFT; the pairs for trl, llama-factory or ms-swift; "
            "ids: no text, no images; "
            "rexrank: the model's reports for the leaderboard.",
        ),
    ],
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images as 8-bit PNG, as the model sees them.")
    ] = False,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="A row a side with a label, for KTO.")] = False,
    asked: Annotated[
        Path | None, typer.Option("--asked", help="rexrank: the leaderboard's JSON file, ReXRank_*.json.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="rexrank: the folder of the images; that of --asked if absent.")
    ] = None,
) -> None:
    """Write the aligned model (adapter merged, with its processor) or its adapter, each with a card; the pairs in the
    layout of another tool; or the model's reports on the studies of ReXrank."""
    with friendly():
        if (to == "rexrank") != (asked is not None) or (root is not None and to != "rexrank"):
            raise typer.BadParameter("--to rexrank takes --asked FILE (and --root FOLDER), and nothing else does.")
        if to in ("model", "adapter", "ids", "rexrank") and (copy_images or unpaired):
            raise typer.BadParameter(
                f"--copy-images and --unpaired are for pairs; --to {to} has neither images nor sides."
            )
        run = Run(folder)
        road = road_of(run.recipe)
        if asked is not None:
            line = export_rexrank(run, road, asked, target, root=root)
        elif to in ("model", "adapter"):
            line = (export_model if to == "model" else export_adapter)(run, road, target)
        else:
            line = export_pairs(run, road, to, target, copy_images=copy_images, unpaired=unpaired)
        out.print(f"{line}, written to {target}", highlight=False, markup=False)
