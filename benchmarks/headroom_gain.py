"""Headroom against gain: what ``radpref headroom`` says of a world's fine-tuned model, and what methods then brought.

    python benchmarks/headroom_gain.py clinical=sweeps/evidence clean=sweeps/clean --out docs/results/headroom

A sweep's folder has a fine-tuned model for each seed (``seed-0/shared``) and what every method made of it
(``results.json``). The headroom of each is measured on its validation studies, in a copy below ``SWEEP/headroom``,
once; the gains are on the test studies. Written are ``OUT.csv`` (a line a world and method), ``OUT.svg`` (a point a
world and method) and ``OUT.md``, a table with the rank correlation of headroom and gain over a method's worlds.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from radpref import config
from radpref.files import read_json, write_atomically
from radpref.headroom import headroom_of
from radpref.report import charts
from radpref.runs.folder import Run, read_recipe
from radpref.sweep.grid import way_of
from radpref.sweep.run import SHARED, copy

METRIC = "green_mean"
BEFORE = "sft"
KINDS = {
    "controls": r"(more )?sft|base",
    "whole answers": r"dpo|lc-dpo|ipo|kto|orpo|grpo|chexpo",
    "edits": r"mask-dpo|rrpo|mdpo|firempo|edits",
    "part of the way back": r"radpref|.*interpolated",
}
"""Heading to the names of methods under it; the last that fits is a row's."""
COLOURS = ("#808080", "#2b6cb0", "#c05621", "#2f855a")


class Point(NamedTuple):
    """A method in a world."""

    world: str
    seed: int
    method: str
    consensus: float
    """GREEN of the consensus of 16 answers less greedy, of the fine-tuned model on validation studies."""
    best_of_8: float
    gain: float
    """GREEN of the method less the fine-tuned model's, on test studies."""


def headroom(folder: Path, seed: int) -> dict[str, float]:
    """Way of choosing an answer to its gain over greedy, of a seed's fine-tuned model; measured once."""
    place = folder / "headroom" / f"seed-{seed}"
    if not (place / "headroom.json").exists():
        place.parent.mkdir(exist_ok=True)
        copy(folder / f"seed-{seed}" / SHARED, place)
        headroom_of(Run(place, config.override(read_recipe(place), ["headroom.probe=0"])))
    choices = read_json(place / "headroom.json")["choices"]
    return {one["name"]: one["gains"][METRIC]["difference"] for one in choices if METRIC in one["gains"]}


def points(world: str, folder: Path) -> Iterator[Point]:
    """Every method of every seed; rows that are drawn at random are left out."""
    values = read_json(folder / "results.json")["values"]
    before = values[BEFORE][METRIC]
    for seed in sorted(before, key=int):
        ways = headroom(folder, int(seed))
        for method, metrics in values.items():
            if method != BEFORE and not way_of(method) and seed in metrics[METRIC]:
                gain = metrics[METRIC][seed] - before[seed]
                yield Point(world, int(seed), method, ways["consensus of 16"], ways["best of 8"], gain)


def kind(method: str) -> str:
    """The heading that a method stands under."""
    return [name for name, pattern in KINDS.items() if re.match(pattern, method)][-1]


def drawing(found: list[Point]) -> str:
    """The plot, with its legend, as a file of its own."""
    css = dict(zip(KINDS, ("one", "two", "three", "four"), strict=True))
    clouds = [
        charts.Series(name, css[name], [(p.consensus, p.gain) for p in found if kind(p.method) == name])
        for name in KINDS
    ]
    svg = charts.scatter(
        clouds, x="consensus of 16 less greedy, GREEN", y="method less SFT", label="Headroom against gain", rule_x=0.0
    )
    inside = re.sub(r"^<svg[^>]*>|</svg>$", "", str(svg))
    style = "text{font:11px sans-serif;fill:#555}.middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#ddd}"
    style += ".axis{stroke:#888}.rule{stroke:#888;stroke-dasharray:4 3}.cloud{opacity:.65}"
    style += "".join(f".{css[name]}{{fill:{colour}}}" for name, colour in zip(KINDS, COLOURS, strict=True))
    legend = "".join(
        f'<circle class="cloud {css[name]}" cx="{12 + 98 * at}" cy="232" r="3"/>'
        f'<text x="{18 + 98 * at}" y="236">{name}</text>'
        for at, name in enumerate(KINDS)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 244" role="img" aria-label="Headroom against gain">'
        f'<style>{style}</style><rect width="420" height="244" fill="#fff"/>{inside}{legend}</svg>\n'
    )


def table(found: list[Point]) -> str:
    """A line a world with its headroom, then a line a method."""
    lines = ["| world | seed | consensus of 16 | best of 8 | mean gain of the methods |", "|---|---|---|---|---|"]
    for world, seed in dict.fromkeys((p.world, p.seed) for p in found):
        here = [p for p in found if (p.world, p.seed) == (world, seed)]
        mean = fmean(p.gain for p in here if p.method != "base")
        lines.append(f"| {world} | {seed} | {here[0].consensus:+.3f} | {here[0].best_of_8:+.3f} | {mean:+.3f} |")
    lines += [
        "",
        "| method | worlds | mean gain | Spearman's rank correlation of its gain with consensus |",
        "|---|---|---|---|",
    ]
    for method in dict.fromkeys(p.method for p in found):
        here = [p for p in found if p.method == method]
        rank = spearmanr([p.consensus for p in here], [p.gain for p in here]).statistic if len(here) > 2 else np.nan
        told = "" if np.isnan(rank) else f"{rank:+.2f}"
        lines.append(f"| {method} | {len(here)} | {fmean(p.gain for p in here):+.3f} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, then write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sweeps", nargs="+", metavar="WORLD=FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="files are OUT.csv, OUT.svg and OUT.md")
    given = parser.parse_args()
    found = [point for one in given.sweeps for point in points(one.partition("=")[0], Path(one.partition("=")[2]))]
    with given.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows([*point[:3], *(f"{value:.4f}" for value in point[3:])] for point in found)
    write_atomically(given.out.with_suffix(".svg"), drawing(found))
    told = table(found)
    write_atomically(given.out.with_suffix(".md"), told)
    print(told)


if __name__ == "__main__":
    main()
