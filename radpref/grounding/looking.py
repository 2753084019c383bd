"""Where a model looks: attention for each target, layer by layer, against the lesion's mask and trivial maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref.grounding import metrics
from radpref.grounding.attention import attention_maps
from radpref.grounding.geometry import image_tokens, inside, to_grid
from radpref.grounding.targets import STAGE, Target
from radpref.images import ImageError, own_mask, read_image
from radpref.models import ModelError, Vlm, encode_prompt
from radpref.records import Agreement, ImageFile, Look, Quarantined, Source

GENERAL = "Write a general description of the image."
"""The prompt that attention is divided by (Zhang et al., *MLLMs Know Where to Look*, ICLR 2025)."""
Query = Literal["words", "prompt"]
SOURCES: tuple[Source, ...] = ("relative", "raw", "relative, another mask", "raw, another mask", "uniform", "centre")
"""``relative``: attention divided by the general prompt's, as published; ``raw``: as it is. ``another mask``: the
same map against the mask of another patient, with the same finding where there is one: what it reaches comes from
knowing where such lesions lie, not from this image. ``uniform`` and ``centre`` are maps that know no image."""


def looks(
    vlm: Vlm,
    targets: Sequence[Target],
    *,
    system: str,
    query: Query = "words",
    general: str = GENERAL,
    tolerance: int = 0,
    read: Callable[[ImageFile], Image.Image] = read_image,
    done: Collection[str] = (),
) -> Iterator[Look | Quarantined]:
    """One ``Look`` a target, or why there is none; targets whose ids are in ``done`` are left out.

    ``query`` says whose attention it is: ``words``, that of the positions which predict the words naming the finding;
    ``prompt``, that of the prompt's last token (as published, for questions that name what they ask for). Either is
    divided by that of the last token of ``general`` on the same images. Measured on the first image that marks the
    finding. ``tolerance`` is the pointing game's, in cells.

    Raises ModelError where the family's geometry is not known.
    """
    vlm.model.eval()
    others = _others(targets)
    below: dict[str, list[NDArray[np.float32]]] = {}  # the general prompt's maps, of the question at hand
    for target in targets:
        if target.id in done:
            continue
        question, number = target.question, target.images[0]
        try:
            images = [read(image) for image in question.images]
            if question.id not in below:
                below = {question.id: attention_maps(vlm, general, images)}
            spans = [target.words] if query == "words" else []
            maps = attention_maps(vlm, question.prompt, images, target.answer if spans else "", spans)[number]
            geometry = image_tokens(vlm, encode_prompt(vlm, question.prompt, images), images)[number].geometry
            size = images[number].size
            lesion = _mask(target, size)
            mask = to_grid(lesion, geometry)
            if mask.sum() <= 0:
                raise ValueError("lesion out of sight: the processor shows the model no part of its mask")
            other = others.get(target.id)
            elsewhere = (
                None if other is None else to_grid(_resized(_mask(other, read(_image(other)).size), size), geometry)
            )
        except ModelError:  # of the model and not of this target
            raise
        except (ImageError, ValueError) as error:
            yield Quarantined(id=target.id, stage=STAGE, reason=str(error))
            continue
        yield Look(
            id=f"{system}/{target.id}",
            target=target.id,
            system=system,
            question=question.id,
            patient=question.patient,
            finding=target.finding,
            share=tuple(float(layer.sum()) for layer in maps),
            inside=inside(lesion, geometry),
            agreement=_agreements(maps, below[question.id][number], mask, elsewhere, tolerance),
        )


def _agreements(
    maps: NDArray[np.float32],
    below: NDArray[np.float32],
    mask: metrics.Map,
    elsewhere: metrics.Map | None,
    tolerance: int,
) -> dict[Source, tuple[Agreement, ...]]:
    def agree(attention: metrics.Map | None, mask: metrics.Map) -> Agreement:
        if attention is None:
            return Agreement(ratio=None, kl=None, js=None, hit=None)
        return Agreement(
            ratio=metrics.attention_ratio(attention, mask),
            kl=metrics.kl(attention, mask),
            js=metrics.js(attention, mask),
            hit=metrics.pointing(attention, mask, tolerance),
        )

    raw = maps.astype(np.float64)
    relative = [metrics.relative(layer, base) for layer, base in zip(maps, below, strict=True)]
    found: dict[Source, tuple[Agreement, ...]] = {
        "relative": tuple(agree(layer, mask) for layer in relative),
        "raw": tuple(agree(layer, mask) for layer in raw),
        "uniform": (agree(metrics.uniform(*mask.shape), mask),),
        "centre": (agree(metrics.centre(*mask.shape), mask),),
    }
    if elsewhere is not None:
        found["relative, another mask"] = tuple(agree(layer, elsewhere) for layer in relative)
        found["raw, another mask"] = tuple(agree(layer, elsewhere) for layer in raw)
    return found


def _others(targets: Sequence[Target]) -> Mapping[str, Target]:
    """For each target another patient's: the next in the order of ids with the same finding, else the next at all."""
    ordered = sorted(targets, key=lambda target: target.id)
    chosen: dict[str, Target] = {}
    for place, target in enumerate(ordered):
        strangers = [
            other
            for other in (*ordered[place + 1 :], *ordered[:place])
            if other.question.patient != target.question.patient
        ]
        same = [other for other in strangers if other.finding == target.finding]
        if strangers:
            chosen[target.id] = (same or strangers)[0]
    return chosen


def _image(target: Target) -> ImageFile:
    """The image that a target is measured on: the first that marks its finding."""
    return target.question.images[target.images[0]]


def _mask(target: Target, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of the target's finding on its image, whose picture is of ``size`` (width, height)."""
    located = own_mask(_image(target), size, [target.finding])
    if located.mask is None or not located.mask.any():
        raise ValueError(f"no mask: {located.why or 'the mask is empty'}")
    return located.mask


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), np.bool_)
