"""A cell of images, whatever its form: paths in any usual writing (``a.png;b.png``, ``a.png, b.png``, ``a.png|b.png``,
``a.png b.png``, a list, a list as JSON, Python or numpy write it), names without folder or suffix, Hugging Face images.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radpref.data.source import RowError, inside
from radpref.records import ImageFile


def images_of(
    cell: Any,
    roots: Sequence[Path],
    store: Path,
    named: Callable[[str], str | None] | None = None,
    elsewhere: Callable[[str], str] | None = None,
) -> Iterator[ImageFile]:
    """The images of a cell.

    Paths are relative to ``roots[0]``; absolute ones may lie in any of ``roots`` (resolved folders). Images that the
    cell holds itself are kept unchanged in ``store``, named by the hash of their bytes. ``named`` is asked where a
    word without folders is no path: it gives the one image of that name under the root. ``elsewhere`` is asked for the
    image of an absolute path that another machine wrote. A folder stands for the images in it.
    Raises RowError for what is no image, and for a path that leads out of the roots.
    """
    for part in _parts(cell, roots[0]):
        if isinstance(part, Mapping):  # a Hugging Face image: {"bytes": ..., "path": ...}
            content, path = part.get("bytes"), part.get("path")
            if isinstance(content, bytes) and content:
                yield ImageFile(path=str(_keep(content, store)))
            elif isinstance(path, str):
                yield ImageFile(path=str(_inside_any(roots, path)))
            else:
                raise RowError("no images: an image without bytes and path")
        elif isinstance(part, bytes):
            yield ImageFile(path=str(_keep(part, store)))
        elif isinstance(part, str):
            if elsewhere is not None and is_foreign(part, roots):
                yield ImageFile(path=elsewhere(part))
                continue
            path = _inside_any(roots, part)
            if not exists(path):
                if path != roots[0] and _is_folder(path):
                    yield from _in_folder(path, roots[0])
                    continue
                if "/" not in part and "\\" not in part:
                    path = Path((named(part) if named else None) or path)
            yield ImageFile(path=str(path))
        elif part is not None:
            raise RowError(
                f"image is neither path nor image: found {type(part).__name__}; check which column holds the images"
            )


_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]|\\\\|/")


def is_foreign(given: str, roots: Sequence[Path]) -> bool:
    """Whether a path is absolute, as Windows or Linux writes it, and leads to none of these folders."""
    given = given.strip()
    if not _ABSOLUTE.match(given):
        return False
    try:
        return not any(Path(given).resolve().is_relative_to(root) for root in roots)
    except (OSError, RuntimeError, ValueError):
        return False  # no path at all, which reading it says


def tails(given: str) -> list[str]:
    """The ends of an absolute path, the longest first: of ``D:\\a\\b.png`` ``a/b.png`` and ``b.png``.

    Empty for a path that goes up, whose end would be anybody's.
    """
    parts = [part for part in re.split(r"[\\/]+", re.sub(r"^[A-Za-z]:", "", given.strip())) if part]
    return [] if ".." in parts else ["/".join(parts[start:]) for start in range(len(parts))]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _in_folder(folder: Path, root: Path) -> Iterator[ImageFile]:
    """The images of a folder, by name. Raises RowError: none, or more than a study has."""
    names = sorted(path.name for path in folder.iterdir() if _SUFFIX.search(path.name))
    if not 0 < len(names) <= MAX_IN_FOLDER:
        raise RowError(
            f"image is a folder: it holds {len(names)} files with the suffix of an image, and a study has 1 to "
            f"{MAX_IN_FOLDER}; name the images in the row"
        )
    for name in names:
        yield ImageFile(path=str(inside(root, str(folder / name))))


def exists(path: Path) -> bool:
    """Whether there is such a file; False for what is no name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def words_of(cell: Any) -> list[str]:
    """The words of a cell that may hold several: a list, or words between ``;``, ``|``, ``,`` or line ends."""
    if isinstance(cell, list | tuple):
        return [str(part) for part in cell]
    text = "" if cell is None else str(cell).strip()
    listed = _listed(text)
    if listed is not None:
        return [str(part) for part in listed]
    mark = next((mark for mark in _MARKS if mark in text), None)
    return [part.strip() for part in text.split(mark)] if mark else [text]


_MARKS = (";", "|", "\n", ",")
_SUFFIX = re.compile(r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|webp)$", re.IGNORECASE)
MAX_IN_FOLDER = 32
EMPTY = frozenset({"", "nan", "null", "none", "n/a", "<na>", "na", "nat"})
"""What an export writes where there is nothing, in lower case."""


def _parts(cell: Any, root: Path) -> list[Any]:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, list | tuple):
        return list(cell)
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.lower() in EMPTY:
        return []
    listed = _listed(text)
    if listed is not None:
        return listed
    if ";" not in text and "|" not in text and "\n" not in text and exists(root / text.replace("\\", "/")):
        return [text]  # a name with a comma or a blank in it
    for mark in (*_MARKS, None):
        parts = [part for part in (part.strip(" \t\"'") for part in text.split(mark)) if part]
        if len(parts) > 1 and (mark in (";", "|", "\n") or all(_SUFFIX.search(part) for part in parts)):
            return parts
    return [text]


def _listed(text: str) -> list[Any] | None:
    """A list that was written as text: JSON, Python, or as numpy prints it, without commas."""
    if not text.startswith(("[", "(", "{'", '{"')):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            parts = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(parts, list | tuple | set) and not (len(parts) == 1 and text.count("'") > 2 and "," not in text):
            return list(parts)
        if isinstance(parts, dict):
            return [parts]
    quoted = [first or second for first, second in re.findall(r"'([^']*)'|\"([^\"]*)\"", text)]
    if text.startswith("[") and text.endswith("]") and quoted:
        return quoted
    if text.startswith("["):
        raise RowError("images not readable: the cell starts like a list and is none")
    return None


def _inside_any(roots: Sequence[Path], given: str) -> Path:
    for root in roots[1:]:
        if Path(given).is_absolute() and Path(given).resolve().is_relative_to(root):
            return Path(given).resolve()
    return inside(roots[0], given)


def _keep(content: bytes, store: Path) -> Path:
    """The image's bytes as a file named by their hash; written once, whole or not at all."""
    name = hashlib.blake2b(content, digest_size=16).hexdigest()
    suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg" if content.startswith(b"\xff\xd8") else ".img"
    path = (store / name[:2] / f"{name}{suffix}").resolve()
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return path
