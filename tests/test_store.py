"""Tables: what is written survives kills and full disks, and the finished file does not depend on them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.files import StoreError, content_key, disk_errors, write_atomically
from radpref.records import ImageFile, Quarantined, Study
from radpref.runs.table import Made, Table

ITEMS = ("a", "b", "c", "d")
ORDER = [(item, "k") for item in ITEMS]


def row(id: str, reason: str = "because") -> Quarantined:
    return Quarantined(id=id, stage="test", reason=reason)


def made(item: str, key: str = "k", *reasons: str) -> Made:
    """Two rows of one input, which say by what key they were made."""
    return Made(item, key, [row(f"{item}/{number}", reason) for number, reason in enumerate(reasons or (key, "é ☃"))])


def at(folder: Path) -> Table[Quarantined]:
    return Table(folder / "t.jsonl", Quarantined)


def ids(table: Table[Quarantined]) -> list[str]:
    return [row.id for row in table]


# ------------------------------------------------------------------------------------------ rows and keys


def test_rows_come_back_in_the_order_of_their_inputs(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made("b"), made("a")])
    at(tmp_path).append(1, [Made("c", "k", [])])
    merged = at(tmp_path).merge([("a", "k"), ("b", "k"), ("c", "k")])
    assert (merged.items, merged.rows, merged.refused) == (3, 4, [])
    assert list(at(tmp_path)) == [row("a/0", "k"), row("a/1", "é ☃"), row("b/0", "k"), row("b/1", "é ☃")]
    assert len(at(tmp_path)) == 4
    first = json.loads((tmp_path / "t.jsonl").read_text("utf-8").splitlines()[0])
    assert first == {"id": "a/0", "stage": "test", "reason": "k"}, "a plain row a line, for whoever reads it"


def test_what_was_made_last_of_an_input_counts(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made("a", "k", "first")])
    at(tmp_path).append(0, [made("b", "k", "other"), made("a", "k", "second")])
    at(tmp_path).merge([("a", "k"), ("b", "k")])
    assert [row.reason for row in at(tmp_path)] == ["second", "other"]


def test_another_key_is_another_result(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made("a", "old")])
    known = at(tmp_path).known()
    assert ("a", "old") in known
    assert ("a", "new") not in known
    assert ("b", "old") not in known
    with pytest.raises(StoreError, match="lacks what was to be made of 1"):
        at(tmp_path).merge([("a", "new")])
    assert not (tmp_path / "t.jsonl").exists(), "what lacks something does not look finished"


def test_a_finished_table_is_taken_up_again_where_keys_are_the_same(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made(item) for item in ITEMS])
    at(tmp_path).merge(ORDER)
    at(tmp_path).tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.jsonl", "t.keys"]
    before = (tmp_path / "t.jsonl").read_bytes()
    at(tmp_path).reopen()
    assert not (tmp_path / "t.jsonl").exists(), "a table that is being made anew does not look finished"
    wanted = [("a", "k"), ("b", "changed"), ("c", "k"), ("d", "k")]
    known = at(tmp_path).known()
    assert [entry in known for entry in wanted] == [True, False, True, True]
    at(tmp_path).append(0, [made("b", "changed")])
    at(tmp_path).merge(wanted)
    assert [row.reason for row in at(tmp_path) if row.id.endswith("/0")] == ["k", "changed", "k", "k"]
    changed = (tmp_path / "t.jsonl").read_bytes()
    assert changed != before
    at(tmp_path).tidy()
    at(tmp_path).reopen()
    assert [entry in at(tmp_path).known() for entry in (*wanted, ("b", "k"))] == [True, True, True, True, False]
    at(tmp_path).merge(wanted)
    assert (tmp_path / "t.jsonl").read_bytes() == changed, "from the old table alone"


def test_a_finished_table_that_was_changed_is_not_taken_up(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made(item) for item in ITEMS])
    at(tmp_path).merge(ORDER)
    at(tmp_path).tidy()
    assert at(tmp_path).merged()
    path = tmp_path / "t.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"k"', b'"x"', 1))
    assert not at(tmp_path).merged()
    at(tmp_path).reopen()
    assert not any(entry in at(tmp_path).known() for entry in ORDER)


def test_a_row_may_be_made_once_more(tmp_path: Path) -> None:
    at(tmp_path).append(0, [made("a", "k", "timeout"), made("b", "k", "good")])
    known = at(tmp_path).known(lambda row: row.reason == "timeout")
    assert (("a", "k") in known, ("b", "k") in known) == (False, True)
    at(tmp_path).append(0, [made("a", "k", "healed")])
    assert at(tmp_path).merge([("a", "k"), ("b", "k")]).rows == 2
    assert [row.reason for row in at(tmp_path)] == ["healed", "good"]


def test_most_keeps_the_first_rows_and_what_was_refused_is_told(tmp_path: Path) -> None:
    bad = Quarantined(id="b", stage="test", reason="image missing")
    at(tmp_path).append(0, [made("a"), Made("b", "k", [], [bad]), made("c")])
    merged = at(tmp_path).merge([("a", "k"), ("b", "k"), ("c", "k")], most=3)
    assert (merged.items, merged.rows, merged.refused) == (3, 3, [bad])
    assert ids(at(tmp_path)) == ["a/0", "a/1", "c/0"]
    at(tmp_path).tidy()
    at(tmp_path).reopen()
    assert at(tmp_path).merge([("b", "k")]).refused == [bad], "kept with the keys of a finished table"


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    at(tmp_path).write([row("before")])
    with pytest.raises(StoreError, match="twice"):
        at(tmp_path).write([row("a"), row("b"), row("a")])
    assert ids(at(tmp_path)) == ["before"]
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_digests_follow_content(tmp_path: Path) -> None:
    table = at(tmp_path)
    none = table.digest()
    table.write([])
    assert table.digest() == none, "no file, no rows"
    assert (table.write([row("a")]), list(table)) == (1, [row("a")])
    one = table.digest()
    table.write([row("b")])
    assert len({none, one, table.digest()}) == 3
    table.write([row("a")])
    assert table.digest() == one


# ------------------------------------------------------------------------------------------ kills


@pytest.mark.parametrize("keep", [1, 7, 30])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, keep: int) -> None:
    at(tmp_path).append(0, [made("a")])
    part = at(tmp_path).part(0)
    whole = part.read_bytes()
    at(tmp_path).append(0, [made("b")])
    part.write_bytes(part.read_bytes()[: len(whole) + keep])
    at(tmp_path).reopen()
    assert part.read_bytes() == whole
    known = at(tmp_path).known()
    assert (("a", "k") in known, ("b", "k") in known) == (True, False)
    at(tmp_path).append(0, [made("b")])
    at(tmp_path).merge([("a", "k"), ("b", "k")])
    assert ids(at(tmp_path)) == ["a/0", "a/1", "b/0", "b/1"]


def test_a_broken_line_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    table = at(tmp_path)
    table.append(0, [made("a"), made("b")])
    table.merge([("a", "k"), ("b", "k")])
    table.path.write_bytes(table.path.read_bytes().replace(b'"stage"', b'"stages"', 1))
    with pytest.raises(StoreError, match="line 1"):
        list(table)
    table.part(0).write_bytes(table.part(0).read_bytes().replace(b'"item"', b"item", 1))
    before = table.part(0).read_bytes()
    table.reopen()
    with pytest.raises(StoreError, match="byte 0"):
        table.known()
    assert table.part(0).read_bytes() == before


@given(
    st.permutations([*ITEMS, *ITEMS]),
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.integers(0, 7),
    st.integers(0, 60),
    st.booleans(),
)
@settings(deadline=None)
def test_the_finished_file_does_not_depend_on_the_work(
    order: list[str], ranks: list[int], kill: int, torn: int, reopened: bool
) -> None:
    """Neither on its order, nor on who did it, how often, nor on a kill in the midst of a line."""
    with tempfile.TemporaryDirectory() as folder:
        table = at(Path(folder))
        for number, (item, rank) in enumerate(zip(order, ranks, strict=True)):
            table.append(rank, [made(item), made(item, "another key")])
            if number == kill:
                part = table.part(rank)
                part.write_bytes(part.read_bytes()[: -1 - torn % (len(part.read_bytes().splitlines()[-1]))])
                table.reopen()
        table.append(0, [made(item) for item in ITEMS if (item, "k") not in table.known()])
        table.append(1, [made("gone")])
        if reopened:
            table.merge(ORDER)  # and killed before the stage was marked as finished
            table.reopen()
        table.merge(ORDER)
        plain = Table(Path(folder) / "plain.jsonl", Quarantined)
        plain.append(0, [made(item) for item in ITEMS])
        plain.merge(ORDER)
        assert table.path.read_bytes() == plain.path.read_bytes()
        assert table.keys.read_bytes() == plain.keys.read_bytes()
        assert ids(table) == [f"{item}/{number}" for item in ITEMS for number in (0, 1)]


@pytest.mark.parametrize("lost", ["t.jsonl", "t.keys"])
def test_a_kill_while_a_table_takes_its_place_loses_nothing(lost: str, tmp_path: Path) -> None:
    """Table and keys become files one after the other; with one of them alone, the parts still hold everything."""
    at(tmp_path).append(0, [made(item) for item in ITEMS])
    at(tmp_path).merge(ORDER)
    whole = (tmp_path / "t.jsonl").read_bytes()
    (tmp_path / lost).unlink()
    at(tmp_path).reopen()
    at(tmp_path).merge(ORDER)
    assert (tmp_path / "t.jsonl").read_bytes() == whole


# ------------------------------------------------------------------------------------------ full disks


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: what a full disk is to a program, within this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


MANY = [(f"i{number}", "k") for number in range(50)]


def test_a_full_disk_is_a_clear_error_and_what_was_there_stays(tmp_path: Path) -> None:
    table = at(tmp_path)
    table.append(0, [made("a"), *(made(item, "k", "r" * 50) for item, _ in MANY)])
    table.merge([("a", "k")])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    attempts: list[Callable[[], object]] = [
        lambda: table.append(0, [made(item, "k", "r" * 50) for item, _ in MANY]),
        lambda: table.append(1, [made(item, "k", "r" * 50) for item, _ in MANY]),
        lambda: table.write([row(item, "r" * 50) for item, _ in MANY]),
        lambda: table.merge(MANY),
        lambda: write_atomically(table.path, b"x" * 5000),
    ]
    for attempt in attempts:
        with files_up_to(2000), pytest.raises(StoreError, match="make room"):
            attempt()
    files[table.part(1)] = b""
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert ids(table) == ["a/0", "a/1"]


def test_a_full_disk_of_another_process(tmp_path: Path) -> None:
    """The same where the limit holds for a whole process, from its start."""
    table = at(tmp_path)
    table.append(0, [made("a")])
    before = table.part(0).read_bytes()
    script = f"""
