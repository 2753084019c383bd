"""Dropout switched off by its rate, and not by the mode: gradient checkpointing asks for training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_dropout(model: nn.Module, *, trained: bool) -> Iterator[None]:
    """Inside, the model's own dropout is off in frozen parts, and with ``trained`` in trained ones too.

    Frozen is what lies in a module whose parameters are all frozen. Rates are those of dropout layers and of
    attributes named after them (``attention_dropout``, ``drop_prob``); a LoRA's is left alone, it is the recipe's.
    Afterwards all rates are what they were.
    """
    held: list[tuple[nn.Module, str, float]] = []
    for module, frozen in _modules(model, frozen=True):
        if frozen or trained:
            names = [name for name, value in vars(module).items() if _is_rate(module, name, value)]
            held += [(module, name, getattr(module, name)) for name in names]
    try:
        for module, name, _ in held:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, rate in held:
            setattr(module, name, rate)


def _is_rate(module: nn.Module, name: str, value: object) -> bool:
    layer = isinstance(module, nn.modules.dropout._DropoutNd) and name == "p"
    return isinstance(value, float) and value > 0 and (layer or "drop" in name)


def _modules(module: nn.Module, frozen: bool) -> Iterator[tuple[nn.Module, bool]]:
    """Every module but LoRA's dropout, and whether it is frozen: the nearest part around it that has parameters is."""
    parameters = list(module.parameters())
    if parameters:
        frozen = not any(parameter.requires_grad for parameter in parameters)
    yield module, frozen
    for name, child in module.named_children():
        if name != "lora_dropout":
            yield from _modules(child, frozen)
