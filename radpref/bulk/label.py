"""CheXpert's 14 labels for a file of reports."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from radpref.bulk.refused import Done, check_out, reasons, write_refused
from radpref.data.rows import columns, require, stream
from radpref.data.source import RowError, text_of
from radpref.files import replacing
from radpref.findings import CLASSES_14, labels, unreadable
from radpref.judges.case import words
from radpref.records import Quarantined
from radpref.runs.progress import progress

ROW = "row"
"""The first column of the output where the input has no id: where the row stands, ``line 12``."""


def label_file(source: Path, out: Path, *, fields: Sequence[str] = ("findings",), id_column: str | None = None) -> Done:
    """Label every report of ``source`` (JSONL, CSV or Parquet) and write a CSV of its id and CheXpert's 14 columns.

    1 is positive, 0 negative, -1 uncertain, blank not mentioned; see `radpref.findings.labels`. The texts of several
    ``fields`` are read as one report. Rows come one at a time; ``out`` is replaced in one step when all are done. A
    row that is broken, or whose fields have no words, stands with its reason in ``OUT.quarantined.jsonl``.

    Args:
        id_column: kept as the first column; without it ``id`` if there is such a column, else the row's place.

    Raises:
        DataError: no such file or column, an output that is no ``.csv`` or the input itself.
        StoreError: the output cannot be written.
    """
    check_out(source, out, ".csv")
    require(source, [*(("--field", name) for name in fields), *([("--id", id_column)] if id_column else [])])
    if id_column is None:
        id_column = "id" if "id" in columns(source) else None
    refused: list[Quarantined] = []
    done = 0
    bar = progress(total=None, unit="reports", what="label")
    with replacing(out) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        table = csv.writer(text, lineterminator="\n")
        table.writerow([id_column or ROW, *CLASSES_14])
        for entry in stream(source):
            name = entry.place
            try:
                if entry.cells is None:
                    raise RowError(entry.reason)
                name = (id_column and text_of(entry.cells.get(id_column))) or entry.place
                report = "\n\n".join(filter(None, (text_of(entry.cells.get(field)) for field in fields)))
                if not words(report):
                    raise RowError("no words: the report is empty, or all of it was removed by its publisher")
                if (reason := unreadable(report)) is not None:
                    raise RowError(reason)
            except RowError as error:
                where = "" if name == entry.place else f" ({entry.place})"
                refused.append(Quarantined(id=name, stage="label", reason=f"{error}{where}"))
            else:
                found = labels(report)
                table.writerow([name, *("" if found[label] is None else found[label] for label in CLASSES_14)])
                done += 1
            bar.update(1)
        text.detach()
    bar.close()
    return Done(done, reasons(refused), write_refused(out, refused))
