"""Whether the causal test tells a model that looks from one that does not.

    python benchmarks/grounding.py [--train 1000] [--test 200] [--epochs 5] [--out runs/grounding]

Four models learn from the same phantom reports, with the tower frozen and language model and projector trained in
full; two see each report with its own image, two with the image of another patient (a fixed permutation without fixed
points). Two start from the built-in model, which can look already, and two from a language model and projector that
were never taught. All are then measured on the same unseen phantoms and the words of the same reference reports. A
model that learned from shuffled images alone has no use for an image, and must score zero within its interval.

Prints Markdown tables with n and 95 % intervals over patients. What is done is kept in ``--out``: called again, the
command goes on where it was.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from radpref.config import DataSection, LoraSection, ModelSection, PhantomSection, RunSection, SftSection, TaskSection
from radpref.data import load_studies
from radpref.files import content_key
from radpref.grounding import (
    Drop,
    Grounding,
    Look,
    attention_table,
    causal_table,
    compare_effects,
    measure_grounding,
)
from radpref.models import Vlm, load, vision_tower
from radpref.records import Question
from radpref.runs.table import Table
from radpref.tasks import report_question
from radpref.training import sft

MODELS = {
    "built-in, own images": (False, False),
    "built-in, shuffled images": (False, True),
    "untaught, own images": (True, False),
    "untaught, shuffled images": (True, True),
}
"""Name to (language model and projector start from nothing, images are shuffled)."""
RUN = RunSection(precision="float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1000, help="phantoms to learn from")
    parser.add_argument("--test", type=int, default=200, help="unseen phantoms to measure on")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling and the training")
    parser.add_argument("--world", type=int, default=5, help="seed of the phantoms; the built-in model is of world 1")
    parser.add_argument("--out", type=Path, default=Path("runs/grounding"))
    options = parser.parse_args()

    phantoms = PhantomSection(seed=options.world, masks=True, lateral_share=0)
    section = DataSection(
        source="phantom", train=options.train, validation=1, test=options.test, max_images=1, phantom=phantoms
    )
    studies = load_studies(section, options.out, options.seed).studies
    questions = {
        split: [report_question(study, TaskSection(), 1) for study in studies if study.split == split]
        for split in ("train", "test")
    }
    measured: dict[str, Grounding] = {}
    for name, (untaught, shuffle) in MODELS.items():
        folder = options.out / f"{name.replace(', ', '-').replace(' ', '-')}-{options.train}-{options.epochs:g}"
        taught = shuffled(questions["train"], options.seed) if shuffle else questions["train"]
        path = train(taught, folder, options.epochs, options.seed, untaught)
        measured[name] = measure(name, path, questions["test"], folder)

    metrics = [metric for found in measured.values() for metric in found.metrics]
    tests = [test for found in measured.values() for test in found.tests]
    print(f"\n{options.train} phantoms to learn from, {options.epochs:g} epochs; {options.test} to measure on\n")
    print(causal_table(metrics, tests), "\n")
    for start in ("built-in", "untaught"):
        pair = (measured[f"{start}, shuffled images"].drops, measured[f"{start}, own images"].drops)
        if gap := compare_effects(*pair):
            print(f"{gap.after} against {gap.before}: {gap.difference:.3f} ({gap.low:.3f} to {gap.high:.3f}), ", end="")
            print(f"p {gap.p:.3f}, n {gap.n}")
    print("\n" + attention_table(metrics))
    for name, found in measured.items():
        print(f"\n{name}, not measured: {dict(Counter(row.reason.split(':')[0] for row in found.quarantined))}")


def shuffled(questions: list[Question], seed: int) -> list[Question]:
    """Each question with the images of another: one cycle through all of them, in a drawn order."""
    order = np.random.default_rng(seed).permutation(len(questions))
    lent = {int(at): questions[order[(place + 1) % len(order)]].images for place, at in enumerate(order)}
    return [question.model_copy(update={"images": lent[at]}) for at, question in enumerate(questions)]


def train(questions: list[Question], folder: Path, epochs: float, seed: int, untaught: bool) -> Path:
    """Supervised fine-tuning of language model and projector; the folder of the trained model."""
    vlm = load(ModelSection(path="builtin"), RUN)
    lr = 5e-4
    if untaught:
        vlm, lr = unlearned(vlm, seed), 1.5e-3
    settings = SftSection(lora=LoraSection(rank=0), lr=lr, epochs=epochs, batch=32, save_steps=50)
    return sft(vlm, questions, settings, folder / "sft", seed=seed, log=lambda row: tell(folder.name, row)).path


def tell(name: str, row: dict[str, float]) -> None:
    if row["step"] % 20 == 0:
        print(f"{name}: step {row['step']:.0f} of {row['steps']:.0f}, loss {row['loss']:.3f}", flush=True)


def unlearned(vlm: Vlm, seed: int) -> Vlm:
    """The model with its tower, and everything else drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(vlm.model)(vlm.model.config).to(vlm.dtype)
    vision_tower(fresh).load_state_dict(vision_tower(vlm.model).state_dict())
    fresh.generation_config = vlm.model.generation_config
    return replace(vlm, model=fresh.eval())


def measure(name: str, path: Path, questions: list[Question], folder: Path) -> Grounding:
    """``measure_grounding`` with its rows kept in the folder, for as long as model and questions stay the same."""
    vlm = load(ModelSection(path=str(path)), RUN)
    key = content_key(vlm.fingerprint, [question.id for question in questions])
    seen, lost = Table(folder / "looks.jsonl", Look), Table(folder / "drops.jsonl", Drop)

    def keep(row: Look | Drop) -> None:
        if isinstance(row, Look):
            seen.append([(key, row)])
        else:
            lost.append([(key, row)])

    known = [row for table in (seen, lost) for row in table if table.get(row.id, key)]
    return measure_grounding(vlm, questions, system=name, known=known, keep=keep)


if __name__ == "__main__":
    main()
