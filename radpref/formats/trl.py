"""TRL: one Parquet file that ``datasets`` reads as conversations with images (TRL, "Dataset formats", 1.16).

A pair is ``prompt``, ``chosen``, ``rejected`` and ``images``; a side (KTO) is ``prompt``, ``completion``, ``label``
and ``images``. Contents are plain strings: TRL puts the images before the first words of the user, where our prompts
have them. Columns that TRL does not know (``id``, the scores) are dropped by it without harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from radpref.files import replacing
from radpref.formats.common import Row, Written, png, usable
from radpref.images import is_plain
from radpref.pairs import unpair
from radpref.records import ImageFile, Pair, Quarantined

FILE = "train.parquet"
_PAIRS = 1024
"""Pairs in a row group of the file. Of each group some kilobytes stay in memory until the end."""
_HELD = 1 << 26
"""Bytes of images in a row group at most: 64 MiB, and one pair's more."""


def write(pairs: Iterable[Pair], folder: Path, *, copy_images: bool = False, unpaired: bool = False) -> Written:
    """Write ``FOLDER/train.parquet``, which ``datasets.load_dataset(FOLDER)`` reads with its images.

    An image is a path where another program reads from it what the model is shown, else a PNG inside the file; with
    ``copy_images`` always the latter, so that the folder can be moved. Raises StoreError.
    """
    import pyarrow
    import pyarrow.parquet

    quarantined: list[Quarantined] = []
    picture = lru_cache(8)(partial(_picture, embed=copy_images))  # pairs on one image stand together

    def make(pair: Pair) -> list[Row]:
        images = [picture(image.path, image.rows, image.cols) for image in pair.images]
        return [{**row, "images": images} for row in (sides(pair) if unpaired else [preference(pair)])]

    schema = _features(unpaired).arrow_schema
    made = usable(pairs, make, quarantined)
    written = rows = 0
    with replacing(folder / FILE) as file, pyarrow.parquet.ParquetWriter(file, schema) as parquet:
        for batch in _batches(made):
            table = pyarrow.Table.from_pylist(list(chain.from_iterable(rows for _, rows in batch)), schema=schema)
            parquet.write_table(table)
            written, rows = written + len(batch), rows + table.num_rows
    return Written(written, rows, quarantined)


def preference(pair: Pair) -> Row:
    """TRL's preference row, without its images."""
    return {
        "id": pair.id,
        "prompt": _said("user", pair.prompt),
        "chosen": _said("assistant", pair.chosen),
        "rejected": _said("assistant", pair.rejected),
        "score_chosen": pair.chosen_score,
        "score_rejected": pair.rejected_score,
    }


def sides(pair: Pair) -> list[Row]:
    """TRL's unpaired preference rows, without their images: the chosen side first."""
    return [
        {
            "id": one.id,
            "prompt": _said("user", pair.prompt),
            "completion": _said("assistant", one.text),
            "label": one.desirable,
            "score": pair.chosen_score if one.desirable else pair.rejected_score,
        }
        for one in unpair([pair])
    ]


def _said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _picture(path: str, rows: int | None, cols: int | None, embed: bool) -> dict[str, bytes | str | None]:
    image = ImageFile(path=path, rows=rows, cols=cols)
    if embed or not is_plain(image):
        return {"bytes": png(image), "path": None}
    return {"bytes": None, "path": str(Path(path).absolute())}


def _features(unpaired: bool) -> Any:
    from datasets import Features, Image, List, Value

    said = List({"role": Value("string"), "content": Value("string")})
    texts = {"prompt": said, **({"completion": said} if unpaired else {"chosen": said, "rejected": said})}
    facts = (
        {"label": Value("bool"), "score": Value("float64")}
        if unpaired
        else {"score_chosen": Value("float64"), "score_rejected": Value("float64")}
    )
    return Features({"id": Value("string"), "images": List(Image(mode="RGB")), **texts, **facts})


def _batches(made: Iterator[tuple[Pair, list[Row]]]) -> Iterator[list[tuple[Pair, list[Row]]]]:
    batch: list[tuple[Pair, list[Row]]] = []
    held = 0
    for pair, rows in made:
        batch.append((pair, rows))
        held += sum(len(image["bytes"] or b"") for row in rows for image in row["images"])
        if len(batch) == _PAIRS or held >= _HELD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
