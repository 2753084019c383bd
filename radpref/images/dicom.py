"""Read one DICOM image (extra ``dicom``): PS3.3 C.11.1 modality transform, C.11.2 VOI transform, C.7.6.3 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref.images.values import ImageError, check_size, to_8_bit

SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})


def is_dicom(path: Path) -> bool:
    """By the magic word at byte 128, or by the suffix for files without the preamble."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_pixels(path: Path) -> int:
    """Rows times columns by the header; raises what pydicom raises on a broken one."""
    import pydicom

    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(header.get("Rows") or 0) * int(header.get("Columns") or 0)


def decode_dicom(path: Path) -> Image.Image:
    """The image as it is meant to be shown, RGB, 8 bits; grey images windowed by their own range after VOI.

    Raises ImageError (pydicom missing, no pixels, several frames, no decoder for the transfer syntax, broken).
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
    except ImportError:
        raise ImageError("image is DICOM: pydicom is not installed; pip install 'radpref[dicom]'") from None
    # its warnings about odd values print the values, and those may name a patient
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        header = pydicom.dcmread(path, force=path.suffix.lower() in SUFFIXES)
        rows, cols = header.get("Rows"), header.get("Columns")
        if not rows or not cols or "PixelData" not in header:
            raise ImageError("DICOM without pixels: it is no image, or cut short; take the image object of the study")
        check_size(int(cols), int(rows))
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ImageError(
                f"DICOM with several frames: {int(header.NumberOfFrames)}; export the one frame that is meant"
            )
        if "TransferSyntaxUID" not in header.file_meta:  # allowed without preamble; this is its default
            header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pixels = _pixels(header, pixel_array)
        colour = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if colour == "PALETTE COLOR":
            return Image.fromarray(_colour_to_8_bit(apply_color_lut(pixels, header))).convert("RGB")
        if pixels.ndim == 3:
            return Image.fromarray(_colour_to_8_bit(pixels)).convert("RGB")
        padding = _padding(header, pixels)
        shown = apply_voi_lut(apply_modality_lut(pixels, header), header, index=0).astype(np.float32)
        return Image.fromarray(to_8_bit(-shown if colour == "MONOCHROME1" else shown, ignore=padding)).convert("RGB")
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError("DICOM broken: the header cannot be read; export it again") from None
    except Exception as error:  # pydicom raises what its handlers raise; a bad image must not end a run
        raise ImageError(f"DICOM broken: {_first_line(error)}; export it again") from error


def _pixels(header: Any, pixel_array: Any) -> NDArray[Any]:
    try:
        return np.asarray(pixel_array(header))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = getattr(header.file_meta.TransferSyntaxUID, "name", "unknown")
        if not header.file_meta.TransferSyntaxUID.is_compressed:
            raise
        raise ImageError(
            f"DICOM compressed as {syntax}: no installed decoder reads it ({_first_line(error)}); "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress the file"
        ) from error


def _padding(header: Any, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where the detector saw nothing (C.7.5.1.1.2): outside of the picture's own range, shown black."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    limit = header.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    padding = (pixels >= low) & (pixels <= high)
    # some exporters set the tag although the value is ordinary black: then it takes no part of the range away
    return None if padding.all() else padding


def _colour_to_8_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else to_8_bit(pixels)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].strip(" .") if text else type(error).__name__
