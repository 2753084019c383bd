"""What is trained on: rows of prompt, images and answer, the items made of them, and their encoded prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from torch import Tensor

from radpref.files import content_key
from radpref.images import image_key, read_image
from radpref.losses import Objective
from radpref.models import Vlm, encode_answer, encode_prompt, token_mask
from radpref.pairs import unpair
from radpref.records import ImageFile, Pair, Span
from radpref.training.errors import TrainingError

CACHE_BYTES = 1 << 29
"""Memory for encoded prompts: some 3,500 images of 112 pixels, or 50 of 896."""


class Row(NamedTuple):
    """A prompt with its images and one answer to it."""

    key: str
    """Content key of prompt, images, answer and model: equal keys, equal reference log-probs."""
    prompt_key: str
    """Content key of prompt and images alone."""
    prompt: str
    images: tuple[ImageFile, ...]
    answer: str
    finished: bool = True
    """False for an answer that was cut: no end of turn is put after it."""
    spans: tuple[Span, ...] | None = None
    """Characters of the answer whose tokens are rewarded; None rewards the answer as a whole."""


class Item(NamedTuple):
    """What one loss is computed on: both sides of a pair, or one side and a mismatched row (KTO)."""

    pair: str
    chosen: Row | None
    rejected: Row | None
    mismatched: Row | None = None
    """This item's prompt with the answer to another one."""
    corrupted_chosen: Row | None = None
    """The chosen answer on the pair's corrupted images."""
    corrupted_rejected: Row | None = None
    weight: float = 1.0
    """What the pair counts in the loss."""

    def rows(self) -> list[Row]:
        """The rows that there are, the chosen and rejected ones first."""
        return [row for row in self if isinstance(row, Row)]


def keyed(model: str, image_keys: Callable[[ImageFile], str] = image_key) -> Callable[..., Row]:
    """A maker of rows for the model with the given fingerprint; an image is hashed once, by its path and size.

    The maker takes ``(prompt, images, answer, finished=True, spans=None)`` and raises ImageError for a bad image.
    """
    known: dict[Hashable, str] = {}

    def hashed(image: ImageFile) -> str:
        name = (image.path, image.rows, image.cols)
        if name not in known:
            known[name] = image_keys(image)
        return known[name]

    def make(
        prompt: str,
        images: Sequence[ImageFile],
        answer: str,
        finished: bool = True,
        spans: tuple[Span, ...] | None = None,
    ) -> Row:
        prompt_key = content_key(prompt, [hashed(image) for image in images])
        key = content_key(model, prompt_key, answer, finished)
        return Row(key, prompt_key, prompt, tuple(images), answer, finished, spans)

    return make


def items(pairs: Sequence[Pair], objective: Objective, row: Callable[..., Row]) -> list[Item]:
    """The items of an objective: one a pair, or (``objective.unpaired``) one a side with a mismatched row.

    The mismatched answer of a side is that of the same side of the next pair on another question, so that all
    items together see every answer twice, once with its prompt and once with another: KTO's reference point as
    in TRL, but fixed beforehand rather than drawn from the batch, so that its reference log-probs can be stored.
    Raises TrainingError where all pairs belong to one question.
    """
    spans = objective.section.spans

    def side(pair: Pair, chosen: bool, answer_of: Pair | None = None, corrupted: bool = False) -> Row:
        source = answer_of or pair
        answer = source.chosen if chosen else source.rejected
        finished = source.provenance.get("chosen_finished" if chosen else "rejected_finished", "yes") == "yes"
        marked = (pair.chosen_spans if chosen else pair.rejected_spans) if spans else None
        return row(pair.prompt, pair.corrupted if corrupted else pair.images, answer, finished, marked)

    if not objective.unpaired:
        sides = objective.corrupted_sides
        return [
            Item(
                pair.id,
                side(pair, True),
                side(pair, False),
                corrupted_chosen=side(pair, True, corrupted=True) if pair.corrupted and "chosen" in sides else None,
                corrupted_rejected=(
                    side(pair, False, corrupted=True) if pair.corrupted and "rejected" in sides else None
                ),
                weight=pair.weight,
            )
            for pair in pairs
        ]
    mates = _mates(pairs)
    return [
        Item(
            one.pair.id,
            side(one.pair, True) if one.desirable else None,
            None if one.desirable else side(one.pair, False),
            side(one.pair, one.desirable, mates[one.pair.id]),
            weight=one.pair.weight,
        )
        for one in unpair(pairs)
    ]


def _mates(pairs: Sequence[Pair]) -> dict[str, Pair]:
    """For each pair the next one, in a circle, that belongs to another question."""
    if pairs and len({pair.question for pair in pairs}) < 2:
        raise TrainingError(
            "kto needs pairs of at least two questions: its reference point is estimated from answers to other "
            "prompts. Use dpo, or give more questions."
        )
    mates: dict[str, Pair] = {}
    nearest: Pair | None = None
    for i in reversed(range(2 * len(pairs))):  # the first round finds what the last pairs wrap around to
        pair, after = pairs[i % len(pairs)], pairs[(i + 1) % len(pairs)]
        if after.question != pair.question:
            nearest = after
        if nearest is not None:
            mates[pair.id] = nearest
    return mates


class Prompts:
    """Encoded prompts with their images, kept in memory while they fit.

    Once the memory is full, nothing is thrown out: training passes over all prompts in a new order each epoch,
    so that those that stay are hit every time, whereas a cache of the latest would hardly ever be.
    """

    def __init__(self, vlm: Vlm, limit: int = CACHE_BYTES) -> None:
        self._vlm, self._left = vlm, limit
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._lengths: dict[str, int] = {}

    def __call__(self, row: Row) -> dict[str, Tensor]:
        """``encode_prompt`` of the row. Raises ImageError or ValueError where an image cannot be used."""
        if row.prompt_key in self._kept:
            return self._kept[row.prompt_key]
        prompt = encode_prompt(self._vlm, row.prompt, [read_image(image) for image in row.images])
        self._lengths[row.prompt_key] = prompt["input_ids"].shape[1]
        size = sum(tensor.nbytes for tensor in prompt.values())
        if size <= self._left:
            self._left -= size
            self._kept[row.prompt_key] = prompt
        return prompt

    def length(self, row: Row) -> int:
        """Tokens of the row's prompt, without encoding it again."""
        if row.prompt_key not in self._lengths:
            self(row)
        return self._lengths[row.prompt_key]


def answer_ids(vlm: Vlm, row: Row) -> list[int]:
    """Token ids of the row's answer, with the end of turn unless the answer was cut.

    Raises ValueError for an answer without tokens or with special ones.
    """
    ids = encode_answer(vlm, row.answer)
    end = len(vlm.turn.end)
    if len(ids) == end:
        raise ValueError("the answer is empty")
    return ids if row.finished else ids[:-end]


def rewarded(vlm: Vlm, row: Row) -> list[bool]:
    """For each of ``answer_ids`` whether the token is rewarded; the end of turn is not, where there are spans."""
    ids = answer_ids(vlm, row)
    return [True] * len(ids) if row.spans is None else token_mask(vlm, row.answer, row.spans)[: len(ids)]
