"""Marks: where they are drawn, that they can be seen, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radpref.images import image_hash, read_image
from radpref.images.marks import COLOURS, MARKS, Mark, draw_mark, innermost, marked_image, parts
from radpref.records import ImageFile


def grey(side: int = 256, value: int = 90) -> Image.Image:
    return Image.new("RGB", (side, side), (value, value, value))


def disc(side: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, cols = np.mgrid[:side, :side]
    return np.hypot(cols - x, rows - y) <= radius


def changed(marked: Image.Image, plain: Image.Image) -> np.ndarray:
    difference = np.asarray(marked, np.int16) - np.asarray(plain, np.int16)
    return np.abs(difference).max(-1) > 8


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("side", [64, 128, 1024])
def test_a_mark_is_seen_at_any_size_and_stays_near_its_place(mark: Mark, side: int) -> None:
    mask = disc(side, 0.3 * side, 0.4 * side, 0.08 * side)
    plain = grey(side)
    drawn = draw_mark(plain, mask, mark, seed="x")
    touched = changed(drawn.image, plain)
    assert 0.001 < touched.mean() < 0.2
    rows, cols = np.nonzero(touched)
    assert np.hypot(cols - 0.3 * side, rows - 0.4 * side).max() < 0.32 * side
    assert drawn.name.split() == [drawn.colour, mark]
    assert drawn.colour in COLOURS


def test_an_arrow_ends_in_the_part_and_a_box_and_a_contour_leave_it_free() -> None:
    mask = disc(400, 120, 150, 40)
    plain = grey(400)
    arrow = changed(draw_mark(plain, mask, "arrow", seed="a").image, plain)
    assert arrow[mask].any()
    rows, cols = np.nonzero(arrow)
    assert np.hypot(cols - 120, rows - 150).min() < 25
    for around in ("box", "contour"):
        touched = changed(draw_mark(plain, mask, around, seed="a").image, plain)
        assert not touched[disc(400, 120, 150, 38)].any()
        assert touched[:, :120].any()
        assert touched[:, 120:].any()
        assert touched[:150].any()
        assert touched[150:].any()


def test_a_star_does_not_hide_a_small_part() -> None:
    mask = disc(400, 120, 150, 6)
    plain = grey(400)
    touched = changed(draw_mark(plain, mask, "star").image, plain)
    assert not touched[mask].all()
    assert touched[mask].mean() < 0.5


@pytest.mark.parametrize("value", [0, 40, 90, 140, 200, 255])
@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_stands_out_from_any_grey(value: int, mark: Mark) -> None:
    plain = grey(256, value)
    for seed in "abc":
        image = np.asarray(draw_mark(plain, disc(256, 128, 128, 30), mark, seed=seed).image, np.int16)
        assert np.abs(image - value).max(-1).max() > 90


def test_edges_are_soft() -> None:
    image = np.asarray(draw_mark(grey(512), disc(512, 256, 256, 60), "arrow", seed="s").image)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 25


def test_the_same_seed_draws_the_same_and_marks_stay_inside() -> None:
    for corner in ((3, 3), (250, 250), (3, 250)):
        mask = disc(256, *corner, 5)
        for mark in MARKS:
            first, second = (draw_mark(grey(), mask, mark, seed="k") for _ in range(2))
            assert first.colour == second.colour
            assert np.array_equal(np.asarray(first.image), np.asarray(second.image))


def test_a_mask_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="give one of its size"):
        draw_mark(grey(64), np.ones((32, 32), bool), "box")
    with pytest.raises(ValueError, match="nothing to mark"):
        draw_mark(grey(64), np.zeros((64, 64), bool), "box")


def test_parts_are_separate_and_specks_left_out() -> None:
    mask = disc(200, 50, 50, 20) | disc(200, 150, 50, 15) | disc(200, 100, 150, 1)
    found = parts(mask)
    assert [part.sum() for part in found] == sorted((part.sum() for part in found), reverse=True)
    assert len(found) == 2
    assert not (found[0] & found[1]).any()
    x, y, depth = innermost(found[1])
    assert abs(x - 150) < 2
    assert abs(y - 50) < 2
    assert 13 < depth < 17


def test_a_marked_image_is_written_once_and_named_by_content(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8)).save(tmp_path / "image.png")
    image = ImageFile(path=str(tmp_path / "image.png"), view="frontal")
    picture = read_image(image)
    mask = np.zeros((96, 128), bool)
    mask[20:40, 30:60] = True
    first, drawn = marked_image(image, picture, mask, "box", tmp_path / "marked", seed="1")
    again, _ = marked_image(image, picture, mask, "box", tmp_path / "marked", seed="1")
    other, _ = marked_image(image, picture, mask, "arrow", tmp_path / "marked", seed="1")
    assert first == again
    assert first.path != other.path
    assert len(list((tmp_path / "marked").iterdir())) == 2
    assert first.view == "frontal"
    assert first.digest == image_hash(first)
    assert np.array_equal(np.asarray(read_image(first)), np.asarray(drawn.image))
