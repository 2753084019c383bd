"""Scores of one judge for a file of report pairs."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from radpref.bulk.refused import Done, check_out, reasons, write_refused
from radpref.data.rows import Entry, require, stream
from radpref.data.source import DataError, RowError, text_of
from radpref.files import content_key
from radpref.judges import Case, Judge
from radpref.judges.server import TRANSIENT
from radpref.records import Judgement, Quarantined
from radpref.run.folder import progress
from radpref.run.table import Ledger

CHUNK = 256
"""Pairs judged at once, and lost at most by a kill."""


def score_file(
    source: Path,
    out: Path,
    judge: Judge,
    version: str,
    *,
    id_column: str = "id",
    reference: str = "reference",
    candidate: str = "candidate",
    chunk: int = CHUNK,
) -> Done:
    """Judge every pair of ``source`` (JSONL, CSV or Parquet) and write a JSONL of judgements in the same order.

    A row of ``out`` holds ``id``, ``key``, ``judge``, ``score`` (null where there is none) and ``unscored`` (why),
    ``words`` and ``reference_words``; of judges that tell errors also ``significant`` and ``insignificant`` (number
    of errors by kind), ``errors`` (each with spans ``[start, end]`` in both texts) and ``matched`` findings.

    Work is kept in ``OUT.part`` every ``chunk`` pairs. The same command goes on from there, and computes anew only
    pairs whose texts or ``version`` have changed, or that a server could not answer. In memory stay the pairs of a
    chunk and, of every pair, its id, key and place. Broken rows, and the second row of an id, stand with their
    reason in ``OUT.quarantined.jsonl``.

    Args:
        version: what the judge's answers depend on besides the texts, its name included.

    Raises:
        DataError: no such file or column, an output that is no ``.jsonl`` or the input itself.
        StoreError: ``out`` holds something else, or cannot be written.
    """
    check_out(source, out, ".jsonl")
    require(source, [("--id", id_column), ("--reference", reference), ("--candidate", candidate)])
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise DataError(f"another process writes {out}; wait for it, or give another --out") from None
    except OSError as error:
        raise DataError(f"cannot write beside {out}: {error.strerror or error}") from error
    with lock:
        ledger = Ledger(out, keep=lambda row: not str(row["unscored"]).startswith(TRANSIENT))
        refused: list[Quarantined] = []
        ids: dict[str, None] = {}
        scores, unscored = array("d"), Counter[str]()
        bar = progress(total=None, unit="pairs", what="score")
        cases = _cases(stream(source), (id_column, reference, candidate), refused, ids)
        while batch := list(islice(cases, chunk)):
            keys = [content_key("score", version, case.reference, case.candidate) for case in batch]
            known = [ledger.get(case.id, key) for case, key in zip(batch, keys, strict=True)]
            left = [(case, key) for case, key, row in zip(batch, keys, known, strict=True) if row is None]
            judged = [
                _row(judgement, key)
                for judgement, (_, key) in zip(judge([case for case, _ in left]) if left else [], left, strict=True)
            ]
            ledger.append(judged)
            for row in (*(row for row in known if row is not None), *judged):
                if row["score"] is None:
                    unscored[row["unscored"].split(":")[0]] += 1
                else:
                    scores.append(row["score"])
            bar.update(len(batch))
        bar.close()
        ledger.finish(ids)
        refused_path = write_refused(out, refused)
    return Done(len(ids), reasons(refused), refused_path, tuple(scores), unscored)


def _cases(
    entries: Iterator[Entry], names: tuple[str, str, str], refused: list[Quarantined], ids: dict[str, None]
) -> Iterator[Case]:
    """The pairs that can be judged; adds to ``refused`` and ``ids`` as they come."""
    id_column, reference, candidate = names
    for entry in entries:
        name = entry.place
        try:
            if entry.cells is None:
                raise RowError(entry.reason)
            lacking = [column for column in names if column not in entry.cells]
            if lacking:
                raise RowError(f"cell missing: the row has no {', '.join(lacking)}")
            name = text_of(entry.cells[id_column]) or entry.place
            if name == entry.place:
                raise RowError("no id: the cell is empty")
            if name in ids:
                raise RowError("id twice: the first row of it is judged")
            case = Case(name, name, text_of(entry.cells[reference]), text_of(entry.cells[candidate]))
        except RowError as error:
            where = "" if name == entry.place else f" ({entry.place})"
            refused.append(Quarantined(id=name, stage="score", reason=f"{error}{where}"))
            continue
        ids[name] = None
        yield case


def _row(judgement: Judgement, key: str) -> dict[str, Any]:
    """A judgement as a flat JSON row; spans as ``[start, end]``."""
    row: dict[str, Any] = {
        "id": judgement.id,
        "key": key,
        "judge": judgement.judge,
        "score": judgement.score,
        "unscored": judgement.unscored,
        "words": judgement.words,
        "reference_words": judgement.reference_words,
    }
    if judgement.errors or judgement.matched:
        for name, wanted in (("significant", True), ("insignificant", False)):
            row[name] = dict(Counter(error.kind for error in judgement.errors if error.significant is wanted))
        row["errors"] = [_flat(error.model_dump()) for error in judgement.errors]
        row["matched"] = [_flat(finding.model_dump(exclude_none=True)) for finding in judgement.matched]
    return row


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [value["start"], value["end"]] if name.endswith("span") and value else value
        for name, value in fields.items()
    }
