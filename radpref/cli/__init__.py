"""The command line: one module a command, thin. Each reads its words and hands over."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from typing import Annotated, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import typer

from radpref import __version__
from radpref.cli.bench import bench
from radpref.cli.compare import compare
from radpref.cli.corrupt import corrupt_app
from radpref.cli.data import data_app
from radpref.cli.doctor import doctor
from radpref.cli.export import export
from radpref.cli.findings import findings_app
from radpref.cli.headroom import headroom
from radpref.cli.judges import judges_app
from radpref.cli.models import models_app
from radpref.cli.recipes import list_recipes
from radpref.cli.results import results, status
from radpref.cli.run import add_stage_commands, run
from radpref.cli.serve import serve
from radpref.cli.sweep import sweep
from radpref.cli.terminal import TAKES_OVERRIDES, out
from radpref.collector import process_is_ours

warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # for developers, not for users
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it wherever it is; a kernel that it looks for

app = typer.Typer(
    name="radpref",
    help="Preference alignment for radiology vision-language models, without human feedback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> Any:
    process_is_ours()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an arrow in a table must not end a run on a Latin-1 terminal
    if version:
        out.print(f"radpref {__version__}")
        raise typer.Exit


app.command(context_settings=TAKES_OVERRIDES)(run)
add_stage_commands(app, corrupt_app)
app.command(context_settings=TAKES_OVERRIDES)(headroom)
app.command()(status)
app.command()(results)
app.command()(compare)
app.command()(export)
app.command(name="serve-command")(serve)
app.command(context_settings=TAKES_OVERRIDES)(sweep)
app.command()(bench)
app.command(name="recipes")(list_recipes)
app.command()(doctor)
for group in (data_app, corrupt_app, findings_app, judges_app, models_app):
    app.add_typer(group)
