"""The command line: thin. It reads a recipe, opens a run folder, and hands over to the pipeline."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import typer
from rich.console import Console

from radpref import __version__
from radpref import recipe as recipes
from radpref.records import Metric

warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # for developers, not for users

app = typer.Typer(
    name="radpref",
    help="Preference alignment for radiology vision-language models, without human feedback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(name="data", help="Look at where studies come from.", no_args_is_help=True)
app.add_typer(data_app)
out = Console()
err = Console(stderr=True)

TAKES_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}


@contextmanager
def friendly() -> Iterator[None]:
    """Turn the errors that have an explanation into that explanation and exit status 2."""
    from radpref.errors import RadprefError

    try:
        yield
    except RadprefError as error:
        err.print(f"[bold red]radpref:[/] {_plain(str(error))}", highlight=False)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where this one was.")
        raise typer.Exit(130) from None


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def overrides(extra: list[str]) -> list[str]:
    """``--align.beta 0.05 --judge.name=lc-green`` as ``key=value`` words.

    Raises:
        RecipeError: a word that is not an option, or an option without a value.
    """
    result, words = [], iter(extra)
    for word in words:
        if not word.startswith("--"):
            raise recipes.RecipeError(f"`{word}` belongs to no option; write --section.key value.")
        key, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                known = recipes.SHORTHANDS.keys() | set(recipes.keys())
                hint = "" if key.replace("-", "_") in known else recipes.nearest(key, sorted(known))
                raise recipes.RecipeError(f"`--{key}` needs a value{hint or '.'}")
            value = following
        result.append(f"{key}={value}")
    return result


RecipeName = Annotated[str, typer.Argument(help="A shipped recipe or the path of a YAML file.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/RECIPE[-PRESET] if absent.")]
PresetOption = Annotated[str | None, typer.Option("--preset", help="A preset of the recipe.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Do at most so many items this time.")]
RunArgument = Annotated[Path, typer.Argument(help="The run folder.")]


@app.command(context_settings=TAKES_OVERRIDES)
def run(
    context: typer.Context,
    recipe: RecipeName,
    out_folder: OutOption = None,
    preset: PresetOption = None,
    limit: Annotated[int | None, typer.Option(min=3, help="Use at most so many studies of each split.")] = None,
    print_recipe: Annotated[bool, typer.Option("--print-recipe", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Run a whole recipe; the same command again goes on where it stopped.

    Any value can be overridden: --align.beta 0.05, --model PATH (model.path), --data openi (data.source).
    """
    with friendly():
        words = overrides(context.args)
        if limit is not None:
            words += [f"data.{split}={limit}" for split in ("train", "validation", "test")]
        loaded = recipes.load(recipe, preset=preset, overrides=words)
        if print_recipe:
            sys.stdout.write(recipes.dump(loaded))
            return
        name = Path(recipe).stem + (f"-{preset}" if preset else "")
        from radpref.pipeline import run_all
        from radpref.runfolder import Run

        folder = out_folder or Path("runs") / name
        run_all(Run(folder, loaded))
        _print_results(folder)


def _stage_command(stage: str, text: str) -> None:
    def command(context: typer.Context, folder: RunArgument, limit: LimitOption = None) -> None:
        with friendly():
            from radpref.pipeline import run_stage
            from radpref.runfolder import Run, read_recipe

            words = overrides(context.args)
            loaded = read_recipe(folder)
            if words:
                loaded = recipes.override(loaded, words)
            run_stage(Run(folder, loaded), stage, limit=limit)

    command.__doc__ = text
    app.command(name=stage, context_settings=TAKES_OVERRIDES)(command)


for _stage, _text in {
    "studies": "Read the studies, split them by patient, write the questions.",
    "sft": "Supervised fine-tuning on the reference reports.",
    "sample": "Sample candidate reports from the fine-tuned model.",
    "judge": "Judge every candidate against its reference.",
    "pair": "Rank the candidates into preference pairs.",
    "prepare": "Compute the reference log-probabilities of the pairs.",
    "align": "Align the model with the pairs.",
    "select": "Choose the checkpoint and beta on the validation studies.",
    "control": "Train SFT on the chosen side of the same pairs, the control of every gain.",
    "evaluate": "Measure every system on the held-out patients.",
    "report": "Write report.html.",
}.items():
    _stage_command(_stage, _text)


@app.command()
def status(folder: RunArgument) -> None:
    """What is finished in a run folder, with counts and times."""
    with friendly():
        from radpref.pipeline import status_table
        from radpref.runfolder import Run

        out.print(status_table(Run(folder)))


@app.command()
def results(folder: RunArgument) -> None:
    """Print the results table of a finished run."""
    with friendly():
        _print_results(folder)


def _print_results(folder: Path) -> None:
    import json

    from radpref.evaluation.tables import terminal_table
    from radpref.runfolder import RunError

    path = folder / "metrics.json"
    if not path.is_file():
        raise RunError(f"{folder} has no metrics.json; `radpref evaluate {folder}` makes it.")
    content = json.loads(path.read_text("utf-8"))
    out.print(terminal_table([Metric.model_validate(row) for row in content["metrics"]]))
    out.print(f"report: {folder / 'report.html'}   numbers: {path}", highlight=False)


@app.command()
def export(
    folder: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="Folder for the merged checkpoint; it must be new or empty.")],
) -> None:
    """Write the aligned model as an ordinary checkpoint (adapter merged), with its processor."""
    with friendly():
        from radpref.runfolder import Run
        from radpref.stages import export_model

        export_model(Run(folder), to)
        out.print(f"written to {to}", highlight=False)


@app.command(name="recipes")
def list_recipes() -> None:
    """The shipped recipes."""
    for name in recipes.shipped():
        out.print(name)


@app.command()
def doctor() -> None:
    """What is installed, what hardware is seen, which extras are missing and what each would add."""
    with friendly():
        from radpref.doctor import examine

        out.print(examine())


@data_app.command("preview", context_settings=TAKES_OVERRIDES)
def preview(
    context: typer.Context,
    to: Annotated[Path, typer.Option("--to", help="The picture to write (PNG).")] = Path("preview.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="Films on the sheet.")] = 24,
    recipe: Annotated[str, typer.Option(help="The recipe whose data section is used.")] = "chexalign",
) -> None:
    """Draw a contact sheet of films, with lesion masks where they are known (--data phantom, --data.root ...)."""
    with friendly():
        from radpref.data import preview_sheet

        loaded = recipes.load(recipe, overrides=overrides(context.args))
        preview_sheet(loaded.recipe.data, count=count, seed=loaded.recipe.run.seed).save(to)
        out.print(f"written to {to}", highlight=False)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> Any:
    if version:
        out.print(f"radpref {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    app()
