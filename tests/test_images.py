"""Images of every kind that hospitals hand over, and the broken ones, written here with Pillow and pydicom."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from radpref.images import (
    MAX_PIXELS,
    ImageError,
    contact_sheet,
    data_uri,
    decode,
    image_hash,
    image_key,
    image_size,
    is_burned_in,
    near_hash,
    nearly_same,
    pixel_hash,
    read_image,
    read_mask,
    thumbnail,
)
from radpref.images.read import _true_size
from radpref.images.values import to_8_bit
from radpref.records import ImageFile

RAMP = np.tile(np.linspace(0, 255, 48).round().astype(np.uint8), (32, 1))  # 32 rows, 48 columns, dark to light


def save(path: Path, image: Image.Image, **options: Any) -> ImageFile:
    image.save(path, **options)
    return ImageFile(path=str(path))


def pixels(image: ImageFile) -> np.ndarray:
    picture = read_image(image)
    assert picture.mode == "RGB"
    return np.asarray(picture)


# ---- kinds of files


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_an_8_bit_image_keeps_its_values(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    grey = RAMP // 2  # its range is not stretched
    seen = pixels(save(tmp_path / name, Image.fromarray(grey), **options))
    assert seen.shape == (32, 48, 3)
    np.testing.assert_array_equal(seen[..., 0], grey)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_16_bit_image_is_windowed_by_its_own_range(tmp_path: Path, name: str) -> None:
    deep = (1000 + RAMP.astype(np.uint16) * 12).astype(np.uint16)  # 12 bits in 16
    image = save(tmp_path / name, Image.fromarray(deep))
    with Image.open(image.path) as picture:
        assert picture.mode.startswith("I;16")
    np.testing.assert_allclose(pixels(image)[..., 1], RAMP, atol=1)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_images_are_windowed_and_nan_is_black(tmp_path: Path, dtype: type) -> None:
    deep = RAMP.astype(dtype) * 7 - 500
    if dtype is np.float32:
        deep[5, 5] = np.nan
    seen = pixels(save(tmp_path / "a.tif", Image.fromarray(deep)))[..., 0]
    if dtype is np.float32:
        assert seen[5, 5] == 0
        seen = np.delete(seen, 5, axis=0)
    np.testing.assert_allclose(seen, RAMP[: len(seen)], atol=1)


def test_white_is_zero_in_a_16_bit_tiff_is_turned(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 200
    image = save(tmp_path / "a.tif", Image.fromarray(deep), tiffinfo={262: 0})
    np.testing.assert_allclose(pixels(image)[..., 0], 255 - RAMP, atol=1)


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    layer = np.dstack([np.full((32, 48, 3), 200, np.uint8), np.zeros((32, 48), np.uint8)])
    layer[:, 24:, 3] = 255
    seen = pixels(save(tmp_path / "a.png", Image.fromarray(layer)))
    assert (seen[:, :24] == 0).all()
    assert (seen[:, 24:] == 200).all()
    grey = save(tmp_path / "b.png", Image.fromarray(layer[..., [0, 3]], "LA"))
    np.testing.assert_array_equal(pixels(grey), seen)
    keyed = save(tmp_path / "c.png", Image.fromarray(RAMP), transparency=255)
    assert (pixels(keyed)[:, -1] == 0).all()


def test_cmyk_palette_and_1_bit(tmp_path: Path) -> None:
    rgb = Image.fromarray(np.dstack([RAMP] * 3))
    cmyk = save(tmp_path / "a.jpg", rgb.convert("CMYK"), quality=98)
    with Image.open(cmyk.path) as image:
        assert image.mode == "CMYK"
    np.testing.assert_allclose(pixels(cmyk)[..., 0].astype(int), RAMP, atol=6)
    palette = save(tmp_path / "p.png", rgb.quantize(256))
    np.testing.assert_allclose(pixels(palette)[..., 2].astype(int), RAMP, atol=3)
    bits = save(tmp_path / "b.png", Image.fromarray(RAMP > 127))
    np.testing.assert_array_equal(pixels(bits)[..., 0], np.where(RAMP > 127, 255, 0))


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: shown upright it is 32 wide, 48 high
    image = save(tmp_path / "a.png", Image.fromarray(RAMP), exif=exif)
    assert read_image(image).size == (32, 48)


# ---- the true aspect


def test_a_squashed_image_gets_its_aspect_back(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", Image.new("RGB", (256, 256), "gray"))
    assert read_image(image.model_copy(update={"rows": 2828, "cols": 2320})).size == (210, 256)
    assert read_image(image.model_copy(update={"rows": 2320, "cols": 2828})).size == (256, 210)
    assert read_image(image.model_copy(update={"rows": 2991, "cols": 2992})).size == (256, 256)


@settings(deadline=None)
@given(
    st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
    st.integers(100, 5000),
    st.integers(100, 5000),
)
def test_the_aspect_is_restored_without_inventing_pixels(size: tuple[int, int], rows: int, cols: int) -> None:
    width, height = _true_size(size, rows, cols)
    assert width <= size[0]
    assert height <= size[1]
    assert (width == size[0]) or (height == size[1])
    assert min(width, height) >= 1
    assert _true_size((width, height), None, cols) == (width, height)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=30))
def test_windowing_keeps_the_order_and_uses_the_whole_range(values: list[float]) -> None:
    deep = np.array(values, np.float32)
    seen = to_8_bit(deep)
    assert (np.diff(seen[np.argsort(deep, kind="stable")].astype(int)) >= 0).all()
    if deep.max() > deep.min():
        assert (seen.min(), seen.max()) == (0, 255)


# ---- refusals: each says what is wrong and what to do, and never names the file


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(ImageFile(path=str(path)))
    assert path.name not in caught.value.reason
    assert str(path.parent) not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_an_image_that_is_cut_short(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"patient-123.{kind}"
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if kind == "tif" else {}))
    whole = path.read_bytes()
    # TIFF keeps its index at the end or the start; a cut in the middle breaks both
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(path).startswith(("image cut short", "image broken", "image of unknown format"))
    if kind == "jpg":
        assert refusal(path).startswith("image cut short")
        assert "copy or export it again" in refusal(path)


def test_a_path_that_no_system_takes_is_not_repeated(tmp_path: Path) -> None:
    """A column of reports taken for images: the reason stands in tables and messages, the report must not."""
    for name in ("Zebra crossing. " * 30, "Zebra\n'crossing'. \"" * 20, "Zebra\0"):
        with pytest.raises(ImageError, match=r"^image") as caught:
            decode(tmp_path / name)
        assert "Zebra" not in caught.value.reason


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing.png").startswith("image missing")
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png").startswith("image empty")
    (tmp_path / "text.jpg").write_text("no picture")
    assert refusal(tmp_path / "text.jpg").startswith("image of unknown format")
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n")
    assert refusal(tmp_path / "program.jpg").startswith("image of unknown format")
    assert refusal(tmp_path).startswith("image missing")


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_a_tiny_image(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "a.png", Image.new("L", size))
    assert refusal(tmp_path / "a.png").startswith("image too small")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (int(MAX_PIXELS**0.5) + 1, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        assert refusal(tmp_path / "a.png").startswith("image too large")


def test_a_tiff_of_several_pages(tmp_path: Path) -> None:
    page = Image.fromarray(RAMP)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    assert refusal(tmp_path / "a.tif").startswith("image with several frames: 3 pages")


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0"]))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, noise: bytes, magic: bytes) -> None:
    for suffix in (".png", ".dcm"):
        path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
        path.write_bytes(magic + noise)
        with pytest.raises(ImageError):
            decode(path)


# ---- DICOM


def dicom(
    path: Path, pixels: np.ndarray, *, photometric: str = "MONOCHROME2", bits: int = 12, **tags: Any
) -> ImageFile:
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = tags.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.PatientID = "Secret^Name", "S-1"
    frames = pixels.shape[0] if pixels.ndim == 3 and pixels.shape[-1] != 3 else None
    dataset.Rows, dataset.Columns = pixels.shape[1:] if frames else pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    if photometric == "RGB":
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = min(bits, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return ImageFile(path=str(path))


DEEP = RAMP.astype(np.uint16) * 16  # 0..4080


def test_dicom_of_12_bits(tmp_path: Path) -> None:
    np.testing.assert_allclose(pixels(dicom(tmp_path / "a.dcm", DEEP))[..., 0], RAMP, atol=1)


def test_dicom_without_suffix_is_known_by_its_magic_word(tmp_path: Path) -> None:
    np.testing.assert_allclose(pixels(dicom(tmp_path / "IM000001", DEEP))[..., 0], RAMP, atol=1)


def test_monochrome1_is_turned(tmp_path: Path) -> None:
    image = dicom(tmp_path / "a.dcm", DEEP, photometric="MONOCHROME1")
    np.testing.assert_allclose(pixels(image)[..., 0], 255 - RAMP, atol=1)


def test_the_window_clips_before_the_range_is_taken(tmp_path: Path) -> None:
    image = dicom(tmp_path / "a.dcm", DEEP, WindowCenter=1000, WindowWidth=400)
    seen = pixels(image)[0, :, 0].astype(int)
    expected = np.clip((DEEP[0].astype(float) - 800) / 400, 0, 1) * 255
    np.testing.assert_allclose(seen, expected, atol=2)


def test_rescale_with_negative_slope_and_signed_pixels(tmp_path: Path) -> None:
    signed = DEEP.astype(np.int16) - 2048
    image = dicom(tmp_path / "a.dcm", signed, bits=16, RescaleSlope=-1, RescaleIntercept=0)
    np.testing.assert_allclose(pixels(image)[..., 0], 255 - RAMP, atol=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_takes_no_part_of_the_range(tmp_path: Path, photometric: str) -> None:
    padded = DEEP.copy()
    padded[:4] = 65535
    image = dicom(tmp_path / "a.dcm", padded, bits=16, photometric=photometric, PixelPaddingValue=65535)
    seen = pixels(image)[..., 0]
    assert (seen[:4] == 0).all()
    np.testing.assert_allclose(seen[4:], 255 - RAMP[4:] if photometric == "MONOCHROME1" else RAMP[4:], atol=1)


def test_dicom_in_colour(tmp_path: Path) -> None:
    image = dicom(tmp_path / "a.dcm", np.dstack([RAMP, RAMP // 2, RAMP // 4]), photometric="RGB", bits=8)
    np.testing.assert_array_equal(pixels(image)[..., 1], RAMP // 2)


def test_dicom_refusals(tmp_path: Path) -> None:
    dicom(tmp_path / "frames.dcm", np.stack([DEEP] * 3))
    assert refusal(tmp_path / "frames.dcm").startswith("DICOM with several frames: 3")
    dicom(tmp_path / "tiny.dcm", DEEP[:2])
    assert refusal(tmp_path / "tiny.dcm").startswith("image too small")
    image = dicom(tmp_path / "cut.dcm", DEEP)
    Path(image.path).write_bytes(Path(image.path).read_bytes()[:-500])
    assert refusal(tmp_path / "cut.dcm").startswith("DICOM")
    (tmp_path / "text.dcm").write_text("no dicom at all, but long enough to be looked at" * 9)
    assert refusal(tmp_path / "text.dcm").startswith("DICOM")


def test_dicom_without_pixels(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    image = dicom(tmp_path / "a.dcm", DEEP)
    dataset = pydicom.dcmread(image.path)
    del dataset.PixelData
    dataset.save_as(image.path)
    assert refusal(tmp_path / "a.dcm").startswith("DICOM without pixels")


def test_dicom_compressed_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pydicom = pytest.importorskip("pydicom")
    image = dicom(tmp_path / "a.dcm", DEEP)
    dataset = pydicom.dcmread(image.path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x0a" + b"\0" * 100])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(image.path)
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless)), "is_available", False)
    assert "pip install 'radpref[dicom]'" in refusal(tmp_path / "a.dcm") or "DICOM broken" in refusal(
        tmp_path / "a.dcm"
    )


@pytest.mark.parametrize(
    "syntax", ["JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]
)
def test_dicom_compressed_as_archives_export_it(tmp_path: Path, syntax: str) -> None:
    gdcm = pytest.importorskip("gdcm")
    import pydicom

    image = dicom(tmp_path / "plain.dcm", DEEP, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SOPInstanceUID="1.2.3")
    names = {
        "JPEGLossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
        "JPEGLosslessSV1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "JPEGLSLossless": gdcm.TransferSyntax.JPEGLSLossless,
        "JPEG2000Lossless": gdcm.TransferSyntax.JPEG2000Lossless,
        "RLELossless": gdcm.TransferSyntax.RLELossless,
    }
    reader = gdcm.ImageReader()
    reader.SetFileName(image.path)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(names[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "packed.dcm").file_meta.TransferSyntaxUID == getattr(pydicom.uid, syntax)
    np.testing.assert_allclose(pixels(ImageFile(path=str(tmp_path / "packed.dcm")))[..., 0], RAMP, atol=1)


WIDE = np.tile(np.linspace(0, 4000, 90).astype(np.uint16), (60, 1))
"""Large enough to have a bulk."""


@pytest.mark.parametrize("share", [1, 40])
def test_a_burned_in_marker_does_not_set_the_range(tmp_path: Path, share: int) -> None:
    marked = WIDE.copy()
    marked[0, :share] = 65535
    plain = pixels(dicom(tmp_path / "plain.dcm", WIDE, bits=16))[..., 0].astype(int)
    seen = pixels(dicom(tmp_path / "marked.dcm", marked, bits=16))[..., 0].astype(int)
    assert (seen[0, :share] == 255).all()
    assert np.abs(seen[1:] - plain[1:]).max() < 60
    assert seen[1:].max() > 200  # and not nearly black
    Image.fromarray(marked).save(tmp_path / "marked.png")
    assert pixels(ImageFile(path=str(tmp_path / "marked.png")))[1:].max() > 200


def test_dead_pixels_do_not_set_the_range_either(tmp_path: Path) -> None:
    dead = WIDE.astype(np.int16)
    dead[5, 5] = -30000
    seen = pixels(dicom(tmp_path / "dead.dcm", dead, bits=16))[..., 0]
    assert seen[5, 5] == 0
    assert int(seen.max()) - int(np.median(seen)) > 90


def test_what_exporters_leave_out_is_taken_as_viewers_take_it(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    for name, changes in {
        "lower case": {"PhotometricInterpretation": "monochrome2 "},
        "no interpretation": {"PhotometricInterpretation": None},
        "no bits stored": {"BitsStored": None, "HighBit": None, "PixelRepresentation": None, "SamplesPerPixel": None},
        "width 0": {"WindowCenter": 100, "WindowWidth": 0},
        "width 0 of two": {"WindowCenter": [100, 200], "WindowWidth": [0, 400]},
        "no centre": {"WindowWidth": 400},
        "empty window": {"WindowCenter": "", "WindowWidth": ""},
    }.items():
        image = dicom(tmp_path / "a.dcm", DEEP, bits=16)
        dataset = pydicom.dcmread(image.path)
        for tag, value in changes.items():
            if value is None:
                delattr(dataset, tag)
            else:
                setattr(dataset, tag, value)
        dataset.save_as(image.path)
        np.testing.assert_allclose(pixels(image)[..., 0], RAMP, atol=1, err_msg=name)


def test_the_presentation_lut_inverts_once(tmp_path: Path) -> None:
    image = dicom(tmp_path / "a.dcm", DEEP, PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(pixels(image)[..., 0], 255 - RAMP, atol=1)
    image = dicom(tmp_path / "b.dcm", DEEP, photometric="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(pixels(image)[..., 0], 255 - RAMP, atol=1)


@pytest.mark.parametrize(
    ("tag", "value", "size"),
    [
        ("PixelAspectRatio", [2, 1], (45, 60)),
        ("PixelSpacing", [0.1, 0.2], (90, 30)),
        ("ImagerPixelSpacing", [0.2, 0.1], (45, 60)),
        ("PixelSpacing", [0.143, 0.143], (90, 60)),
        ("PixelSpacing", [0, 0.1], (90, 60)),
        ("PixelSpacing", "", (90, 60)),
    ],
)
def test_pixels_that_are_no_squares(tmp_path: Path, tag: str, value: Any, size: tuple[int, int]) -> None:
    image = dicom(tmp_path / "a.dcm", WIDE, bits=16, **{tag: value})
    assert read_image(image).size == size
    assert image_size(image.path) == (90, 60)  # of the pixels, which boxes are drawn on


def test_text_that_is_burned_in_is_known(tmp_path: Path) -> None:
    assert is_burned_in(dicom(tmp_path / "a.dcm", DEEP, BurnedInAnnotation="YES").path)
    assert not is_burned_in(dicom(tmp_path / "b.dcm", DEEP, BurnedInAnnotation="NO").path)
    assert not is_burned_in(dicom(tmp_path / "c.dcm", DEEP).path)
    (tmp_path / "d.dcm").write_bytes(b"no dicom")
    assert not is_burned_in(tmp_path / "d.dcm")


def test_a_full_detector_does_not_take_many_times_its_size(tmp_path: Path) -> None:
    """5 million pixels of 16 bits: the peak over what was there before stays under 20 bytes a pixel."""
    import tracemalloc

    deep = np.random.default_rng(0).integers(0, 4000, (2000, 2500), dtype=np.uint16)
    image = dicom(
        tmp_path / "a.dcm", deep, bits=16, RescaleSlope=1, RescaleIntercept=0, WindowCenter=2000, WindowWidth=3000
    )
    tracemalloc.start()
    decode(image.path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / deep.size < 20


def test_dicom_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom(tmp_path / "a.dcm", DEEP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "radpref[dicom]" in refusal(tmp_path / "a.dcm")


# ---- hashes


def test_hashes_see_what_they_should(tmp_path: Path) -> None:
    one = save(tmp_path / "a.png", Image.fromarray(RAMP))
    copy = save(tmp_path / "b.png", Image.fromarray(RAMP))
    again = save(tmp_path / "c.tif", Image.fromarray(RAMP))
    other = save(tmp_path / "d.png", Image.fromarray(RAMP[::-1] // 2))
    assert image_hash(one) == image_hash(copy) != image_hash(again)
    assert pixel_hash(decode(one.path)) == pixel_hash(decode(again.path)) != pixel_hash(decode(other.path))
    squashed = one.model_copy(update={"rows": 100, "cols": 50})
    assert image_hash(squashed) == image_hash(one)
    assert image_key(squashed) != image_key(one) == image_key(copy)
    with pytest.raises(ImageError, match="not readable"):
        image_hash(ImageFile(path=str(tmp_path / "nothing.png")))


# ---- pictures for people


def test_masks_follow_the_image_into_its_aspect_and_are_tinted(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[16:32, 16:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    image = save(tmp_path / "a.png", Image.new("L", (64, 64), 100)).model_copy(
        update={"rows": 200, "cols": 100, "masks": {"nodule": str(tmp_path / "mask.png")}}
    )
    found = read_mask(image, "nodule")
    assert found.shape == (64, 32)
    assert found[20, 12]
    assert not found[20, 20]
    plain, tinted = np.asarray(thumbnail(image, 64)), np.asarray(thumbnail(image, 64, masks=True))
    changed = (plain != tinted).any(axis=2)
    np.testing.assert_array_equal(changed, found)


def test_contact_sheet_shows_images_and_refusals(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", Image.fromarray(RAMP))
    sheet = contact_sheet([(image, "one\ntwo"), (ImageFile(path="/nowhere.png"), "gone")] * 4, side=64, columns=3)
    assert sheet.mode == "RGB"
    assert sheet.width == 3 * 68 + 4
    assert np.asarray(sheet).max() == 255
    assert contact_sheet([]).mode == "RGB"
    assert data_uri(sheet).startswith("data:image/jpeg;base64,/9j/")


# ---- pictures that are nearly the same


def scene(number: int) -> Image.Image:
    """A picture of its own, smooth enough to be saved as JPEG: a few bright and dark shapes."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:256, 0:256] / 256
    shape = sum(
        rng.uniform(-1, 1) * np.exp(-((x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2) / rng.uniform(0.002, 0.08))
        for _ in range(25)
    )
    return Image.fromarray(to_8_bit(np.asarray(shape, np.float32)) // 2 + 40)


def bits(one: Image.Image, other: Image.Image) -> bool:
    from radpref.images.near import near, words_of_hash

    words = words_of_hash([near_hash(one), near_hash(other)])
    return bool(near(words[0], words[1:])[0])


@pytest.mark.parametrize("change", ["jpeg", "brighter", "smaller", "border", "corner"])
def test_nearly_the_same_picture_is_known(tmp_path: Path, change: str) -> None:
    for number in range(6):
        picture = scene(number)
        other = {
            "brighter": lambda picture: picture.point(lambda value: min(value + 10, 255)),
            "smaller": lambda picture: picture.resize((128, 128)),
            "border": lambda picture: picture.crop((3, 3, 253, 253)),
            "corner": lambda picture: picture.crop((0, 0, 251, 251)),
            "jpeg": lambda picture: (picture.save(tmp_path / "a.jpg", quality=70), Image.open(tmp_path / "a.jpg"))[1],
        }[change](picture)
        assert bits(picture, other)
        assert nearly_same(picture, other)
        assert not (bits(picture, scene(number + 50)) and nearly_same(picture, scene(number + 50)))
