"""Sixty bad inputs, tried by hand over all commands: exit status 2, one message with what, why and what to do.

Every case is a line of a table. Whatever it is, no traceback reaches the user, nothing hangs, and no file that was
there before is changed.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
from PIL import Image
from typer.testing import CliRunner

from radpref.cli import app
from tests.runs import Whole, copy, everything
from tests.tiny import save_tiny

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("whole")]

Words = list[str | Path]
LONGEST = 20
"""Seconds that a bad input may take at most: what takes longer hangs."""


class HangError(BaseException):
    """Nothing that catches exceptions catches it."""


@contextmanager
def in_time(seconds: int = LONGEST) -> Iterator[None]:
    """Raises HangError where the block takes longer."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise HangError(f"still at work after {seconds} s, in {frame}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def told(words: Words) -> tuple[int, str]:
    """Exit status and what a command says; an exception that reaches the user fails the test as it is."""
    with in_time():
        done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


class Case(NamedTuple):
    """A bad input: how it is made in a folder, the words of the command, and what its message has to say."""

    name: str
    words: Callable[[Path], Words]
    says: tuple[str, ...]


def recipe(name: str, content: str | bytes, *says: str) -> Case:
    def words(folder: Path) -> Words:
        data = content.encode() if isinstance(content, str) else content
        (folder / "bad.yaml").write_bytes(data)
        return ["run", folder / "bad.yaml", "--out", folder / "run", "--print-recipe"]

    return Case(f"recipe: {name}", words, ("bad.yaml", *says))


