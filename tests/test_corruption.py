"""Lesions taken out of images: operators, whose mask it is, and the pairs that come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from radpref.config import CorruptSection
from radpref.images import corrupt, draw_boxes, grown, image_hash, own_mask, read_image, read_mask, seed_of
from radpref.images.corruption import OPERATORS, WHOLE, _membrane
from radpref.images.values import ImageError, to_8_bit
from radpref.pairs.corrupt import Corrupted, by_prompt, corrupt_pair, kindred, own
from radpref.records import Box, ImageFile, Pair

RAMP = np.tile(np.linspace(40, 200, 64).astype(np.uint8), (48, 1))  # 48 rows, 64 columns
LESION = np.zeros((48, 64), np.bool_)
LESION[10:30, 20:44] = True
BRIGHT = np.where(LESION, 255, RAMP).astype(np.uint8)


def section(**values: object) -> CorruptSection:
    return CorruptSection.model_validate(values)


# ---- operators


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_operator_keeps_shape_type_range_and_what_is_outside(operator: str, dtype: type) -> None:
    image = BRIGHT.astype(dtype) if dtype is np.uint8 else (BRIGHT.astype(np.float64) * 100).astype(dtype)
    result = corrupt(image, LESION, section(operator=operator), 3)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert (result[LESION] != image[LESION]).any()
    if operator not in WHOLE:
        np.testing.assert_array_equal(result[~LESION], image[~LESION])
    if dtype is not np.uint8:
        assert image.min() <= result.min()
        assert result.max() <= image.max()


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_grey_image_stays_grey(operator: str) -> None:
    image = np.repeat(BRIGHT[..., None], 3, axis=2)
    result = corrupt(image, LESION, section(operator=operator), 3)
    assert (result == result[..., :1]).all()
    np.testing.assert_array_equal(result[..., 0], corrupt(BRIGHT, LESION, section(operator=operator), 3))


def test_the_published_noise_is_45_of_255_in_the_mask_and_12_elsewhere() -> None:
    flat = np.full((200, 200), 128, np.uint8)
    mask = np.zeros(flat.shape, np.bool_)
    mask[:, :100] = True
    inside = corrupt(flat, mask, section(), 1)[mask].astype(float)
    assert inside.std() == pytest.approx(45, rel=0.03)
    assert inside.mean() == pytest.approx(128, abs=1)
    whole = corrupt(flat, None, section(operator="whole-noise"), 1).astype(float)
    assert whole.std() == pytest.approx(12, rel=0.03)


def test_noise_on_16_bits_is_the_noise_on_the_image_as_it_is_read() -> None:
    """Corrupted and then windowed to 8 bits, as an image is read, equals windowed and then corrupted."""
    deep = (RAMP.astype(np.uint16) - 40) * 25 + 1000  # 12 bits' worth in a 16-bit file
    deep[0, 0], deep[0, -1] = deep.min(), deep.max()  # outside the mask, so that the window stays
    before = to_8_bit(corrupt(deep, LESION, section(), 5)).astype(int)
    after = corrupt(to_8_bit(deep), LESION, section(), 5).astype(int)
    assert np.abs(before - after).max() <= 1


def test_a_grain_outlives_the_shrinking_of_a_large_image() -> None:
    """Noise of single pixels is averaged away by a processor; grains of 1/64 of the image are not."""
    flat = np.full((512, 512), 128, np.uint8)

    def left(grain: float) -> float:
        image = Image.fromarray(corrupt(flat, None, section(operator="whole-noise", strength=0.2, grain=grain), 1))
        return float(np.asarray(image.resize((64, 64), Image.Resampling.BOX)).std())

    assert left(0.0) == pytest.approx(0.2 * 255 / 8, rel=0.1)
    assert left(1 / 64) == pytest.approx(0.2 * 255, rel=0.1)


def test_inpainting_goes_on_from_the_surroundings() -> None:
    result = corrupt(BRIGHT, LESION, section(operator="inpaint"), 1).astype(int)
    assert np.abs(result[LESION] - RAMP[LESION].astype(int)).max() <= 12  # a plane is its own membrane


def test_a_membrane_is_harmonic_and_within_its_border() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((20, 20, 1))
    holes = np.zeros((20, 20), np.bool_)
    holes[4:12, 0:9] = True  # at the edge of the image too
    solved = _membrane(values, holes)[..., 0]
    np.testing.assert_array_equal(solved[~holes], values[..., 0][~holes])
    inner = solved[5:11, 1:8]
    around = (solved[4:10, 1:8] + solved[6:12, 1:8] + solved[5:11, 0:7] + solved[5:11, 2:9]) / 4
    np.testing.assert_allclose(inner, around, atol=1e-9)
    assert values[~holes].min() <= solved[holes].min() <= solved[holes].max() <= values[~holes].max()


def test_mean_black_and_crop() -> None:
    mean = corrupt(BRIGHT, LESION, section(operator="mean"), 1)
    assert (mean[LESION] == round(RAMP[~LESION].mean())).all()
    half = corrupt(BRIGHT, LESION, section(operator="mean", strength=0.5), 1)
    assert np.allclose(half[LESION], (255 + RAMP[~LESION].mean()) / 2, atol=1)
    assert not corrupt(BRIGHT, None, section(operator="black"), 1).any()
    crop = corrupt(RAMP, None, section(operator="crop", strength=0.25), 1)
    assert np.ptp(crop) == pytest.approx(np.ptp(RAMP) / 2, abs=8)  # a quarter of the area: half of the ramp


def test_blur_takes_the_edge_away() -> None:
    result = corrupt(BRIGHT, LESION, section(operator="blur"), 1)
    assert result[11, 22] < 255
    assert np.abs(np.diff(result[20].astype(int))).max() < np.abs(np.diff(BRIGHT[20].astype(int))).max()


def test_an_operator_without_its_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a mask of .*no mask"):
        corrupt(RAMP, None, section(), 1)
    with pytest.raises(ValueError, match="needs a mask of"):
        corrupt(RAMP, LESION.T, section(), 1)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_seeds_follow_from_question_and_image(question: str, digest: str) -> None:
    assert seed_of(question, digest) == seed_of(question, digest)
    assert seed_of(question, digest) != seed_of(question, f"{digest}x")
    assert 0 <= seed_of(question, digest) < 2**64


def test_seeds_are_the_same_everywhere() -> None:
    assert seed_of("q", "ab") == 8806518988444291572


# ---- masks


def write(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def image(folder: Path, masks: dict[str, np.ndarray] | None = None, **more: object) -> ImageFile:
    """The bright image in a file, with its masks in files."""
    paths = {name: write(folder / f"{name}.png", mask.astype(np.uint8) * 255) for name, mask in (masks or {}).items()}
    made = ImageFile.model_validate({"path": write(folder / "image.png", BRIGHT), "masks": paths, **more})
    return made.model_copy(update={"digest": image_hash(made)})


def test_a_box_is_drawn_wherever_the_image_was_made_smaller() -> None:
    box = Box(left=0.25, top=0.5, right=0.5, bottom=1.0)
    for width, height in ((64, 48), (1024, 1024), (7, 5)):
        mask = draw_boxes([box], (width, height))
        assert mask.shape == (height, width)
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (rows[0], rows[-1] + 1) == (int(height * 0.5), height)
        assert (cols[0], cols[-1] + 1) == (int(width * 0.25), -(-width // 2))
    assert draw_boxes([Box(left=0.5, top=0.5, right=0.5, bottom=0.5)], (8, 8)).sum() == 1


def test_masks_count_before_boxes_and_names_are_united(tmp_path: Path) -> None:
    other = np.roll(LESION, 15, axis=0)
    boxes = {"nodule": (Box(left=0, top=0, right=0.1, bottom=0.1),), "mass": (Box(left=0, top=0, right=1, bottom=1),)}
    shown = image(tmp_path, {"mass": LESION, "edema": other}, boxes=boxes)
    found = own_mask(shown, (64, 48), ["mass", "edema"])
    assert found.by == "mask"
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask, LESION | other)
    boxed = own_mask(shown, (64, 48), ["nodule"])
    assert boxed.by == "box"
    assert boxed.mask is not None
    assert boxed.mask.sum() == 5 * 7


def test_a_mask_of_another_size_is_brought_to_the_image_where_its_aspect_agrees(tmp_path: Path) -> None:
    shown = image(tmp_path, {"mass": LESION.repeat(2, 0).repeat(2, 1)})
    found = own_mask(shown, (64, 48)).mask
    assert found is not None
    np.testing.assert_array_equal(found, LESION)


def test_a_mask_of_a_squashed_image_is_stretched_with_it(tmp_path: Path) -> None:
    shown = image(tmp_path, {"mass": LESION}, rows=480, cols=320)
    size = read_image(shown).size
    assert size == (32, 48)
    found = own_mask(shown, size).mask
    assert found is not None
    assert found.shape == (48, 32)
    assert found.mean() == pytest.approx(LESION.mean(), rel=0.1)


def test_a_mask_written_as_0_and_1_is_read(tmp_path: Path) -> None:
    shown = image(tmp_path, {})
    path = write(tmp_path / "ones.png", LESION.astype(np.uint8))
    np.testing.assert_array_equal(read_mask(shown.model_copy(update={"masks": {"x": path}}), "x"), LESION)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "mask missing"),
        (b"", "mask empty"),
        (b"no picture at all", "mask of unknown format"),
        (np.zeros((64, 64), np.uint8), "mask of another shape: 64 x 64 pixels on an image of 64 x 48"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named_and_the_rest_counts(
    tmp_path: Path, content: bytes | np.ndarray | None, words: str
) -> None:
    shown = image(tmp_path, {"mass": LESION})
    path = tmp_path / "bad.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    alone = shown.model_copy(update={"masks": {"nodule": str(path)}})
    found = own_mask(alone, (64, 48))
    assert found.mask is None
    assert found.why == "mask not usable"
    assert len(found.broken) == 1
    assert words in found.broken[0]
    assert str(tmp_path) not in found.broken[0]
    both = own_mask(shown.model_copy(update={"masks": {**shown.masks, "nodule": str(path)}}), (64, 48))
    assert both.mask is not None
    assert len(both.broken) == 1
    with pytest.raises(ImageError):
        read_mask(alone, "nodule", (64, 48))


def test_a_mask_grows_on_all_sides() -> None:
    point = np.zeros((40, 40), np.bool_)
    point[20, 20] = True
    assert grown(point, 0.1).sum() == 49  # a disc of radius 4
    np.testing.assert_array_equal(grown(point, 0.0), point)
    assert not grown(np.zeros((4, 4), np.bool_), 0.2).any()


# ---- pairs


def pair(*images: ImageFile, **provenance: str) -> Pair:
    return Pair(
        id="q/edit",
        question="q",
        patient="p",
        images=images,
        prompt="?",
        chosen="left",
        rejected="right",
        provenance=provenance,
    )


def made(row: Pair, folder: Path, **values: object) -> Corrupted:
    return corrupt_pair(row, section(**values), folder, {"own": own})


def path_of(row: Pair) -> tuple[str, str]:
    return row.provenance["corruption_path"], row.provenance.get("corruption_why", "")


def test_a_pair_gets_an_image_without_its_lesion(tmp_path: Path) -> None:
    shown = image(tmp_path, {"mass": LESION}, view="frontal")
    result = made(pair(shown, editor="rule"), tmp_path / "out").pair
    assert path_of(result) == ("mask", "")
    assert result.provenance["editor"] == "rule"
    assert result.provenance["corruption"] == "noise"
    assert float(result.provenance["corruption_area"]) == pytest.approx(LESION.mean(), abs=1e-4)
    (other,) = result.corrupted
    assert other.view == "frontal"
    assert not other.masks
    assert other.digest == image_hash(other)
    pixels = np.asarray(read_image(other))
    np.testing.assert_array_equal(pixels[~LESION][:, 0], BRIGHT[~LESION])
    expected = corrupt(BRIGHT, LESION, section(), seed_of("q", shown.digest))
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert Image.open(other.path).mode == "L"


def test_an_image_that_is_there_is_not_made_again_and_another_setting_has_another_name(tmp_path: Path) -> None:
    row = pair(image(tmp_path, {"mass": LESION}))
    first = made(row, tmp_path / "out").pair
    stamp = Path(first.corrupted[0].path).stat().st_mtime_ns
    assert made(first, tmp_path / "out").pair == first
    assert Path(first.corrupted[0].path).stat().st_mtime_ns == stamp
    others = [
        made(row, tmp_path / "out", **values).pair.corrupted[0].path
        for values in ({"strength": 0.1}, {"operator": "blur"}, {"grow": 0.05}, {"grain": 0.05})
    ]
    assert len({first.corrupted[0].path, *others}) == 5


def test_only_the_image_with_the_mask_is_altered(tmp_path: Path) -> None:
    shown = image(tmp_path, {"mass": LESION})
    plain = ImageFile(path=write(tmp_path / "lateral.png", RAMP), view="lateral")
    result = made(pair(plain, shown), tmp_path / "out").pair
    assert result.corrupted[0] == plain
    assert result.corrupted[1].path != shown.path


def test_the_masks_of_the_words_that_differ_are_taken(tmp_path: Path) -> None:
    other = np.roll(LESION, 15, axis=0)
    shown = image(tmp_path, {"mass": LESION, "edema": other})
    for names, expected in (("mass", LESION), ("edema, mass", LESION | other), ("mass; nodule", LESION)):
        area = made(pair(shown, findings=names), tmp_path / "out").pair.provenance["corruption_area"]
        assert float(area) == pytest.approx(expected.mean(), abs=1e-4)


def test_kindred_findings_share_a_mask(tmp_path: Path) -> None:
    shown = image(tmp_path, {"consolidation": LESION, "cardiomegaly": LESION})
    assert kindred("pneumonia", shown) == ("consolidation",)
    assert kindred("lung opacity", shown) == ("consolidation",)
    assert kindred("cardiomegaly", shown) == ("cardiomegaly",)
    assert kindred("rib fracture", shown) == ()


@pytest.mark.parametrize(
    ("masks", "named", "why"),
    [
        ({}, None, "own: image without mask or box"),
        ({"mass": LESION}, "rib fracture", "own: no mask or box of these findings"),
        ({"mass": LESION}, "", "own: no lesion prompt: the words that differ name no finding"),
        ({"mass": np.zeros_like(LESION)}, None, "own: mask empty"),
        ({"mass": np.ones_like(LESION)}, None, "own: mask covers more than 0.9 of the image"),
        ({"mass": np.ones((64, 64), np.bool_)}, None, "own: mask not usable"),
    ],
)
def test_without_a_lesion_the_pair_falls_back_and_says_why(
    tmp_path: Path, masks: dict[str, np.ndarray], named: str | None, why: str
) -> None:
    shown = image(tmp_path, masks)
    row = pair(shown) if named is None else pair(shown, edited=named)
    whole = made(row, tmp_path / "out").pair
    assert path_of(whole) == ("whole", why)
    assert whole.provenance["corruption"] == "whole-noise"
    noise = np.asarray(read_image(whole.corrupted[0]))[..., 0].astype(int) - BRIGHT
    assert noise[~LESION].std() == pytest.approx(12, rel=0.1)
    none = made(row, tmp_path / "out", fallback="none").pair
    assert none.corrupted == ()
    assert path_of(none) == ("none", why)
    assert none.provenance["corruption"] == "none"


def test_a_broken_mask_is_quarantined_under_its_pair(tmp_path: Path) -> None:
    result = made(pair(image(tmp_path, {"mass": np.ones((64, 64), np.bool_)})), tmp_path / "out")
    assert [row.id for row in result.broken] == ["q/edit#image-1-1"]
    assert result.broken[0].reason.startswith("mask of mass: mask of another shape")


def test_an_operator_of_the_whole_image_asks_nobody(tmp_path: Path) -> None:
    def nobody(*_: object) -> list:
        raise AssertionError

    row = pair(image(tmp_path, {"mass": LESION}))
    result = corrupt_pair(row, section(operator="black", fallback="none"), tmp_path, {"own": nobody}).pair
    assert path_of(result) == ("whole", "")
    assert not np.asarray(read_image(result.corrupted[0])).any()


def test_the_first_provider_that_finds_it_counts(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def segment(picture: Image.Image, names: tuple[str, ...]) -> np.ndarray | None:
        asked.append(tuple(names))
        return None if "mass" in names else LESION

    shown = image(tmp_path)
    providers = {"own": own, "segmenter": by_prompt(segment)}
    both = section(masks=("own", "segmenter"))
    found = corrupt_pair(pair(shown, edited="nodule"), both, tmp_path / "out", providers).pair
    assert path_of(found) == ("segmenter", "")
    lost = corrupt_pair(pair(shown, edited="mass"), both, tmp_path / "out", providers).pair
    assert path_of(lost) == ("whole", "own: image without mask or box; segmenter: no detection")
    assert asked == [("nodule",), ("mass",)]
    nothing = corrupt_pair(pair(shown), section(masks=("segmenter",)), tmp_path / "out", providers).pair
    assert "no lesion prompt" in path_of(nothing)[1]
    assert len(asked) == 2


def test_an_image_that_cannot_be_read_is_an_error_of_its_pair(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        made(pair(ImageFile(path=str(tmp_path / "gone.png"))), tmp_path / "out")
