"""Files that survive a kill or a full disk, and keys of content: what every room that writes uses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from radpref import outside
from radpref.errors import RadprefError

UNFINISHED = ".unfinished"
"""How the name of a file ends while it is written; one that is left over was being written when the process died."""


class StoreError(RadprefError):
    """A table that cannot be read or written; the message names the file and what to do."""


def content_key(*parts: Any) -> str:
    """A short hash of anything made of JSON values, records, recipe sections and paths' contents.

    Equal content gives an equal key on every machine; a change anywhere in it gives another.
    """
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(json.dumps(_plain(part), sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that has no end: the process died, or the disk was full, while it was written."""
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
    if end < size:
        os.truncate(path, end)


def append_lines(path: Path, lines: bytes) -> int:
    """Add whole lines and force them to disk, or leave the file as it was; returns where they begin."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # a buffer would be written once more when the file is closed
            start = file.tell()
            try:
                left = memoryview(lines)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, start)
                raise
    except OSError as error:
        raise StoreError(_write_problem(path, error)) from error
    return start


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` in one step when the block ends, and not at all if it fails.

    Raises:
        StoreError: the disk is full or not writable; the old file is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_unfinished(path.name))
        try:
            with temporary.open("xb") as file:  # made as any file of the user is: with the rights that umask leaves
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(_write_problem(path, error)) from error


def _unfinished(name: str) -> str:
    """A name beside ``name`` for what is being written: hidden, of this process and machine, and nobody else's."""
    return f".{name[:100]}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}"


def _machine() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


_LEFT = re.compile(rf"\..*\.([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}{re.escape(UNFINISHED)}", re.DOTALL)


def sweep_litter(folder: Path, *, below: bool = False, all_of_it: bool = False) -> int:
    """Remove what killed processes were writing in a folder; returns how many files and folders that were.

    What another machine writes, or a process that lives, is left alone.

    Args:
        below: look in all folders below as well.
        all_of_it: whoever's it is: nobody else can be writing there, as its lock is held.
    """
    gone = 0
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if not name.endswith(UNFINISHED) or (left := _LEFT.fullmatch(name)) is None:
                continue
            if all_of_it or (left[1] == _machine() and not _lives(int(left[2]))):
                path = Path(place, name)
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                    gone += 1
        if not below:
            break
    return gone


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file's content in one step: readers see the old or the new, never half of it.

    Raises:
        StoreError: the disk is full or not writable; the old file is untouched.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to that becomes ``folder`` in one step when the block ends, and not at all if it fails.

    It is made beside it under a name that nothing has: what is not ours is never removed.

    Raises:
        StoreError: there is something at ``folder`` that is not an empty folder; or the disk is full or not writable.
    """
    if folder.is_symlink():
        raise StoreError(f"{folder} is a link; give the folder that it leads to, or another name.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(f"{folder} is there already; give a new or an empty folder.")
    folder = folder.absolute()
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep_litter(folder.parent)
        home = folder.with_name(_unfinished(folder.name))
        try:
            home.mkdir(mode=0o700)
            part = home / "part"
            part.mkdir()  # with the rights that umask leaves, which are not those of what is being written
            yield part
            part.replace(folder)
        finally:
            shutil.rmtree(home, ignore_errors=True)


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        StoreError: it was changed by hand into something that is no JSON.
    """
    remedy = "It was changed by hand; move the file away and give the command that writes it again."
    return outside.read_json(path, remedy, StoreError)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn what libraries raise when they cannot read or write files into an error that says what to do.

    A full disk comes as an OSError, from safetensors as an error of its own, from torch.save as a RuntimeError. A
    file is named only where it lies in ``place``: another one may be an image, whose name may name a patient.

    Raises:
        StoreError: instead of those.
    """
    try:
        yield
    except (RadprefError, BrokenPipeError):  # explained already; the reader of our output has gone
        raise
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        named = isinstance(error.filename, str) and Path(error.filename).absolute().is_relative_to(place.absolute())
        where = Path(error.filename) if named else place
        raise StoreError(
            _write_problem(where, error, "read or write" if named else "read or write files for")
        ) from error
    except Exception as error:
        words = str(error)
        if "PytorchStreamReader" in words or "while deserializing" in words:
            raise StoreError(
                f"a file in {place} is broken ({words.splitlines()[0]}); it was changed or cut short. Move {place} "
                "away and give the same command again."
            ) from error
        if type(error).__name__ == "SafetensorError" or "inline_container" in words:  # torch's archive writer
            raise StoreError(_write_problem(place, error, "write files in")) from error
        raise


def _write_problem(path: Path, error: Exception, what: str = "write") -> str:
    full = getattr(error, "errno", errno.ENOSPC) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "make room or choose another run folder" if full else "set that right"
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return (
        f"cannot {what} {path}: {reason}. Everything finished before is kept; {remedy}, then give the same command "
        "again."
    )
