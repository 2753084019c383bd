"""One harness for every layout: its files are changed at random, and no row is lost without a word, no reader fails.

``RADPREF_MUTATIONS=1000 python -m pytest tests/test_data_mutations.py`` is the long run, and
``RADPREF_MUTATIONS_FROM=1000`` with it makes others. A row counts as accounted for
where it is used, stands in quarantine, or is counted in a note as left out.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from radpref.config import DataSection, RecipeError
from radpref.data import Loaded, load_studies
from radpref.files import StoreError
from radpref.records import Quarantined
from tests.published import LAYOUTS, ROWS, Layout

TIMES = int(os.environ.get("RADPREF_MUTATIONS", "12"))
FIRST = int(os.environ.get("RADPREF_MUTATIONS_FROM", "0"))
ODD: tuple[Any, ...] = (
    None, "", " ", "nan", "null", "\0", "\u200b", "ﬀ", "\ud800", "../../etc/passwd", "/etc/passwd",
    "https://example.org/x.png", "x" * 30_000, "-1", 0, 1e400, -5, 3.5, True, [], {}, [[]], [None], {"a": [1]},
    ["a", 3], "[", "['a'", "{", "a;b", "<b>", "\r\n", '"', "'", ",", "=1+1", "٣", "1e5", "🫁", "A" * 300,
    {"path": "x"}, [[1, 2], [3]], [[[]]], "inf", "99999999999999999999",
)  # fmt: skip
_LEFT = re.compile(
    r"([\d,]+) (?:questions about other|rows of another|in another language|about other images"
    r"|rows of \S+ have no image|images of the tables are not|images stand in neither)"
)
_LINES = re.compile(r"lines? (\d+)(?: to (\d+))?$")


def load(layout: Layout, root: Path) -> Loaded:
    section = DataSection.model_validate({"source": layout.source, "root": str(root), **layout.settings})
    return load_studies(section, root.parent / "cache", 3)


def accounted(layout: Layout, loaded: Loaded) -> int:
    """Rows that are used, in quarantine, or said to be left out; a broken row of several lines counts as them all."""
    used = {
        "studies": len(loaded.studies),
        "images": sum(len(study.images) for study in loaded.studies),
        "questions": sum(len(study.questions) for study in loaded.studies),
        "boxes": sum(len(drawn) for study in loaded.studies for drawn in study.images[0].boxes.values()),
    }[layout.unit]
    left = sum(int(found[1].replace(",", "")) for note in loaded.notes for found in _LEFT.finditer(note))
    return used + left + _refused(layout, loaded.quarantined)


def _refused(layout: Layout, rows: Iterable[Quarantined]) -> int:
    parts: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for row in rows:
        identifier, _, part = re.sub(r"~\d+$", "", row.id).partition("#")
        lines = _LINES.search(identifier)
        if part:
            parts[identifier] += part.startswith("image")
        else:
            whole[identifier] += int(lines[2]) - int(lines[1]) + 1 if lines and lines[2] else 1
    keys = parts.keys() | whole.keys()
    return sum(max(parts[key] if layout.unit == "images" else 0, whole[key]) for key in keys)


def rows_in(layout: Layout, root: Path) -> int | None:
    """How many rows the changed tables hold, as another reader would count them; None where nobody could tell."""
    if layout.files[0].endswith((".tgz", ".parquet")):
        return ROWS + (layout.source == "vqa-rad")
    if layout.files[0].endswith(".xml"):
        return len(list(root.rglob("*.xml")))
    names = layout.files if layout.unit == "questions" or layout.source in ("llava-rad", "slake") else layout.files[:1]
    count = 0
    for name in names:
        content = (root / name).read_bytes()
        if name.endswith(".json"):
            try:
                value = json.loads(content.decode("utf-8"), strict=False)
            except (ValueError, RecursionError):
                return None
            if layout.source in ("r2gen", "openi") and isinstance(value, dict):
                count += sum(len(part) if isinstance(part, list) else 1 for part in value.values())
            elif isinstance(value, list | dict):
                count += len(value)
            else:
                return None
        else:
            if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
                content = content.decode("utf-16", "replace").encode()
            elif not any(content[1:40:2]):
                content = content.decode("utf-16-le", "replace").encode()
            lines = [line for line in content.split(b"\n") if line.strip()]
            count += len(lines) - (not name.endswith("l"))
    return count


# ---- what is changed


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 4))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def shorten(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def recode(path: Path, rng: random.Random) -> None:
    """The file in another encoding, with letters that are written otherwise in it."""
    if path.suffix in (".tgz", ".parquet"):
        return flip(path, rng)
    text = (
        path.read_bytes().decode("utf-8").replace("effusion", rng.choice(("effusión", "épanchement", "Ergußß", "µ°")))
    )
    encoding = rng.choice(("latin-1", "cp1252", "utf-8-sig", "utf-16", "utf-16-le", "cp037", "utf-32"))
    path.write_bytes(text.encode(encoding, "replace"))
    return None


def cell(path: Path, rng: random.Random) -> None:
    """One value in one row becomes something odd, or is gone, or nested deeper."""
    if path.suffix == ".csv":
        lines = path.read_bytes().decode().splitlines()
        row = rng.randrange(1, len(lines))
        cells = lines[row].split(",")
        odd = rng.choice([value for value in ODD if isinstance(value, str)]).replace("\ud800", "?")
        cells[rng.randrange(len(cells))] = '"' + odd.replace('"', '""').replace("\r\n", " ") + '"'
        lines[row] = ",".join(cells)
        path.write_bytes(("\n".join(lines) + "\n").encode())
    elif path.suffix == ".json":
        value = json.loads(path.read_bytes())
        _spoil(value, rng)
        path.write_text(json.dumps(value))
    elif path.suffix == ".jsonl":
        lines = path.read_bytes().decode().splitlines()
        row = rng.randrange(len(lines))
        value = json.loads(lines[row])
        _spoil([value], rng)
        lines[row] = json.dumps(value)
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".xml":
        text = path.read_text()
        path.write_text(
            text.replace(rng.choice((">", "<", '"', "CXR", "AbstractText", "uId")), rng.choice(("", "&x;", "<a>")))
        )
    else:
        flip(path, rng)


def _spoil(value: Any, rng: random.Random) -> None:
    """Walk down to some place in a row, and put something odd there."""
    inner = [
        part
        for part in (value.values() if isinstance(value, dict) else value)
        if isinstance(part, dict | list) and part
    ]
    if inner and rng.random() < 0.75:
        return _spoil(rng.choice(inner), rng)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    how = rng.random()
    if how < 0.15 and isinstance(value, dict):
        del value[key]
    elif how < 0.3:
        value[key] = [value[key]]
    else:
        value[key] = rng.choice(ODD)
    return None


CHANGES = (flip, shorten, recode, cell, cell, cell)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_change_of_a_file_fails_a_reader_or_loses_a_row(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    whole, root = tmp_path / "whole", tmp_path / "data"
    whole.mkdir()
    layout.write(whole)
    shutil.copytree(whole, root)
    assert accounted(layout, load(layout, root)) == rows_in(layout, root)
    outcomes: Counter[str] = Counter()
    for number in range(FIRST, FIRST + TIMES):
        rng = random.Random(f"{name} {number}")
        path = root / rng.choice((layout.files[0], *layout.files))
        change = rng.choice(CHANGES)
        change(path, rng)
        try:
            loaded = load(layout, root)
        except (RecipeError, StoreError):
            outcomes["refused"] += 1
        else:
            count = rows_in(layout, root)
            outcomes["read"] += 1
            if count is not None:
                assert accounted(layout, loaded) >= count, (number, change.__name__, path.name)
            for note in loaded.notes:
                note.encode()
        shutil.copy(whole / path.relative_to(root), path)
    assert outcomes["read"] or name == "openi-tgz"  # whose check sum every change breaks


@pytest.mark.parametrize("name", ["mimic-cxr", "table", "openi-kaggle", "chexpert-plus"])
def test_files_packed_by_gzip_are_read_to_their_end(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.write(tmp_path)
    path = tmp_path / layout.files[0]
    packed = bytearray(gzip.compress(path.read_bytes()))
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(packed)
    assert accounted(layout, load(layout, tmp_path)) == ROWS
    packed[-5] ^= 4
    path.with_name(f"{path.name}.gz").write_bytes(packed)
    with pytest.raises(RecipeError, match="cannot be read to its end"):
        load(layout, tmp_path)
