"""Pairs that were made elsewhere: a preference data set in TRL's layout, or the table of pairs of another run.

Nothing is taken for granted of what others wrote: a row without images, with an empty answer, with two answers of the
same words, with image tokens where no image belongs, or with several turns is told apart with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from radpref.data import MAX_CHARACTERS, hugging_face
from radpref.data.gate import MAX_ID, ImageCheck
from radpref.data.image_cells import images_of
from radpref.data.rows import SUFFIXES, Entry, columns, stream
from radpref.data.source import DataError, RowError, listed, nearest, text_of
from radpref.files import content_key
from radpref.formats.common import TAGS
from radpref.formats.conversations import answered
from radpref.images import ImageError, image_hash
from radpref.records import Pair, Quarantined

STAGE = "pair"
HUB = "hub:"
"""Before the name of a data set on the hub: nothing reaches the network unless it is asked to."""
_OURS = {name for name, field in Pair.model_fields.items() if field.is_required()}
"""What every line of a run's own table holds."""
_CHUNK = 256
"""Pairs whose images are decoded together."""


class Imported(NamedTuple):
    """What could be read, and what could not, and why."""

    pairs: list[Pair]
    """In the order of the file."""
    quarantined: list[Quarantined]
    notes: list[str]
    """Sentences for the terminal and the report: counts only."""


class _Opened(NamedTuple):
    columns: Sequence[str]
    rows: Iterable[Entry]
    folder: Path
    """Where relative paths of images start, unless a root is given."""


