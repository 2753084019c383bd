"""A grid of settings and seeds: what it runs, what it works out, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock, Timeout
from typer.testing import CliRunner

import radpref.sweep.run as sweeping
from radpref import config
from radpref.cli import app
from radpref.errors import RadprefError
from radpref.evaluation import PatientSums, over_seeds
from radpref.runs.folder import Run
from radpref.sweep import Cell, Grid, SweepError, estimate, load_grid, markdown, sweep
from radpref.sweep.grid import WHOLE, settings
from radpref.sweep.run import file_name
from radpref.sweep.tables import tabled
from radpref.training import TrainingError

pytestmark = pytest.mark.heavy

TINY = {
    "recipe": "firempo",
    "share": "corrupt",
    "set": {
        "data.train": 10, "data.validation": 3, "data.test": 5, "sample.max_new_tokens": 96, "align.batch": 4,
        "evaluate.resamples": 100, "evaluate.control": False, "ground.studies": 2, "ground.attention": False,
        "run.precision": "float32",
    },
    "cells": {
        "dpo": {"set": {"align.objective": "dpo", "evaluate.control": True}, "systems": ["base", "aligned"]},
        "firempo": {"set": {"align.objective": "firempo", "align.visual.weight": 0.2}},
    },
    "against": ["base"],
    "metrics": {"green_mean": "GREEN"},
}  # fmt: skip


GRIDS = sorted(path.stem for path in (Path(sweeping.__file__).parents[1] / "recipes" / "grids").glob("*.yaml"))


def grid(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump({**TINY, **changes}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", GRIDS)
def test_shipped_grids_load(name: str) -> None:
    assert load_grid(name).cells


def test_the_factorial_is_balanced_and_each_term_has_one_weight() -> None:
    """Every combination of levels once, and a term is as heavy wherever it is on."""
    shipped = load_grid("firempo")
    levels = [tuple(sorted(cell.levels.items())) for cell in shipped.cells.values() if cell.levels]
    assert len(set(levels)) == len(levels) == 8
    for cell in shipped.cells.values():
        if not cell.levels:
            continue
        objective = [f"align.objective={cell.set['align.objective']}"]
        first = config.load("firempo", overrides=objective)
        keys = {key: value for key, value in cell.set.items() if key != "align.objective"}
        align = config.override(first, [f"{key}={value}" for key, value in keys.items()]).recipe.align
        assert align.spans
        assert align.visual.weight == (0.1 if cell.levels["visual"] else 0)
        assert align.kl.weight * align.kl.forward == pytest.approx(0.005 * cell.levels["forward KL"])
        assert align.kl.weight * (1 - align.kl.forward) == pytest.approx(0.005 * cell.levels["reverse KL"])


def test_a_bad_grid_fails_before_any_work(tmp_path: Path) -> None:
    for problem, words in (
        ({"cells": {"x": {"set": {"align.lrr": 1}}}}, "align.lr"),
        ({"share": "corupt"}, "corrupt"),
        ({"cell": {}}, "cannot be read"),
    ):
        with pytest.raises(RadprefError, match=words):
            load_grid(grid(tmp_path / "grid.yaml", **problem))
    with pytest.raises(SweepError, match="firempo"):
        load_grid("firempoo")


def test_a_trial_that_could_not_be_trained_fails_before_any_work(tmp_path: Path) -> None:
    """The last trial of the last cell is looked at like the first: nothing ends a sweep after hours."""
    wrong = {"set": {}, "trials": {"small": {}, "projector": {"align.train_projector": True, "align.lora.rank": 4}}}
    with pytest.raises(SweepError, match=r"odd, projector: align\.train_projector is true"):
        load_grid(grid(tmp_path / "grid.yaml", cells={**TINY["cells"], "odd": wrong}))  # type: ignore[dict-item]


def test_keys_of_the_command_line_are_set_for_all_cells(tmp_path: Path) -> None:
    words = ["align.lr=1e-4", "align.visual.weight=0.5", "data.phantom.reports=clinical"]
    loaded = load_grid(grid(tmp_path / "grid.yaml"), config.given(words))
    recipes = {name: settings(loaded, cell, 0).recipe for name, cell in loaded.cells.items()}
    assert {recipe.align.lr for recipe in recipes.values()} == {1e-4}
    assert {recipe.data.phantom.reports for recipe in recipes.values()} == {"clinical"}
    assert recipes["dpo"].align.visual.weight == 0.5
    assert recipes["firempo"].align.visual.weight == 0.2, "the cell's own"
    with pytest.raises(RadprefError, match=r"did you mean `align\.lr`"):
        load_grid(grid(tmp_path / "grid.yaml"), config.given(["align.lrr=1"]))


def test_means_differences_and_effects_by_hand() -> None:
    made = Grid(
        recipe="firempo",
        share="corrupt",
        cells={"a": Cell(levels={"f": False}), "b": Cell(levels={"f": True}), "c": Cell()},
        against=("a",),
        metrics={"m": "M"},
    )
    found = {"a": {0: {"m": 1.0}, 1: {"m": 3.0}}, "b": {0: {"m": 2.0}, 1: {"m": 5.0}}, "c": {0: {"m": 0.0}}}
    results = tabled(made, found)
    assert results["means"]["a"]["m"].mean == 2
    assert results["differences"]["b - a"]["m"].mean == results["effects"]["f"]["m"].mean == 1.5
    half = 12.7062 * (0.5**0.5) / 2**0.5  # t of one degree of freedom, standard deviation of 1 and 2
    assert results["effects"]["f"]["m"].high == pytest.approx(1.5 + half, rel=1e-4)
    assert results["differences"]["c - a"]["m"].n == 1
    assert "| f | +1.500" in markdown(made, results)
    shared = {row: {seed: {**values, "s": 7.0} for seed, values in by.items()} for row, by in found.items()}
    both = made.model_copy(update={"metrics": {"m": "M", "s": "Same"}})
    shown = markdown(both, tabled(both, shared))
    assert shown.count("Same") == 1, "what all rows share stands among the means alone"
    assert estimate([2.0]).high == float("inf")


SAID = {
    "b is better": {"metric": "m", "row": "b", "above": "a"},
    "c is worse by more than a half": {"metric": "m", "row": "c", "below": "a", "by": 0.5},
    "c is worse by more than two": {"metric": "m", "row": "c", "below": "a", "by": 2.0},
    "d is the same": {"metric": "m", "row": "d", "near": "a", "by": 0.1},
    "d is not worse": {"metric": "m", "row": "d", "above": "a", "by": -0.1},
    "c is not worse": {"metric": "m", "row": "c", "above": "a", "by": -0.1},
    "b is the same": {"metric": "m", "row": "b", "near": "a", "by": 0.1},
    "nobody measured e": {"metric": "m", "row": "e", "above": "a"},
    "b is better when drawn": {"metric": "m", "row": "b, drawn", "above": "a, drawn"},
}


def test_claims_hold_where_the_whole_interval_lies_as_they_say() -> None:
    made = Grid.model_validate({
        "recipe": "firempo", "share": "corrupt", "cells": {name: {} for name in "abcde"}, "metrics": {"m": "M"},
        "claims": SAID,
    })  # fmt: skip
    shift = {"a": 0.0, "b": 0.3, "c": -1.0, "d": 0.0, "a, drawn": 0.0, "b, drawn": 0.01}
    found = {
        row: {seed: {"m": seed + by + 0.01 * (seed % 2) * (row != "a")} for seed in range(4)}
        for row, by in shift.items()
    }
    results = tabled(made, found)
    held = {
        name: measured is not None and made.claims[name].holds(measured.low, measured.high)
        for name, measured in results["claims"].items()
    }
    assert [name for name, yes in held.items() if yes] == [
        "b is better", "c is worse by more than a half", "d is the same", "d is not worse", "b is better when drawn",
    ]  # fmt: skip
    lines = {line.split(" | ")[0].strip("| "): line for line in markdown(made, results).splitlines()}
    assert lines["b is better"].endswith("| yes |")
    assert "wanted below -2" in lines["c is worse by more than two"]
    assert "wanted above -0.1" in lines["d is not worse"]
    assert "wanted within 0.1" in lines["d is the same"]
    assert lines["c is worse by more than two"].endswith("| **no** |")
    assert lines["nobody measured e"].endswith("| not measured |")


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"metric": "green_maen", "row": "dpo", "above": "base"}, "did you mean `green_mean`"),
        ({"metric": "green_mean", "row": "dpa", "above": "base"}, "there is no row `dpa`"),
        ({"metric": "green_mean", "row": "dpo", "above": "bse, drawn"}, "there is no row `bse`"),
        ({"metric": "green_mean", "row": "dpo"}, "names one other row"),
        ({"metric": "green_mean", "row": "dpo", "above": "base", "below": "base"}, "names one other row"),
        ({"metric": "green_mean", "row": "dpo", "near": "base"}, "says within what"),
        ({"metric": "green_mean", "row": "dpo", "near": "base", "by": -0.1}, "says within what"),
    ],
)
def test_a_claim_that_could_not_be_measured_fails_before_any_work(
    tmp_path: Path, claim: dict[str, Any], words: str
) -> None:
    with pytest.raises(SweepError, match=re.escape(words)):
        load_grid(grid(tmp_path / "grid.yaml", claims={"so": claim}))


def test_trials_are_chosen_on_a_seed_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial is tried on the seed that is tuned on; on the others the one that was best there is measured."""
    tried: list[tuple[int, str]] = []

    def score(chain: Any, name: str, trial: str, source: Path, place: Path) -> float | None:
        tried.append((chain.seed, trial))
        if trial == "breaks":
            raise TrainingError("it broke down")
        return {"low": 0.3, "high": 0.7}[trial]

    def measured(chain: Any, name: str, trial: str, source: Path, place: Path, found: Any) -> sweeping.CellRun:
        value = {"a": 1.0, "b": 2.0}[name] + chain.seed
        sums = PatientSums("t", ("p",), ("words", "studies"), np.ones((1, 2)))
        made, trivial = {name: {"green_mean": value}}, {"constant normal report": {"green_mean": value + 10}}
        return sweeping.CellRun(
            chain.seed, name, trial, place, found, made, trivial, {name: sums, "constant normal report": sums}
        )

    monkeypatch.setattr(sweeping, "_share", lambda chain: None)
    monkeypatch.setattr(sweeping, "_tried", score)
    monkeypatch.setattr(sweeping, "_measure", measured)
    trials: dict[str, dict[str, Any]] = {"low": {}, "high": {}, "breaks": {}}
    made = Grid(
        recipe="firempo", share="sft", cells={"a": Cell(trials=trials), "b": Cell()}, metrics={"green_mean": "GREEN"},
        tuned_on=100,
    )  # fmt: skip
    results = sweep(made, tmp_path, range(2))
    assert tried == [(100, "low"), (100, "high"), (100, "breaks")]
    assert results["tuned"] == {"a": {"low": 0.3, "high": 0.7, "breaks": None}}
    assert results["chosen"] == {"a": {0: "high", 1: "high"}, "b": {0: WHOLE, 1: WHOLE}}
    assert [(one["seed"], one["trial"]) for one in results["failed"]] == [(100, "breaks")]
    assert results["trivial"]["constant normal report"]["green_mean"].mean == 11.5  # as the first cell measured it
    assert "| a | low 0.300; **high 0.700**; breaks failed |" in (tmp_path / "results.md").read_text()
    assert "seed 100: it broke down" in (tmp_path / "results.md").read_text()


