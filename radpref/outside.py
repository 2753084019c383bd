"""The boundary: whatever comes from outside is read through here.

Recipes, grids, configs, tables, archives, images, templates, servers' answers and run folders' own files may have been
made by anyone, or cut short by a failing disk. What is here bounds their size, depth and time before any work, and
turns every exception that a parser raises into an error with the file and the place. ``tests/test_outside.py`` lists
every reader of the package; one that is not in that list fails it.
"""

from __future__ import annotations

import io
import json
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from radpref.errors import RadprefError

MOST_TEXT = 8 << 20
"""Bytes of a file that is read whole as text: a recipe, a grid, a config, a template."""
MOST_DEPTH = 64
"""Brackets within brackets: nothing that people write is deeper, and deeper data exhaust the stack of who walks it."""
MOST_NODES = 200_000
"""Values of a YAML file once its anchors are written out."""
MOST_WORD = 20_000
"""Characters of one plain word of YAML, which may be read as a number."""
MOST_READ = 8 << 20
"""Bytes of one piece of an archive: a header that asks for more is no header."""
MOST_RENDERED = 4 << 20
"""Characters that a template may write."""
RENDER_SECONDS = 10.0
"""How long it may take to write them."""
_LONGEST_REASON = 300


class OutsideError(RadprefError, ValueError):
    """Something from outside that cannot be read; the message names it, says why not, and what to do."""


class MemoryShortError(RadprefError):
    """The memory does not suffice; the message says for what, and which settings to lower."""


# ------------------------------------------------------------------------------------------ errors


@contextmanager
def guarded(
    what: object, remedy: str = "Mend it, or give another one.", error: type[RadprefError] = OutsideError
) -> Iterator[None]:
    """Turn whatever a parser raises on a broken file, recursion and memory included, into ``error``.

    Args:
        what: the file, as the user knows it; and the place in it, where the parser does not tell.
        remedy: a sentence that says what to do.
    """
    try:
        yield
    except RadprefError:  # explained already
        raise
    except RecursionError as problem:
        raise error(f"{what} cannot be read: it is nested too deep. {remedy}") from problem
    except MemoryError as problem:
        raise error(f"{what} cannot be read: it is too large for this machine's memory. {remedy}") from problem
    except Exception as problem:
        raise error(f"{what} cannot be read: {reason_of(problem)}. {remedy}") from problem


def reason_of(problem: BaseException) -> str:
    """One line about an exception, without control characters, of at most 300 characters."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    line = " ".join(str(problem).split()) or type(problem).__name__
    kind = (
        "" if isinstance(problem, ValueError | yaml.YAMLError | jinja2.TemplateError) else f"{type(problem).__name__}: "
    )
    return shown(brief(kind + line).rstrip("."))


def brief(text: str, most: int = _LONGEST_REASON) -> str:
    """A text that fits into a message."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def value_shown(value: object) -> str:
    """A value as it stands in a message: its ``repr``, cut short, without control characters and without keys."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of 5,000 digits has none
        text = f"a {type(value).__name__} that is too large to be shown"
    return shown(without_key(brief(text, 120)))


_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "std::bad_alloc", "Unable to allocate")
"""Words of the allocators of torch, numpy and the C++ library."""


def is_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that there is not enough memory."""
    words = str(problem).lower()
    return isinstance(problem, MemoryError) or any(word.lower() in words for word in _MEMORY)


