"""Read one DICOM image (extra ``dicom``): PS3.3 C.11.1 modality transform, C.11.2 VOI transform, C.7.6.3 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref.images.values import STRIP, ImageError, check_size, to_8_bit

SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})


def is_dicom(path: Path) -> bool:
    """By the magic word at byte 128, or by the suffix for files without the preamble."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_size(path: Path) -> tuple[int, int]:
    """(columns, rows) by the header; raises what pydicom raises on a broken one."""
    import pydicom

    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(header.get("Columns") or 0), int(header.get("Rows") or 0)


def text_burned_in(path: Path) -> bool:
    """Whether the header says that there is text in the pixels (BurnedInAnnotation), which may name the patient."""
    import pydicom

    tags = ["BurnedInAnnotation"]
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
    return str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"


def decode_dicom(path: Path) -> Image.Image:
    """The image as it is meant to be shown, RGB, 8 bits, in its true aspect; grey images windowed by their own range
    after modality, VOI and presentation transforms.

    What exporters leave out is taken as viewers take it: no PhotometricInterpretation is MONOCHROME2 (RGB for three
    samples), a window without width is none. Raises ImageError (pydicom missing, no pixels, several frames, no decoder
    for the transfer syntax, broken).
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import apply_color_lut, pixel_array
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
        colour = _completed(header)
        pixels = _pixels(header, pixel_array)
        del header.PixelData  # the pixels are held once
        if colour == "PALETTE COLOR":
            picture = Image.fromarray(_colour_to_8_bit(apply_color_lut(pixels, header)))
        elif pixels.ndim == 3:
            picture = Image.fromarray(_colour_to_8_bit(pixels))
        else:
            picture = Image.fromarray(_shown(header, pixels, inverted=_inverted(header, colour)))
        size = _true_size(header, picture.size)
        picture = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
        return picture.convert("RGB")
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError("DICOM broken: the header cannot be read; export it again") from None
    except Exception as error:  # pydicom raises what its handlers raise; a bad image must not end a run
        raise ImageError(f"DICOM broken: {_first_line(error)}; export it again") from error


def _completed(header: Any) -> str:
    """Fill in what exporters leave out of the pixels' description; returns the photometric interpretation."""
    samples = int(header.get("SamplesPerPixel") or 1)
    said = str(header.get("PhotometricInterpretation") or "").strip().upper()
    colour = said or ("RGB" if samples == 3 else "MONOCHROME2")
    header.SamplesPerPixel, header.PhotometricInterpretation = samples, colour
    header.BitsAllocated = int(header.get("BitsAllocated") or 16)
    header.BitsStored = int(header.get("BitsStored") or header.BitsAllocated)
    header.HighBit = int(header.get("HighBit") or header.BitsStored - 1)
    header.PixelRepresentation = int(header.get("PixelRepresentation") or 0)
    if samples > 1 and header.get("PlanarConfiguration") is None:
        header.PlanarConfiguration = 0
    return colour


def _inverted(header: Any, colour: str) -> bool:
    """Whether low values are white: said by the photometric interpretation or by the presentation LUT, not by both."""
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    return colour == "MONOCHROME1" or shape in ("INVERSE", "INVERSE IDENTITY")


def _shown(header: Any, pixels: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    """Stored values through the modality, VOI and presentation transforms, strip by strip, to 8 bits."""
    from pydicom.pixels import apply_modality_lut, apply_presentation_lut, apply_voi_lut

    padding = _padding(header, pixels)
    window = _window(header)
    flat = pixels.reshape(-1)
    shown = np.empty(flat.shape, np.float32)
    for start in range(0, flat.size, STRIP):
        part = apply_modality_lut(flat[start : start + STRIP], header)
        part = apply_voi_lut(part, header, index=0) if window else part
        if "PresentationLUTSequence" in header:
            part = apply_presentation_lut(part, header)
        shown[start : start + STRIP] = part
    if inverted:
        np.negative(shown, out=shown)
    return to_8_bit(shown.reshape(pixels.shape), ignore=padding)


def _window(header: Any) -> bool:
    """Whether there is a VOI transform that means something: a table, or a window with a width."""
    if "VOILUTSequence" in header and header.VOILUTSequence:
        return True
    width, centre = (_first(header.get(name)) for name in ("WindowWidth", "WindowCenter"))
    if width is None or centre is None:
        return False
    # of one value or less a linear window shows two greys, and no viewer applies it
    return width > 1 or (width > 0 and "LINEAR_EXACT" in str(header.get("VOILUTFunction") or ""))


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None for what is no number."""
    if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        value = next(iter(value), None)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _true_size(header: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) with square pixels: the side that was sampled more finely is shortened; no pixel is invented."""
    width, height = size
    for name in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        try:
            down, across = (float(part) for part in header[name].value)
        except (KeyError, TypeError, ValueError):
            continue
        if down > 0 and across > 0 and 0.1 < down / across < 10:  # beyond that it is a mistake
            if abs(down / across - 1) <= 0.01:
                return size
            if down > across:
                return max(1, round(width * across / down)), height
            return width, max(1, round(height * down / across))
    return size


def _pixels(header: Any, pixel_array: Any) -> NDArray[Any]:
    try:
        return np.asarray(pixel_array(header))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = getattr(header.file_meta.TransferSyntaxUID, "name", "unknown")
        if not header.file_meta.TransferSyntaxUID.is_compressed:
            raise
        raise ImageError(
            f"DICOM compressed as {syntax}: no installed decoder reads it ({_first_line(error)}); "
            "pip install 'radpref[dicom]', or decompress the file"
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
