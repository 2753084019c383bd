"""Data sets of the ``datasets`` library, part by part and row by row, their images as the bytes or paths they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radpref.data.rows import PARQUET_ROWS, Entry
from radpref.data.source import DataError


class Part(NamedTuple):
    """One part (``train``, ``test`` ...) of a data set."""

    columns: list[str]
    rows: Iterator[Entry]
    """Places are ``row 12``, counted over all parts."""


def written_by_datasets(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def from_folder(folder: Path) -> dict[str, Part]:
    """The parts of a folder that ``datasets`` wrote or can read. Raises DataError."""
    import datasets

    try:
        if written_by_datasets(folder):
            return _parts(datasets.load_from_disk(str(folder)))
        return _parts(datasets.load_dataset(str(folder)))
    except Exception as error:  # datasets raises what its readers raise
        raise DataError(f"the folder {str(folder)!r} is no data set: {_first_line(error)}") from error


def from_hub(name: str, key: str) -> tuple[dict[str, Part], Path]:
    """The parts of a data set of the hub, and the folder that their images may lie in.

    ``key`` is the recipe's key that named it. Raises DataError.
    """
    import datasets

    try:
        found = _parts(datasets.load_dataset(name))
    except Exception as error:  # the hub's, the network's and the readers' own errors
        raise DataError(
            f"{key} {name!r} is no path here, and as a data set of the hub it could not be loaded: {_first_line(error)}"
        ) from error
    return found, Path(datasets.config.HF_DATASETS_CACHE).resolve()


def _parts(found: Any) -> dict[str, Part]:
    """A data set without parts is one of no name."""
    parts: Mapping[str, Any] = dict(found) if hasattr(found, "keys") else {"": found}
    starts = dict(zip(parts, _running([len(part) for part in parts.values()]), strict=True))
    return {name: Part(list(part.column_names), _rows(part, starts[name])) for name, part in parts.items()}


def _running(counts: list[int]) -> list[int]:
    return [sum(counts[:number]) for number in range(len(counts))]


def _rows(part: Any, number: int) -> Iterator[Entry]:
    """Straight from Arrow, so that images stay the bytes they are."""
    for batch in part.with_format("arrow").iter(batch_size=PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield Entry(f"row {number}", row)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
