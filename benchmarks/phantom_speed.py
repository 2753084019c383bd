"""Images a second of CPU time that one core draws, with masks and reports; then studies with their files.

python benchmarks/phantom_speed.py [--size 128] [--images 600]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from radpref.config import PhantomSection
from radpref.data.phantom import draw, studies


def best(run: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of the fastest of ``repeats`` runs: what one core needs, whatever else the machine is doing."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=600)
    given = parser.parse_args()
    draw(0, seed=0, size=given.size)
    draw(0, seed=0, size=given.size, view="lateral")
    for view in ("frontal", "lateral"):
        took = best(lambda view=view: [draw(i, seed=0, size=given.size, view=view) for i in range(given.images)])  # type: ignore[misc]
        print(f"{view:8s} {given.images / took:7.0f} images/s at {given.size} px, with masks and reports")
    section = PhantomSection(size=given.size, masks=True)
    with tempfile.TemporaryDirectory() as folder:
        for label in ("written", "found again"):
            took = best(
                lambda: studies(section, train=given.images, validation=1, test=1, folder=Path(folder)), repeats=1
            )
            print(f"studies  {given.images / took:7.0f} studies/s {label}")


if __name__ == "__main__":
    main()
