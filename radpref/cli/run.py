"""``radpref run``, and a command for each stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from radpref import config
from radpref.cli.recipes import described
from radpref.cli.results import print_results
from radpref.cli.terminal import TAKES_OVERRIDES, err, friendly, overrides
from radpref.pipeline import commands, run_all, run_stage_alone
from radpref.runs.folder import Run, read_recipe

RunArgument = Annotated[Path, typer.Argument(help="The run folder.")]
RedoOption = Annotated[
    bool, typer.Option("--redo", help="Make anew what a change has outdated, and give up what was there.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Do at most so many items this time.")]


def default_folder(recipe: str, preset: str | None) -> Path:
    """Where a run of a recipe goes when nobody says where."""
    return Path("runs") / (Path(recipe).stem + (f"-{preset}" if preset else ""))


def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or the path of a YAML file.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Run folder; runs/RECIPE[-PRESET] if absent.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of the recipe.")] = None,
    limit: Annotated[int | None, typer.Option(min=3, help="Use at most so many studies of each split.")] = None,
    redo: RedoOption = False,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", "--print-config", help="Print the resolved recipe and stop.")
    ] = False,
) -> None:
    with friendly():
        loaded = config.load(recipe, preset=preset, overrides=overrides(context.args))
        if limit is not None:
            section, splits = loaded.recipe.data, ("train", "validation", "test")
            drawn = section.phantom if section.source == "phantom" else None  # no more are drawn than without a limit
            counts = {split: getattr(section, split) or getattr(drawn, split, limit) for split in splits}
            most = [f"data.{split}={min(limit, count)}" for split, count in counts.items()]
            loaded = config.override(loaded, most)
        if print_recipe:
            sys.stdout.write(config.dump(loaded))
            return
        if config.OWN_MODEL in loaded.provenance.values():
            told = f"{loaded.recipe.model.path} is not the built-in model, for which {recipe} is set"
            err.print(f"{told}: settings of {config.OWN_MODEL}. Another: --preset.", highlight=False, markup=False)
        this = Run(out_folder or default_folder(recipe, preset), loaded)
        run_all(this, redo=redo)
        if this.main and this.mark("evaluate") is not None:
            print_results(this)


run.__doc__ = f"""Run a whole recipe; the same command again goes on where it stopped.

Any value can be overridden: --align.beta 0.05, --model PATH (model.path), --data openi (data.source).
Several processes: torchrun --nproc-per-node 2 -m radpref run ..., or accelerate launch -m radpref run ...;
a Ray cluster: --engine ray.

{described()}
"""


def add_stage_commands(app: typer.Typer, corrupt_app: typer.Typer) -> None:
    """A command for each stage: ``radpref sample RUN``."""
    for name, stage in commands().items():
        group, _, command = (stage.command or name).rpartition(" ")
        _stage_command(corrupt_app if group else app, name, command, stage.help)


def _stage_command(to: typer.Typer, name: str, command: str, text: str) -> None:
    def work(context: typer.Context, folder: RunArgument, limit: LimitOption = None, redo: RedoOption = False) -> None:
        with friendly():
            loaded = read_recipe(folder)
            if words := overrides(context.args):
                loaded = config.override(loaded, words)
            run_stage_alone(Run(folder, loaded), name, limit=limit, redo=redo)

    work.__doc__ = text
    to.command(name=command, context_settings=TAKES_OVERRIDES)(work)
