"""How answers lie in rows: ``[prompt | answer | answer ...]`` after one prompt, or one answer a row.

In a shared row the prompt with its images is computed once for all its answers. Each answer sees the prompt and
itself, at the positions that it would have alone, so that its log-probs are those of a row of its own. Whether a
model can do it, ``scoring.way_of`` finds out; one that cannot gets a row an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from radpref.models import PER_TOKEN, Vlm, collate, image_token_ids, pad, text_positions, unwrapped

PIXELS = "pixel_"
"""Names of the tensors that the vision tower alone reads begin so, in all families."""


class Group(NamedTuple):
    """A prompt and its answers."""

    prompt: Mapping[str, Tensor]
    """Of ``encode_prompt``, without pixels where its features are cached."""
    answers: Sequence[Sequence[int]]
    """Token ids, each with its end of turn."""


class Batch(NamedTuple):
    """Answers ready to be scored; the answers are numbered group after group."""

    rows: dict[str, Tensor]
    """(R, L) ids and masks that the language model reads. Of shared rows also ``branch``: 0 on the prompt, k on its
    k-th answer, -1 on padding; ``order``: a token's place in its answer's own sequence; and ``position_ids``."""
    images: dict[str, Tensor]
    """Tensors of the rows' images: pixels for the tower (none where features are cached), grids and sizes."""
    place: Tensor
    """(N,) int64 into the R * L flattened positions: where each answer token is predicted."""
    targets: Tensor
    """(N,) int64 answer tokens, answer after answer."""
    lengths: Tensor
    """(A,) int64 tokens of each answer."""
    read: Tensor
    """(n,) int64: the places without repetition; the answers of a shared row begin at one and the same."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        rows, images = ({name: value.to(device) for name, value in part.items()} for part in (self.rows, self.images))
        return Batch(rows, images, *(getattr(self, name).to(device) for name in self._fields[2:]))


def pack(vlm: Vlm, groups: Sequence[Group], *, shared: bool) -> Batch:
    """Rows of the groups' answers, right-padded, on the CPU."""
    if not shared:
        groups = [Group(group.prompt, [ids]) for group in groups for ids in group.answers]
    prompts = [group.prompt for group in groups]
    lengths = torch.tensor([len(ids) for group in groups for ids in group.answers])
    images = images_of(vlm, prompts)
    if not shared:
        rows = collate(vlm, [_text(prompt) for prompt in prompts], [ids for group in groups for ids in group.answers])
        answers = rows.pop("completion_mask")
        place = answers.flatten().nonzero().squeeze(1) - 1
        return Batch(rows, images, place, rows["input_ids"][answers], lengths, place)
    joined = [[token for ids in group.answers for token in ids] for group in groups]
    rows = collate(vlm, [_text(prompt) for prompt in prompts], joined)
    rows.pop("completion_mask")
    width = rows["input_ids"].shape[1]
    branch, order = torch.full_like(rows["input_ids"], -1), torch.zeros_like(rows["input_ids"])
    positions: list[Tensor] = []
    predicts: list[int] = []
    targets: list[int] = []
    for row, group in enumerate(groups):
        start = group.prompt["input_ids"].shape[1]
        own = text_positions(unwrapped(vlm.model), group.prompt)[..., 0, :]  # (tokens,), or (3, tokens) for M-RoPE
        branch[row, :start], order[row, :start] = 0, torch.arange(start)
        parts, at = [own], start
        for number, ids in enumerate(group.answers, 1):
            n = len(ids)
            branch[row, at : at + n], order[row, at : at + n] = number, torch.arange(start, start + n)
            parts.append(own[..., -1:] + torch.arange(1, n + 1))
            predicts += [row * width + column for column in (start - 1, *range(at, at + n - 1))]
            targets += ids
            at += n
        parts.append(own.new_zeros(*own.shape[:-1], width - at))
        positions.append(torch.cat(parts, -1))
    rows |= {"branch": branch, "order": order, "position_ids": torch.stack(positions, -2)}
    where = torch.tensor(predicts)
    return Batch(rows, images, where, torch.tensor(targets), lengths, torch.unique(where))


def _text(prompt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in prompt.items() if name in PER_TOKEN}


def images_of(vlm: Vlm, prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The prompts' image tensors, joined in their order."""
    return {name: value for name, value in pad(vlm, prompts, "right").items() if name not in PER_TOKEN}


def image_tokens(vlm: Vlm, ids: Tensor) -> int:
    """Number of placeholders among a prompt's ids: of the vectors that its images become."""
    return int(torch.isin(ids, torch.tensor(sorted(image_token_ids(vlm)))).sum())


def attention(model: Any, rows: Mapping[str, Tensor]) -> Any:
    """The 4-D attention mask of shared rows, or one for each kind of layer, as the model's family takes it.

    A token sees the prompt up to itself and its own answer up to itself; padding sees itself, so that no row of
    the softmax is empty. Windows are counted along each answer's own sequence, not along the row. Images that see
    themselves both ways (Gemma 3) do so here.
    """
    inner = unwrapped(model)
    text = inner.config.get_text_config()
    branch, order = rows["branch"], rows["order"]
    index = torch.arange(branch.shape[1], device=branch.device)
    query, key = branch[:, :, None], branch[:, None, :]
    seen = (index[:, None] >= index[None, :]) & (key >= 0) & ((key == 0) | (key == query))
    seen = seen | (index[:, None] == index[None, :])
    kinds = set(getattr(text, "layer_types", None) or ())
    both_ways = _image_blocks(inner.config, rows)
    if kinds <= {"full_attention"} and both_ways is None:
        return _as_taken(inner, seen)
    masks = {"full_attention": seen}
    if "sliding_attention" in kinds:
        near = (order[:, :, None] - order[:, None, :]).abs() < text.sliding_window
        masks["sliding_attention"] = seen & near
    if both_ways is not None:
        masks = {kind: mask | both_ways for kind, mask in masks.items()}
    return {kind: _as_taken(inner, mask) for kind, mask in masks.items()}


def _image_blocks(config: Any, rows: Mapping[str, Tensor]) -> Tensor | None:
    """(R, L, L) bool: pairs of tokens of one image, for a family whose images see themselves both ways."""
    if config.model_type not in ("gemma3", "gemma3_text"):
        return None
    image = rows["token_type_ids"] == 1
    starts = image & ~torch.nn.functional.pad(image, (1, 0))[:, :-1]
    number = torch.where(image, starts.cumsum(-1), 0)
    return (number[:, :, None] == number[:, None, :]) & image[:, :, None]


def _as_taken(inner: Any, seen: Tensor) -> Tensor:
    """(R, 1, L, L): bool for scaled dot product attention, else what is added to the scores."""
    mask = seen[:, None]
    if inner.config.get_text_config()._attn_implementation == "sdpa":
        return mask
    dtype = inner.dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