def test_what_is_drawn_is_held_against_what_is_drawn() -> None:
    made = Grid(
        recipe="firempo", share="corrupt", cells={"a": Cell(), "b, c": Cell()}, against=("a",), metrics={"m": "M"}
    )
    rows = ("a", "a, drawn", "a, consensus of 8", "b, c", "b, c, drawn", "b, c, consensus of 4")
    found = {row: {0: {"m": float(at)}, 1: {"m": float(at)}} for at, row in enumerate(rows)}
    assert set(tabled(made, found)["differences"]) == {"b, c - a", "b, c, drawn - a, drawn"}


def test_what_is_counted_by_patient_is_estimated_over_seeds_and_patients() -> None:
    """As `evaluation.over_seeds` does, with Holm's correction over all differences of a metric."""
    made = Grid(
        recipe="firempo", share="corrupt", against=("a",),
        metrics={"green_mean": "GREEN", "pairs": "pairs", "style_nats_mean": "style", "effect_words": "effect"},
        cells={name: Cell() for name in "abc"},
    )  # fmt: skip
    rng = np.random.default_rng(5)
    base = {seed: rng.uniform(0, 1, 30) for seed in range(4)}

    def sums(shift: float) -> dict[int, PatientSums]:
        names = tuple(f"p{i:02}" for i in range(30))
        of = {seed: values + shift + 0.02 * seed for seed, values in base.items()}
        columns = ("green:score", "green:n")
        return {
            seed: PatientSums(f"test {seed}", names, columns, np.stack([values, np.ones(30)], axis=1))
            for seed, values in of.items()
        }

    counted = {"a": sums(0.0), "b": sums(0.2), "c": sums(0.001)}
    values = {
        row: {
            seed: {
                "green_mean": float(one.values[:, 0].mean()),
                "pairs": 3.0,
                "style_nats_mean": 0.2,
                "effect_words": 1.0,
            }
            for seed, one in seeds.items()
        }
        for row, seeds in counted.items()
    }
    results = tabled(made, values, counted)
    found = over_seeds("green_mean", dict(counted["b"]))
    assert found is not None
    assert results["means"]["b"]["green_mean"][:4] == (found.value, found.low, found.high, 4)
    gain, none = (results["differences"][f"{row} - a"]["green_mean"] for row in "bc")
    assert gain.mean == pytest.approx(0.2)
    assert gain.p_holm == pytest.approx(min(1.0, 2 * gain.p))
    assert none.p_holm >= none.p
    for name in ("pairs", "style_nats_mean", "effect_words"):  # measured by a run, by a model, on images
        assert results["differences"]["b - a"][name].p is None, "it is not counted by patient"
    assert "**" in markdown(made, results)


