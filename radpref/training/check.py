"""What radpref can do with a model, found out by doing it: for a user's own model, before a run is planned.

``radpref models check PATH`` prints ``rows(check(...))``; docs/models.md holds the same for every family.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from radpref.config import LoraSection, ModelSection, RunSection
from radpref.models import (
    Vlm,
    attach_lora,
    autocast,
    load,
    merged,
    trainable_summary,
    unwrapped,
    without_dropout,
)
from radpref.training.features import encode
from radpref.training.layout import Group, image_tokens, pack
from radpref.training.scoring import Way, score, trial, way_of

_ADAM = 8
"""Bytes of state a trained float32 parameter: two moments."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one alignment step on two pairs, on the device that the model is on."""

    weights: int
    activations: int
    """Kept for the backward pass; grows with pairs, images and length. Gradient checkpointing takes most of it away."""
    gradients: int
    optimizer: int
    """AdamW's two moments."""

    @property
    def total(self) -> int:
        """All of it; the forward pass itself needs some more for a moment."""
        return self.weights + self.activations + self.gradients + self.optimizer


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found out about a model."""

    name: str
    family: str
    """transformers' model type."""
    parameters: int
    dtype: str
    device: str
    image_tokens: tuple[int, int]
    """Placeholders of the two test images in their prompts."""
    most_images: int | None
    """Images that a prompt can show; None where no limit was met."""
    opening: str
    """What the template writes before each answer itself, such as an empty thought."""
    way: Way
    trained: list[tuple[str, int]]
    """(module, parameters) under the LoRA, layers of a stack taken together."""
    memory: Memory
    seconds: float
    """One step: forward and backward on two pairs, images encoded beforehand where that is possible."""


def check(
    section: ModelSection, run: RunSection, lora: LoraSection | None = None, *, size: tuple[int, int] = (1024, 1024)
) -> Checked:
    """Load a model and send two prompts through every way that radpref has.

    Args:
        section: the model; an adapter is merged into it.
        run: device and precision.
        lora: what is trained in the test step; the recipe's default where absent.
        size: (width, height) of the grey images of the test step: those of your own images, for the memory to hold.

    Raises ModelError with the cause for a model that cannot be used.
    """
    vlm = merged(load(section, run))
    way = way_of(vlm)
    groups = trial(vlm, (size, size))
    student = attach_lora(vlm, lora or LoraSection())
    with without_dropout(student.model, trained=True):
        memory, seconds = _step(student, groups, way)
    return Checked(
        name=section.path,
        family=str(unwrapped(vlm.model).config.model_type),
        parameters=sum(p.numel() for p in vlm.model.parameters() if not p.requires_grad),
        dtype=str(vlm.dtype).removeprefix("torch."),
        device=str(vlm.device),
        image_tokens=tuple(image_tokens(vlm, group.prompt["input_ids"]) for group in groups),  # type: ignore[arg-type]
        most_images=vlm.most_images,
        opening=vlm.turn.opening,
        way=way,
        trained=trainable_summary(student.model),
        memory=memory,
        seconds=seconds,
    )


def _step(student: Vlm, groups: Sequence[Group], way: Way) -> tuple[Memory, float]:
    """Forward and backward of a training step, with what it keeps between the two."""
    model = student.model.train()
    batch = pack(student, groups, shared=way.shared).to(student.device)
    known = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with autocast(student):
        features = encode(model, batch.images) if way.features else None
        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = -score(model, batch, way, features).logps.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    if student.device.type == "cuda":
        torch.cuda.synchronize(student.device)
    seconds = time.perf_counter() - start
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = sum(p.untyped_storage().nbytes() for p in {id(p): p for p in model.parameters()}.values())
    model.zero_grad()
    return (
        Memory(
            weights=weights,
            activations=sum(kept.values()),
            gradients=sum(p.numel() * p.element_size() for p in trained),
            optimizer=sum(p.numel() for p in trained) * _ADAM,
        ),
        seconds,
    )


def rows(found: Checked) -> list[tuple[str, str]]:
    """(what, how it is) for a table of one model."""
    way, memory = found.way, found.memory
    return [
        ("family", f"{found.family}, {found.parameters:,} parameters in {found.dtype} on {found.device}"),
        ("image", f"{found.image_tokens[0]} tokens; {found.most_images or 'several'} a prompt"),
        ("written before an answer", repr(found.opening) if found.opening else "nothing"),
        ("both answers of a pair in one row", _yes(way.shared)),
        ("encoded images kept", _yes(way.features)),
        ("head read without its logits", _yes(way.fused)),
        *(("because", note) for note in way.notes),
        ("trained", f"{sum(n for _, n in found.trained):,} parameters in {len(found.trained)} kinds of layers"),
        (
            "memory of a step on two pairs",
            f"{_size(memory.total)}: weights {_size(memory.weights)}, kept for the backward pass "
            f"{_size(memory.activations)}, gradients {_size(memory.gradients)}, AdamW {_size(memory.optimizer)}",
        ),
        ("time of the step", f"{found.seconds:.2g} s"),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.2f} MiB"
