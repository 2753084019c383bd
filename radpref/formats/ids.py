"""What may be shared of pairs whose texts and images may not: ids, where the sides differ, scores, provenance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from radpref.formats.common import Row, Written, write_lines
from radpref.records import ImageFile, Pair

FILE = "ids.jsonl"
_LONGEST = 80


def write(pairs: Iterable[Pair], folder: Path) -> Written:
    """Write ``FOLDER/ids.jsonl``. Raises StoreError."""
    count = write_lines(folder / FILE, map(row, pairs))
    return Written(count, count, [])


def row(pair: Pair) -> Row:
    """A pair without prompt, answers, images, paths and patient.

    Images are there as the hash of their files' bytes, which who has them can compare; lengths, so that spans can be
    read as shares of a text. Of the provenance, values that hold a blank or more than 80 characters are left out:
    they may quote a report.
    """
    return {
        "id": pair.id,
        "question": pair.question,
        "images": [_image(image) for image in pair.images],
        "corrupted": [_image(image) for image in pair.corrupted],
        "chosen": _side(pair.chosen, pair.chosen_score, [[s.start, s.end] for s in pair.chosen_spans]),
        "rejected": _side(pair.rejected, pair.rejected_score, [[s.start, s.end] for s in pair.rejected_spans]),
        "weight": pair.weight,
        "provenance": {name: value for name, value in pair.provenance.items() if _is_word(value)},
    }


def _image(image: ImageFile) -> Row:
    return {"digest": image.digest, "view": image.view}


def _side(text: str, score: float | None, spans: list[list[int]]) -> Row:
    return {"score": score, "words": len(text.split()), "characters": len(text), "spans": spans}


def _is_word(value: str) -> bool:
    return len(value) <= _LONGEST and len(value.split()) <= 1
