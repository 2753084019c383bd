"""ms-swift: lines of ``messages`` with ``rejected_response`` or ``label``, and ``images`` for the ``<image>`` tags.

"Custom dataset" of ms-swift's documentation. It has a form for the visual term as well: where a pair has corrupted
images, ``visual.jsonl`` holds its chosen answer with the images against the same answer with the corrupted ones
(``rejected_messages``, ``rejected_images``). That is a file of its own, because ms-swift drops a row whose
``rejected_response`` is empty or equal to the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from radpref.formats.common import Images, Row, Written, usable, write_lines
from radpref.pairs import unpair
from radpref.records import Pair, Quarantined

FILE = "pairs.jsonl"
VISUAL = "visual.jsonl"


def write(pairs: Iterable[Pair], folder: Path, *, copy_images: bool = False, unpaired: bool = False) -> Written:
    """Write ``FOLDER/pairs.jsonl``, and ``FOLDER/visual.jsonl`` where pairs have corrupted images. Raises StoreError.

    With ``unpaired`` (KTO) there is no visual file: it needs pairs.
    """
    images = Images(folder, copy_images)
    quarantined: list[Quarantined] = []
    kept: list[Pair] = []

    def make(pair: Pair) -> list[Row]:
        pictures = images(pair.images)
        return [{**row, "images": pictures} for row in (sides(pair) if unpaired else [preference(pair)])]

    def lines() -> Iterable[Row]:
        for pair, rows in usable(pairs, make, quarantined):
            kept.append(pair)
            yield from rows

    count = write_lines(folder / FILE, lines())
    contrasts = [] if unpaired else [pair for pair in kept if pair.corrupted]
    visual = 0
    if contrasts:
        broken: list[Quarantined] = []
        made = usable(contrasts, lambda pair: [contrast(pair, images)], broken)
        visual = write_lines(folder / VISUAL, (row for _, rows in made for row in rows))
        quarantined += [row.model_copy(update={"id": f"{row.id}/visual"}) for row in broken]
    return Written(len(kept), count, quarantined, visual)


def preference(pair: Pair) -> Row:
    """A preference row, without its images."""
    return {"id": pair.id, "messages": _messages(pair, pair.chosen), "rejected_response": pair.rejected}


def sides(pair: Pair) -> list[Row]:
    """KTO rows, without their images: the chosen side first."""
    return [{"id": one.id, "messages": _messages(pair, one.text), "label": one.desirable} for one in unpair([pair])]


def contrast(pair: Pair, images: Images) -> Row:
    """The chosen answer, with the images preferred to with the corrupted ones. Raises ImageError."""
    messages = _messages(pair, pair.chosen)
    return {
        "id": f"{pair.id}/visual",
        "messages": messages,
        "images": images(pair.images),
        "rejected_messages": messages,
        "rejected_images": images(pair.corrupted),
    }


def _messages(pair: Pair, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "<image>" * len(pair.images) + pair.prompt},
        {"role": "assistant", "content": answer},
    ]
