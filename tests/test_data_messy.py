"""Tables as hospitals export them: what can be told is read, what cannot is named, and no row is lost."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from radpref.config import DataSection
from radpref.data import DataError, Loaded, load_studies
from radpref.data.image_cells import tails
from tests.published import dicom, picture

N = 12
FINDINGS = "There is a small left pleural effusion. No pneumothorax. Case {}."


class Export(NamedTuple):
    """A messy export: what writes its file, and what must come of it."""

    name: str
    content: str | bytes | Callable[[Path], str]
    used: int | None = N
    """Studies; None: an error."""
    reasons: dict[str, int] = {}  # noqa: RUF012  # never changed
    """Rows in quarantine, those of single images left out."""
    said: str = ""
    """Part of a note, or of the error."""
    priors: int = 0
    rows: int = N


def lines(
    head: str = "mrn,study_id,path,report",
    row: Callable[[int], Iterable[object]] = lambda n: (f"P{n}", f"S{n}", f"img/im{n:03}.png", FINDINGS.format(n)),
    mark: str = ",",
    end: str = "\n",
) -> str:
    return end.join([head.replace(",", mark), *(mark.join(map(str, row(n))) for n in range(N)), ""])


def dated(n: int) -> tuple[object, ...]:
    date = ("2021-03-{:02}", "202104{:02}", "{:02}.05.2021", "{} Jun 2021")[n % 4].format(n + 1)
    return f"P{n // 4}", f"S{n}", f"img/im{n:03}.png", FINDINGS.format(n), date


def patients(n: int) -> tuple[object, ...]:
    who = ("", "N/A", "ANONYMOUS", f"P{n}")[n % 4]
    return who, f"S{n}", f"img/im{n:03}.png", FINDINGS.format(n)


def images(folder: Path) -> str:
    """Images that are gone, empty, cut short, no pictures; 16 bits, DICOM without its suffix, several frames."""
    place = folder / "img"
    (place / "im000.png").unlink()
    (place / "im001.png").write_bytes((place / "im001.png").read_bytes()[:100])
    (place / "im002.png").write_bytes(b"")
    (place / "im003.png").write_text("<html>404</html>")
    rng = np.random.default_rng(7)
    dicom(place / "im004.png", rng.integers(0, 4000, (24, 24), dtype=np.uint16))
    frames = rng.integers(0, 4000, (3, 24, 24), dtype=np.uint16)
    dicom(place / "im005.png", frames[0], NumberOfFrames=3, PixelData=frames.tobytes())
    (place / "im006.png").unlink()
    for number in range(2):  # a folder of a study
        picture(place / "im006.png" / f"{number}.png", 600 + number)
    return lines()


def swallowed(_: Path) -> str:
    return lines().replace(FINDINGS.format(4), '"' + FINDINGS.format(4))


def elsewhere(prefix: str, mark: str) -> str:
    return lines(row=lambda n: (f"P{n}", f"S{n}", mark.join((prefix, "img", f"im{n:03}.png")), FINDINGS.format(n)))


EXPORTS = {
    "UTF-16 with tabs": Export("e.csv", lines(mark="\t", end="\r\n").encode("utf-16")),
    "UTF-16 without its mark": Export("e.csv", lines(mark="\t", end="\r\n").encode("utf-16-le")),
    "Windows-1252 with semicolons": Export(
        "e.csv", lines(mark=";").replace("small", "große").encode("cp1252"), said="not UTF-8"
    ),
    "a mark and mixed capitals": Export(
        "Export FINAL (2).CSV", lines("Patienten-ID,ACCESSION NUMBER,Image File Path,Report Text").encode("utf-8-sig")
    ),
    "bars": Export("e.csv", lines(mark="|")),
    "Excel's line of the delimiter": Export("e.csv", "sep=;\r\n" + lines(mark=";", end="\r\n")),
    "blank lines above the header": Export("e.csv", "\n\r\n" + lines()),
    "lines of an old Mac": Export("e.csv", lines(end="\r")),
    "delimiters at the end of rows": Export("e.csv", lines().replace(".\n", ".,,\n")),
    "packed under another name": Export("e.csv", gzip.compress(lines().encode())),
    "dates in four writings": Export("e.csv", lines("mrn,study_id,path,report,date", dated), priors=9),
    "patients without a name": Export("e.csv", lines(row=patients), 3, {"no patient": 9}),
    "ids that a spreadsheet rounded": Export(
        "e.csv", lines(row=lambda n: (f"P{n}", "1.2E+15", "x.png", "Clear.")), None, said="12 id rounded"
    ),
    "ids of several patients": Export(
        "e.csv",
        lines(row=lambda n: (f"P{n}", f"S{n % 10}", f"img/im{n:03}.png", FINDINGS.format(n))),
        10,
        {"duplicate id": 2},
    ),
    "an image a row": Export(
        "e.csv",
        lines(
            "mrn,StudyInstanceUID,SOPInstanceUID,ViewPosition,report",
            lambda n: (
                f"P{n // 4}", f"1.2.{n // 2}", f"im{n:03}", ("PA", "LL")[n % 2], "" if n % 2 else FINDINGS.format(n)
            ),
        ),
        6,
        said="6 studies were gathered from several rows",
    ),
    "paths of Windows": Export("e.csv", elsewhere(r"D:\PACS\out", "\\"), said="12 image paths are absolute"),
    "paths of a server": Export("e.csv", elsewhere(r"\\server\share", "\\"), said="12 image paths are absolute"),
    "paths of another Linux": Export("e.csv", elsewhere("/mnt/old", "/"), said="12 image paths are absolute"),
    "paths that end in one file": Export(
        "e.csv",
        lines(row=lambda n: (f"P{n}", f"S{n}", f"D:\\{n}\\img\\im00{n % 6}.png", FINDINGS.format(n))),
        6,
        {"image not named": 6},
    ),
    "images of all kinds": Export(
        "e.csv", images, 7, {"no usable image left": 5}
    ),
    "a quote that is not closed": Export("e.csv", swallowed, 11, {"row broken": 1}),
    "a row of totals": Export("e.csv", lines() + "Total,12,,\n", N, {"no findings": 1}, rows=N + 1),
    "a title above the header": Export("e.csv", "Export of 4 March\n" + lines(), None, said="is the table's first"),
    "no header": Export("e.csv", lines().partition("\n")[2], None, said="is the table's first line its header?"),
    "a spreadsheet": Export("e.xlsx", b"PK\x03\x04", None, said="save the sheet as CSV (UTF-8)"),
    "a spreadsheet under another name": Export("e.csv", b"PK\x03\x04" + bytes(range(256)), None, said="a spreadsheet"),
    "text without its kind": Export("e.txt", lines(), None, said="name it .csv"),
    "a list in an object": Export("e.json", '{"studies": [{"mrn": "1"}]}', None, said="a list of JSON objects"),
}  # fmt: skip


def load(export: Export, folder: Path) -> Loaded:
    for number in range(N):
        picture(folder / "img" / f"im{number:03}.png", number)
    content = export.content(folder) if callable(export.content) else export.content
    (folder / export.name).write_bytes(content.encode() if isinstance(content, str) else content)
    section = DataSection(source="table", file=str(folder / export.name))
    return load_studies(section, folder.parent / "cache", 3)


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_or_told_what_is_wrong(name: str, tmp_path: Path) -> None:
    export = EXPORTS[name]
    if export.used is None:
        with pytest.raises(DataError) as raised:
            load(export, tmp_path / "data")
        assert export.said in str(raised.value)
        return
    loaded = load(export, tmp_path / "data")
    rows = [row for row in loaded.quarantined if "#" not in row.id]
    assert Counter(row.reason.split(":")[0] for row in rows) == export.reasons
    assert len(loaded.studies) == export.used
    if name != "an image a row":
        assert len(loaded.studies) + len(rows) == export.rows
    assert sum(study.prior is not None for study in loaded.studies) == export.priors
    assert export.said in "\n".join(loaded.notes)
    assert all(study.findings.startswith("There is a ") for study in loaded.studies)


def test_the_end_of_a_path_leads_nowhere_else() -> None:
    assert tails(r"D:\a\b.png") == ["a/b.png", "b.png"]
    assert tails("/a//b.png") == ["a/b.png", "b.png"]
    assert tails(r"\\server\a\..\b.png") == []
