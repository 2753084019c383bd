"""Scores of one judge for a file of report pairs."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from radpref.bulk.refused import Done, check_out, reasons, write_refused
from radpref.data.rows import Entry, require, stream
from radpref.data.source import DataError, RowError, text_of
from radpref.files import StoreError, content_key
from radpref.judges import Case, Judge
from radpref.judges.server import TRANSIENT
from radpref.records import Judgement, Quarantined, Record
from radpref.runs.progress import progress
from radpref.runs.rows import batched
from radpref.runs.table import Made, Table

CHUNK = 256
"""Pairs judged at once, and lost at most by a kill."""


class Score(Record):
    """A judgement as it stands in the output; spans are ``[start, end]``."""

    id: str
    judge: str
    score: float | None
    unscored: str | None
    """Why there is no score."""
    words: int
    reference_words: int
    significant: dict[str, int] | None = None
    """Number of errors by kind; of judges that tell errors."""
    insignificant: dict[str, int] | None = None
    errors: tuple[dict[str, Any], ...] | None = None
    matched: tuple[dict[str, Any], ...] | None = None


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

    A row of ``out`` is a `Score`. Work is kept beside it every ``chunk`` pairs (``OUT.part0``, then ``OUT.keys``). The
    same command goes on from there, and computes anew only pairs whose texts or ``version`` have changed, or that a
    server could not answer. In memory stay the pairs of a chunk and, of every pair, its id and
    key. Broken rows, and the second row of an id, stand with their reason in ``OUT.quarantined.jsonl``.

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
        table = Table(out, Score)
        if out.exists() and not table.merged():
            raise StoreError(
                f"{out} holds something that this command did not write, or that was changed since. Move it away, or "
                "write somewhere else."
            )
        table.reopen()
        known = table.known(again=lambda row: str(row.unscored).startswith(TRANSIENT))
        refused: list[Quarantined] = []
        order: dict[str, str] = {}
        bar = progress(total=None, unit="pairs", what="score")
        for batch in batched(_cases(stream(source), (id_column, reference, candidate), refused, order), chunk):
            keys = {case.id: content_key("score", version, case.reference, case.candidate) for case in batch}
            order |= keys
            left = [case for case in batch if (case.id, keys[case.id]) not in known]
            if left:
                table.append(0, (Made(row.id, keys[row.id], [_row(row)]) for row in judge(left)))
            bar.update(len(batch))
        bar.close()
        table.merge(order.items())
        table.tidy()
        scores, unscored = array("d"), Counter[str]()
        for row in table:
            if row.score is None:
                unscored[str(row.unscored).split(":")[0]] += 1
            else:
                scores.append(row.score)
        refused_path = write_refused(out, refused)
    return Done(len(order), reasons(refused), refused_path, tuple(scores), unscored)


def _cases(
    entries: Iterator[Entry], names: tuple[str, str, str], refused: list[Quarantined], ids: dict[str, str]
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
        ids[name] = ""
        yield case


def _row(judgement: Judgement) -> Score:
    row = Score(
        id=judgement.id,
        judge=judgement.judge,
        score=judgement.score,
        unscored=judgement.unscored,
        words=judgement.words,
        reference_words=judgement.reference_words,
    )
    if not (judgement.errors or judgement.matched):
        return row
    kinds = {
        name: dict(Counter(error.kind for error in judgement.errors if error.significant is wanted))
        for name, wanted in (("significant", True), ("insignificant", False))
    }
    errors = tuple(_flat(error.model_dump()) for error in judgement.errors)
    matched = tuple(_flat(finding.model_dump(exclude_none=True)) for finding in judgement.matched)
    return row.model_copy(update={**kinds, "errors": errors, "matched": matched})


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [value["start"], value["end"]] if name.endswith("span") and value else value
        for name, value in fields.items()
    }
