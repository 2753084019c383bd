"""Benchmarks of the trainer: TRL's step and ours on the same model, batch and data, in one run.

``shapes`` builds models of known size from configs alone, ``steps`` holds the ways to take one step, ``measure``
times them in turn and compares their losses and gradients, ``show`` prints the table and draws the plot.
"""

from radpref.bench.measure import Row, bench
from radpref.bench.shapes import SHAPES
from radpref.bench.show import plot, table

__all__ = ["SHAPES", "Row", "bench", "plot", "table"]
