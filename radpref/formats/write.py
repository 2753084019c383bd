"""One folder for one tool: its files, what they cannot hold beside them, and a page that says what is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from radpref import __version__
from radpref.files import write_atomically
from radpref.formats import ids, llama_factory, ms_swift, trl
from radpref.formats.common import Written, unfinished
from radpref.records import Pair

WRITERS: dict[str, Callable[..., Written]] = {
    "trl": trl.write,
    "llama-factory": llama_factory.write,
    "ms-swift": ms_swift.write,
}
"""The formats by the name that ``radpref export --to`` takes."""

_TRAIN = {
    "trl": '`trl {loss} --dataset_name FOLDER ...`, or `datasets.load_dataset("FOLDER")`',
    "llama-factory": "`dataset_dir: FOLDER`, `dataset: radpref`, `stage: {loss}` in a LLaMA-Factory recipe",
    "ms-swift": "`swift rlhf --rlhf_type {loss} --dataset FOLDER/pairs.jsonl ...`, with `ROOT_IMAGE_DIR=FOLDER` in "
    "the environment for images that lie here",
}


def write_pairs(
    to: str, pairs: Iterable[Pair], folder: Path, *, copy_images: bool = False, unpaired: bool = False
) -> Written:
    """Write pairs for the tool ``to`` into a folder, with ``ids.jsonl``, ``README.md`` and ``quarantined.jsonl``.

    ``to`` is a key of `WRITERS`, or ``ids`` for what holds no text and no image. ``pairs`` are gone through more than
    once. A pair whose image cannot be read is left out and stands in ``quarantined.jsonl`` with the reason. Raises
    StoreError.
    """
    if to == "ids":
        written = ids.write(pairs, folder)
    else:
        written = WRITERS[to](pairs, folder, copy_images=copy_images, unpaired=unpaired)
        left_out = {row.id for row in written.quarantined}
        ids.write((pair for pair in pairs if pair.id not in left_out), folder)
    if written.quarantined:
        lines = (json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in written.quarantined)
        write_atomically(folder / "quarantined.jsonl", "".join(lines))
    write_atomically(folder / "README.md", _page(to, pairs, written, unpaired))
    return written


def _page(to: str, pairs: Iterable[Pair], written: Written, unpaired: bool) -> str:
    """What the folder holds, for who finds it."""
    lines = [f"# Preference pairs ({to})", "", f"{written.pairs:,} pairs, written by radpref {__version__}.", ""]
    if to == "ids":
        lines.append("`ids.jsonl`: ids, spans, scores, lengths and provenance. No text, no image, no patient.")
    else:
        kind = f"{written.rows:,} rows, one a side" if unpaired else "one row a pair"
        train = _TRAIN[to].format(loss="kto" if unpaired else "dpo")
        lines += [
            f"- {kind}. Train with {train}.",
            "- `ids.jsonl`: spans, scores and provenance of each pair, by id.",
        ]
        if written.visual:
            lines.append(f"- `visual.jsonl`: {written.visual:,} rows of image against corrupted image.")
        cut = sum(unfinished(pair, side) for pair in pairs for side in ("chosen", "rejected"))
        if cut:
            lines.append(f"- {cut:,} answers were cut where sampling stopped; other tools put an end token there.")
    counts = Counter(row.reason.split(":")[0] for row in written.quarantined)
    lines += [f"- left out: {count:,} {reason}" for reason, count in counts.most_common()]
    return "\n".join(lines) + "\n"
