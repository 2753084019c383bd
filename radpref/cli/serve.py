"""``radpref serve-command``: how to start a server for the models that a run asks next."""

from __future__ import annotations

from typing import Annotated

import typer

from radpref.cli.results import RunArgument
from radpref.cli.terminal import friendly
from radpref.exports import serve_command
from radpref.pipeline import road_of
from radpref.runs.folder import Run


def serve(
    folder: RunArgument,
    stage: Annotated[
        str | None, typer.Option(help="sample, answer, validate or predict; the next one that is not finished.")
    ] = None,
) -> None:
    """Print the vLLM command that serves the models which a stage of the run asks."""
    with friendly():
        run = Run(folder)
        typer.echo(serve_command(run, road_of(run.recipe), stage))  # for a shell: no wrapping, no marks
