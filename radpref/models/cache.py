"""A key-value cache with room ahead, for several candidates of one prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


def widen(cache: Any, n: int, room: int) -> None:
    """Repeats, in place, every row of a prefilled cache ``n`` times and keeps room for ``room`` more tokens.

    Plain layers become ``RoomyLayer``; sliding-window, linear-attention and other layers stay as they are and
    grow in their own way.
    """
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = RoomyLayer(layer, n, room)
        elif n > 1:
            layer.batch_repeat_interleave(n)


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A ``DynamicLayer`` that writes new tokens into memory set aside for them.

    Its parent joins old and new at every token, which copies all that it holds: for the built-in model with 64
    rows that was four fifths of the time of decoding (benchmarks/decoding.py).
    """

    def __init__(self, layer: DynamicLayer, n: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.key_store, self.value_store = (_store(part, n, room) for part in (layer.keys, layer.values))
        self._show(layer.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = self.key_store[:, :, :length], self.value_store[:, :, :length]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        stop = start + key_states.shape[-2]
        self.key_store[:, :, start:stop] = key_states
        self.value_store[:, :, start:stop] = value_states
        self._show(stop)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        length, count = self.keys.shape[-2], len(indices)
        self.key_store[:count, :, :length] = self.keys[indices]
        self.value_store[:count, :, :length] = self.values[indices]
        self.key_store, self.value_store = self.key_store[:count], self.value_store[:count]
        self._show(length)


def _store(part: Tensor, n: int, room: int) -> Tensor:
    """``part`` (rows, heads, tokens, width), each row ``n`` times, at the head of (rows * n, heads, tokens + room, width)."""
    rows, heads, length, width = part.shape
    store = torch.empty(rows, n, heads, length + room, width, dtype=part.dtype, device=part.device)
    store[..., :length, :] = part[:, None]
    return store.flatten(0, 1)
