"""A LoRA's layer in one pass computes what PEFT's own way computes, and steps aside wherever it would not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from radpref.models import lowrank
from radpref.models.lowrank import fuse


class Two(nn.Module):
    """Two layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20, bias=False), nn.Linear(20, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return out


def adapted(dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["first", "second"], **settings)
    model = get_peft_model(Two().to(dtype), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def both(**settings: Any) -> tuple[Any, Any]:
    model = adapted(**settings)
    fused = copy.deepcopy(model)
    fuse(fused)
    return model, fused


def outcome(model: Any, x: torch.Tensor, autocast: torch.dtype | None = None) -> list[torch.Tensor]:
    """The output, the gradient of the input, and of the adapter's weights."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # of dropout
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        out = model(x)
    (out.float() ** 2).sum().backward()
    return [out, x.grad, *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a layer went in one pass."""
    calls: list[int] = []
    apply = lowrank._LowRank.apply
    monkeypatch.setattr(lowrank._LowRank, "apply", lambda *given: (calls.append(1), apply(*given))[1])
    return lambda: len(calls)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 12), (2, 7, 12), (12,)])
def test_the_same_output_and_gradients(
    shape: tuple[int, ...], autocast: torch.dtype | None, counted: Callable[[], int]
) -> None:
    model, fused = both()
    x = torch.randn(shape)
    expected, found = outcome(model, x, autocast), outcome(fused, x, autocast)
    assert counted() == 2
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        # in bfloat16 PEFT rounds the scaled product once more
        away = float((one.detach() - other.detach()).float().norm() / other.detach().float().norm())
        assert away < (1e-6 if autocast is None else 0.03)


def test_the_gradient_is_that_of_differences() -> None:
    _, fused = both()
    layer = fused.base_model.model.first.double()
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    down, up = (part["default"].weight for part in (layer.lora_A, layer.lora_B))

    def through(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        out: torch.Tensor = lowrank._LowRank.apply(x, weight, bias, down, up, 1.7, torch.float64)  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(through, (x, down, up))


def written_in_place(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients where the layer after it writes into its output and into a view of that."""
    model.zero_grad()
    out = model.base_model.model.first(x)
    out.view(x.shape[0], -1)[:, :3].mul_(2.0)
    out.add_(1.0)
    (out**2).sum().backward()
    return [out.detach(), *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]


@pytest.mark.parametrize("shape", [(4, 12), (2, 7, 12)])
def test_what_follows_may_write_into_the_output(shape: tuple[int, ...], counted: Callable[[], int]) -> None:
    model, fused = both()
    x = torch.randn(shape)
    for one, other in zip(written_in_place(fused, x), written_in_place(model, x), strict=True):
        torch.testing.assert_close(one, other)
    assert counted() == 1


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.5}])
def test_what_is_more_than_a_product_goes_pefts_way(settings: dict[str, Any], counted: Callable[[], int]) -> None:
    model, fused = both(**settings)
    x = torch.randn(4, 12)
    for one, other in zip(outcome(fused, x), outcome(model, x), strict=True):
        torch.testing.assert_close(one, other)
    assert counted() == 0


def test_dropout_that_is_off_does_not_matter(counted: Callable[[], int]) -> None:
    model, fused = both(lora_dropout=0.5)
    x = torch.randn(4, 12)
    torch.testing.assert_close(fused.eval()(x), model.eval()(x))
    assert counted() == 2


def test_switched_off_merged_and_doubled(counted: Callable[[], int]) -> None:
    model, fused = both()
    x = torch.randn(4, 12)
    with model.disable_adapter(), fused.disable_adapter():
        torch.testing.assert_close(fused(x), model(x))
    assert counted() == 0
    fused.merge_adapter()
    torch.testing.assert_close(fused(x), model(x))
    fused.unmerge_adapter()
    assert counted() == 0
    for one in (model, fused):
        torch.manual_seed(2)
        one.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False))
        one.base_model.set_adapter(["default", "other"])
    torch.testing.assert_close(fused(x), model(x))
    assert counted() == 0


def test_a_base_in_another_precision_is_cast_as_peft_does(counted: Callable[[], int]) -> None:
    model, fused = both(dtype=torch.bfloat16)
    x = torch.randn(4, 12, dtype=torch.bfloat16)
    torch.testing.assert_close(fused(x), model(x))
    assert counted() == 0


def test_a_copy_is_one_of_its_own(counted: Callable[[], int]) -> None:
    _, fused = both()
    other = copy.deepcopy(fused)
    with torch.no_grad():
        other.base_model.model.first.lora_B["default"].weight.zero_()
        other.base_model.model.second.lora_B["default"].weight.zero_()
    x = torch.randn(4, 12)
    with other.disable_adapter():
        bare = other(x)
    torch.testing.assert_close(other(x), bare)
    assert not torch.allclose(fused(x), bare)
    torch.testing.assert_close(copy.deepcopy(fused).merge_and_unload()(x), fused(x))
    assert counted() > 0
