"""What a training step takes in memory, told from a model's config: before weights are fetched or a GPU is rented.

The decoder is built on torch's meta device, with its adapter, and a forward pass is taken over tensors that have shapes
and no content: what autograd would keep of it is counted, tensor by tensor, for whatever the family computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from radpref.config import AlignSection, LoraSection, SftSection
from radpref.models import language_model, language_targets, unwrapped
from radpref.training.head import CHUNK

STATES = {"adamw": 8, "adamw-8bit": 2, "adafactor": 0}
"""Bytes of optimiser state a trained parameter; adafactor's rows and columns are next to nothing."""
NF4 = 0.516
"""Bytes a weight in 4 bits with doubly quantised scales: 1/2, and 1/64 and a little for the scales."""
_COPIES = 5
"""Arrays of float32 logits that exist while a chunk of the head is read."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes on one device, of one process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Kept for the backward pass."""
    working: int
    """For a moment: a chunk of logits, and with gradient checkpointing one layer computed again."""

    @property
    def total(self) -> int:
        """All of it; the allocator and the driver take a tenth more."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


def estimate(
    config: Any,
    section: AlignSection | SftSection,
    *,
    tokens: int,
    processes: int = 1,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    quantized: bool = False,
) -> Estimate:
    """Of a step of alignment or fine-tuning with images encoded beforehand.

    Args:
        config: of the whole model.
        section: what is trained with; its batch counts rows over all processes. A row of an alignment holds a prompt
            and both answers; a visual term reads each pair in two rows.
        tokens: of a row: images, words and answers.
        processes: among which a batch is divided, each with the whole model (DDP).
        dtype: of the weights; those that are trained are in float32.
        quantized: the decoder's linear layers in 4 bits (``model.quantize nf4``).
    """
    kind: torch.dtype = getattr(torch, dtype)
    model = _skeleton(config, section.lora, kind)
    each = -(-section.batch // processes) * (2 if _corrupted(section) else 1)
    layer, whole = _kept(model, each, tokens)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    linear = sum(unwrapped(model).get_submodule(name).weight.numel() for name in _plain(model))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    weights -= int(linear * (kind.itemsize - NF4)) if quantized else 0
    text = config.get_text_config()
    layers, ends = text.num_hidden_layers, each * tokens * text.hidden_size * kind.itemsize
    checkpointed = section.gradient_checkpointing
    return Estimate(
        weights=weights,
        gradients=4 * trained,
        optimizer=STATES[section.optimizer] * trained,
        activations=layers * ends if checkpointed else whole,
        working=(layer if checkpointed else 0) + _COPIES * 4 * min(CHUNK, each * tokens * text.vocab_size),
    )


def _corrupted(section: AlignSection | SftSection) -> bool:
    """Whether each pair is read with its corrupted image as well, in a row of its own."""
    return isinstance(section, AlignSection) and bool(section.visual.weight)


def _skeleton(config: Any, lora: LoraSection, dtype: torch.dtype) -> Any:
    """The model without content, with what is trained in float32."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
        if lora.rank:
            targets = language_targets(model, head=lora.head)
            model = get_peft_model(
                model, LoraConfig(r=lora.rank, target_modules=targets, use_dora=lora.dora, bias="none")
            )
    if lora.rank:
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.float() if "lora_" in name else parameter.data
    else:
        model.requires_grad_(False)
        for part in (language_model(model), model.get_output_embeddings()):
            for parameter in part.parameters():
                parameter.requires_grad_(True)
                parameter.data = parameter.data.float()
    return model.train()


def _plain(model: Any) -> list[str]:
    """Names of the decoder's linear layers, below an adapter where there is one."""
    inner = unwrapped(model)
    decoder = {id(module) for module in language_model(model).modules()}
    named = ((name, part) for name, part in inner.named_modules() if id(part) in decoder)
    return [name for name, part in named if type(part) is nn.Linear and "lora_" not in name]


def _kept(model: Any, rows: int, tokens: int) -> tuple[int, int]:
    """Bytes that autograd keeps of one layer, and of the whole decoder, over rows of tokens."""
    decoder, text = language_model(model), unwrapped(model).config.get_text_config()
    dtype = next(p.dtype for p in model.parameters() if not p.requires_grad) if _frozen(model) else torch.float32
    embedded = torch.empty(rows, tokens, text.hidden_size, device="meta", dtype=dtype, requires_grad=True)
    known = {id(p) for p in model.parameters()}
    with _counted(known) as count, _attention():
        decoder(
            inputs_embeds=embedded,
            attention_mask=_masks(text, rows, tokens),
            position_ids=torch.empty(rows, tokens, dtype=torch.int64, device="meta"),
            use_cache=False,
        )
    return count[0] // text.num_hidden_layers, count[0]


def _frozen(model: Any) -> bool:
    return any(not p.requires_grad for p in language_model(model).parameters())


def _masks(text: Any, rows: int, tokens: int) -> Any:
    """One ready mask for all layers, or one for each type of layer: as rows with two answers have."""
    mask = torch.empty(rows, 1, tokens, tokens, device="meta", dtype=torch.bool)
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    return dict.fromkeys((*kinds, "full_attention"), mask) if kinds else mask


class _Kept(torch.autograd.Function):
    """Attention as its kernels keep it: queries, keys, values, what comes out, and a number a query; no matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, torch.empty_like(query[..., 0], dtype=torch.float32))
        return out


def _kept_by_kernels(query: Tensor, key: Tensor, value: Tensor) -> Any:
    return _Kept.apply(query, key, value)  # type: ignore[no-untyped-call]


@contextmanager
def _attention() -> Iterator[None]:
    """On the meta device torch would take the slow way, which keeps the matrix of all pairs of tokens."""
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _kept_by_kernels(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


@contextmanager
def _counted(known: set[int]) -> Iterator[list[int]]:
    """Sums the bytes of distinct tensors that are kept for the backward pass, parameters left out."""
    count, seen = [0], dict[int, Any]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        base = tensor._base if tensor._base is not None else tensor
        if id(base) not in known and not isinstance(base, nn.Parameter) and storage._cdata not in seen:
            seen[storage._cdata] = storage  # held, so that no other gets its place
            count[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield count


def rows(name: str, found: Estimate) -> tuple[str, ...]:
    """A line of a table: GiB of each part, then of all."""
    parts = (found.weights, found.activations, found.gradients, found.optimizer, found.working, found.total)
    return (name, *(f"{part / 2**30:.2f}" for part in parts))
