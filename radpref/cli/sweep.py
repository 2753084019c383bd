"""``radpref sweep``: a comparison over settings and seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from radpref import config
from radpref.cli.terminal import err, friendly, overrides
from radpref.sweep import SweepError, load_grid, markdown
from radpref.sweep import sweep as run_grid


def sweep(
    context: typer.Context,
    grid: Annotated[str, typer.Argument(help="A shipped grid or the path of a YAML file.")],
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder of all runs; sweeps/GRID if absent.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    first: Annotated[int, typer.Option("--first-seed", min=0, help="The first of them.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes: each runs a seed, or a part of one.")] = 1,
) -> None:
    """Run a comparison over settings and seeds; the same command again goes on where it stopped.

    Keys of the recipe (`--data.phantom.reports clean`) are set for all cells, where a cell does not set them itself.
    """
    with friendly():
        loaded = load_grid(grid, config.given(overrides(context.args)))
        folder = out_folder or Path("sweeps") / Path(grid).stem
        results = run_grid(loaded, folder, range(first, first + seeds), jobs)
        sys.stdout.write(markdown(loaded, results))
        err.print(f"written to {folder / 'results.md'} and results.json", highlight=False, markup=False)
        if failed := results["failed"]:
            raise SweepError(
                f"{len(failed)} trainings failed, of {', '.join(dict.fromkeys(one['cell'] for one in failed))}; the "
                "tables say why and are made of the others. The same command tries these again."
            )
