"""What is trained: LoRA on the language model only, or whole parts, and a table of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from radpref.config import LoraSection
from radpref.models.lowrank import fuse
from radpref.models.vlm import ModelError, Vlm, language_model, unwrapped, vision_tower


def language_targets(model: Any, *, head: bool = False) -> list[str]:
    """Full names of the linear layers inside the language model's decoder stack, in the order of the model.

    Names such as ``q_proj`` alone would match the vision tower as well. The embeddings are left out, and so is the
    output head unless ``head`` asks for it: exact KL terms and cached hidden states rest on a head that stays as it is.
    """
    inner, decoder = unwrapped(model), language_model(model)
    inside = {id(module) for module in decoder.modules() if _projects(module)}
    names = [name for name, module in inner.named_modules() if id(module) in inside]
    output = inner.get_output_embeddings()
    found = [name for name in names if inner.get_submodule(name) is not output]
    return [*found, *(name for name, module in inner.named_modules() if head and module is output)]


def _projects(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing more: a router is one too that returns something else."""
    quantised = type(module).__module__.startswith("bitsandbytes")
    return isinstance(module, nn.Linear) and (quantised or type(module).forward is nn.Linear.forward)


def attach_lora(vlm: Vlm, section: LoraSection) -> Vlm:
    """``vlm`` with a fresh LoRA (Hu et al. 2021) or DoRA (Liu et al. 2024) on its language model; all else is frozen.

    The adapter's weights are float32 and trainable, its output starts at zero. The model is changed in place.
    Raises ModelError for ``rank`` 0 (which means training in full: see ``freeze``) and for a model that has an
    adapter already.
    """
    if section.rank == 0:
        raise ModelError("lora.rank is 0, which trains the language model in full and needs no adapter")
    if hasattr(vlm.model, "peft_config"):
        raise ModelError(f"{vlm.name} has an adapter already; merge it first (radpref.models.merged) or train that one")
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_rslora=section.rslora,
        use_dora=section.dora,
        target_modules=language_targets(vlm.model, head=section.head),
        bias="none",
    )
    model = get_peft_model(vlm.model, config)
    fuse(model)
    return replace(vlm, model=model)


def merged(vlm: Vlm) -> Vlm:
    """``vlm`` with its adapter folded into the weights, and no adapter any more; in place.

    An adapter on a head that shares its weights with the embeddings, or on these, changes one of the two only: they
    are untied first, and the model's config says so from then on. The logits stay what they were.
    """
    if not hasattr(vlm.model, "peft_config"):
        return vlm
    if vlm.quantised:
        raise ModelError(
            f"{vlm.name} is kept in 4 bits, into which an adapter cannot be merged without rounding it; merge it into "
            "the weights as they were (radpref.models.in_full)"
        )
    _untie(vlm.model)
    return replace(vlm, model=vlm.model.merge_and_unload())


@torch.no_grad()
def interpolated(start: Vlm, tuned: Vlm, share: float) -> Vlm:
    """``tuned`` with every weight moved back to a point on the line between two models of one kind; in place.

    ``share`` of the way from ``start``, of 0 to 1 (WiSE-FT; Wortsman et al., 2022, arXiv:2109.01903). Worked out in
    float32 and kept in the dtype of ``tuned``. Neither has an adapter.
    """
    before = start.model.state_dict()
    for name, weight in tuned.model.named_parameters():
        old = before[name].to(weight.device, torch.float32)
        weight.copy_(old + share * (weight.float() - old))
    return tuned


def _untie(model: Any) -> None:
    """Give the head weights of its own where an adapter is on it, or on the embeddings, and both share theirs."""
    inner = unwrapped(model)
    ends = (inner.get_output_embeddings(), inner.get_input_embeddings())
    head, embeddings = (_base(end) for end in ends)
    if head is None or head.weight is not embeddings.weight or ends == (head, embeddings):
        return
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(config): config for config in (inner.config, inner.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def _base(end: Any) -> Any:
    """A layer without what an adapter put around it."""
    return end.original_module if hasattr(end, "original_module") else getattr(end, "base_layer", end)


def freeze(vlm: Vlm, *, language: bool = True, projector: bool = False, tower: bool = False) -> None:
    """Sets, in place, which parts of a model without adapter are trained: True trains, False freezes.

    ``language`` is the decoder stack with embeddings and head, ``tower`` the image encoder, ``projector`` all
    that leads from one to the other; the mergers that Qwen-VL keeps inside its tower count as projector. What is
    trained is kept in float32, whatever the dtype of the rest: in bfloat16 an optimiser's small steps would be
    rounded away. Run forwards under ``autocast(vlm)``.
    """
    if vlm.quantised:
        raise ModelError(
            f"{vlm.name} is kept in 4 bits (model.quantize), which cannot be trained. Train an adapter (lora.rank "
            "above 0), or set model.quantize none."
        )
    inner = unwrapped(vlm.model)
    seeing = vision_tower(inner)
    mergers = [child for name, child in seeing.named_children() if "merger" in name]
    parts = dict.fromkeys(inner.parameters(), projector)
    parts |= dict.fromkeys(seeing.parameters(), tower)
    parts |= {p: projector for merger in mergers for p in merger.parameters()}
    parts |= dict.fromkeys(language_model(inner).parameters(), language)
    parts |= dict.fromkeys(inner.get_output_embeddings().parameters(), language)
    for parameter, trained in parts.items():
        parameter.requires_grad_(trained)
        if trained:
            parameter.data = parameter.data.to(torch.float32)


def trainable_summary(model: nn.Module) -> list[tuple[str, int]]:
    """(module, trainable parameters), layers of a stack taken together under ``*``, in the order of the model."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = re.sub(r"\.\d+(?=\.|$)", ".*", name.rsplit(".", 1)[0])
            counts[group] = counts.get(group, 0) + parameter.numel()
    return list(counts.items())