import resource, signal
from pathlib import Path
from radpref.records import Quarantined
from radpref.files import StoreError
from radpref.runs.table import Made, Table
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 100}, {len(before) + 100}))
table = Table(Path({str(table.path)!r}), Quarantined)
try:
    table.append(0, [Made(str(i), "k", [Quarantined(id=str(i), stage="s", reason="r" * 50)]) for i in range(50)])
except StoreError as error:
    assert "make room" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert table.part(0).read_bytes() == before


@pytest.mark.parametrize("rows", [3, 3000])
def test_nothing_of_an_append_that_failed_is_left(rows: int, tmp_path: Path) -> None:
    """Also where more than a buffer was written: what is left of it must not follow when the file is closed."""
    table = at(tmp_path)
    table.append(0, [made("a")])
    before = table.part(0).read_bytes()
    with files_up_to(len(before) + 50 * rows), pytest.raises(StoreError, match="make room"):
        table.append(0, [made(str(i), "k", "r" * 50) for i in range(rows)])
    assert table.part(0).read_bytes() == before


def test_what_libraries_raise_on_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {"w": torch.zeros(1000)}
    for write in (
        lambda: Path("/dev/full").write_text("x"),
        lambda: save_file(weights, tmp_path / "no-such-folder" / "w.safetensors"),
        lambda: torch.save(weights, "/dev/full"),
    ):
        with pytest.raises(StoreError, match="make room"), disk_errors(tmp_path):
            write()
    with pytest.raises(ValueError, match="another"), disk_errors(tmp_path):
        raise ValueError("another")


