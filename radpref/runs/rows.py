"""Row stages in batches: the same batches for whoever divides them, with the key of what each result follows from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from radpref.errors import RadprefError
from radpref.files import content_key
from radpref.records import Quarantined, Record
from radpref.runs.stage import Basis, Fact, Rows, Stage
from radpref.runs.table import Made

if TYPE_CHECKING:
    from radpref.runs.context import Context

T = TypeVar("T")


class Batch(NamedTuple):
    """Inputs that are worked on together, because rounding in a batch depends on its other rows."""

    number: int
    items: Sequence[Record]
    keys: Sequence[str]
    """Of all that the result of each follows from."""


def batches(context: Context, stage: Stage, work: Rows[Record], basis: Basis) -> Iterator[Batch]:
    """All batches of a row stage, in order. They follow from the list of inputs, and not from what is left of it."""
    facts = {port.name for port in (*stage.reads, *stage.may_read) if isinstance(port, Fact)}
    told = [digest for name, digest in basis.inputs.items() if name.split("/")[1] in facts and not work.whose]
    base = content_key(stage.name, basis.config, basis.identity, told)
    size, items = work.batch(context.config), work.items(context)
    parts = (part for _, own in groupby(items, work.whose or (lambda item: "")) for part in batched(own, size))
    for number, part in enumerate(parts):
        yield Batch(number, part, [content_key(base, work.content(item)) for item in part])


def ids_of(batch: Batch) -> list[tuple[str, str]]:
    """(id, key) of each input."""
    return [(str(item.id), key) for item, key in zip(batch.items, batch.keys, strict=True)]  # type: ignore[attr-defined]


FLUSH = 1.0
"""Seconds after which what has been made of a batch is handed on, though the batch is not done."""


def made_in_time(work: Rows[Record], context: Context, batch: Batch) -> Iterator[list[Made]]:
    """What a row stage makes of a batch, in parts as time passes: what a server has answered is not asked again."""
    found: list[Made] = []
    last = time.monotonic()
    results = iter(zip(ids_of(batch), work.make(batch.items, context), strict=True))
    try:
        for entry, result in results:
            found.append(_made(*entry, result))
            if time.monotonic() - last > FLUSH:
                yield found
                found, last = [], time.monotonic()
    except RadprefError:
        if found:
            yield found
        raise
    yield found


def made_of(work: Rows[Record], context: Context, batch: Batch) -> list[Made]:
    """What a row stage makes of a batch."""
    results = zip(ids_of(batch), work.make(batch.items, context), strict=True)
    return [_made(*entry, result) for entry, result in results]


def _made(id: str, key: str, result: Sequence[Record] | Quarantined) -> Made:
    rows = [result] if isinstance(result, Quarantined) else list(result)
    good = [row for row in rows if not isinstance(row, Quarantined)]
    return Made(id, key, good, [row for row in rows if isinstance(row, Quarantined)])


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
