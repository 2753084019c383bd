"""The boundary: every reader of what comes from outside is known, and each turns whatever is wrong into an error."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import jinja2
import pytest

from radpref import outside
from radpref.outside import OutsideError

PACKAGE = Path(__file__).resolve().parent.parent / "radpref"

PRIMITIVES = re.compile(
    r"(^|\.)(yaml\.\w*load\w*|yaml\.parse|json\.loads?|csv\.(reader|DictReader)|tarfile\.open|zipfile\.\w+"
    r"|GzipFile|gzip\.open|Image\.open|dcmread|ElementTree\.\w*(parse|fromstring)|\w*ParquetFile|read_table|safe_open"
    r"|load_file|torch\.load|pickle\.loads?|np\.load|from_pretrained|create_model_from_pretrained|load_dataset"
    r"|load_from_disk|literal_eval|raw_decode|Environment|from_string|read_text|read_bytes|snapshot_download)$"
)
"""Calls that take apart what somebody else may have written."""

OWN = "our own file, shipped in the package"
KEPT = "written by the run itself; what is no line of it is passed over or computed anew"
TENSORS = "safetensors or a config, whose every exception becomes a ModelError"
READERS: dict[str, dict[str, str]] = {
    "outside": {
        "read": "the boundary itself",
    },
    "config/load": {"read_text": "shipped recipes; a user's own goes through outside.read_text"},
    "sweep/grid": {"read_text": "shipped grids; a user's own goes through outside.read_text"},
    "data/rows": {"read": "tables: a broken row is quarantined, a broken file is a DataError"},
    "data/openi": {"read": "XML through defusedxml, archives in pieces; a broken report is quarantined"},
    "data/image_cells": {"read": "cells: what is no list is quarantined"},
    "data/hugging_face": {"read": "whatever datasets raises becomes a DataError"},
    "data/mimic": {"read": "a DICOM header: what cannot be read has no view"},
    "data/gate": {"read": KEPT},
    "data/disk": {"read": "a temporary database of this process, which nobody else can write"},
    "data/phantom/sheet": {"read": "images that were just drawn"},
    "images/read": {"read": "images: whatever Pillow raises becomes an ImageError"},
    "images/dicom": {"read": "DICOM: whatever pydicom raises becomes an ImageError"},
    "judges/asker": {},
    "judges/answers": {"read": "a model's answer: what is no whole object is asked again"},
    "judges/radiologists": {"read": "a table of counts, under guarded"},
    "judges/radeval": {"read": "the words of our own script in another process, read under its errors"},
    "judges/radeval_worker": {"read": "the other end of that process"},
    "judges/chat": {"read": "a template's words for a key; it was read through the boundary when it was tried out"},
    "judges/green/weights": {"read": OWN},
    "judges/auditing/plain": {"read": OWN},
    "pairs/editors/__init__": {"read": "as judges/chat"},
    "pairs/editors/chat": {"read": "as judges/chat"},
    "findings/__init__": {"read": OWN},
    "findings/grammar": {"read": OWN},
    "findings/lexicon": {"read": OWN},
    "report/environment": {"read": OWN},
    "models/loading": {"read": TENSORS},
    "models/serving": {"read": KEPT},
    "models/processors": {"read": TENSORS},
    "models/segmenter": {"read": TENSORS},
    "models/fingerprint": {"read": "an adapter's config, which loading has read before"},
    "models/make_builtin": {"read": "the making of the built-in model, from what it has just written"},
    "mining/encoders": {"read": TENSORS},
    "training/loop": {"read": KEPT},
    "training/cache": {"read": KEPT},
    "training/prepare": {"read": KEPT},
    "runs/table": {"read": "a run's tables: a line that is no row is a StoreError with its number"},
    "runs/folder": {"read": KEPT},
    "runs/context": {"read": KEPT},
    "runs/engine/ray": {"read": KEPT},
    "bench/measure": {"read": "the kernel's own file on this process"},
    "formats/read": {},
}
"""Every module that reads, and what becomes of what is wrong there. A new one is put through ``outside``, or named here
with its reason."""


def primitives(path: Path) -> set[str]:
    """The calls in a module that take apart what was written."""
    tree = ast.parse(path.read_text("utf-8"))
    calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    return {call for call in calls if PRIMITIVES.search(call) and not call.startswith("outside.")}


def test_every_reader_is_known() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE)).removesuffix(".py")
        text = path.read_text("utf-8")
        calls = {
            call
            for call in primitives(path)
            if not (call == "read_text" and "radpref.outside import" in text)  # the boundary's own
        }
        if calls:
            found[name] = sorted(calls)
    unknown = {name: calls for name, calls in found.items() if not READERS.get(name)}
    assert not unknown, "put these through radpref.outside, or say in READERS what becomes of what is wrong there"
    gone = {name for name, why in READERS.items() if why} - found.keys()
    assert not gone, "these read nothing any more"


def test_nothing_is_executed() -> None:
    """No reader of code: no eval, no pickle but the temporary database's, no YAML of objects, no template unboxed."""
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE)).removesuffix(".py")
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(node, ast.Call)}  # fmt: skip
        forbidden = {"eval", "exec", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"} & calls
        assert not forbidden, f"{name}: {forbidden}"
        assert name in ("data/disk", "models/make_builtin") or not {"pickle.loads", "pickle.load", "torch.load"} & calls
        assert name == "report/environment" or not {"Environment", "jinja2.Environment", "jinja2.Template"} & calls


# ------------------------------------------------------------------------------------------ its own functions


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 65 + "]" * 65, "deep"),
        ("a: 1\nb: 2024-13-01\n", "line 2"),
        ("a: &a [*a]", "itself"),
        ("a: &a {<<: *a}", "itself"),
        ("a: 1\na: 2", "twice"),
        ("a: !!python/name:os.system", "line 1"),
        ("a: [", "line 1"),
        ("x" * (9 << 20), "large"),
        ("'\x00'", "cannot be read"),
        ("? {a: 1}\n: 2", "cannot be read"),
        ("1" * 30_000, "characters"),
    ],
)
def test_yaml_is_measured_before_it_is_made(text: str, says: str) -> None:
    with pytest.raises(OutsideError, match=r"r\.yaml cannot be read") as told:
        outside.parse_yaml(text, "r.yaml")
    assert says in str(told.value)
    assert len(str(told.value)) < 500


