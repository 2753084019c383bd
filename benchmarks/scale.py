"""Memory and time of the stages over tables of two sizes: does the memory stay, and is the time linear?

    python benchmarks/scale.py [--rows 10000 100000] [--out FOLDER]

Every stage runs in a process of its own, whose peak resident memory and CPU time are taken. Answers are given (the
reference, and the reference of the study before), so that no model has to speak; what is measured is the engine and the
rooms: studies, judge, pair, export, evaluate and report of chexalign, and studies, judge, mine and pair of chexpo.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from radpref import config
from radpref.data.phantom import studies as phantoms
from radpref.exports import export_pairs
from radpref.pipeline import road_of, run_stage_alone
from radpref.records import Choice, Completion, Question, Record, System, Systems, TokenScores, Weights
from radpref.rooms import models
from radpref.runs.folder import Mark, Run
from radpref.runs.runner import settled, states
from radpref.runs.stage import TableOf
from radpref.stages.ports import (
    COMPLETIONS,
    PREDICTED,
    TEST,
    TRAIN,
    VALIDATED,
    VECTORS,
)  # fmt: skip

IMAGES = 50
"""Different images, each shared by many patients of one block."""
COMMON = ("data.validation=40", "data.test=200", "sft.enabled=false", "evaluate.control=false",
          "evaluate.resamples=100", "run.precision=float32", "data.near_duplicates=ignore")  # fmt: skip
METHODS = {
    "chexalign": (*COMMON, "data.train=null", "judge.name=green", "select.by=green"),
    "chexpo": (*COMMON, "data.train=null", "task.asks=[basic]", "task.per_study=1", "evaluate.controls=[]",
               "mine.k=5", "mine.queries=500", "mine.budget=1000"),
}  # fmt: skip


def write(folder: Path, rows: int) -> Path:
    """A hospital's table: reports of phantoms over and over, few images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{number}.png")
    world = config.load("chexalign").recipe.data.phantom.model_copy(update={"size": 32})
    with tempfile.TemporaryDirectory() as drawn:
        reports = [study.findings for study in phantoms(world, train=400, validation=1, test=1, folder=Path(drawn))]
    table = folder / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "patient", "images", "findings", "split"))
        for number in range(rows):
            split = "test" if number < 300 else "validation" if number < 400 else "train"
            image = {"test": 0, "validation": 1}.get(split, 2 + number % (IMAGES - 2))
            # one image, one patient: an image that several patients have would make them one
            text = f"{reports[number % len(reports)]} Study number {number}."
            writer.writerow((f"s{number:07d}", f"p{split}{image}", f"{image}.png", text, split))
    return table


def opened(home: Path, method: str) -> Run:
    words = [f"data.file={home / 'data' / 'table.csv'}", "data.source=table", *METHODS[method]]
    return Run(home / method, config.load(method, overrides=words))


def give(run: Run, stage: str, table: TableOf[Record] | None, rows: Iterable[Record], **facts: Record) -> None:
    """Put rows and facts in the place of a stage's work."""
    road = road_of(run.recipe)
    basis = states(run, road, settled(run))[stage].basis
    assert basis is not None
    tables = {}
    run.path(stage).mkdir(parents=True, exist_ok=True)
    if table is not None:
        run.table(stage, table).write(rows)
        tables = {table.name: run.table(stage, table).digest()}
    paths = {"root": run.root}
    told = {name: fact.model_dump(mode="json", context=paths) for name, fact in facts.items()}
    run.finish(stage, Mark(basis=basis, tables=tables, facts=told))


def start(run: Run) -> Weights:
    section = run.recipe.model
    return Weights(path=section.path, fingerprint=models.fingerprint(models.locate(section)))


def answers(run: Run, port: TableOf[Question], n: int, systems: tuple[str, ...] = ("",)) -> Iterator[Completion]:
    """The question's own reference, and that of the question before it."""
    for system in systems:
        before = "No acute finding."
        for question in run.table("studies", port):
            said = question.answer or question.reference
            for index, text in enumerate((said, before)[:n]):
                scores = TokenScores(logps=(-0.1, -0.2), margins=(0.5, 0.5), ends=(1, len(text)))
                name = f"{system}:{question.id}/{index}" if system else f"{question.id}/{index}"
                yield Completion(
                    id=name, question=question.id, system=system, index=index, text=text, tokens=2, finished=True,
                    scores=scores if run.recipe.method == "chexpo" else None,
                )  # fmt: skip
            before = said


