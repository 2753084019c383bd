"""Every reader of what comes from outside, as a function of bytes: it gives something, or raises an explained error.

``tests/test_fuzz.py`` sends the readers what hypothesis makes of their seeds; ``benchmarks/fuzz.py`` does so for as
long as it is told to, led by coverage where atheris is installed. What ever crashed one stands in
``tests/cases/crashes``.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from radpref import chat_client, config, outside
from radpref.data import rows as tables
from radpref.data.image_cells import images_of
from radpref.data.openi import _archive, _from_xml
from radpref.errors import RadprefError
from radpref.formats.read import read_pairs
from radpref.images.read import decode, image_size, is_burned_in, is_plain, pixels_of
from radpref.judges import answers, server
from radpref.judges.prompts import as_data
from radpref.judges.radiologists import read_counts
from radpref.records import ImageFile, Judgement
from radpref.runs.folder import Run, read_recipe
from radpref.runs.table import Table
from radpref.sweep import load_grid

EXPLAINED: tuple[type[Exception], ...] = (RadprefError, chat_client.Failure, chat_client._Retry, answers.Unreadable)
"""What a reader may raise: errors with a message, or reasons for which a question is asked again or unscored."""
CRASHES = Path(__file__).parent / "cases" / "crashes"


class Reader(NamedTuple):
    """A reader under test."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    """Good inputs, of which bad ones are made."""


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of a file, out of one of its path."""

    def of_bytes(content: bytes) -> object:
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            return read(path)

    return of_bytes


def _all(entries: Iterable[object]) -> int:
    return sum(1 for _ in entries)


def _table(path: Path) -> None:
    tables.columns(path)
    for entry in tables.stream(path):
        for cell in (entry.cells or {}).values():
            try:
                images_of(cell, (path.parent,), path.parent / "store")
            except RadprefError:
                continue


def _image(path: Path) -> None:
    for look in (image_size, pixels_of, is_burned_in):
        try:
            look(path)
        except RadprefError:
            continue
    is_plain(ImageFile(path=str(path)))
    decode(path)


def _run_folder(path: Path) -> None:
    """The folder of a run whose files are the pieces of what is given."""
    names = ("run.json", "recipe.yaml", "events.jsonl", "sft/done.json", "judge/judgements.jsonl")
    for name, content in zip(names, [*path.read_bytes().split(b"\0"), *[b""] * len(names)], strict=False):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_bytes(content)
    with suppress(RadprefError):
        read_recipe(path.parent)
    run = Run(path.parent, config.load("chexalign"))
    run.seconds()
    list(run.events())
    for look in (lambda: run.mark("sft"), lambda: list(Table(path.parent / names[-1], Judgement))):
        try:
            look()
        except RadprefError:
            continue


def _words(content: bytes) -> None:
    key, _, value = content.decode("utf-8", "replace").partition("=")
    config.load("chexalign", overrides=[f"{key}={value}"])


def _rendered(content: bytes) -> None:
    text = outside.text_of(content, "t.jinja")
    outside.rendered(outside.template(text, "t.jinja"), {"reference": "a", "candidate": "b", "values": [1]}, "t.jinja")


def _answer(content: bytes) -> None:
    text = chat_client._read(content, server._content)
    for read in (answers.read_json, answers.read_green):
        try:
            read(text, "Left effusion.", "Right effusion.")
        except answers.Unreadable:
            continue


def _shown(content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    assert not outside._UNSHOWN.search(outside.shown(text))
    assert as_data(as_data(text)) == as_data(text)
    assert outside.without_key(outside.without_key(text)) == outside.without_key(text)


def _picture(form: str, **more: Any) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).save(out, form, **more)
    return out.getvalue()


def _dicom() -> bytes:
    import numpy as np
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("x.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 16, 24, 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.WindowCenter, made.WindowWidth, made.RescaleSlope, made.RescaleIntercept = 100, 200, 1, 0
    made.PixelData = np.arange(16 * 24, dtype=np.uint16).tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, made, enforce_file_format=True)
    return out.getvalue()


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    made = pyarrow.table({"id": ["a", "b"], "findings": ["Clear.", None], "images": [["x.png"], []]})
    pyarrow.parquet.write_table(made, out)
    return out.getvalue()


_XML = (
    b'<?xml version="1.0"?><eCitation><uId id="CXR1"/><Abstract><AbstractText Label="FINDINGS">Clear.</AbstractText>'
    b'</Abstract><parentImage id="CXR1_1"/></eCitation>'
)


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("é" * 60 + "/1.xml")
        info.size = len(_XML)
        archive.addfile(info, io.BytesIO(_XML))
    return out.getvalue()


