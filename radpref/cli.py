"""The command line: thin. It reads a recipe, opens a run folder, and hands over to the pipeline."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import typer

from radpref import __version__, config
from radpref.commands import bench, corrupt_app, findings_app, judges_app
from radpref.records import Comparison, Metric
from radpref.terminal import TAKES_OVERRIDES, err, friendly, out, overrides

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
app.add_typer(corrupt_app)
app.add_typer(findings_app)
app.add_typer(judges_app)
app.command()(bench)

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe or the path of a YAML file.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/RECIPE[-PRESET] if absent.")]
PresetOption = Annotated[str | None, typer.Option("--preset", help="A preset of the recipe.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Do at most so many items this time.")]
ExportTarget = Literal["model", "trl", "llama-factory", "ms-swift", "ids"]
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
        loaded = config.load(recipe, preset=preset, overrides=overrides(context.args))
        if limit is not None:
            counts = {split: getattr(loaded.recipe.data, split) for split in ("train", "validation", "test")}
            most = [f"data.{split}={min(limit, count or limit)}" for split, count in counts.items()]
            loaded = config.override(loaded, most)
        if print_recipe:
            sys.stdout.write(config.dump(loaded))
            return
        name = Path(recipe).stem + (f"-{preset}" if preset else "")
        from radpref.pipeline import run_all, states
        from radpref.run.folder import Run

        folder = out_folder or Path("runs") / name
        run_all(Run(folder, loaded))
        if "evaluate" in states(Run(folder)):
            _print_results(folder)


def _stage_command(stage: str, text: str, to: typer.Typer = app, name: str | None = None) -> None:
    def command(context: typer.Context, folder: RunArgument, limit: LimitOption = None) -> None:
        with friendly():
            from radpref.pipeline import run_stage
            from radpref.run.folder import Run, read_recipe

            words = overrides(context.args)
            loaded = read_recipe(folder)
            if words:
                loaded = config.override(loaded, words)
            run_stage(Run(folder, loaded), stage, limit=limit)

    command.__doc__ = text
    to.command(name=name or stage, context_settings=TAKES_OVERRIDES)(command)


for _stage, _text in {
    "studies": "Read the studies, split them by patient, write the questions.",
    "sft": "Supervised fine-tuning on the reference reports.",
    "sample": "Sample candidate reports from the fine-tuned model.",
    "answer": "The fine-tuned model's own greedy answers, which firempo edits.",
    "mine": "Find the training questions that are worth a pair.",
    "judge": "Judge every candidate against its reference.",
    "pair": "Rank the candidates into preference pairs.",
    "prepare": "Compute the reference log-probabilities of the pairs.",
    "align": "Align the model with the pairs.",
    "grpo": "Train on the judge's score of the model's own answers.",
    "select": "Choose the checkpoint and beta on the validation studies.",
    "control": "Train SFT on the chosen side of the same pairs, the control of every gain.",
    "ground": "Measure whether the models look at the lesions and depend on them.",
    "evaluate": "Measure every system on the held-out patients.",
    "report": "Write report.html.",
}.items():
    _stage_command(_stage, _text)
_stage_command("corrupt", "Take the lesions out of the images of the pairs.", corrupt_app, "pairs")


@app.command()
def sweep(
    grid: Annotated[str, typer.Argument(help="A shipped grid or the path of a YAML file.")],
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder of all runs; sweeps/GRID if absent.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, counted from 0.")] = 5,
) -> None:
    """Run a comparison over settings and seeds; the same command again goes on where it stopped."""
    with friendly():
        from radpref.sweep import load_grid, markdown
        from radpref.sweep import sweep as run_grid

        loaded = load_grid(grid)
        folder = out_folder or Path("sweeps") / Path(grid).stem
        results = run_grid(loaded, folder, range(seeds))
        sys.stdout.write(markdown(loaded, results))
        err.print(f"written to {folder / 'results.md'} and results.json", highlight=False, markup=False)


@app.command()
def status(folder: RunArgument) -> None:
    """What is finished in a run folder, with counts and times."""
    with friendly():
        from radpref.pipeline import status_table
        from radpref.run.folder import Run

        out.print(status_table(Run(folder)))


@app.command()
def results(
    folder: RunArgument,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, with the paired tests.")] = False,
) -> None:
    """Print the results table of a finished run."""
    with friendly():
        _print_results(folder, markdown)


def _print_results(folder: Path, markdown: bool = False) -> None:
    from radpref.evaluation import markdown_table, markdown_tests, terminal_table
    from radpref.pipeline import states
    from radpref.run.folder import Run, RunError, read_json

    path = folder / "metrics.json"
    if not path.is_file():
        raise RunError(f"{folder} has no metrics.json; `radpref evaluate {folder}` makes it.")
    content = read_json(path)
    try:
        metrics = [Metric.model_validate(row) for row in content["metrics"]]
        tests = [Comparison.model_validate(row) for row in content["comparisons"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} holds no results of this version ({type(error).__name__}); `radpref evaluate {folder}` makes it "
            "anew once it is moved away."
        ) from error
    if markdown:
        print(f"{markdown_table(metrics)}\n\n{markdown_tests(tests)}")
        return
    out.print(terminal_table(metrics))
    out.print(f"report: {folder / 'report.html'}   numbers: {path}", highlight=False, markup=False, soft_wrap=True)
    if content.get("limited") or states(Run(folder))["evaluate"] != "yes":
        err.print("these numbers are of a part of the studies, or older than a later change of this run.")


@app.command()
def export(
    folder: RunArgument,
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
        from radpref.run.folder import Run
        from radpref.stages import export_model, export_pairs

        if to in ("model", "ids") and (copy_images or unpaired):
            raise typer.BadParameter(
                f"--copy-images and --unpaired are for pairs; --to {to} has neither images nor sides."
            )
        if to == "model":
            line = export_model(Run(folder), target)
        else:
            line = export_pairs(Run(folder), to, target, copy_images=copy_images, unpaired=unpaired)
        out.print(f"{line}, written to {target}", highlight=False, markup=False)


@app.command(name="recipes")
def list_recipes() -> None:
    """The shipped recipes."""
    for name in config.shipped():
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
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet.")] = 24,
    recipe: Annotated[str, typer.Option(help="The recipe whose data section is used.")] = "chexalign",
) -> None:
    """Draw a contact sheet of images, with lesion masks where they are known (--data phantom, --data.root ...)."""
    with friendly():
        from radpref.data import preview_sheet

        loaded = config.load(recipe, overrides=overrides(context.args))
        preview_sheet(loaded.recipe.data, count=count, seed=loaded.recipe.run.seed).save(to, format="PNG")
        out.print(f"written to {to}", highlight=False, markup=False)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> Any:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an arrow in a table must not end a run on a Latin-1 terminal
    if version:
        out.print(f"radpref {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    app()