def grid(name: str, content: str | bytes, *says: str) -> Case:
    def words(folder: Path) -> Words:
        (folder / "bad.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        return ["sweep", folder / "bad.yaml", "--out", folder / "sweep", "--seeds", "1"]

    return Case(f"grid: {name}", words, ("bad.yaml", *says))


def table(name: str, file: str, content: str | bytes, *says: str, command: str = "label", named: bool = True) -> Case:
    def words(folder: Path) -> Words:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        if command == "label":
            return ["findings", "label", folder / file, "--out", folder / "out.csv"]
        if command == "score":
            return ["judges", "score", folder / file, "--out", folder / "out.jsonl"]
        if command == "agree":
            return ["judges", "agree", folder / file, "--judge", "text"]
        return ["data", "inspect", folder / file]

    return Case(f"{command}: {name}", words, (file, *says) if named else says)


def spoilt(name: str, file: str, change: Callable[[bytes], bytes], *words: str, says: tuple[str, ...]) -> Case:
    """A finished run of which one file is changed."""

    def made(folder: Path) -> Words:
        path = folder / "run" / file
        path.write_bytes(change(path.read_bytes()))
        return [word.replace("RUN", str(folder / "run")).replace("HERE", str(folder)) for word in words]

    return Case(f"run: {name}", made, says)


def model(name: str, file: str, content: str | Callable[[str], str], *says: str) -> Case:
    def words(folder: Path) -> Words:
        path = folder / "model" / file
        text = content if isinstance(content, str) else content(path.read_text("utf-8"))
        path.write_text(text, "utf-8")
        return ["models", "check", folder / "model", "--device", "cpu", "--precision", "float32"]

    return Case(f"model: {name}", words, says)


def given(name: str, *words: str, says: tuple[str, ...]) -> Case:
    def made(folder: Path) -> Words:
        return [word.replace("RUN", str(folder / "run")).replace("HERE", str(folder)) for word in words]

    return Case(f"words: {name}", made, says)


def bomb() -> str:
    """Each line names the one before nine times over: 9 ** 30 leaves."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 31)]
    return "\n".join(lines) + "\n"


def config_with(**values: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


def without_a_line(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-1])


def with_a_line(content: bytes) -> bytes:
    line = json.loads(content.splitlines()[-1])
    return content + json.dumps({**line, "id": "another"}).encode() + b"\n"


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says so much."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" * 1000),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


EXPORT = ("export", "RUN", "--to", "ids", "HERE/x")
CASES = [
    # ---- recipes
    recipe("5,000 brackets in each other", "data: " + "[" * 5000 + "]" * 5000 + "\n", "deep"),
    recipe("5,000 braces in each other", "data: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n", "deep"),
    recipe("an impossible date", "run: {seed: 2024-02-31}\n", "line 1"),
    recipe("no number where a tag says one", "run: {seed: !!int abc}\n", "line 1"),
    recipe("a tag that makes an object", "run: {seed: !!python/object/apply:os.system [true]}\n", "line 1"),
    recipe("an anchor in itself", "data: &a {phantom: *a}\n", "itself"),
    recipe("an anchor bomb", bomb(), "too"),
    recipe("a number of 5,000 digits", f"run: {{seed: {'1' * 5000}}}\n", "line 1"),
    recipe("a number in base 60 of 50,000 places", "run: {seed: 1" + ":1" * 50_000 + "}\n"),
    recipe("a preset without a name", "presets: {1: {run: {seed: 1}}}\n", "preset"),
    recipe("a preset that is a word", "presets: {quick: fast}\n", "preset quick"),
    recipe("presets in a list", "presets: [quick]\n", "presets"),
    recipe("true as a number", "sample: {n: true}\n", "sample.n"),
    recipe("a list as a recipe", "- run\n", "list"),
    recipe("a key that stands twice", "run: {seed: 1, seed: 2}\n", "twice"),
    recipe("a key that is a list", "? [a, b]\n: 1\n"),
    recipe("bytes that are no text", b"\xff\xfe\x00\x01\x80run", "UTF-8"),
    recipe("a NUL", b"run: {seed: \x001}\n"),
    recipe("40 MB", "# " + "x" * 40_000_000 + "\n", "large"),
    recipe("not a number", "align: {beta: .nan}\n", "align.beta"),
    recipe("a server's address that holds a key", "judge: {server: 'http://me:SECRET@h/v1'}\n", "api_key_env"),
    given("a recipe that is a folder", "run", "HERE", "--print-recipe", says=("no recipe",)),
    given("a recipe that is a device", "run", "/dev/zero", "--print-recipe", says=("/dev/zero",)),
    given("an unknown key", "run", "chexalign", "--print-recipe", "--align.betta", "1", says=("align.beta",)),
    given("a deep value", "run", "chexalign", "--print-recipe", "--run.seed", "[" * 3000, says=("run.seed",)),
    given("a value of 5,000 digits", "run", "chexalign", "--print-recipe", "--run.seed", "9" * 5000,
          says=("run.seed",)),
    given("true as a number", "run", "chexalign", "--print-recipe", "--sample.n", "true", says=("sample.n",)),
    # ---- grids
    grid("not UTF-8", b"recipe: chexalign\xff\xfe\n", "UTF-8"),
    grid("deep", "[" * 5000, "deep"),
    grid("no cells", "recipe: chexalign\nshare: sft\ncells: {}\nmetrics: {green: GREEN}\n", "cells"),
    grid("no metrics", "recipe: chexalign\nshare: sft\ncells: {a: {}}\nmetrics: {}\n", "metrics"),
    grid("a list", "- 1\n"),
    grid("an unknown key in a cell", "recipe: chexalign\nshare: sft\ncells: {a: {set: {align.betta: 1}}}\n"
         "metrics: {green: GREEN}\n", "align.beta"),
    # ---- tables
    table("200,000 columns", "t.csv", ",".join(f"c{i}" for i in range(200_000)) + "\n", "columns"),
    table("200,000 columns of one name", "t.csv", "c," * 200_000 + "c\n", "columns"),
    table("a file of zeros", "t.csv", b"\0" * 100_000),
    table("an empty file", "t.csv", b"", "empty"),
    table("no Parquet", "t.parquet", b"PAR1" + b"\xff" * 400 + b"PAR1", "Parquet"),
    table("a gzip file cut short", "t.csv.gz", gzip.compress(os.urandom(9000))[:4000], "again"),
    table("no object in any line", "t.jsonl", "[" * 5000 + "\n5\n", "no row"),
    table("a list that does not end", "t.json", "[" * 100_000, "t.json"),
    table("a column that is not there", "t.csv", "id,text\n1,Clear.\n", "findings"),
    table("no pairs' columns", "t.csv", "id,text\n1,Clear.\n", "reference", command="score"),
    table("radiologists' counts in another encoding", "t.csv", b"id,reference,candidate\n\xff\xfe,\x80,a\n",
          command="agree"),
    table("radiologists' counts with a cell of 200,000 characters", "t.csv",
          "id,reference,candidate,significant\n1," + "x" * 200_000 + ",a,x\n", "'x'", command="agree", named=False),
    table("a table of images that is none", "t.csv", "id,images\n", "--data.table.findings", command="inspect",
          named=False),
    # ---- run folders
    spoilt("run.json is a list", "run.json", lambda _: b"[]", "status", "RUN", says=("run.json",)),
    spoilt("run.json of another version", "run.json", lambda _: b'{"format": 99}', "status", "RUN",
           says=("another version",)),
    spoilt("run.json is deep", "run.json", lambda _: b"[" * 100_000, "status", "RUN", says=("run.json",)),
    spoilt("recipe.yaml is a bomb", "recipe.yaml", lambda _: bomb().encode(), "status", "RUN", says=("recipe.yaml",)),
    spoilt("metrics.json is a number", "metrics.json", lambda _: b"5", "results", "RUN", says=("metrics.json",)),
    spoilt("metrics.json is deep", "metrics.json", lambda _: b"[" * 100_000, "results", "RUN", says=("metrics.json",)),
    spoilt("pairs lack a row", "pair/pairs.jsonl", without_a_line, *EXPORT, says=("pairs.jsonl", "as it was written")),
    spoilt("pairs have a row more", "pair/pairs.jsonl", with_a_line, *EXPORT,
           says=("pairs.jsonl", "as it was written")),
    spoilt("pairs are cut in a row", "pair/pairs.jsonl", lambda c: c[:-20], *EXPORT,
           says=("pairs.jsonl", "as it was written")),
    spoilt("the studies lack a row", "studies/train.jsonl", without_a_line, "evaluate", "RUN",
           says=("studies",)),
    given("export to a link that leads nowhere", "export", "RUN", "--to", "ids", "HERE/link", says=("link",)),
    given("export of no run", "export", "HERE", "--to", "ids", "HERE/x", says=("no run",)),
    given("status of no run", "status", "HERE/none", says=("no run",)),
    given("headroom of nothing", "headroom", "HERE/none", says=("none",)),
    given("a preview of no run", "corrupt", "preview", "--run", "HERE/none", says=("none",)),
    given("labels below a file", "findings", "label", "HERE/good.csv", "--out", "HERE/good.csv/x/out.csv",
          says=("good.csv",)),
    given("scores below a file", "judges", "score", "HERE/good.csv", "--out", "HERE/good.csv/x/out.jsonl",
          says=("cannot write",)),
    given("scores where nothing can be made", "judges", "score", "HERE/good.csv", "--out", "/proc/none/out.jsonl",
          says=("cannot write",)),
    given("a run where nothing can be made", "run", "chexalign", "--preset", "tiny", "--out", "/proc/none/run",
          says=("/proc/none",)),
    given("a run below a file", "run", "chexalign", "--preset", "tiny", "--out", "HERE/good.csv/run",
          says=("good.csv",)),
    given("a picture where nothing can be made", "data", "preview", "--count", "1", "--data.phantom.train", "3",
          "--to", "/proc/none/x.png", says=("/proc/none",)),
    given("an unknown judge", "judges", "score", "HERE/good.csv", "--judge", "grean", "--out", "HERE/o.jsonl",
          says=("green",)),
    given("a template that runs a command", "judges", "score", "HERE/good.csv", "--judge", "chat", "--out",
          "HERE/o.jsonl", "--judge.server", "http://127.0.0.1:9/v1", "--judge.model", "m", "--judge.template",
          "HERE/evil.jinja", says=("evil.jinja",)),
    given("a template that divides by zero", "judges", "score", "HERE/good.csv", "--judge", "chat", "--out",
          "HERE/o.jsonl", "--judge.server", "http://127.0.0.1:9/v1", "--judge.model", "m", "--judge.template",
          "HERE/zero.jinja", says=("zero.jinja",)),
    given("a template without end", "judges", "score", "HERE/good.csv", "--judge", "chat", "--out",
          "HERE/o.jsonl", "--judge.server", "http://127.0.0.1:9/v1", "--judge.model", "m", "--judge.template",
          "HERE/endless.jinja", says=("endless.jinja",)),
    # ---- models
    model("text where a section belongs", "config.json", config_with(text_config="large"), "config"),
    model("a list where a section belongs", "config.json", config_with(vision_config=[1]), "config"),
    model("a negative size", "config.json", lambda t: json.dumps(
        {**json.loads(t), "text_config": {**json.loads(t)["text_config"], "hidden_size": -8}})),
    model("an unknown dtype", "config.json", config_with(dtype="float99"), "float99"),
    model("no object", "config.json", "5", "config.json"),
    model("a deep file", "config.json", "[" * 100_000, "config.json"),
    model("generation settings in a list", "generation_config.json", "[1]", "generation_config"),
    *(model(f"a chat template that {what}", "chat_template.jinja", text, "chat template") for what, text in {
        "adds a number to a text": "{{ 'a' + 1 }}",
        "divides by zero": "{{ 1 / 0 }}",
        "overflows": "{{ 2.0 ** 100000 }}",
        "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "reaches for code": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    }.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llava", tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with what the cases name; a run or a model only where a case is about one."""
    name = request.node.callspec.params["case"].name
    (tmp_path / "good.csv").write_text("id,reference,candidate,findings\n1,Clear.,Clear.,Clear.\n", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    shows = "{{ reference }}{{ candidate }}"
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch OWNED') }}"
    (tmp_path / "evil.jinja").write_text(evil.replace("OWNED", str(tmp_path / "owned")) + shows, "utf-8")
    (tmp_path / "zero.jinja").write_text(shows + "{{ 1 / 0 }}", "utf-8")
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}"
    (tmp_path / "endless.jinja").write_text(shows + loops, "utf-8")
    if name.startswith("run:") or "export to a link" in name:
        copy(request.getfixturevalue("whole")("chexalign"), tmp_path / "run")
    if name.startswith("model:"):
        shutil.copytree(request.getfixturevalue("tiny_model"), tmp_path / "model")
    return tmp_path


def test_there_are_sixty() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_is_explained(case: Case, folder: Path, whole: Whole) -> None:
    words = case.words(folder)
    before = everything(folder)
    status, said = told(words)
    assert status == 2, said[-2000:]
    assert said.count("radpref:") == 1, "one message"
    line = " ".join(said.split())
    assert "Traceback" not in line
    assert len(line) < 3000, "a message is read by a person"
    for word in case.says:
        assert word.lower() in line.lower().replace("…", ""), line
    assert "SECRET" not in line
    after = {name: content for name, content in everything(folder).items() if name in before}
    assert after == before, "nothing that was there is lost"


# ------------------------------------------------------------------------------------------ what is quarantined


def test_an_archive_that_grows_in_memory_is_refused(tmp_path: Path) -> None:
    """A header of a tape of gigabytes packs to megabytes: nothing reads it whole."""
    import tracemalloc

    from radpref.data import DataError
    from radpref.data.openi import _archive

    size = 300 << 20
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, size
    path = tmp_path / "reports.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(size >> 20):
            file.write(b"\0" * (1 << 20))
        file.write(b"\0" * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"reports\.tgz"):
            list(_archive(path))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "a\0b.png", "a/" * 3000 + "b.png", "\ud800.png", "..\\" * 300])
