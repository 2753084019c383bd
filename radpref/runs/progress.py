"""Progress bars on standard error (count, rate and time left), and a stopwatch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def progress(*, total: int | None, unit: str, what: str, done: int = 0, shown: bool = True) -> Any:
    """A bar with count, rate and, of a known total, time left; ``update(n)`` moves it, ``close()`` ends it."""
    return tqdm(
        total=total,
        initial=done,
        unit=f" {unit}",
        desc=f"{what:9}",
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
        disable=not shown,
    )


class Steps:
    """A bar over the optimiser's steps, fed by the training log."""

    def __init__(self, what: str, *, shown: bool = True) -> None:
        self._what, self._shown = what, shown
        self._bar: Any = None

    def __call__(self, row: dict[str, float]) -> None:
        step = int(row["step"])
        if self._bar is None:
            self._bar = progress(
                total=int(row["steps"]), done=step - 1, unit="steps", what=self._what, shown=self._shown
            )
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """End the bar, if it ever began."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yields a list that holds the seconds when the block has ended."""
    seconds: list[float] = []
    began = time.monotonic()
    yield seconds
    seconds.append(round(time.monotonic() - began, 2))
