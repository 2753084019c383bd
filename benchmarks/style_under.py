"""What answers cost under the model that a sweep's cells share, where a cell has fine-tuned one of its own.

    python benchmarks/style_under.py sweeps/labels "sft on templates" sft

``evaluate.style`` measures a run's answers under that run's own fine-tuned model. Of two cells that were fine-tuned
otherwise the numbers do not compare. This asks the shared model (``seed-N/shared``) about the greedy answers that a
system of such a cell gave to the test questions, and prints nats a token for each seed, and their mean.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from radpref.models import Vlm, load
from radpref.pipeline import road_of
from radpref.records import Styled
from radpref.runs.context import Left, section_of
from radpref.runs.folder import Run
from radpref.stages.ports import PREDICTED, TEST, TUNED
from radpref.stages.style import costs
from radpref.sweep.run import SHARED

BATCH = 64


def left_by(folder: Path) -> tuple[Run, Left]:
    """What a run's stages have left."""
    run = Run(folder)
    return run, Left(run, road_of(run.recipe))


def nats(vlm: Vlm, folder: Path, system: str) -> float:
    """Mean over the test studies of what a system's answers cost, in nats a token."""
    _, left = left_by(folder)
    test, predicted = left.table(TEST), left.table(PREDICTED)
    if test is None or predicted is None:
        sys.exit(f"{folder} has no answers to test studies; run the sweep to its end")
    questions = {row.id: row for row in test}
    answers = [row for row in predicted if row.question in questions and row.system == system]
    if not answers:
        sys.exit(f"{folder} has no answers of {system}")

    def told() -> Iterator[Styled]:
        for start in range(0, len(answers), BATCH):
            some = answers[start : start + BATCH]
            yield from (one for one in costs(vlm, questions, some) if isinstance(one, Styled))

    return fmean(one.nats / one.tokens for one in told())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("cell", help="the beginning of the names of the cell's folders")
    parser.add_argument("system", help="the system whose answers are asked about: sft, aligned, base")
    options = parser.parse_args()
    wanted = re.sub(r"[^\w-]", "-", options.cell)
    found = []
    for seed in sorted(options.sweep.glob("seed-*")):
        cells = [place for place in seed.iterdir() if place.name.startswith(wanted)]
        if len(cells) != 1 or not (cells[0] / "metrics.json").exists():
            print(f"{seed.name}: no finished cell", file=sys.stderr)
            continue
        run, left = left_by(seed / SHARED)
        tuned = left.fact(TUNED)
        if tuned is None:
            sys.exit(f"{seed / SHARED} has no fine-tuned model")
        vlm = load(section_of(tuned), run.recipe.run)
        found.append(nats(vlm, cells[0], options.system))
        print(f"{seed.name}: {found[-1]:.3f}", flush=True)
    if found:
        print(f"mean of {len(found)}: {fmean(found):.3f}")


if __name__ == "__main__":
    main()
