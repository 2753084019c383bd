"""Read one image. PNG, JPEG, TIFF, BMP and WebP through Pillow, DICOM through pydicom."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from radpref.images.dicom import decode_dicom, dicom_size, is_dicom, text_burned_in
from radpref.images.values import MAX_PIXELS, ImageError, check_size, to_8_bit
from radpref.records import ImageFile

# Only what images come in: other formats of Pillow start programs (EPS) or are rarely tested against bad files.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
ASPECT_TOLERANCE = 0.01
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_ORIENTATION = 274


def read_image(image: ImageFile) -> Image.Image:
    """The image as an upright picture in its true aspect, mode RGB, 8 bits a channel.

    8-bit images keep their values. Images of 16 or 32 bits or in floats are windowed by their own range (least
    value to black, greatest to white); DICOM goes through its modality and VOI transforms first, and MONOCHROME1
    is turned so that bone is white. Transparency is laid on black. Where ``image.rows`` and ``image.cols`` say that
    the file was squashed, the side that is too long is shortened; no pixel is invented.

    Raises ImageError (missing, unreadable, cut short, too small, too large, several frames, no decoder).
    """
    picture = decode(image.path)
    size = _true_size(picture.size, image.rows, image.cols)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def read_mask(image: ImageFile, name: str, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Lesion mask ``name``: bool, (height, width) as of ``read_image(image)``.

    Above the middle of 0..255 counts, or anything above 0 in a mask written as 0 and 1. A mask of another size than
    ``size`` (width, height) is brought to it (nearest pixel) where its aspect agrees.

    Raises ImageError (unreadable, or of another aspect than ``size``), KeyError.
    """
    try:
        picture = decode(image.masks[name]).convert("L")
    except ImageError as error:
        raise ImageError(error.reason.replace("image", "mask", 1)) from error
    true = _true_size(picture.size, image.rows, image.cols)
    if size is not None and true != size:
        if abs(true[0] / true[1] / (size[0] / size[1]) - 1) > ASPECT_TOLERANCE:
            raise ImageError(
                f"mask of another shape: {true[0]} x {true[1]} pixels on an image of {size[0]} x {size[1]}; give the "
                "mask of the whole image"
            )
        true = size
    values = np.asarray(picture.resize(true, Image.Resampling.NEAREST))
    return values > (127 if values.max() > 1 else 0)


def decode(path: str | Path) -> Image.Image:
    """The file as an upright RGB picture, in the file's own aspect. Raises ImageError."""
    path = Path(path)
    try:
        if not path.is_file():
            raise ImageError("image missing: there is no such file; check data.root and the row's path, capitals too")
        if path.stat().st_size == 0:
            raise ImageError("image empty: the file has 0 bytes; copy it again")
        return decode_dicom(path) if is_dicom(path) else _decode_picture(path)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"image of unknown format: neither DICOM nor any of {', '.join(FORMATS)}; convert it to PNG"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(f"image too large: more than {MAX_PIXELS:,} pixels; scale it down") from None
    except PermissionError:
        raise ImageError("image not readable: permission denied; check the file's rights") from None
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error) as error:
        # Pillow's plugins raise any of these on broken files
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        what = "image cut short" if cut else "image broken"
        raise ImageError(f"{what}: {_plain(error, path)}; copy or export it again") from error


def is_plain(image: ImageFile) -> bool:
    """Whether any reader gets from the image's file what ``read_image`` gives: an 8-bit, upright PNG or JPEG, grey or
    RGB without transparency, in its true aspect. False as well for a file that cannot be read."""
    try:
        with Image.open(image.path, formats=("PNG", "JPEG")) as picture:
            return (
                picture.mode in ("L", "RGB")
                and "transparency" not in picture.info
                and picture.getexif().get(_ORIENTATION, 1) == 1
                and _true_size(picture.size, image.rows, image.cols) == picture.size
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def is_burned_in(path: str | Path) -> bool:
    """Whether a DICOM file says that there is text in its pixels; False for any other, and for a broken one."""
    try:
        return is_dicom(Path(path)) and text_burned_in(Path(path))
    except Exception:  # whatever is wrong with the file, decode says it
        return False


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of the file's pixels, upright: of DICOM the columns and rows, whatever the shape of a pixel.

    Reads the picture whole only where the header does not tell. Raises ImageError.
    """
    try:
        if is_dicom(Path(path)):
            if all(size := dicom_size(Path(path))):
                return size
        else:
            with Image.open(path, formats=FORMATS) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                return image.size[::-1] if turned else image.size
    except Exception:  # whatever is wrong with the file, decode says it
        pass
    return decode(path).size


def pixels_of(path: str | Path) -> int:
    """How many pixels decoding the file will take, by its header; 0 where that does not tell."""
    try:
        if is_dicom(Path(path)):
            width, height = dicom_size(Path(path))
            return width * height
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # whatever is wrong with the file, decode says it
        return 0


def image_hash(image: ImageFile) -> str:
    """32 hexadecimal digits of the file's bytes: equal for copies of one file. Raises ImageError if unreadable."""
    try:
        with Path(image.path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ImageError(f"image not readable: {error.strerror}; check data.root and the path in the row") from error


def image_key(image: ImageFile) -> str:
    """Key for anything computed from ``read_image(image)``: the bytes and the true size, which decide the pixels."""
    return f"{image.digest or image_hash(image)}-{image.rows or 0}x{image.cols or 0}"


def pixel_hash(image: Image.Image) -> str:
    """32 hexadecimal digits of size and pixels: equal for one picture saved twice without loss, in any format."""
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _decode_picture(path: Path) -> Image.Image:
    with Image.open(path, formats=FORMATS) as image:
        check_size(*image.size)
        if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
            raise ImageError(
                f"image with several frames: {getattr(image, 'n_frames', 0)} pages in one TIFF; "
                "save the one that is meant"
            )
        white_is_zero = image.format == "TIFF" and image.getexif().get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode in DEEP_MODES:
        values = np.asarray(upright)
        # Pillow inverts white-is-zero for 8 bits only
        return Image.fromarray(to_8_bit(-values.astype(np.float32) if white_is_zero else values)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    return upright.convert("RGB")


def _true_size(size: tuple[int, int], rows: int | None, cols: int | None) -> tuple[int, int]:
    """(width, height) in the true aspect: the side that is too long is shortened, the other one stays."""
    if not rows or not cols or rows < 1 or cols < 1:
        return size
    width, height = size
    aspect = cols / rows
    if abs(width / height / aspect - 1) <= ASPECT_TOLERANCE:
        return size
    if width / height > aspect:
        return max(1, round(height * aspect)), height
    return width, max(1, round(width / aspect))


def _plain(error: Exception, path: Path) -> str:
    """The library's words without the path, which may name a patient."""
    words = (getattr(error, "strerror", None) or str(error)).replace(str(path), "the file").splitlines()
    return words[0].strip(" .") if words else type(error).__name__
