"""A step of GRPO: ours and TRL's GRPOTrainer on the same questions, model and judge.

    OMP_NUM_THREADS=1 python benchmarks/grpo_speed.py [--questions 8] [--n 8] [--steps 5] [--rounds 2]

The built-in model in float32, trained in full on the CPU. The trainers take turns in one process; a step is sampling,
judging, forward, backward and update. Prints CPU seconds a step, the median of each trainer's steps without the first
of every turn, and their ratio. Both draw their own answers, so that lengths differ a little; they are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from radpref.config import DataSection, GrpoSection, LoraSection, ModelSection, RunSection, SampleSection, TaskSection
from radpref.data import load_studies
from radpref.images import read_image
from radpref.judges import JUDGES, reward_function
from radpref.models import Vlm, freeze, load, messages
from radpref.records import Question
from radpref.tasks import report_question
from radpref.training.groups import Asked, GroupTrainer
from radpref.training.loop import quiet
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, keyed

TOKENS = 96


class Clock(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of every step but the first, and the mean tokens of an answer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[float] = []
        self._began: float | None = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.process_time()
        if self._began is not None:
            self.seconds.append(now - self._began)
        self._began = now

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.tokens += [logs[name] for name in ("tokens", "completions/mean_length") if name in logs]


def model() -> Vlm:
    vlm = load(ModelSection(), RunSection(device="cpu", precision="float32"))
    freeze(vlm, language=True)
    return vlm


def settings(folder: str, steps: int, batch: int) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": 1e-5,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "remove_unused_columns": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def ours(questions: Sequence[Question], options: Any, folder: str) -> Any:
    vlm = model()
    prompts, make = Prompts(vlm), keyed(identity(vlm))
    asked = [Asked(question, make(question.prompt, question.images, question.reference)) for question in questions]
    section = GrpoSection(questions=options.questions, n=options.n, lora=LoraSection(rank=0))
    args = TrainingArguments(**settings(folder, options.steps + 1, options.questions))
    reward = reward_function(JUDGES["green"]())
    return GroupTrainer(vlm, args, asked, prompts, reward, section, SampleSection(max_new_tokens=TOKENS))


def theirs(questions: Sequence[Question], options: Any, folder: str) -> Any:
    def columns(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        some = [questions[number] for number in batch["question"]]
        return {
            "prompt": [messages(question.prompt, len(question.images)) for question in some],
            "images": [[read_image(image) for image in question.images] for question in some],
            "reference": [question.reference for question in some],
        }

    vlm = model()
    config = GRPOConfig(
        **settings(folder, options.steps + 1, options.questions * options.n),
        num_generations=options.n, max_completion_length=TOKENS, gradient_checkpointing=False,
    )  # fmt: skip
    rows = Dataset.from_dict({"question": list(range(len(questions)))}).with_transform(columns)
    reward = reward_function(JUDGES["green"]())
    return GRPOTrainer(vlm.model, reward, config, rows, processing_class=vlm.processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    clocks = {"radpref": Clock(), "TRL": Clock()}
    with tempfile.TemporaryDirectory() as folder, quiet():
        loaded = load_studies(DataSection(train=100, validation=1, test=1), Path(folder), 17)
        questions = [report_question(study, TaskSection(), 2) for study in loaded.studies if study.split == "train"]
        for _ in range(options.rounds):
            for name, make in (("radpref", ours), ("TRL", theirs)):
                trainer = make(questions, options, folder)
                clocks[name]._began = None
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(clocks[name])
                trainer.train()
    print(f"{options.questions} questions with {options.n} answers a step, {torch.get_num_threads()} thread(s)\n")
    print("| trainer | CPU seconds a step | steps | tokens an answer |\n|---|---|---|---|")
    medians = {name: statistics.median(clock.seconds) for name, clock in clocks.items()}
    for name, clock in clocks.items():
        tokens = statistics.fmean(clock.tokens)
        print(f"| {name} | {medians[name]:.2f} | {len(clock.seconds)} | {tokens:.1f} |")
    print(f"\nTRL takes {medians['TRL'] / medians['radpref']:.1f} times as long")


if __name__ == "__main__":
    main()