def test_an_image_name_that_no_disk_takes_costs_its_row(name: str, tmp_path: Path) -> None:
    row = {"id": "a", "patient": "p", "images": [name], "findings": "Clear lungs."}
    Image.new("L", (64, 64), 90).save(tmp_path / "b.png")
    good = {"id": "b", "patient": "q", "images": ["b.png"], "findings": "Clear lungs."}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(good) + "\n", "utf-8")
    status, said = told(["data", "inspect", tmp_path / "t.jsonl"])
    assert status == 0, said
    assert "x" * 200 not in said


def test_a_picture_that_says_it_is_huge_is_an_image_error(tmp_path: Path) -> None:
    from radpref.images import ImageError
    from radpref.images.read import image_size, pixels_of

    path = tmp_path / "x.png"
    path.write_bytes(png_of(60_000, 60_000))
    with pytest.raises(ImageError, match="too large"):
        image_size(path)
    assert pixels_of(path) in (0, 60_000 * 60_000)


def test_our_own_pair_row_without_its_words_is_no_traceback(tmp_path: Path, whole: Whole) -> None:
    run = copy(whole("pairs"), tmp_path / "run")
    recipe = run.recipe.model_copy(update={})
    source = Path(str(recipe.pair.file))
    line = json.loads(source.read_text("utf-8").splitlines()[0])
    rows = [{key: value for key, value in line.items() if key != gone} | {"id": f"r{gone}"} for gone in line]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    status, said = told(["pair", run.folder, "--pair.file", tmp_path / "pairs.jsonl", "--redo"])
    assert status in (0, 2), said


EVENTS = b'5\n[]\n{"stage": 1, "event": 2}\n{"stage": "sft", "event": "finished"}\n{"stage": "sft", "event": "note"}\n'


def test_lines_of_the_event_log_that_are_none_are_passed_over(tmp_path: Path, whole: Whole) -> None:
    run = copy(whole("chexalign"), tmp_path / "run")
    path = run.path("events.jsonl")
    path.write_bytes(EVENTS + b"[" * 100_000 + b"\n" + path.read_bytes() + b"\xff\xfe torn")
    for command in ("status", "results"):
        status, said = told([command, run.folder])
        assert status == 0, said
    status, said = told(["report", run.folder, "--redo"])
    assert status == 0, said
