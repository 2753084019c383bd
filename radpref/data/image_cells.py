"""A cell of images, whatever its form: one path, a list of paths, a list written as text, Hugging Face images."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radpref.data.source import RowError, inside
from radpref.records import ImageFile


def images_of(cell: Any, roots: Sequence[Path], store: Path) -> Iterator[ImageFile]:
    """The images of a cell.

    Paths are relative to ``roots[0]``; absolute ones may lie in any of ``roots`` (resolved folders). Images that the
    cell holds itself are kept unchanged in ``store``, named by the hash of their bytes.
    Raises RowError for what is no image, and for a path that leads out of the roots.
    """
    for part in _parts(cell):
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
            yield ImageFile(path=str(_inside_any(roots, part)))
        elif part is not None:
            raise RowError(
                f"image is neither path nor image: found {type(part).__name__}; check which column holds the images"
            )


def _parts(cell: Any) -> list[Any]:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, list | tuple):
        return list(cell)
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                parts = read(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(parts, list):
                return parts
        raise RowError("images not readable: the cell starts like a list and is none")
    return [part.strip() for part in text.split(";") if part.strip()]


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
