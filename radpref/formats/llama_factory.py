"""LLaMA-Factory: sharegpt rows with ``<image>`` tags, and the ``dataset_info.json`` that names their columns.

``data/README.md`` of LLaMA-Factory: a preference set has ``ranking: true``, a KTO set a column of booleans. There are
as many ``<image>`` tags as ``images``, whose relative paths start at ``media_dir``: by default the folder of
``dataset_info.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from radpref.files import write_atomically
from radpref.formats.common import Images, Row, Written, usable, write_lines
from radpref.pairs import unpair
from radpref.records import Pair, Quarantined

NAME = "radpref"
"""What ``dataset:`` is set to in a LLaMA-Factory recipe."""
FILE = "pairs.jsonl"


def write(pairs: Iterable[Pair], folder: Path, *, copy_images: bool = False, unpaired: bool = False) -> Written:
    """Write ``FOLDER/pairs.jsonl`` and ``FOLDER/dataset_info.json``. Raises StoreError."""
    images = Images(folder, copy_images)
    quarantined: list[Quarantined] = []
    written = 0

    def make(pair: Pair) -> list[Row]:
        pictures = images(pair.images)
        return [{**row, "images": pictures} for row in (sides(pair) if unpaired else [preference(pair)])]

    def lines() -> Iterable[Row]:
        nonlocal written
        for _, rows in usable(pairs, make, quarantined):
            written += 1
            yield from rows

    count = write_lines(folder / FILE, lines())
    write_atomically(folder / "dataset_info.json", json.dumps({NAME: _info(unpaired)}, indent=2) + "\n")
    return Written(written, count, quarantined)


def preference(pair: Pair) -> Row:
    """A ranking row, without its images."""
    return {
        "id": pair.id,
        "conversations": [_asked(pair)],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
    }


def sides(pair: Pair) -> list[Row]:
    """KTO rows, without their images: the chosen side first."""
    return [
        {
            "id": one.id,
            "conversations": [_asked(pair), {"from": "gpt", "value": one.text}],
            "kto_tag": one.desirable,
        }
        for one in unpair([pair])
    ]


def _asked(pair: Pair) -> dict[str, str]:
    return {"from": "human", "value": "<image>" * len(pair.images) + pair.prompt}


def _info(unpaired: bool) -> Row:
    answers = {"kto_tag": "kto_tag"} if unpaired else {"chosen": "chosen", "rejected": "rejected"}
    ranking = {} if unpaired else {"ranking": True}
    columns = {"messages": "conversations", **answers, "images": "images"}
    return {"file_name": FILE, "formatting": "sharegpt", **ranking, "columns": columns}