def steps(method: str) -> dict[str, Callable[[Run, Path], None]]:
    """What is measured, in order; what is given between comes with the first that needs it."""

    def stage(name: str) -> Callable[[Run, Path], None]:
        return lambda run, home: run_stage_alone(run, name)

    def judged(run: Run, home: Path) -> None:
        run_stage_alone(run, "sft")
        wrong = 1 if method == "chexpo" else 2
        rows = answers(run, TRAIN, wrong)
        if method == "chexpo":  # every third answer is wrong
            rows = (row if n % 3 else row.model_copy(update={"text": "nothing of it"}) for n, row in enumerate(rows))
        give(run, "answer" if method == "chexpo" else "sample", COMPLETIONS, rows)
        run_stage_alone(run, "judge")

    def mined(run: Run, home: Path) -> None:
        give(run, "embed", VECTORS, [])
        run_stage_alone(run, "mine")

    def exported(run: Run, home: Path) -> None:
        to = home / f"{method}-exported"
        export_pairs(run, road_of(run.recipe), "trl", to)
        shutil.rmtree(to)

    def evaluated(run: Run, home: Path) -> None:
        weights = start(run)
        system = System(id="beta-0.1-step-1", weights=weights, beta=0.1, step=1, scores={"green": 0.5})
        give(run, "prepare", None, [])
        give(run, "align", None, [], checkpoints=Systems(rows=(system,)))
        give(run, "control", None, [], controls=Systems())
        give(run, "validate", VALIDATED, [])
        choice = Choice(by="green", before=System(id="sft", weights=weights), tried=(system,), chosen=system)
        give(run, "select", None, [], choice=choice)
        give(run, "predict", PREDICTED, answers(run, TEST, 1, ("sft", "aligned")))
        run_stage_alone(run, "evaluate")

    found = {"studies": stage("studies"), "judge": judged}
    if method == "chexpo":
        return {**found, "mine": mined, "pair": stage("pair")}
    return {**found, "pair": stage("pair"), "export": exported, "evaluate": evaluated, "report": stage("report")}


def measure(home: str, method: str, step: str, out: str) -> None:
    run = opened(Path(home), method)
    started = time.process_time()
    steps(method)[step](run, Path(home))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(out).write_text(json.dumps({"seconds": time.process_time() - started, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(10_000, 100_000))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--out", type=Path, help="where the runs go; a temporary folder if absent")
    given = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for rows in given.rows:
            home = (given.out or Path(temporary)) / str(rows)
            write(home / "data", rows)
            for method in given.methods:
                for step in steps(method):
                    with tempfile.NamedTemporaryFile() as out:
                        child = multiprocessing.get_context("spawn").Process(
                            target=measure, args=(str(home), method, step, out.name)
                        )
                        child.start()
                        child.join()
                        if child.exitcode:
                            raise SystemExit(f"{method} {step} of {rows} rows failed")
                        one = json.loads(Path(out.name).read_text())
                        found.setdefault((method, step), []).append(one)
                        print(
                            f"{rows:,} {method} {step}: {one['seconds']:.1f} CPU s, {one['peak']:.0f} MiB", flush=True
                        )
    few, many = given.rows
    print(f"| stage | CPU s, {few:,} | CPU s, {many:,} | ratio | MiB, {few:,} | MiB, {many:,} | ratio |")
    print("|---" * 7 + "|")
    for (method, step), (one, two) in found.items():
        print(
            f"| {method} {step} | {one['seconds']:.1f} | {two['seconds']:.1f} | "
            f"{two['seconds'] / max(one['seconds'], 1e-9):.1f} | {one['peak']:.0f} | {two['peak']:.0f} | "
            f"{two['peak'] / one['peak']:.2f} |"
        )


if __name__ == "__main__":
    main()
