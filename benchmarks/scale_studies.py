"""Memory and time of ``load_studies`` over tables of two sizes; each size runs in a process of its own.

python benchmarks/scale_studies.py [--rows 10000 100000] [--images 50]

The images are shared by many rows (``--images`` different ones), or one a row with ``--images 0``. Prints the peak
resident memory and the CPU time of each size, and their ratios. A second reading finds its images checked already.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from radpref.config import DataSection
from radpref.data import load_studies

WORDS = ("heart", "lungs", "clear", "normal", "no", "pleural", "effusion", "pneumothorax", "is", "the", "size", "in")


def write(folder: Path, rows: int, images: int) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(images or rows):
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")
    table = folder / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "patient", "images", "findings"))
        for number in range(rows):
            # patients share no image across them: image n belongs to the patients of one block
            image = number if not images else number * images // rows
            patient = f"p{number // 2}" if not images else f"p{image}"
            text = " ".join(rng.permutation(WORDS))
            writer.writerow((f"s{number}", patient, f"{image}.png", text))
    return table


def measure(rows: int, images: int, out: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table = write(folder / "data", rows, images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        section = DataSection(source="table", file=str(table))
        took = []
        for _ in range(2):
            start = time.process_time()  # of all threads: a busy machine makes wall time say nothing
            loaded = load_studies(section, folder / "cache", 17)
            count = sum(1 for _ in loaded.studies)
            took.append(time.process_time() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts = {"rows": rows, "studies": count, "first_s": took[0], "again_s": took[1], "start": before, "peak": peak}
        Path(out).write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(10_000, 100_000))
    parser.add_argument("--images", type=int, default=50, help="different images; 0 for one a row")
    given = parser.parse_args()
    found = []
    for rows in given.rows:
        with tempfile.NamedTemporaryFile() as out:
            child = multiprocessing.get_context("spawn").Process(target=measure, args=(rows, given.images, out.name))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"the process that read {rows:,} rows ended with status {child.exitcode}")
            found.append(json.loads(Path(out.name).read_text()))
        print(
            "{rows:>9,} rows {studies:>9,} studies {first_s:8.1f} s, again {again_s:6.1f} s, ".format(**found[-1]),
            end="",
        )
        print("peak {peak:,.0f} MiB resident ({start:,.0f} before reading)".format(**found[-1]), flush=True)
    few, many = found
    print(
        f"{many['rows'] / few['rows']:.3g} times the rows: {many['peak'] / few['peak']:.2f} times the memory, "
        f"{many['first_s'] / few['first_s']:.1f} times the time, again {many['again_s'] / few['again_s']:.1f} times"
    )


if __name__ == "__main__":
    main()
