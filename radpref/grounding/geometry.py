"""Where in an image each image token looks: what the processor's resizing and cropping did, undone.

A grid cell is the patch (or the merged patches) that one image token was made from. Attention in a vision tower lets
every token hear of the whole image, so a cell says where a token stands, not all that it knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from radpref.models import ModelError, Vlm, image_token_ids, unwrapped

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Geometry(NamedTuple):
    """A grid of image tokens laid over an image."""

    rows: int
    cols: int
    top: float
    """The window of the image that the grid covers, in pixels of ``read_image``'s picture; below 0, or beyond the
    image, where the processor padded. What lies outside the window the model has never seen."""
    left: float
    bottom: float
    right: float


class ImageTokens(NamedTuple):
    """The image tokens of one image in a prompt."""

    positions: Tensor
    """(rows * cols,) int64 indices into ``input_ids``, row by row of the grid."""
    geometry: Geometry


def image_tokens(vlm: Vlm, prompt: Mapping[str, Tensor], images: Sequence[Image.Image]) -> list[ImageTokens]:
    """The image tokens of each image of a prompt, in the order of the images.

    ``prompt`` is ``encode_prompt`` of ``images``. Raises ModelError for a family, or a setting of its processor,
    whose geometry is not known: guessing would put attention beside the lesion.
    """
    inner = unwrapped(vlm.model)
    family = inner.config.model_type
    if family not in GEOMETRIES:
        raise ModelError(
            f"{vlm.name}: where the image tokens of a model of type {family!r} lie in the image is not known, so that "
            f"its attention cannot be held against a mask. Known are: {', '.join(GEOMETRIES)}."
        )
    found = [GEOMETRIES[family](vlm, prompt, number, image.size) for number, image in enumerate(images)]
    placeholders = torch.tensor(sorted(image_token_ids(vlm)))
    positions = torch.isin(prompt["input_ids"][0], placeholders).nonzero().squeeze(-1)
    expected = sum(geometry.rows * geometry.cols for geometry in found)
    if len(positions) != expected:
        grids = ", ".join(f"{geometry.rows} x {geometry.cols}" for geometry in found)
        raise ModelError(
            f"{vlm.name}: the prompt holds {len(positions)} image tokens for {len(images)} images, where its "
            f"processor's settings make {expected} ({grids}). A model that keeps a class token among them, or cuts "
            "images into tiles, cannot be mapped."
        )
    sizes = [geometry.rows * geometry.cols for geometry in found]
    return [ImageTokens(part, geometry) for part, geometry in zip(torch.split(positions, sizes), found, strict=True)]


def to_grid(mask: Mask, geometry: Geometry) -> Map:
    """Share of each grid cell that a mask covers: bool (height, width) to float64 (rows, cols) in 0 to 1.

    Exact areas, for cells whose borders lie between pixels too. Sums over the grid then equal sums over the image's
    pixels with each cell's value spread over its pixels. What the mask covers outside the window is lost; see
    ``inside``.
    """
    area = _overlap(geometry.top, geometry.bottom, geometry.rows, mask.shape[0]) @ mask.astype(np.float64)
    area = area @ _overlap(geometry.left, geometry.right, geometry.cols, mask.shape[1]).T
    cell = (geometry.bottom - geometry.top) * (geometry.right - geometry.left) / (geometry.rows * geometry.cols)
    covered: Map = np.clip(area / cell, 0.0, 1.0)
    return covered


def inside(mask: Mask, geometry: Geometry) -> float:
    """Share of the mask that lies in the window; 0 for an empty mask."""
    cell = (geometry.bottom - geometry.top) * (geometry.right - geometry.left) / (geometry.rows * geometry.cols)
    return float(to_grid(mask, geometry).sum() * cell / max(int(mask.sum()), 1))


def to_image(grid: NDArray[Any], geometry: Geometry, size: tuple[int, int]) -> NDArray[np.float32]:
    """A grid's values at the image's pixels: (rows, cols) to float32 (height, width), ``size`` is (width, height).

    Each pixel takes the value of the cell that its centre lies in; 0 outside the window.
    """
    width, height = size
    row, seen_row = _cells(geometry.top, geometry.bottom, geometry.rows, height)
    col, seen_col = _cells(geometry.left, geometry.right, geometry.cols, width)
    image: NDArray[np.float32] = np.asarray(grid, np.float32)[np.ix_(row, col)]
    return image * (seen_row[:, None] & seen_col[None])


def _overlap(low: float, high: float, cells: int, pixels: int) -> Map:
    """Length that each cell of ``low`` to ``high`` shares with each pixel: (cells, pixels)."""
    edges = np.linspace(low, high, cells + 1)
    pixel = np.arange(pixels)
    start = np.maximum(edges[:-1, None], pixel[None])
    end = np.minimum(edges[1:, None], pixel[None] + 1)
    shared: Map = np.maximum(end - start, 0.0)
    return shared


def _cells(low: float, high: float, cells: int, pixels: int) -> tuple[NDArray[np.intp], Mask]:
    """The cell of each pixel's centre, and whether it has one."""
    place = np.floor((np.arange(pixels) + 0.5 - low) / (high - low) * cells).astype(np.intp)
    return np.clip(place, 0, cells - 1), (place >= 0) & (place < cells)


