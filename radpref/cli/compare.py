"""``radpref compare``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from radpref.cli.terminal import friendly, out
from radpref.comparing import Compared, Row, as_plain, compare_runs
from radpref.evaluation import Estimate, definition
from radpref.evaluation.tables import format_p


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    system: Annotated[str, typer.Option("--system", help="What of each run is compared.")] = "aligned",
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", help="A system of the same runs, or a method as the table names it; can be repeated."
        ),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="By name in metrics.json; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Hold finished runs against each other: intervals over trainings and patients, Holm across methods.

    Runs that differ in their seeds alone are seeds of one method; all others are methods of their own.
    """
    with friendly():
        found = compare_runs(folders, system=system, against=against, metrics=metric)
        if as_json:
            sys.stdout.write(json.dumps(as_plain(found), indent=1, ensure_ascii=False) + "\n")
            return
        out.print(Group(*(_table(found, name) for name in found.metrics)))
        for line in found.notes:
            out.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(found: Compared, metric: str) -> Table:
    table = Table(title=definition(metric).title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("seeds", "value", "words", *(f"− {name}" for name in found.against)):
        table.add_column(Text(heading), justify="right")
    for row in found.rows:
        if row.metric == metric:
            table.add_row(Text(row.name), str(row.value.seeds), *_cells(row, found.against))
    return table


def _cells(row: Row, against: Sequence[str]) -> list[Text]:
    cells = [_cell(row.value, ""), Text("" if row.words is None else f"{row.words:.1f}")]
    for name in against:
        one = row.differences.get(name)
        if one is None:
            cells.append(Text(""))
            continue
        cell = _cell(one.difference, "+")
        cell.append(f"\np {format_p(one.difference.p)}, Holm {format_p(one.p_holm)}", style="dim")
        cells.append(cell)
    return cells


def _cell(value: Estimate, sign: str) -> Text:
    cell = Text(f"{value.value:{sign}.3f}".replace("-", "−"))
    return cell.append(f"\n{value.low:{sign}.3f} to {value.high:{sign}.3f}".replace("-", "−"), style="dim")
