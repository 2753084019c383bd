"""Character spans of an answer as the tokens that a model writes it in.

The answer is tokenised as it is generated: marks put into the text as special tokens would change the pieces around
them (``Ġleft`` falls into ``Ġ``, ``l``, ``ef``, ``t``), so that other tokens were trained than the model writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from radpref.models.chat import encode_answer
from radpref.models.vlm import ModelError, Vlm
from radpref.records import Span


def token_mask(vlm: Vlm, answer: str, spans: Sequence[Span]) -> list[bool]:
    """Which of ``encode_answer(vlm, answer)``'s ids overlap a span: as many values as there are ids.

    Offsets of spans are characters of ``answer``. What the turn puts before the answer, and the end of turn, are
    never marked. A token counts with all characters that it covers, its leading space included only where the span
    holds the space too or the token has other characters in the span.

    Raises:
        ValueError: the text spells a special token. ModelError: the tokenizer gives no offsets (it is no fast one).
    """
    return [any(s.start < end and start < s.end for s in spans) for start, end in _offsets(vlm, answer)]


def lost(vlm: Vlm, answer: str, spans: Sequence[Span]) -> int:
    """How many of the spans have no token; 0 unless a tokenizer drops their characters."""
    offsets = _offsets(vlm, answer)
    return sum(not any(s.start < end and start < s.end for start, end in offsets) for s in spans)


def _offsets(vlm: Vlm, answer: str) -> list[tuple[int, int]]:
    """The characters of ``answer`` that each id of ``encode_answer`` covers; empty ranges for the turn's own."""
    ids = encode_answer(vlm, answer)
    if not getattr(vlm.tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {vlm.name} does not tell which characters its tokens stand for, so that spans cannot "
            "be rewarded. Use a checkpoint with tokenizer.json, or train on whole answers (align.spans=false)."
        )
    lead = vlm.turn.lead
    text = lead + answer
    encoded = vlm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = []
    for start, end in encoded["offset_mapping"]:
        covered = text[start:end]
        start += len(covered) - len(covered.lstrip()) if covered.strip() else 0
        offsets.append((max(start - len(lead), 0), max(end - len(lead), 0)))
    return [*offsets, *[(0, 0)] * (len(ids) - len(offsets))]