# ------------------------------------------------------------------------------------------------ families


def _whole(rows: int, cols: int, size: tuple[int, int]) -> Geometry:
    width, height = size
    return Geometry(rows, cols, 0.0, 0.0, float(height), float(width))


def _llava(vlm: Vlm, prompt: Mapping[str, Tensor], number: int, size: tuple[int, int]) -> Geometry:
    """CLIP's and SigLIP's processors: resized (to a size, or the short side), then perhaps cropped at the centre."""
    settings = vlm.processor.image_processor
    patch = unwrapped(vlm.model).config.vision_config.patch_size
    width, height = size
    target = settings.size
    if not settings.do_resize:
        tall, wide = float(height), float(width)
    elif target.get("height") and target.get("width"):
        tall, wide = float(target["height"]), float(target["width"])
    elif target.get("shortest_edge") and not target.get("longest_edge"):
        short, long = target["shortest_edge"], int(target["shortest_edge"] * max(size) / min(size))
        tall, wide = (float(long), float(short)) if height > width else (float(short), float(long))
    else:
        raise ModelError(
            f"{vlm.name}: a processor that resizes images to {dict(target)} cannot be mapped to the image."
        )
    if getattr(settings, "do_pad", None):
        raise ModelError(f"{vlm.name}: a processor that pads images (do_pad) cannot be mapped to the image.")
    top = left = 0.0
    seen_tall, seen_wide = tall, wide
    if getattr(settings, "do_center_crop", None):
        seen_tall, seen_wide = float(settings.crop_size["height"]), float(settings.crop_size["width"])
        top, left = float((tall - seen_tall) // 2), float((wide - seen_wide) // 2)
    rows, cols = int(seen_tall // patch), int(seen_wide // patch)
    down, across = height / tall, width / wide  # image pixels a resized pixel
    return Geometry(rows, cols, top * down, left * across, (top + rows * patch) * down, (left + cols * patch) * across)


def _idefics3(vlm: Vlm, prompt: Mapping[str, Tensor], number: int, size: tuple[int, int]) -> Geometry:
    """Without splitting, an image is squashed into one square."""
    if vlm.processor.image_processor.do_image_splitting:
        raise ModelError(
            f"{vlm.name}: its processor cuts images into tiles (do_image_splitting), whose tokens overlap the whole "
            "image's. Set do_image_splitting to false in preprocessor_config.json to measure its attention."
        )
    side = math.isqrt(vlm.processor.image_seq_len)
    return _whole(side, side, size)


def _gemma3(vlm: Vlm, prompt: Mapping[str, Tensor], number: int, size: tuple[int, int]) -> Geometry:
    """An image is squashed into one square; its tokens are means over squares of patches."""
    if vlm.processor.image_processor.do_pan_and_scan:
        raise ModelError(
            f"{vlm.name}: its processor adds crops of long images (do_pan_and_scan), whose tokens overlap the whole "
            "image's. Set do_pan_and_scan to false in preprocessor_config.json to measure its attention."
        )
    side = math.isqrt(unwrapped(vlm.model).config.mm_tokens_per_image)
    return _whole(side, side, size)


def _qwen(vlm: Vlm, prompt: Mapping[str, Tensor], number: int, size: tuple[int, int]) -> Geometry:
    """An image is resized to multiples of a merged patch; its grid is its own."""
    merge = unwrapped(vlm.model).config.vision_config.spatial_merge_size
    _, rows, cols = prompt["image_grid_thw"][number].tolist()
    return _whole(rows // merge, cols // merge, size)


GEOMETRIES: dict[str, Callable[[Vlm, Mapping[str, Tensor], int, tuple[int, int]], Geometry]] = {
    "llava": _llava,
    "idefics3": _idefics3,
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
}
"""Model type of transformers' config to the geometry of one image: (model, prompt, number of the image, its (width,
height)). The tests move a spot over an image and see that the right token changes most."""
