"""Tables: what is written survives kills and full disks, and the finished file does not depend on them."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.files import StoreError, content_key, disk_errors, write_atomically
from radpref.records import ImageFile, Quarantined, Study
from radpref.runs.table import Table


def row(id: str, reason: str = "because") -> Quarantined:
    return Quarantined(id=id, stage="test", reason=reason)


def test_rows_come_back_and_the_last_of_an_id_wins(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.jsonl", Quarantined)
    table.append([("k1", row("a")), ("k1", row("b", "é ☃"))])
    table.append([("k2", row("a", "new"))])
    again = Table(tmp_path / "t.jsonl", Quarantined)
    assert again.get("a") == row("a", "new")
    assert again.get("a", "k1") is None
    assert again.get("b", "k1") == row("b", "é ☃")
    assert len(again) == 2


@pytest.mark.parametrize("keep", [1, 7, 30])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.jsonl"
    table = Table(path, Quarantined)
    table.append([("k", row("a"))])
    whole = path.read_bytes()
    table.append([("k", row("b"))])
    path.write_bytes(path.read_bytes()[: len(whole) + keep])
    again = Table(path, Quarantined)
    assert [r.id for r in again] == ["a"]
    again.append([("k", row("b"))])
    assert [r.id for r in Table(path, Quarantined)] == ["a", "b"]


def test_a_broken_line_in_the_middle_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Table(path, Quarantined).append([("k", row("a")), ("k", row("b"))])
    path.write_bytes(path.read_bytes().replace(b'"stage"', b'"stages"', 1))
    with pytest.raises(StoreError, match="line 1"):
        Table(path, Quarantined)


@given(st.permutations(["a", "b", "c", "d"]), st.sets(st.sampled_from(["a", "b", "c", "d"])))
@settings(deadline=None)
def test_the_finished_file_does_not_depend_on_the_order_of_work(order: list[str], twice: set[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        for id in [*order, *sorted(twice)]:
            Table(path, Quarantined).append([("k", row(id))])
        Table(path, Quarantined).append([("k", row("gone"))])
        kept = Table(path, Quarantined).finish(["a", "b", "c", "d"])
        plain = Path(folder) / "plain.jsonl"
        Table(plain, Quarantined).append([("k", row(id)) for id in "abcd"])
        assert path.read_bytes() == plain.read_bytes()
        assert [r.id for r in kept] == ["a", "b", "c", "d"]


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="twice"):
        Table(tmp_path / "t.jsonl", Quarantined).write([row("a"), row("a")])


def test_a_full_disk_is_a_clear_error_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Table(path, Quarantined).append([("k", row("a"))])
    before = path.read_bytes()
    script = f"""
import resource, signal
from pathlib import Path
from radpref.records import Quarantined
from radpref.files import StoreError, write_atomically
from radpref.runs.table import Table
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 100}, {len(before) + 100}))
table = Table(Path({str(path)!r}), Quarantined)
for attempt in (lambda: table.append([("k", Quarantined(id=str(i), stage="s", reason="r" * 50)) for i in range(50)]),
                lambda: write_atomically(Path({str(path)!r}), b"x" * 5000)):
    try:
        attempt()
    except StoreError as error:
        assert "make room" in str(error)
    else:
        raise SystemExit("no error")
"""
    assert hasattr(resource, "RLIMIT_FSIZE")
    assert hasattr(signal, "SIGXFSZ")
    subprocess.run([sys.executable, "-c", script], check=True)
    assert path.read_bytes() == before
    assert [r.id for r in Table(path, Quarantined)] == ["a"]


@pytest.mark.parametrize("rows", [3, 3000])
def test_nothing_of_an_append_that_failed_is_left(rows: int, tmp_path: Path) -> None:
    """Also where more than a buffer was written: what is left of it must not follow when the file is closed."""
    path = tmp_path / "t.jsonl"
    Table(path, Quarantined).append([("k", row("a"))])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50 * rows, hard))
    try:
        with pytest.raises(StoreError, match="make room"):
            Table(path, Quarantined).append([("k", row(str(i), "r" * 50)) for i in range(rows)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before


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


def test_files_below_the_root_are_written_relative_to_it(tmp_path: Path) -> None:
    def studies(root: Path) -> Table[Study]:
        return Table(root / "t.jsonl", Study, root=root)

    inside, outside = tmp_path / "run" / "images" / "é.png", tmp_path / "elsewhere.png"
    images = (ImageFile(path=str(inside), masks={"edema": str(inside)}), ImageFile(path=str(outside)))
    study = Study(id="s", patient="p", images=images, findings="Clear.")
    studies(tmp_path / "run").append([("k", study)])
    assert list(studies(tmp_path / "run")) == [study]
    (tmp_path / "run").rename(tmp_path / "moved")
    (again,) = studies(tmp_path / "moved")
    moved = str(tmp_path / "moved" / "images" / "é.png")
    assert again.images == (ImageFile(path=moved, masks={"edema": moved}), images[1])


def test_atomic_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "f.txt", "one")
    write_atomically(tmp_path / "deep" / "f.txt", "two")
    assert [(p.name, p.read_text()) for p in (tmp_path / "deep").iterdir()] == [("f.txt", "two")]


def test_content_keys_follow_content_alone() -> None:
    assert content_key({"a": 1, "b": (1, 2)}) == content_key({"b": [1, 2], "a": 1})
    assert content_key(row("a")) == content_key(row("a"))
    assert content_key(row("a")) != content_key(row("b"))
    assert content_key("ab", "c") != content_key("a", "bc")