# ------------------------------------------------------------------------------------------ paths and rights


@pytest.mark.parametrize("way", ["write", "merge"])
def test_files_below_the_root_are_written_relative_to_it(way: str, tmp_path: Path) -> None:
    def studies(root: Path) -> Table[Study]:
        return Table(root / "t.jsonl", Study, root=root)

    inside, outside = tmp_path / "run" / "images" / "é.png", tmp_path / "elsewhere.png"
    images = (ImageFile(path=str(inside), masks={"edema": str(inside)}), ImageFile(path=str(outside)))
    study = Study(id="s", patient="p", images=images, findings="Clear.")
    table = studies(tmp_path / "run")
    if way == "write":
        table.write([study])
    else:
        table.append(0, [Made("s", "k", [study])])
        table.merge([("s", "k")])
    assert list(studies(tmp_path / "run")) == [study]
    (tmp_path / "run").rename(tmp_path / "moved")
    (again,) = studies(tmp_path / "moved")
    moved = str(tmp_path / "moved" / "images" / "é.png")
    assert again.images == (ImageFile(path=moved, masks={"edema": moved}), images[1])


@pytest.mark.parametrize(("umask", "rights"), [(0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_rights_that_umask_leaves(umask: int, rights: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        table = at(tmp_path)
        table.append(0, [made("a")])
        table.merge([("a", "k")])
        Table(tmp_path / "w.jsonl", Quarantined).write([row("a")])
        write_atomically(tmp_path / "f.txt", "one")
        table.reopen()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("t.part0", "t.partold", "w.jsonl", "f.txt"), rights)


def test_atomic_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "f.txt", "one")
    write_atomically(tmp_path / "deep" / "f.txt", "two")
    assert [(p.name, p.read_text()) for p in (tmp_path / "deep").iterdir()] == [("f.txt", "two")]


def test_content_keys_follow_content_alone() -> None:
    assert content_key({"a": 1, "b": (1, 2)}) == content_key({"b": [1, 2], "a": 1})
    assert content_key(row("a")) == content_key(row("a"))
    assert content_key(row("a")) != content_key(row("b"))
    assert content_key("ab", "c") != content_key("a", "bc")