def read_pairs(
    file: str,
    store: Path,
    *,
    root: Path | None = None,
    also: Sequence[Path] = (),
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Pairs of a file, checked.

    ``file`` is a table in TRL's layout (JSONL, Parquet, CSV), a folder that ``datasets`` wrote or can read (its part
    ``train``, where it has several), ``hub:OWNER/NAME``, or the ``pairs.jsonl`` of a run. TRL's columns are
    ``chosen`` and ``rejected``, ``prompt`` (or one that both conversations begin with), and ``images`` or ``image``;
    ``id``, ``patient``, ``score_chosen`` and ``score_rejected`` are read where they are there. Plain texts and
    conversations are taken. Images stand before the words of a prompt, wherever the file has them.

    An image is read from ``root`` (by default the file's folder) or from below a folder of ``also``; images inside the
    file are kept in ``store``. Every image is decoded once. Without a column of patients the digest of a pair's first
    image stands for the patient; pairs of equal prompt and images belong to one question.

    Rows come one at a time; in memory stay texts and paths. ``progress`` is called with the images just checked.

    Raises:
        DataError: no such file or column, or nothing in it can be used.
    """
    opened = _open(file)
    base = (root or opened.folder).resolve()
    roots = (base, *(folder.resolve() for folder in also))
    if Path(file).name == "pairs.jsonl" and set(opened.columns) >= _OURS:
        make = _our_reader(Path(file))
    else:
        _require(opened.columns, file)
        make = _trl_reader(roots, store / "images")
    check = ImageCheck(store, progress)
    pairs: list[Pair] = []
    quarantined: list[Quarantined] = []
    seen: set[str] = set()
    moved = 0

    def read() -> Iterator[tuple[Pair, bool]]:
        for entry in opened.rows:
            name = entry.place
            try:
                if entry.cells is None:
                    raise RowError(entry.reason)
                name = _name(entry)
                if name in seen:
                    raise RowError("duplicate id: an earlier row has it")
                pair, turned = make(name, entry.cells)
                if reason := _problem(pair):
                    raise RowError(reason)
            except RowError as error:
                where = "" if name == entry.place else f" ({entry.place})"
                quarantined.append(Quarantined(id=name, stage=STAGE, reason=f"{error}{where}"))
            else:
                seen.add(name)
                yield pair, turned

    rows = read()
    while (limit is None or len(pairs) < limit) and (chunk := list(islice(rows, min(_CHUNK, limit or _CHUNK)))):
        verdicts = check([image for pair, _ in chunk for image in pair.images])
        for pair, turned in chunk:
            digests = {path: verdicts[path].digest for path in (image.path for image in pair.images)}
            bad = [reason for image in pair.images if (reason := verdicts[image.path].reason)]
            try:
                if bad:
                    raise RowError(bad[0])
                pairs.append(_placed(pair, digests))
                moved += turned
            except (RowError, ImageError) as error:
                quarantined.append(Quarantined(id=pair.id, stage=STAGE, reason=str(error)))
    if not pairs:
        why = quarantined[0].reason if quarantined else "it holds no row"
        raise DataError(f"pair.file {file!r}: none of {len(quarantined):,} rows can be used; the first: {why}")
    notes = [f"pairs of {Path(file).name}: {len(pairs):,} read, {len(quarantined):,} in quarantine"]
    if moved:
        notes.append(f"{moved:,} prompts had images after words; a model is shown the images first")
    return Imported(pairs[:limit], _unique(quarantined), notes)


# ---- opening


def _open(file: str) -> _Opened:
    if file.startswith(HUB):
        parts, cache = hugging_face.from_hub(file.removeprefix(HUB), "pair.file")
        return _train(parts, cache, file)
    path = Path(file).expanduser()
    if path.is_dir():
        return _train(hugging_face.from_folder(path.resolve()), path, file)
    if not path.is_file():
        there = sorted(other.name for other in path.parent.glob("*") if other.suffix.lower() in SUFFIXES)
        raise DataError(
            f"pair.file {file!r} does not exist{nearest(path.name, there)}; give a table, a folder of a data set, or "
            f"{HUB}OWNER/NAME for one on the hub"
        )
    return _Opened(columns(path), stream(path), path.parent)


def _train(parts: Mapping[str, hugging_face.Part], folder: Path, file: str) -> _Opened:
    if len(parts) > 1 and "train" not in parts:
        raise DataError(
            f"pair.file {file!r} has the parts {listed(list(parts))} and none called 'train'; save one alone"
        )
    part = parts["train"] if "train" in parts else next(iter(parts.values()))
    return _Opened(part.columns, part.rows, folder)


def _require(there: Sequence[str], file: str) -> None:
    wanted = ["chosen", "rejected", *(() if "image" in there else ("images",))]
    if lacking := [name for name in wanted if name not in there]:
        hint = "; rows of one answer and a label are no pairs" if {"completion", "label"} <= set(there) else ""
        raise DataError(
            f"pair.file {file!r} has no column {listed(lacking)}; it has {listed(there)}. TRL's layout is prompt, "
            f"chosen, rejected, images{hint}"
        )


def _name(entry: Entry) -> str:
    name = text_of((entry.cells or {}).get("id")) or entry.place.replace(" ", "-")
    if len(name) > MAX_ID or not name.isprintable():
        raise RowError(f"id not usable: more than {MAX_ID} characters, or not printable")
    return name


# ---- one row


def _trl_reader(roots: Sequence[Path], store: Path) -> Callable[[str, Mapping[str, Any]], tuple[Pair, bool]]:
    """A reader of rows in TRL's layout: the pair, and whether its images stood after words."""

    def make(name: str, cells: Mapping[str, Any]) -> tuple[Pair, bool]:
        images = tuple(images_of(cells.get("images") or cells.get("image"), roots, store))
        said = answered(cells.get("prompt"), cells.get("chosen"), cells.get("rejected"), len(images))
        pair = Pair(
            id=name,
            question="",
            patient=text_of(cells.get("patient")),
            images=images,
            prompt=said.prompt,
            chosen=said.chosen,
            rejected=said.rejected,
            chosen_score=_score(cells.get("score_chosen")),
            rejected_score=_score(cells.get("score_rejected")),
            provenance={"made": "elsewhere"},
        )
        return pair, said.moved

    return make


def _our_reader(file: Path) -> Callable[[str, Mapping[str, Any]], tuple[Pair, bool]]:
    """A reader of our own table, whose paths start at the run folder (the folder above the stage's)."""
    context = {"root": file.expanduser().absolute().parent.parent}

    def make(name: str, cells: Mapping[str, Any]) -> tuple[Pair, bool]:
        try:
            return Pair.model_validate(cells, context=context), False
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise RowError(f"row broken: no pair of this version ({where})") from None

    return make


def _score(cell: Any) -> float | None:
    number = isinstance(cell, int | float) and not isinstance(cell, bool)
    return float(cell) if number and math.isfinite(cell) else None


def _problem(pair: Pair) -> str | None:
    texts = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    for name, text in texts.items():
        if not text.strip():
            return f"empty text: there is no {name}"
        if len(text) > MAX_CHARACTERS:
            return f"text too long: {name} has {len(text):,} characters, at most {MAX_CHARACTERS:,}"
        if tag := next((tag for tag in TAGS if tag in text), None):
            return f"image token in the text: {name} spells {tag}"
    if pair.chosen.split() == pair.rejected.split():
        return "same words: chosen and rejected do not differ"
    return None if pair.images else "no images"


def _placed(pair: Pair, digests: Mapping[str, str]) -> Pair:
    """The pair with its images' digests, and what follows from them where the file does not say."""
    images = tuple(image.model_copy(update={"digest": digests[image.path]}) for image in pair.images)
    question = pair.question or content_key(pair.prompt, [image.digest for image in images])
    corrupted = tuple(image.model_copy(update={"digest": image_hash(image)}) for image in pair.corrupted)
    update = {
        "images": images,
        "corrupted": corrupted,
        "question": question,
        "patient": pair.patient or images[0].digest,
    }
    return pair.model_copy(update=update)


def _unique(rows: Sequence[Quarantined]) -> list[Quarantined]:
    """Ids that are unique in their table: the second of an id ends in ``~2``."""
    counts: dict[str, int] = {}
    unique = []
    for row in rows:
        counts[row.id] = counts.get(row.id, 0) + 1
        unique.append(row if counts[row.id] == 1 else row.model_copy(update={"id": f"{row.id}~{counts[row.id]}"}))
    return unique
