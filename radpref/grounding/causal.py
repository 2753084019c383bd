"""The causal test: does an answer's finding lose probability when its lesion is removed from the image?

Attention shows where a model looks, not what it uses. Here the image is changed: once the lesion is removed, and a few
times a patch of the same shape somewhere else in the body. What the words of the finding lose more by the first than
by the second is due to the lesion; a model that does not look loses nothing, or the same by both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from radpref.config import CorruptSection
from radpref.errors import RadprefError
from radpref.grounding.attention import answer_tokens
from radpref.grounding.targets import STAGE, Target
from radpref.images import ImageError, corrupt, grown, own_mask, read_image, seed_of
from radpref.models import ModelError, Vlm, autocast, collate, encode_answer, encode_prompt, unwrapped
from radpref.records import Drop, ImageFile, Quarantined, Scope

SCOPES: tuple[Scope, ...] = ("words", "sentence")
Mask = NDArray[np.bool_]
MARGIN = 0.02
"""How far a removed patch reaches beyond the mask, as a share of the image's shorter side: lesions have soft edges."""
BODY = 0.1
"""What is brighter than this share of the image's range (1st to 99th percentile), or enclosed by it, is body."""
_SMOOTHING = 1 / 128
"""Blur before the body is told from the air, as a share of the image's shorter side: grain is no body."""


class GroundingError(RadprefError, ValueError):
    """A target that cannot be measured; the message says why."""


