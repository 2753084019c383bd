"""Whether GRPO raises the judge's mean on held-out phantoms: the curve over its steps, for several seeds.

    python benchmarks/grpo_curve.py [--seeds 17 18 19] [--test 400] [--folder runs/grpo-curve]

Runs the recipe `grpo` once a seed, and has the model of every checkpoint answer the test studies, greedily and drawn
at temperature 1. Seeds differ in the order of the questions and in the answers drawn, not in the studies. Prints
Markdown: the judge's mean at every step with 95 % bootstrap intervals over patients (of a patient's mean over the
seeds), the difference from step 0 paired over patients, finding F1, length, and each seed alone; and as a control SFT
on the references of the same training questions, for as many steps of as many questions at the same learning rate.
Run folders are kept, and what is done is not done again. A quarter of an hour a seed on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from radpref.stages.common import fine_tuned, load, questions_of

from radpref import config
from radpref.config import ModelSection, SftSection
from radpref.evaluation import Measured, measure
from radpref.evaluation.resampling import draws, interval
from radpref.files import write_atomically
from radpref.models import generate
from radpref.pipeline import run_stage
from radpref.records import Completion, Question
from radpref.runs.folder import Run
from radpref.training import checkpoints, sft

F1 = "finding_f1_micro_reference_uncertain-positive"
RECALL, PRECISION = (F1.replace("f1", name) for name in ("recall", "precision"))
CONTROL = -1
"""Stands for a step where the control is meant."""
DRAWS = 17
"""Seed of the drawn answers."""


class Point(NamedTuple):
    """A model's answers on the test studies, measured."""

    step: int
    greedy: Measured
    sampled: Measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--test", type=int, default=400, help="held-out studies")
    parser.add_argument("--folder", type=Path, default=Path("runs/grpo-curve"))
    parser.add_argument("--preset", help="of the recipe; tiny for a try")
    parser.add_argument("overrides", nargs="*", help="of the recipe, as grpo.lr=1e-4")
    options = parser.parse_args()

    runs = []
    for seed in options.seeds:
        overrides = [f"run.seed={seed}", f"data.test={options.test}", *options.overrides]
        runs.append(
            Run(options.folder / f"seed-{seed}", config.load("grpo", preset=options.preset, overrides=overrides))
        )
    curves = []
    for run in runs:
        curves.append(curve(run, options.folder))
        print(f"\nseed {run.recipe.run.seed}\n\n{table([curves[-1]])}", flush=True)
    print(f"\nseeds {', '.join(map(str, options.seeds))} together\n\n{table(curves)}", flush=True)
    curves = [[*points, controlled(run)] for run, points in zip(runs, curves, strict=True)]
    print(f"\nwith the control\n\n{table(curves)}")


def curve(run: Run, folder: Path) -> list[Point]:
    """The points of one seed; step 0, the same for all seeds, is kept in ``folder``."""
    for stage in ("studies", "sft", "grpo"):
        run_stage(run, stage)
    start, _ = fine_tuned(run)
    full = run.recipe.grpo.lora.rank == 0
    points = [point(run, 0, start, folder)]
    for saved in checkpoints(run.path("grpo", "training")):
        path = str(saved.path)
        model = ModelSection(path=path) if full else start.model_copy(update={"adapter": path})
        points.append(point(run, saved.step, model, run.path("curve")))
    return points


def controlled(run: Run) -> Point:
    """The control of a run."""
    return point(run, CONTROL, control(run, fine_tuned(run)[0]), run.path("curve"))


def point(run: Run, step: int, model: ModelSection, folder: Path) -> Point:
    return Point(step, answered(run, step, model, folder, False), answered(run, step, model, folder, True))


def control(run: Run, start: ModelSection) -> ModelSection:
    """SFT on the references of the training questions, as long and as fast as GRPO trained."""
    of, questions = run.recipe.grpo, questions_of(run, "train")
    section = SftSection(
        lora=of.lora, lr=of.lr, warmup=of.warmup, batch=of.questions * of.accumulate, train_projector=False,
        epochs=of.steps * of.questions * of.accumulate / len(questions), save_steps=10**6,
    )  # fmt: skip
    done = sft(load(run, start), questions, section, run.path("control"), seed=run.recipe.run.seed)
    return ModelSection(path=str(done.path))


def answered(run: Run, step: int, model: ModelSection, folder: Path, drawn: bool) -> Measured:
    """Answers to the test studies, one a study, kept in ``folder``; drawn with the same random numbers everywhere."""
    name = f"{'control' if step == CONTROL else step}-{'sampled' if drawn else 'greedy'}"
    kept = folder / f"{name}.jsonl"
    questions = questions_of(run, "test")
    if not kept.exists():
        sample = run.recipe.sample
        made = generate(
            load(run, model),
            questions,
            temperature=1.0 if drawn else None,
            max_new_tokens=sample.max_new_tokens,
            batch=32,
            seed=DRAWS,
        )
        rows = [row for _, answers in made if isinstance(answers, list) for row in answers]
        write_atomically(kept, "".join(row.model_dump_json() + "\n" for row in rows))
    lines = kept.read_text(encoding="utf-8").splitlines()
    texts = {row.question: row.text for row in map(Completion.model_validate_json, lines)}
    return measure(name, questions, _all(texts, questions), resamples=100)


def _all(texts: dict[str, str], questions: Sequence[Question]) -> dict[str, str]:
    return {question.id: texts.get(question.id, "") for question in questions}


def table(curves: Sequence[list[Point]]) -> str:
    """Markdown: a row a step."""
    heads = [
        "step",
        "greedy",
        "from step 0",
        "sampled",
        "from step 0",
        "LC",
        "F1",
        "precision",
        "recall",
        "words / reference",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for points in zip(*curves, strict=True):
        cells = ["control" if points[0].step == CONTROL else str(points[0].step)]
        for side in ("greedy", "sampled"):
            now = _scores([getattr(point, side) for point in points])
            then = _scores([getattr(some[0], side) for some in curves])
            cells += [_mean(now), "" if points[0].step == 0 else _mean(now - then, signed=True)]
        metrics = ["lc-green_mean", F1, PRECISION, RECALL, "verbosity_ratio_total"]
        for name in metrics:
            values = [point.greedy.value(name) for point in points]
            cells.append(f"{np.mean([value for value in values if value is not None]):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    n = len(curves[0][0].greedy.questions)
    return "\n".join([*lines, "", f"n = {n} studies; LC to words: greedy answers"])


def _scores(measured: Sequence[Measured]) -> Any:
    """The judge's score of every study, mean over the seeds; an answer without a word counts 0."""
    return np.mean(
        [[one.judgements["green"][question].score or 0.0 for question in one.questions] for one in measured], axis=0
    )


def _mean(values: Any, signed: bool = False) -> str:
    counts = draws(len(values), 2000, 17)
    low, high = interval(counts @ values / len(values)) or (0.0, 0.0)
    form = "+.3f" if signed else ".3f"
    return f"{values.mean():{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    main()
