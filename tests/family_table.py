"""The table of families in docs/models.md: ``python -m tests.elsewhere with tests.family_table:table``, printed.

What ``radpref models check`` finds out about a tiny model of each, built from its config.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch

from radpref.config import LoraSection, ModelSection
from radpref.models import ModelError
from radpref.training.check import check
from tests import families, tiny
from tests import training_toys as toys


def table() -> None:
    """Prints it; of families in alphabetical order."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| family | images a prompt | one row a pair | images kept | head in chunks | otherwise |")
    print("|---|---|---|---|---|---|")
    for family in sorted({**tiny.BUILDERS, **families.BUILDERS, "git": families.git}):
        with tempfile.TemporaryDirectory() as folder:
            path = str(families.save_family(family, Path(folder) / family))
            try:
                found = check(ModelSection(path=path), toys.FLOAT32, LoraSection(rank=2), size=(64, 64))
            except ModelError as error:
                print(f"| {family} | | | | | refused: {str(error).removeprefix(path + ': ')} |")
                continue
        marks = ["yes" if value else "no" for value in found.way[:3]]
        needs = [f"needs {name}" for name, some in families.MORE.items() if family in some]
        notes = "; ".join([*needs, *(note.split(":")[0] for note in found.way.notes)])
        print(f"| {family} | {found.most_images or 'several'} | {' | '.join(marks)} | {notes} |")


if __name__ == "__main__":
    table()