def drops(
    vlm: Vlm,
    targets: Sequence[Target],
    *,
    system: str,
    section: CorruptSection,
    placements: int = 4,
    batch: int = 32,
    read: Callable[[ImageFile], Image.Image] = read_image,
    done: Collection[str] = (),
) -> Iterator[list[Drop] | Quarantined]:
    """For every target one ``Drop`` a scope, or why there is none; targets whose ids are in ``done`` are left out.

    The lesion is removed, by the operator of ``section``, from every image that marks it, with ``MARGIN`` around it;
    patches elsewhere are moved copies of the same shape (``moved``). Everything follows from the question's id and
    the image's digest. ``batch`` counts rows of the model, ``2 + placements`` a target.

    Raises ModelError for a tokenizer that does not tell which characters its tokens stand for.
    """
    if placements < 1:
        raise ValueError(
            f"placements is {placements}: without a patch elsewhere there is nothing to hold the drop against"
        )
    vlm.model.eval()
    left = [target for target in targets if target.id not in done]
    size = max(1, batch // (2 + placements))
    for start in range(0, len(left), size):
        group = [_prepare(vlm, target, section, placements, read) for target in left[start : start + size]]
        ready = [item for item in group if not isinstance(item, Quarantined)]
        scores = iter(token_logps(vlm, [row for item in ready for row in item.rows]))
        for item in group:
            yield item if isinstance(item, Quarantined) else _drops(item, [next(scores) for _ in item.rows], system)


class _Prepared(NamedTuple):
    target: Target
    rows: list[tuple[dict[str, Tensor], list[int]]]
    """Prompt and answer with the clean images, without the lesion, and without a patch elsewhere, once a placement."""
    tokens: dict[Scope, list[int]]
    changed: tuple[float, float]
    """Of the lesion, and of the patches elsewhere."""


def _prepare(
    vlm: Vlm, target: Target, section: CorruptSection, placements: int, read: Callable[[ImageFile], Image.Image]
) -> _Prepared | Quarantined:
    question = target.question
    try:
        tokens = {scope: answer_tokens(vlm, target.answer, [getattr(target, scope)]) for scope in SCOPES}
        answer = encode_answer(vlm, target.answer)
        clean = [read(image) for image in question.images]
        variants = [[*clean] for _ in range(1 + placements)]
        changes = np.zeros((len(target.images), 1 + placements))
        for order, number in enumerate(target.images):
            image, pixels = question.images[number], np.asarray(clean[number])
            seed = seed_of(target.id, image.digest)
            for place, mask in enumerate(patches(image, target.finding, pixels, placements, seed)):
                without = corrupt(pixels, mask, section, seed + place)
                variants[place][number] = Image.fromarray(without)
                changes[order, place] = np.abs(without[mask].astype(float) - pixels[mask]).mean() / 255
        prompts = [encode_prompt(vlm, question.prompt, images) for images in (clean, *variants)]
    except ModelError:  # of the model and not of this target
        raise
    except (ImageError, GroundingError, ValueError) as error:
        return Quarantined(id=target.id, stage=STAGE, reason=str(error))
    changed = (float(changes[:, 0].mean()), float(changes[:, 1:].mean()))
    return _Prepared(target, [(prompt, answer) for prompt in prompts], tokens, changed)


def _drops(item: _Prepared, scores: Sequence[Tensor], system: str) -> list[Drop]:
    target = item.target
    rows = []
    for scope, tokens in item.tokens.items():
        clean, removed, *elsewhere = (float(score[tokens].sum()) for score in scores)
        rows.append(
            Drop(
                id=f"{system}/{target.id}/{scope}",
                target=target.id,
                system=system,
                question=target.question.id,
                patient=target.question.patient,
                finding=target.finding,
                scope=scope,
                tokens=len(tokens),
                clean=clean,
                removed=removed,
                elsewhere=tuple(elsewhere),
                changed=item.changed[0],
                changed_elsewhere=item.changed[1],
            )
        )
    return rows


@torch.no_grad()
def token_logps(vlm: Vlm, rows: Sequence[tuple[Mapping[str, Tensor], Sequence[int]]]) -> list[Tensor]:
    """log p of every token of each row's answer, end of turn included: float32 (tokens,) a row, on the CPU.

    ``rows`` are (``encode_prompt``, ``encode_answer``); they go through the model in one batch, and logits exist from
    the first answer on only.
    """
    if not rows:
        return []
    batch = collate(vlm, [prompt for prompt, _ in rows], [answer for _, answer in rows])
    spoken = batch.pop("completion_mask")
    total, first = spoken.shape[1], int(spoken.int().argmax(1).min())
    keep = total - first + 1
    known = "logits_to_keep" in inspect.signature(unwrapped(vlm.model).forward).parameters
    arguments: dict[str, Any] = {name: value.to(vlm.device) for name, value in batch.items()}
    with autocast(vlm):
        logits = vlm.model(**arguments, use_cache=False, **({"logits_to_keep": keep} if known else {})).logits
    logits = logits[:, -keep:-1].float().cpu()  # the logits of a position predict the token after it
    ids, answers = batch["input_ids"][:, first:], spoken[:, first:]
    scores = -F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
    return [row[mask] for row, mask in zip(scores, answers, strict=True)]


# ------------------------------------------------------------------------------------------------- patches


def patches(image: ImageFile, finding: str, pixels: NDArray[np.uint8], placements: int, seed: int) -> list[Mask]:
    """The lesion's mask with its margin, then ``placements`` copies of it elsewhere: bool (height, width) each.

    ``pixels`` is ``read_image``'s picture, (height, width, 3). Raises GroundingError for a mask that is empty, covers
    everything or cannot be read, and where the body has no room for an equal patch away from every marked lesion.
    """
    size = (pixels.shape[1], pixels.shape[0])
    lesion = own_mask(image, size, [finding])
    if lesion.mask is None or not lesion.mask.any():
        raise GroundingError(f"no lesion to remove: {lesion.why or 'the mask is empty'}")
    if lesion.mask.all():
        raise GroundingError("no lesion to remove: the mask covers the whole image")
    patch = grown(lesion.mask, MARGIN)
    others = own_mask(image, size).mask
    lesions = patch if others is None else patch | grown(others, MARGIN)
    found = moved(patch, body(pixels) & ~lesions, placements, np.random.default_rng(seed))
    if not found:
        raise GroundingError(
            "no room for an equal patch: the body has no place for one of this shape away from every lesion, so that "
            "there is nothing to hold the removal against"
        )
    return [patch, *found]


def body(pixels: NDArray[np.uint8]) -> Mask:
    """What of an image is body and not air around it or collimation: bool (height, width) from (height, width, 3).

    The largest connected part that is brighter than ``BODY`` of the image's range, with all that it encloses: the
    lungs are as dark as the air.
    """
    from scipy import ndimage

    grey = ndimage.gaussian_filter(pixels.astype(np.float32).mean(-1), _SMOOTHING * min(pixels.shape[:2]))
    low, high = np.percentile(grey, [1, 99])
    bright = np.pad(grey > low + BODY * (high - low), 1, mode="edge")
    parts, count = ndimage.label(ndimage.binary_fill_holes(bright)[1:-1, 1:-1])
    if not count:
        return np.zeros(grey.shape, np.bool_)
    sizes = np.bincount(parts.ravel())[1:]
    largest: Mask = parts == 1 + int(sizes.argmax())
    return largest


def moved(mask: Mask, allowed: Mask, count: int, rng: np.random.Generator) -> list[Mask]:
    """``count`` copies of a mask, shifted by whole pixels to where every pixel is ``allowed``; [] where none fits.

    All places that fit are equally likely; each is taken once, unless there are fewer than ``count`` (then all that
    there are, over and over, so that every target has as many).
    """
    from scipy.signal import fftconvolve

    rows, cols = np.nonzero(mask)
    shape = mask[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    # how many pixels of the shape would lie where they may not, for each place of its upper left corner
    clashes = fftconvolve((~allowed).astype(np.float64), shape[::-1, ::-1].astype(np.float64), mode="valid")
    places = np.argwhere(clashes < 0.5)
    if not len(places):
        return []
    drawn = rng.permutation(len(places))[:count]
    result = []
    for top, left in places[np.resize(drawn, count)]:
        copy = np.zeros_like(mask)
        copy[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
        result.append(copy)
    return result