@contextmanager
def enough_memory(what: str, lower: str) -> Iterator[None]:
    """Turn an allocator's error into one that says what to lower.

    Raises:
        MemoryShortError: instead of MemoryError, of torch's OutOfMemoryError, and of a RuntimeError of an allocator.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_of_memory(problem):
            raise
        raise MemoryShortError(
            f"the memory does not suffice for {what} ({reason_of(problem)[:120]}). Lower {lower}, or use a machine "
            "with more. Everything finished before is kept."
        ) from problem


# ------------------------------------------------------------------------------------------ text


def is_there(path: str | Path) -> bool:
    """Whether something lies at a path; False also for a name that nothing can have (too long, with a NUL)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def read_text(path: Path, error: type[RadprefError] = OutsideError, *, most: int = MOST_TEXT) -> str:
    """The text of a small file in UTF-8.

    Raises:
        error: it is no regular file (a device has no end), larger than ``most`` bytes, or no UTF-8.
    """
    with guarded(path, error=error):
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(f"{path} cannot be read: it is no file but a folder, a device or a pipe. Give a file.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    return text_of(content, path, error, most=most)


def text_of(content: bytes, what: object, error: type[RadprefError] = OutsideError, *, most: int = MOST_TEXT) -> str:
    """Bytes as text in UTF-8. Raises ``error`` for more than ``most`` of them, and for what is no UTF-8."""
    if len(content) > most:
        raise error(f"{what} cannot be read: it is too large, more than {most >> 20} MB. It is another kind of file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise error(f"{what} cannot be read: line {line} is no UTF-8. Save it as UTF-8.") from None


# ------------------------------------------------------------------------------------------ JSON and YAML


def parse_json(
    text: str | bytes, what: object, remedy: str = "Write it again.", error: type[RadprefError] = OutsideError
) -> Any:
    """A JSON value of at most ``MOST_DEPTH`` brackets in each other. Raises ``error`` with the place."""
    with guarded(what, remedy, error):
        value = json.loads(text)
    if _deeper(value, MOST_DEPTH):
        raise error(f"{what} cannot be read: it is nested too deep, more than {MOST_DEPTH} brackets. {remedy}")
    return value


def read_json(path: Path, remedy: str = "Write it again.", error: type[RadprefError] = OutsideError) -> Any:
    """A JSON file that is read whole. Raises ``error``, as `read_text` and `parse_json`."""
    return parse_json(read_text(path, error, most=MOST_TEXT << 3), path, remedy, error)


def json_object(
    text: str | bytes, what: object, remedy: str = "Write it again.", error: type[RadprefError] = OutsideError
) -> dict[str, Any]:
    """A JSON object. Raises ``error`` for any other value too."""
    value = parse_json(text, what, remedy, error)
    if not isinstance(value, dict):
        raise error(f"{what} cannot be read: it is no JSON object but a {type(value).__name__}. {remedy}")
    return value


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def parse_yaml(text: str, what: object, error: type[RadprefError] = OutsideError) -> Any:
    """What a YAML text holds: plain values, no objects.

    Depth, size and what its anchors come to are measured before anything is made of it; a key that stands twice is an
    error, where YAML drops the first.

    Raises:
        error: with the line.
    """
    with guarded(what, error=error):
        if len(text) > MOST_TEXT:
            raise error(f"{what} cannot be read: it is too large, more than {MOST_TEXT >> 20} MB.")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MOST_DEPTH:
                    raise _refusal(f"nested too deep, more than {MOST_DEPTH} brackets", event)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > MOST_WORD:
                raise _refusal(f"a word of more than {MOST_WORD:,} characters", event)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, loader, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()


_MERGING = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")


def _refusal(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def _measure(node: yaml.Node, loader: yaml.SafeLoader, sizes: dict[int, int | None]) -> int:
    """How many values a node comes to, anchors written out. Raises yaml.YAMLError with the line of what is wrong."""
    known = sizes.get(id(node), 0)
    if known is None:
        raise _refusal("an anchor stands in itself", node)
    if known:
        return known
    sizes[id(node)] = None
    size = 1
    if isinstance(node, yaml.ScalarNode):
        try:
            if node.tag in _MERGING:  # no value of its own
                return 1
            loader.construct_object(node)
        except ValueError as problem:  # no such date; a number of 5,000 digits
            raise _refusal(brief(str(problem)), node) from None
    elif isinstance(node, yaml.MappingNode):
        names: set[tuple[str, str]] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (name := (key.tag, key.value)) in names:
                    raise _refusal(f"the key `{brief(key.value, 40)}` stands twice", key)
                names.add(name)
            size += _measure(key, loader, sizes) + _measure(value, loader, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_measure(value, loader, sizes) for value in node.value)
    if size > MOST_NODES:
        raise _refusal(f"too many values, more than {MOST_NODES:,} with its anchors written out", node)
    sizes[id(node)] = size
    return size


# ------------------------------------------------------------------------------------------ templates


def _times(one: Any, other: Any) -> Any:
    for text, count in ((one, other), (other, one)):
        if isinstance(text, str | list | tuple) and isinstance(count, int) and len(text) * count > MOST_RENDERED:
            raise OverflowError("a text that is repeated too often")
    return one * other


def _power(one: Any, other: Any) -> Any:
    if abs(other) > _MOST_POWER:
        raise OverflowError("a power that is too large")
    return one**other


_MOST_POWER = 1000
_BOUNDED: dict[str, Any] = {"*": _times, "**": _power}
"""What of a template's arithmetic can fill the memory in one step."""


def template(text: str, what: object, error: type[RadprefError] = OutsideError) -> jinja2.Template:
    """A Jinja2 template that may come from anyone: it can reach nothing but the values that it is given.

    Raises:
        error: it is no template.
    """
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)  # a prompt: no page
    environment.intercepted_binops = frozenset(_BOUNDED)
    environment.binop_table |= _BOUNDED
    with guarded(what, error=error):
        return environment.from_string(text)


def rendered(
    made: jinja2.Template, values: Mapping[str, Any], what: object, error: type[RadprefError] = OutsideError
) -> str:
    """What a template writes. Raises ``error`` where it fails, writes without end, or takes longer than 10 s."""
    parts: list[str] = []
    size, end = 0, time.monotonic() + RENDER_SECONDS
    with guarded(what, error=error):
        for part in made.generate(values):
            size += len(part)
            parts.append(part)
            if size > MOST_RENDERED or time.monotonic() > end:
                raise error(f"{what} cannot be read: it writes without end. Take out the loop.")
    return "".join(parts)


# ------------------------------------------------------------------------------------------ archives


class Pieces(io.RawIOBase):
    """A file of which nobody reads more than ``MOST_READ`` bytes at once: what a broken header asks for is refused.

    tarfile reads headers of the size that they give themselves; of a packed archive that is gigabytes out of nothing.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """At most ``MOST_READ`` bytes. Raises ValueError for more."""
        if size is None or size < 0 or size > MOST_READ:
            raise ValueError(f"a piece of more than {MOST_READ >> 20} MB")
        return self._file.read(size)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return self._file.seekable()

    def readable(self) -> bool:
        return True


# ------------------------------------------------------------------------------------------ what is shown


_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, which a terminal obeys, and marks of direction, which make a line read as another."""
_KEY = re.compile(r"(//)[^/@\s'\"]+@")
_KEY_IN_QUERY = re.compile(r"([?&][\w-]*(?:key|token|secret|password|sig)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)


def shown(text: str) -> str:
    """A text that a page or a terminal shows as it is: what it would obey stands as U+FFFD."""
    return _UNSHOWN.sub("\ufffd", text)


def without_key(text: str) -> str:
    """A text in which addresses do not hold a user or a key."""
    return _KEY_IN_QUERY.sub(r"\1***", _KEY.sub(r"\1***@", text))


def holds_key(address: str) -> bool:
    """Whether an address has a place where keys are put: a user before the host, or a query behind it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "@" in address
    return "@" in parts.netloc or bool(parts.query)
