"""What the settings of a training rule out, known before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from radpref.config import AlignSection, GrpoSection, SftSection
from radpref.training.errors import TrainingError

_TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Packages, any of which will do, where a tracker's has another name than the tracker."""


def check_settings(
    name: str, section: SftSection | AlignSection | GrpoSection, quantize: str = "none", trackers: Sequence[str] = ()
) -> None:
    """Whether a section can be trained with.

    Args:
        name: what the section is called in a recipe: ``sft``, ``align``, ``grpo``.
        section: what to train with.
        quantize: ``model.quantize``.
        trackers: ``run.trackers``.

    Raises:
        TrainingError: parts that an adapter does not hold, 4-bit weights without an adapter, an optimiser or a tracker
            whose package is not installed.
    """
    rank, parts = section.lora.rank, {"sft": ("train_tower",), "align": ("train_tower", "train_projector")}
    if rank and (asked := [part for part in parts.get(name, ()) if getattr(section, part)]):
        raise TrainingError(
            f"{name}.{asked[0]} is true and {name}.lora.rank is {rank}: an adapter holds weights of the language model "
            f"alone. Set {name}.lora.rank 0 to train in full, or {name}.{asked[0]} false to leave that part frozen."
        )
    if quantize != "none" and not rank:
        raise TrainingError(
            f"model.quantize {quantize} keeps weights in 4 bits, which cannot be trained, and {name}.lora.rank is 0. "
            f"Train an adapter (--{name}.lora.rank 16), or set model.quantize none."
        )
    if absent := [one for one in trackers if not any(map(find_spec, _TRACKERS.get(one, (one,))))]:
        raise TrainingError(
            f"run.trackers names what is not installed: pip install {' '.join(absent)}, or leave it out of the recipe"
        )
    if section.optimizer == "adamw-8bit" and find_spec("bitsandbytes") is None:
        raise TrainingError(
            f"{name}.optimizer adamw-8bit is bitsandbytes', which is not installed: pip install bitsandbytes, or set "
            "adamw"
        )