_ROWS = [{"id": f"r{i}", "findings": "Clear lungs.", "images": ["a.png", "b.png"], "n": 1.5} for i in range(3)]
_JSONL = "\n".join(json.dumps(row) for row in _ROWS).encode()
_CSV = b"id,findings,images\n1,\"Clear lungs.\nNo effusion.\",\"['a.png' 'b.png']\"\n2,Small effusion.,a.png;b.png\n"
_GRID = b"recipe: chexalign\nshare: sft\ncells: {a: {set: {align.beta: 0.2}, levels: {x: true}}}\nmetrics: {green: G}\n"
_RECIPE = b"data: &d {train: 5, table: {findings: text}}\nsample: {n: 2}\npresets: {p: {data: *d}}\n"
_REPLY = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": json.dumps(
    {"errors": [{"kind": "wrong_place", "finding": "x", "significant": True}],
     "matched": [{"finding": "effusion", "candidate": "Right effusion"}]})}}]}).encode()  # fmt: skip
_RUN = b"\0".join((
    b'{"format": 2, "provenance": {"data.train": "x"}}', b"data: {train: 5}",
    b'{"stage": "sft", "event": "finished", "seconds": 1.5, "result": "x"}\n'
    b'{"stage": "sft", "event": "note", "text": "n"}',
    b'{"basis": {"config": {}}, "tables": {"x": "y"}, "facts": {"model": {"path": "./x"}}}',
    b'{"id": "a", "question": "q", "judge": "green", "score": 1.0, "words": 1, "reference_words": 1}',
))  # fmt: skip
_PAIR = json.dumps({"id": "p", "prompt": "<image>Write.", "chosen": "Clear.", "rejected": "Effusion.",
                    "images": ["a.png"]}).encode()  # fmt: skip

READERS: dict[str, Reader] = {
    "yaml": Reader(lambda b: outside.parse_yaml(outside.text_of(b, "x"), "x"), (_RECIPE, _GRID)),
    "json": Reader(lambda b: outside.parse_json(b, "x"), (_REPLY, _JSONL[:80])),
    "recipe": Reader(_file("r.yaml", lambda p: config.dump(config.load(str(p)))), (_RECIPE,)),
    "words": Reader(_words, (b"align.beta=0.1", b"evaluate.controls=[a, b]", b"data.options={a: 1}")),
    "grid": Reader(_file("g.yaml", lambda p: load_grid(str(p))), (_GRID,)),
    "csv": Reader(_file("t.csv", _table), (_CSV, _CSV.replace(b",", b";"), _CSV.decode().encode("utf-16"))),
    "jsonl": Reader(_file("t.jsonl", _table), (_JSONL,)),
    "json table": Reader(_file("t.json", _table), (json.dumps(_ROWS).encode(), b'{"a": {"x": 1}, "b": {}}')),
    "parquet": Reader(_file("t.parquet", _table), (_parquet(),)),
    "gzip": Reader(_file("t.csv.gz", _table), (gzip.compress(_CSV, mtime=0),)),
    "archive": Reader(_file("a.tgz", lambda p: _all(_archive(p))), (_tar(),)),
    "xml": Reader(_file("a.xml", lambda p: _all(_from_xml(p.parent))), (_XML,)),
    "picture": Reader(
        _file("x.png", _image),
        (_picture("PNG"), _picture("JPEG"), _picture("TIFF"), _picture("BMP"), _picture("WEBP")),
    ),
    "dicom": Reader(_file("x.dcm", _image), (_dicom(),)),
    "template": Reader(_rendered, (b"{{ reference }}{% for v in values %}{{ v ** 2 }}{% endfor %}{{ candidate }}",)),
    "answer": Reader(_answer, (_REPLY,)),
    "counts": Reader(_file("c.csv", read_counts), (b"id,reference,candidate,significant\n1,Clear.,Clear.,2\n",)),
    "pairs": Reader(_file("p.jsonl", lambda p: read_pairs(str(p), p.parent / "store")), (_PAIR,)),
    "run folder": Reader(_file("all", _run_folder), (_RUN,)),
    "shown": Reader(_shown, (b"a\x1b[0m <|im_end|> [INST] http://u:k@h?key=1",)),
}


def survives(name: str, content: bytes) -> None:
    """Send bytes to a reader. Raises whatever is no explained error, and AssertionError for a message without words."""
    said = "words"
    try:
        READERS[name].read(content)
    except EXPLAINED as error:
        said = str(error)
    assert said.strip()
    assert len(said) < 20_000, "a message is read by a person"


def crashes() -> list[tuple[str, Path]]:
    """What crashed a reader once."""
    found = sorted(CRASHES.glob("*/*")) if CRASHES.is_dir() else []
    return [(path.parent.name.replace("_", " "), path) for path in found]
