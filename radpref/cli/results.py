"""``radpref status`` and ``radpref results``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from radpref.cli.terminal import err, friendly, out
from radpref.evaluation.tables import markdown_table, markdown_tests, terminal_table
from radpref.files import read_json
from radpref.pipeline import road_of
from radpref.records import Comparison, Metric
from radpref.runs.folder import Run, RunError
from radpref.runs.runner import states

RunArgument = Annotated[Path, typer.Argument(help="The run folder.")]


def status(folder: RunArgument) -> None:
    """What is finished in a run folder, what is behind which change, with counts and times."""
    with friendly():
        out.print(_status_table(Run(folder)))


def results(
    folder: RunArgument,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, with the paired tests.")] = False,
) -> None:
    """Print the results table of a finished run."""
    with friendly():
        print_results(Run(folder), markdown)


def print_results(run: Run, markdown: bool = False) -> None:
    """The results table. Raises RunError where there is none."""
    folder, path = run.folder, run.path("metrics.json")
    if not path.is_file():
        raise RunError(f"{folder} has no metrics.json; `radpref evaluate {folder}` makes it.")
    content = read_json(path)
    try:
        metrics = [Metric.model_validate(row) for row in content["metrics"]]
        tests = [Comparison.model_validate(row) for row in content["comparisons"]]
        limited = content.get("limited")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} holds no results of this version ({type(error).__name__}); `radpref evaluate {folder}` makes it "
            "anew once it is moved away."
        ) from error
    caps = _caps(run)
    if markdown:
        print("\n\n".join((markdown_table(metrics), markdown_tests(tests), *caps)))
        return
    out.print(terminal_table(metrics))
    for cap in caps:
        out.print(cap, highlight=False, markup=False)
    out.print(f"report: {folder / 'report.html'}   numbers: {path}", highlight=False, markup=False, soft_wrap=True)
    if limited or states(run, road_of(run.recipe))["evaluate"].finished not in ("yes", "unknown"):
        err.print("these numbers are of a part of the studies, or older than a later change of this run.")


def _status_table(run: Run) -> Table:
    """A row a stage: finished or behind which change, the last result line, the seconds it took in all sittings."""
    finished = [event for event in run.history() if event["event"] == "finished" and event["result"] != "up to date"]
    last = {event["stage"]: event["result"] for event in finished}
    spent, road = run.seconds(), road_of(run.recipe)
    table = Table("stage", "finished", "result", "seconds", title=escape(str(run.folder)), title_justify="left")
    for name, state in states(run, road).items():
        line = last.get(name, "") if state.finished in ("yes", "no") else "; ".join(state.why)
        table.add_row(name, state.finished, escape(line), f"{spent.get(name, 0.0):.1f}")
    return table


def _caps(run: Run) -> list[str]:
    """What the studies' stage said of the caps that the recipe has now: a table of a part says that it is one."""
    data = run.recipe.data
    keys = ("train", "validation", "test", "max_images")
    starts = tuple(f"data.{key} is {value:,}: " for key in keys if (value := getattr(data, key)) is not None)
    notes = [event["text"] for event in run.history() if event["event"] == "note"]
    return [note for note in dict.fromkeys(notes) if note.startswith(starts)]
