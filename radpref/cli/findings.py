"""``radpref findings``: read anyone's reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radpref.cli.terminal import friendly, out, tell

findings_app = typer.Typer(name="findings", help="Read findings out of report text.", no_args_is_help=True)


@findings_app.callback()
def findings() -> None:
    """Read findings out of report text."""


@findings_app.command()
def label(
    reports: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet, one report a row.")],
    to: Annotated[Path, typer.Option("--out", help="The CSV to write.")],
    field: Annotated[
        list[str] | None, typer.Option("--field", help="Column of the text (findings); several make one report.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Column to keep as id; `id` where there is one.")
    ] = None,
) -> None:
    """Write CheXpert's 14 labels of every report: 1 positive, 0 negative, -1 uncertain, blank not mentioned."""
    with friendly():
        from radpref.bulk import label_file

        done = label_file(reports, to, fields=field or ["findings"], id_column=id_column)
        tell(f"{done.rows:,} reports labelled", done.quarantined, done.refused)
        out.print(f"written to {to}", highlight=False, markup=False, soft_wrap=True)
