"""A step of supervised fine-tuning against TRL's SFTTrainer: time, loss and gradient, same model, batch and data.

    python benchmarks/sft.py --shape v12-224 --batch 8 --reps 7 [--rank 0]

Both take a ready batch, in turn, on one thread; medians of CPU seconds. Ours has images encoded beforehand where what
encodes them is frozen, as under a LoRA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from radpref.bench.shapes import SHAPES, build, pairs
from radpref.config import LoraSection, ModelSection, RunSection
from radpref.models import attach_lora, collate, freeze, load
from radpref.records import Question
from radpref.training import Prompts, way_of
from radpref.training.answers import AnswerTrainer, encoded
from radpref.training.rows import answer_ids
from radpref.training.sft import usable


def measure(shape: str, batch: int, reps: int, rank: int) -> None:
    """Prints one row."""
    folder = Path(tempfile.mkdtemp())
    path = build(SHAPES[shape], folder / "model")
    run = RunSection(device="cpu", precision="float32", threads=1)
    ours, theirs = (load(ModelSection(path=str(path)), run) for _ in range(2))
    made = pairs(batch, SHAPES[shape].pixels, folder / "images")
    questions = [
        Question(
            id=pair.id,
            study=pair.id,
            patient=pair.id,
            split="train",
            images=pair.images,
            prompt=pair.prompt,
            reference=pair.chosen,
        )
        for pair in made
    ]
    prompts = Prompts(ours)
    rows, _ = usable(ours, questions, prompts)
    way = way_of(ours, shared=False)
    kept = encoded(ours, rows, prompts, batch, folder / "features") if rank else None
    for vlm in (ours, theirs):
        torch.manual_seed(0)
        if rank:
            attach_lora(vlm, LoraSection(rank=rank))
        else:
            freeze(vlm, language=True, projector=True)
    settings: dict[str, Any] = {"per_device_train_batch_size": batch, "report_to": "none", "use_cpu": True}
    settings |= {"output_dir": str(folder / "out"), "remove_unused_columns": False}
    mine = AnswerTrainer(ours, TrainingArguments(**settings), rows, prompts, way, kept, "cosine")
    config = SFTConfig(
        **settings, bf16=False, gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    tensors = collate(theirs, [prompts(row) for row in rows], [answer_ids(theirs, row) for row in rows])
    labels = tensors["input_ids"].masked_fill(~tensors.pop("completion_mask"), -100)
    data = Dataset.from_dict({"row": list(range(len(rows)))})
    other = SFTTrainer(
        theirs.model,
        args=config,
        train_dataset=data,
        data_collator=lambda _: {},
        processing_class=theirs.processor,
    )
    inputs = {mine: mine.data_collator(list(range(len(rows)))), other: {**tensors, "labels": labels}}
    found: dict[Any, tuple[float, torch.Tensor]] = {}
    seconds: dict[Any, list[float]] = {mine: [], other: []}
    for rep in range(reps + 1):
        for trainer, ready in inputs.items():
            trainer.model.train()
            trainer.model.zero_grad()
            start = time.process_time()
            loss = trainer.compute_loss(trainer.model, ready)
            loss.backward()
            taken = time.process_time() - start
            if rep:
                seconds[trainer].append(taken)
            grads = {name: p.grad.flatten() for name, p in trainer.model.named_parameters() if p.grad is not None}
            found[trainer] = (float(loss), torch.cat([grads[name] for name in sorted(grads)]))
    (loss, gradient), (expected, reference) = found[mine], found[other]
    away = float((gradient - reference).norm() / reference.norm())
    own, trl = (statistics.median(seconds[trainer]) for trainer in (mine, other))
    cells = (
        shape,
        f"rank {rank}",
        batch,
        f"{own:.3f}",
        f"{trl:.3f}",
        f"{trl / own:.2f}",
        f"{abs(loss - expected):.0e}",
    )
    print("|", " | ".join(map(str, cells)), "|", f"{away:.0e} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="v12-224", choices=sorted(SHAPES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--rank", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    measure(given.shape, given.batch, given.reps, given.rank)