def test_yaml_of_people_is_read() -> None:
    text = "base: &b {x: 1, y: [1, 2.5, yes, null, 2024-01-02]}\none: {<<: *b, x: 2}\ntwo: *b\n"
    found = outside.parse_yaml(text, "r.yaml")
    assert found["one"]["x"] == 2
    assert found["two"]["y"][:2] == [1, 2.5]
    assert outside.parse_yaml("", "r.yaml") is None
    assert outside.parse_yaml("# words\n", "r.yaml") is None


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 65 + "]" * 65, "1" * 5000, "{", b"\xff", "", "nul"])
def test_json_that_is_none_is_named(text: str | bytes) -> None:
    with pytest.raises(OutsideError, match=r"x\.json cannot be read"):
        outside.parse_json(text, "x.json")


def test_only_files_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "pipe", tmp_path / "none", tmp_path / ("x" * 5000)):
        with pytest.raises(OutsideError, match="cannot be read"):
            outside.read_text(path)
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(OutsideError, match="large"):
        outside.read_text(tmp_path / "large", most=100)
    (tmp_path / "latin").write_bytes(b"a\nb\xe9\n")
    with pytest.raises(OutsideError, match="line 2 is no UTF-8"):
        outside.read_text(tmp_path / "latin")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ values.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ none_of_ours }}",
        "{{ 'x' * 10 ** 9 }}",
        "{% for a in range(10 ** 9) %}x{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include '/etc/passwd' %}",
        "{% for %}",
        "{{",
    ],
)
def test_a_template_reaches_nothing_and_ends(text: str) -> None:
    with pytest.raises(OutsideError, match=r"t\.jinja cannot be read"):
        outside.rendered(outside.template(text, "t.jinja"), {"values": [1]}, "t.jinja")


def test_a_template_of_people_is_rendered() -> None:
    made = outside.template("{% for v in values %}{{ v | upper }} {% endfor %}{{ x if x else 'none' }}", "t")
    assert isinstance(made, jinja2.Template)
    assert outside.rendered(made, {"values": ["a", "b"], "x": ""}, "t") == "A B none"


def test_pieces_are_small() -> None:
    file = outside.Pieces(io.BytesIO(b"x" * 100))
    assert file.read(10) == b"x" * 10
    for size in (-1, outside.MOST_READ + 1):
        with pytest.raises(ValueError, match="piece"):
            file.read(size)


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    text = "a\x00b\x1b[2Jc\u202ed\u2066e\x9bf\rg\nh\ti é 肺"
    assert outside.shown(text) == "a\ufffdb\ufffd[2Jc\ufffdd\ufffde\ufffdf\ufffdg\nh\ti é 肺"


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
)
def test_memory_that_does_not_suffice_says_what_to_lower(problem: Exception) -> None:
    with (
        pytest.raises(outside.MemoryShortError, match=r"`sample`.*Lower sample\.batch"),
        outside.enough_memory("`sample`", "sample.batch"),
    ):
        raise problem
    with pytest.raises(RuntimeError, match="another"), outside.enough_memory("x", "y"):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ("http://localhost:8000/v1", False),
        ("https://me:key@host/v1", True),
        ("https://key@host/v1", True),
        ("https://host/v1?api_key=1", True),
    ],
)
def test_an_address_with_a_key_is_seen_and_not_shown(address: str, holds: bool) -> None:
    assert outside.holds_key(address) == holds
    assert "key@" not in outside.without_key(address)
    assert "api_key=1" not in outside.without_key(address)
