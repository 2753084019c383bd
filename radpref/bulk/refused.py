"""What both commands share: where rows come from, what could not be used, and the summary of the work."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from radpref.data.source import DataError
from radpref.files import write_atomically
from radpref.records import Quarantined


@dataclass(frozen=True)
class Done:
    """What a command did with a file."""

    rows: int
    """Rows written to the output."""
    quarantined: Counter[str]
    """Reason to the number of rows that could not be used."""
    refused: Path | None
    """The file that lists those, with their reasons; None where there are none."""
    scores: tuple[float, ...] = ()
    unscored: Counter[str] = field(default_factory=Counter)
    """Reason to the number of pairs that the judge could not score."""


def refused_file(out: Path) -> Path:
    """``labels.csv`` to ``labels.quarantined.jsonl``."""
    return out.with_name(f"{out.stem}.quarantined.jsonl")


def write_refused(out: Path, rows: Sequence[Quarantined]) -> Path | None:
    """Write the rows that could not be used beside ``out``, or remove the list of an earlier time."""
    path = refused_file(out)
    if not rows:
        path.unlink(missing_ok=True)
        return None
    lines = (json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, "".join(lines))
    return path


def reasons(rows: Sequence[Quarantined]) -> Counter[str]:
    return Counter(row.reason.split(":")[0] for row in rows)


def check_out(source: Path, out: Path, suffix: str) -> None:
    """Refuse an output of another kind, and one that would overwrite the input. Raises DataError."""
    if out.suffix.lower() != suffix:
        raise DataError(f"--out {out.name!r} is written as {suffix}; give it a name that ends in {suffix}")
    if out.resolve() == source.resolve():
        raise DataError(f"--out is the input itself ({out}); name another file")