def test_cells_of_like_names_have_folders_of_their_own() -> None:
    names = ["a b", "a/b", "a+b", "a-b", "a_b", "../a", "..", "a\nb", "DPO + NLL", "DPO / NLL", ""]
    folders = [file_name(name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert Path(folder).name == folder, "one folder, below the sweep's"
        assert folder not in ("", ".", "..", "shared")
    assert file_name("dpo-nll_2") == "dpo-nll_2", "a plain name is the folder's"
    assert file_name("shared") != "shared", "that is what the cells have in common"


def test_lists_and_words_of_a_cell_survive_whole() -> None:
    cell = Cell(
        set={
            "mine.strata": ["task", "kind", "answer"],
            "select.betas": [0.1, 0.05],
            "evaluate.controls": [],
            "edit.attributes": ["side", "place"],
            "task.prompt": "Findings, please: [all]",
            "data.root": None,
            "align.lr": 1e-05,
        }
    )
    made = Grid(recipe="chexpo", share="sft", cells={"x": cell}, metrics={}, set={"mine.cells": ["right-unsure"]})
    recipe = settings(made, cell, 3).recipe
    assert recipe.mine.strata == ("task", "kind", "answer")
    assert recipe.mine.cells == ("right-unsure",)
    assert recipe.select.betas == (0.1, 0.05)
    assert recipe.evaluate.controls == ()
    assert recipe.edit.attributes == ("side", "place")
    assert recipe.task.prompt == "Findings, please: [all]"
    assert recipe.data.root is None
    assert recipe.align.lr == 1e-5
    assert (recipe.run.seed, recipe.data.phantom.seed) == (20, 3)


def test_the_shipped_grids_run_as_they_are_written() -> None:
    """Every value of a grid stands in the recipe of its cell."""
    for name in GRIDS:
        shipped = load_grid(name)
        for cell in shipped.cells.values():
            values = dict(config.flatten(settings(shipped, cell, 0).recipe.model_dump(mode="json")))
            for key, value in config.flatten({**shipped.set, **cell.set}):
                assert values[key] == value, f"{key} of {name}"


def test_a_sweep_runs_and_goes_on(tmp_path: Path) -> None:
    loaded = load_grid(grid(tmp_path / "grid.yaml"))
    first = sweep(loaded, tmp_path / "out", [0])
    assert set(first["means"]) == {"base", "dpo", "firempo"}
    reached = first["trivial"]["constant normal report"]["green_mean"]
    told = json.loads((tmp_path / "out" / "seed-0" / "firempo" / "metrics.json").read_text("utf-8"))["metrics"]
    (value,) = (m["value"] for m in told if (m["system"], m["name"]) == ("constant normal report", "green_mean"))
    assert (reached.mean, reached.n) == (value, 1)
    page = (tmp_path / "out" / "results.md").read_text("utf-8")
    assert page.count(f"| *constant normal report* | {value:.3f}") == 1  # beside the models, held against none
    recipe = yaml.safe_load((tmp_path / "out" / "seed-0" / "firempo" / "recipe.yaml").read_text("utf-8"))
    assert recipe["align"]["visual"]["weight"] == 0.2
    assert recipe["align"]["kl"]["weight"] == 0.01
    place = tmp_path / "out" / "seed-0"

    def stamps() -> dict[str, int]:
        return {cell: (place / cell / "metrics.json").stat().st_mtime_ns for cell in ("dpo", "firempo")}

    before = stamps()
    (place / "dpo" / "metrics.json").unlink()
    again = sweep(loaded, tmp_path / "out", [0])
    assert json.loads(json.dumps(again["values"])) == json.loads(json.dumps(first["values"]))
    assert stamps()["firempo"] == before["firempo"]

    # A cell that has changed is computed again, and no other; what all share is not.
    shared = (place / "shared" / "pair" / "pairs.jsonl").stat().st_mtime_ns
    before = stamps()
    changed = {**TINY["cells"]["firempo"]["set"], "align.visual.weight": 0.7, "align.lr": 5e-3}  # type: ignore[index]
    other = load_grid(grid(tmp_path / "grid.yaml", cells={**TINY["cells"], "firempo": {"set": changed}}))  # type: ignore[dict-item]
    third = sweep(other, tmp_path / "out", [0])
    assert Run(place / "firempo").recipe.align.visual.weight == 0.7
    assert stamps()["dpo"] == before["dpo"]
    assert stamps()["firempo"] != before["firempo"]
    assert third["values"]["dpo"] == first["values"]["dpo"]
    assert (place / "shared" / "pair" / "pairs.jsonl").stat().st_mtime_ns == shared


def test_trials_other_recipes_and_ways_to_answer(tmp_path: Path) -> None:
    """The best trial on validation is the cell; a cell of another method takes over what all share."""
    cells = {
        "dpo": {"set": {"judge.name": "text", "sample.n": 3, "evaluate.control": False}, "recipe": "chexalign",
                "trials": {"small": {"align.lr": 1e-5}, "large": {"align.lr": 1e-3}}},
        "spans": {"recipe": "firempo", "set": {"align.objective": "mask-dpo"},
                  "systems": {"sft": "sft", "aligned": "spans", "constant normal report": "always normal"}},
    }  # fmt: skip
    made = {**TINY["set"], "evaluate.drawn": True, "data.train": 12, "ground.studies": 1}  # type: ignore[dict-item]
    loaded = load_grid(grid(tmp_path / "grid.yaml", recipe="chexalign", share="sft", set=made, cells=cells))
    results = sweep(loaded, tmp_path / "out", [3, 4], jobs=2)
    named = {"dpo", "dpo, drawn", "spans", "spans, drawn", "sft", "sft, drawn", "always normal"}
    assert set(results["means"]) == named
    assert results["means"]["always normal"] == results["trivial"]["constant normal report"]  # of the cell before
    assert all(set(values["green_mean"]) == {3, 4} for values in results["values"].values())
    place = tmp_path / "out" / "seed-3"
    for seed, tried in results["trials"]["dpo"].items():
        assert set(tried) == {"small", "large"}
        best = max(tried, key=tried.__getitem__)
        kept = [
            trial
            for trial in tried
            if (tmp_path / "out" / f"seed-{seed}" / file_name(f"dpo, {trial}") / "metrics.json").is_file()
        ]
        assert kept == [best]
    drawn = {
        (place / file_name(f"dpo, {one}") / "sample" / "completions.jsonl").stat().st_mtime_ns
        for one in ("small", "large")
    }
    assert len(drawn) == 1  # what the second trial's settings leave alone is the first one's
    assert Run(place / "spans").recipe.method == "firempo"
    stamp = (place / "shared" / "sft" / "done.json").read_text("utf-8")
    assert (place / "spans" / "sft" / "done.json").read_text("utf-8") == stamp


def test_a_cell_that_fails_costs_its_own_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured, the tables say why one is missing, and the same command tries it again."""
    cells = {
        "dpo": {
            "set": {"align.objective": "dpo"},
            "trials": {"breaks": {"align.lr": 0.77}, "holds": {"align.lr": 1e-4}},
        },
        "kto": {"set": {"align.objective": "kto", "align.lr": 0.78}},
        "ipo": {"set": {"align.objective": "ipo"}},
    }
    path = grid(tmp_path / "grid.yaml", cells=cells, against=[])
    real = sweeping.run_stage_alone

    def breaking(run: Run, stage: str, **how: Any) -> Any:
        if stage.startswith("align") and run.recipe.align.lr > 0.7:
            raise TrainingError("the loss is nan")
        return real(run, stage, **how)

    def all_breaking(run: Run, **how: Any) -> Any:
        if run.recipe.align.lr > 0.7:
            raise TrainingError("the loss is nan")
        return whole(run, **how)

    whole = sweeping.run_all
    monkeypatch.setattr(sweeping, "run_stage_alone", breaking)
    monkeypatch.setattr(sweeping, "run_all", all_breaking)
    words = ["sweep", path, "--seeds", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert set(results["means"]) == {"dpo", "ipo"}
    assert results["chosen"]["dpo"] == {"0": "holds"}
    assert [(one["cell"], one["trial"]) for one in results["failed"]] == [("dpo", "breaks"), ("kto", WHOLE)]
    assert "the loss is nan" in (tmp_path / "out" / "results.md").read_text("utf-8")
    monkeypatch.undo()
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert set(results["means"]) == {"dpo", "kto", "ipo"}
    assert results["failed"] == []


@pytest.mark.slow
def test_nothing_goes_on_after_a_sweep_was_killed(tmp_path: Path) -> None:
    """Its processes end with it, whatever they are at; the same command then goes on."""
    path = grid(tmp_path / "grid.yaml", set={**TINY["set"], "sft.enabled": True, "sft.epochs": 500, "data.train": 30})  # type: ignore[dict-item]
    words = ["sweep", path, "--seeds", "2", "--jobs", "2", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "radpref", *words], stderr=subprocess.PIPE, text=True)
    locks = [tmp_path / "out" / f"seed-{seed}" / "shared" / "sft" / "training" for seed in (0, 1)]
    until(lambda: all(lock.exists() for lock in locks), 120)
    process.kill()
    process.wait()
    for seed in (0, 1):
        lock = FileLock(tmp_path / "out" / f"seed-{seed}" / "shared" / ".lock")
        until(lambda lock=lock: _free(lock), 20)  # type: ignore[misc]


_IDLE = """
import signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from radpref.sweep.run import _end_with_the_sweep
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started deaf to it
if __name__ == "__main__":
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_the_sweep) as pool:
            pool.submit(abs, 1).result()
            print("idle", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_a_process_that_waits_for_cells_is_interrupted_without_a_word(tmp_path: Path) -> None:
    """A terminal interrupts all processes of a sweep at once."""
    script = tmp_path / "idle.py"
    script.write_text(_IDLE)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "idle\n"
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")


@pytest.mark.parametrize(
    ("seeds", "jobs", "cells", "parts"),
    [
        (5, 1, 9, [1, 1, 1, 1, 1]), (5, 2, 9, [1, 1, 1, 1, 2]), (3, 12, 7, [4, 4, 4]), (2, 3, 9, [3, 3]),
        (4, 2, 9, [1, 1, 1, 1]), (1, 4, 2, [2]),
    ],
)  # fmt: skip
def test_seeds_that_would_leave_processes_idle_are_divided(seeds: int, jobs: int, cells: int, parts: list[int]) -> None:
    chains = sweeping.divided([f"c{n}" for n in range(cells)], range(seeds), jobs)
    assert [sum(of == seed for of, _ in chains) for seed in range(seeds)] == parts
    for seed in range(seeds):
        assert [name for of, names in chains if of == seed for name in names] == [f"c{n}" for n in range(cells)]


def until(there: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def _free(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    lock.release()
    return True
