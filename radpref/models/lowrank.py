"""A LoRA's layer in one pass: the adapter's product is added into the frozen layer's, forwards and backwards.

PEFT computes ``W x``, ``B A x``, its scaled copy and their sum as tensors of their own, and as many for the gradient.
With a rank of 8 the arithmetic of that is nothing, and the memory that goes back and forth a third of a step. Here
the second product adds to the first in place (``addmm``), which computes the same sum.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F


def fuse(model: nn.Module) -> None:
    """Let every plain LoRA of ``model`` compute in one pass, in place; what it computes stays the same.

    A layer goes PEFT's own way wherever it is more than ``W x + s B A x`` over a frozen linear layer: DoRA, dropout
    at work, several adapters, none (switched off or merged), quantised weights, and weights in parts under ZeRO-3.
    """
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.forward = partial(_forward, module)


def _forward(layer: Any, x: Tensor, *args: Any, **named: Any) -> Tensor:
    adapter = None if args or named else _alone(layer)
    if adapter is None:
        return Linear.forward(layer, x, *args, **named)  # type: ignore[no-any-return]
    base, down, up = layer.base_layer, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    casting = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if casting else x.dtype
    if not casting and not base.weight.dtype == down.dtype == dtype:
        return Linear.forward(layer, x)  # type: ignore[no-any-return]
    flat = x.reshape(-1, x.shape[-1])
    out = _LowRank.apply(flat, base.weight, base.bias, down, up, layer.scaling[adapter], dtype)  # type: ignore[no-untyped-call]
    # a view made here, and not inside the function, may be written in place by the layers that follow (Llama 4 does)
    return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def _alone(layer: Any) -> str | None:
    """The one plain adapter that is at work on a layer; None where it is not as simple as that."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or active[0] in layer.lora_variant:
        return None
    weight, dropout = layer.base_layer.weight, layer.lora_dropout[active[0]]
    dropping = not isinstance(dropout, nn.Identity) and layer.training
    whole = weight.dim() == 2 and not hasattr(weight, "ds_id")
    biased = layer.lora_B[active[0]].bias is not None
    return None if dropping or biased or weight.requires_grad or not whole else active[0]


class _LowRank(torch.autograd.Function):
    """``x W' + b + s (x A') B'`` of rows x (n, in) with the gradients with respect to x, A (r, in) and B (out, r)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, dtype: Any
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows, frozen, low_down, low_up = x.to(dtype), weight.to(dtype), down.to(dtype), up.to(dtype)
            low = (rows @ low_down.T).mul_(scale)
            out = F.linear(rows, frozen, None if bias is None else bias.to(dtype)).addmm_(low, low_up.T)
        ctx.save_for_backward(rows, frozen, low_down, low_up, low)
        ctx.scale, ctx.dtypes = scale, (x.dtype, down.dtype, up.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, down, up, low = ctx.saved_tensors
        of_x, of_down, of_up = ctx.dtypes
        inner = (gradient @ up).mul_(ctx.scale)
        back = (gradient @ weight).addmm_(inner, down).to(of_x) if ctx.needs_input_grad[0] else None
        return back, None, None, (inner.T @ rows).to(of_down), (gradient.T @ low).to(of_up), None, None
