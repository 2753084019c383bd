"""``radpref bench``: TRL's trainer and ours on the same model, batch and data."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from radpref.cli.terminal import err, friendly, out

PHASES = ("steady", "first_epoch", "three_epochs")


def bench(
    shape: Annotated[
        list[str], typer.Option(help="v6-112, v12-224, v12-224-150k, or the folder of a model; may be repeated.")
    ] = ["v6-112", "v12-224"],  # noqa: B006 (typer reads it)
    objective: Annotated[
        list[str], typer.Option(help="dpo, sft: against TRL's trainers; firempo: against the published way.")
    ] = ["dpo"],  # noqa: B006
    phase: Annotated[list[str], typer.Option(help="steady, first_epoch, three_epochs.")] = list(PHASES),  # noqa: B006
    batch: Annotated[int, typer.Option(min=1, help="Pairs (sft: questions) a step.")] = 4,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs (sft: questions) an epoch.")] = 32,
    reps: Annotated[int, typer.Option(min=1, help="Repetitions of the steady step, taken in turn.")] = 7,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 1,
    rank: Annotated[int, typer.Option(min=0, help="Rank of the LoRA on the language model; 0: in full (sft).")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto.")] = "float32",
    checkpointing: Annotated[bool, typer.Option(help="Gradient checkpointing, on both sides.")] = False,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, each side in a process of its own.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of the table.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write the plot (SVG) there.")] = None,
) -> None:
    """Time a training step of TRL's and ours on the same model, batch and data, in one run."""
    with friendly():
        from radpref.bench import bench as compare
        from radpref.bench import plot, table
        from radpref.bench.measure import BenchError, Setting
        from radpref.doctor import machine
        from radpref.files import write_atomically

        if unknown := set(phase) - set(PHASES):
            raise BenchError(f"--phase {', '.join(sorted(unknown))} is none of {', '.join(PHASES)}")
        rows = [
            row
            for one in shape
            for name in objective
            for row in compare(
                Setting(one, name, batch, pairs, reps, threads, device, precision, rank, checkpointing),
                phases=phase,
                memory=memory,
                tell=lambda text: err.print(text, markup=False),
            )
        ]
        if as_json:
            sys.stdout.write(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}) + "\n")
        else:
            out.print(table(rows))
        if to is not None:
            write_atomically(to, plot(rows))
            err.print(f"written to {to}", markup=False)
