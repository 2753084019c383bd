"""What all formats share: which pairs can be written, where their images lie, and lines of JSON."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from radpref.errors import RadprefError
from radpref.files import replacing, write_atomically
from radpref.images import ImageError, is_plain, read_image
from radpref.records import ImageFile, Pair, Quarantined

STAGE = "export"
TAGS = ("<image>", "<video>", "<audio>")
"""What other tools put an image in the place of, wherever it stands in a text."""

Row = dict[str, Any]


class FormatError(RadprefError, ValueError):
    """A pair that a format cannot hold; the message becomes its reason in quarantine."""


class Written(NamedTuple):
    """What was written."""

    pairs: int
    rows: int
    """Rows of the training file: one a pair, or one a side."""
    quarantined: list[Quarantined]
    """Pairs that were left out, with the reason."""
    visual: int = 0
    """Rows of image against corrupted image, where the format has them."""


def usable(
    pairs: Iterable[Pair], make: Callable[[Pair], list[Row]], quarantined: list[Quarantined]
) -> Iterator[tuple[Pair, list[Row]]]:
    """Each pair with its rows; a pair that cannot be written goes to ``quarantined`` with the reason."""
    for pair in pairs:
        try:
            for name, text in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
                if tag := next((tag for tag in TAGS if tag in text), None):
                    raise FormatError(f"image token in the text: the {name} spells {tag}, which stands for an image")
            yield pair, make(pair)
        except (ImageError, FormatError) as error:
            quarantined.append(Quarantined(id=pair.id, stage=STAGE, reason=str(error)))


def unfinished(pair: Pair, side: str) -> bool:
    """Whether a side was cut where sampling stopped; ``side`` is ``chosen`` or ``rejected``."""
    return pair.provenance.get(f"{side}_finished", "yes") != "yes"


def png(image: ImageFile) -> bytes:
    """What the model is shown, ``read_image(image)``, as an 8-bit PNG without any metadata of the file."""
    picture = read_image(image)
    red, green, blue = (band.tobytes() for band in picture.split())
    mode, pixels = ("L", red) if red == green == blue else ("RGB", picture.tobytes())
    file = io.BytesIO()
    Image.frombytes(mode, picture.size, pixels).save(file, format="PNG")
    return file.getvalue()


class Images:
    """How the rows of a file name their images.

    By default an image stays where it is and is named by its absolute path. Where another program would not read
    from it what the model is shown (DICOM, 16 bits, squashed out of its aspect ...), or with ``copy``, it is
    written as a PNG to ``images/`` in ``folder``, named by its content, and the row holds that relative path.
    """

    def __init__(self, folder: Path, copy: bool) -> None:
        self._folder, self._copy = folder, copy
        self._named = functools.cache(self._name)

    def __call__(self, images: Iterable[ImageFile]) -> list[str]:
        """The paths of a row's images, in their order. Raises ImageError."""
        return [self._named(image.path, image.rows, image.cols) for image in images]

    def _name(self, path: str, rows: int | None, cols: int | None) -> str:
        image = ImageFile(path=path, rows=rows, cols=cols)
        if not self._copy and is_plain(image):
            return str(Path(path).absolute())
        content = png(image)
        name = Path("images") / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}.png"
        if not (self._folder / name).exists():
            write_atomically(self._folder / name, content)
        return name.as_posix()


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as lines of JSON, one at a time; returns their number. Raises StoreError."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            count += 1
    return count
