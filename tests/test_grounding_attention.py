"""Attention to images: the right token for each place, of every family, in image coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from radpref.grounding import Geometry, attention_maps, image_tokens, inside, to_grid, to_image, watched
from radpref.grounding.attention import answer_tokens
from radpref.models import ModelError, Vlm, encode_answer, encode_prompt, language_model, unwrapped
from radpref.records import Span
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm

PROMPT = "Write the findings."
ANSWER = "Small left pleural effusion."
EFFUSION = Span(start=ANSWER.index("pleural"), end=ANSWER.index("."))


def geometry(vlm: Vlm, image: Image.Image) -> Geometry:
    return image_tokens(vlm, encode_prompt(vlm, PROMPT, [image]), [image])[0].geometry


def features(vlm: Vlm, image: Image.Image) -> torch.Tensor:
    """What the projector makes of each image token: (tokens, width)."""
    inner: Any = unwrapped(vlm.model)
    wanted = ("pixel_values", "pixel_attention_mask", "image_grid_thw")
    inputs = {name: value for name, value in encode_prompt(vlm, PROMPT, [image]).items() if name in wanted}
    with torch.no_grad():
        out = inner.get_image_features(**inputs, return_dict=True).pooler_output
    out = out[0] if isinstance(out, list | tuple) else out
    return out.reshape(-1, out.shape[-1])


def cell(where: Geometry, row: int, col: int) -> tuple[slice, slice]:
    down, across = (where.bottom - where.top) / where.rows, (where.right - where.left) / where.cols
    top, left = where.top + row * down, where.left + col * across
    return slice(round(top), round(top + down)), slice(round(left), round(left + across))


def check_places(vlm: Vlm, picture: Image.Image) -> Geometry:
    """A spot in each cell of an even image must change that cell's token more than any other."""
    where = geometry(vlm, picture)
    plain = np.full((picture.height, picture.width, 3), 110, np.uint8)
    before = features(vlm, Image.fromarray(plain))
    for row in range(where.rows):
        for col in range(where.cols):
            image = plain.copy()
            place = cell(where, row, col)
            noise = np.random.default_rng(row * 100 + col).integers(0, 256, image[place].shape[:2], np.uint8)
            image[place] = noise[..., None]
            change = (features(vlm, Image.fromarray(image)) - before).norm(dim=-1)
            assert int(change.argmax()) == row * where.cols + col, (row, col)
    return where


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spot_changes_the_token_of_its_cell(family: str) -> None:
    check_places(tiny_vlm(family), picture(1, width=96, height=112))


def test_qwen_has_a_grid_of_the_images_own_shape() -> None:
    wide = geometry(tiny_vlm("qwen3_vl"), picture(0, width=160, height=60))
    assert wide.cols > wide.rows


def test_a_centre_crop_leaves_the_long_ends_out() -> None:
    vlm = fresh_vlm("llava")
    settings = vlm.processor.image_processor
    settings.size = {"shortest_edge": 40}
    settings.do_center_crop, settings.crop_size = True, {"height": 32, "width": 32}
    where = check_places(vlm, picture(0, width=100, height=200))
    # 100 x 200 becomes 40 x 80; of that the crop sees rows 24 to 56 and columns 4 to 36
    assert where == Geometry(4, 4, 60.0, 10.0, 140.0, 90.0)
    mask = np.zeros((200, 100), np.bool_)
    mask[:60] = True
    assert inside(mask, where) == 0
    assert inside(np.ones((200, 100), np.bool_), where) == pytest.approx(80 * 80 / 20_000)


@pytest.mark.parametrize(
    ("family", "change", "word"),
    [
        ("idefics3", {"do_image_splitting": True}, "do_image_splitting"),
        ("gemma3", {"do_pan_and_scan": True}, "do_pan_and_scan"),
        ("llava", {"do_pad": True}, "do_pad"),
        ("llava", {"size": {"longest_edge": 32}}, "longest_edge"),
    ],
)
def test_a_geometry_that_is_not_known_is_an_error(family: str, change: dict[str, Any], word: str) -> None:
    vlm = fresh_vlm(family)
    image = picture(0)
    prompt = encode_prompt(vlm, PROMPT, [image])
    for name, value in change.items():
        setattr(vlm.processor.image_processor, name, value)
    with pytest.raises(ModelError, match=word):
        image_tokens(vlm, prompt, [image])


def test_an_unknown_family_and_a_wrong_count_are_errors() -> None:
    vlm = fresh_vlm("llava")
    image = picture(0)
    prompt = encode_prompt(vlm, PROMPT, [image])
    with pytest.raises(ModelError, match="16 image tokens for 2 images"):
        image_tokens(vlm, prompt, [image, image])
    vlm.model.config.model_type = "llava_next"
    with pytest.raises(ModelError, match="llava_next"):
        image_tokens(vlm, prompt, [image])


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_are_the_models_own_attention(family: str) -> None:
    vlm = tiny_vlm(family)
    pictures = [picture(0), picture(1, width=96, height=90)]
    decoder: Any = language_model(vlm.model)
    ran = decoder.config._attn_implementation
    prompt = encode_prompt(vlm, PROMPT, pictures)
    maps = attention_maps(vlm, PROMPT, pictures)
    assert decoder.config._attn_implementation == ran
    images = image_tokens(vlm, prompt, pictures)
    decoder.set_attn_implementation("eager")
    with torch.no_grad():
        weights = vlm.model(**prompt, output_attentions=True, use_cache=False).attentions
    decoder.set_attn_implementation(ran)
    for image, found in zip(images, maps, strict=True):
        assert found.shape == (len(weights), image.geometry.rows, image.geometry.cols)
        for layer, expected in zip(found, weights, strict=True):
            np.testing.assert_allclose(layer.ravel(), expected[0, :, -1].mean(0)[image.positions], atol=1e-6)


def test_words_are_asked_where_they_are_predicted() -> None:
    vlm = tiny_vlm("llava")
    shown = picture(0)
    tokens = answer_tokens(vlm, ANSWER, [EFFUSION])
    text = vlm.tokenizer.decode([encode_answer(vlm, ANSWER)[token] for token in tokens])
    assert text.strip() == "pleural effusion"
    whole = attention_maps(vlm, PROMPT, [shown], ANSWER, [EFFUSION])[0]
    seen: list[torch.Tensor] = []
    rows = encode_prompt(vlm, PROMPT, [shown])
    length = rows["input_ids"].shape[1]
    ids = torch.cat([rows["input_ids"], torch.tensor([encode_answer(vlm, ANSWER)])], 1)
    with torch.no_grad(), watched(vlm, lambda layer, weights: seen.append(weights)):
        vlm.model(input_ids=ids, pixel_values=rows["pixel_values"], use_cache=False)
    image = image_tokens(vlm, rows, [shown])[0]
    asked = [length + token - 1 for token in tokens]
    expected = seen[1][0][:, asked].mean((0, 1))[image.positions]
    np.testing.assert_allclose(whole[1].ravel(), expected, atol=1e-6)


def test_what_is_switched_on_is_switched_off_after_an_error() -> None:
    vlm = tiny_vlm("llava")
    decoder: Any = language_model(vlm.model)
    ran = decoder.config._attn_implementation
    hooks = [dict(layer.self_attn._forward_hooks) for layer in decoder.layers]

    def fail(layer: int, weights: torch.Tensor) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), watched(vlm, fail):
        vlm.model(**encode_prompt(vlm, PROMPT, [picture(0)]))
    assert decoder.config._attn_implementation == ran
    assert [dict(layer.self_attn._forward_hooks) for layer in decoder.layers] == hooks


def test_words_without_a_token_are_an_error() -> None:
    with pytest.raises(ValueError, match="no token"):
        attention_maps(tiny_vlm("llava"), PROMPT, [picture(0)], ANSWER, [Span(start=400, end=402)])


sides = st.integers(1, 40)


@given(st.integers(1, 6), st.integers(1, 6), sides, sides, st.integers(0, 2**32 - 1))
def test_a_mask_on_the_grid_weighs_what_it_weighs_on_the_image(
    rows: int, cols: int, height: int, width: int, seed: int
) -> None:
    """Grid values x cover x cell area sum to what they do over the image, where cells hold whole pixels."""
    rng = np.random.default_rng(seed)
    height, width = height * rows, width * cols
    where = Geometry(rows, cols, 0.0, 0.0, float(height), float(width))
    mask = rng.random((height, width)) < 0.3
    grid = rng.random((rows, cols))
    area = height * width / (rows * cols)
    on_grid = (grid * to_grid(mask, where)).sum() * area
    on_image = (to_image(grid, where, (width, height)) * mask).sum(dtype=np.float64)
    assert on_grid == pytest.approx(on_image, rel=1e-4, abs=1e-6)
    assert inside(mask, where) == pytest.approx(1.0 if mask.any() else 0.0)


def test_a_window_beyond_the_image_sees_nothing_there() -> None:
    where = Geometry(2, 2, -4.0, 0.0, 12.0, 8.0)  # padded by 4 above and below
    cover = to_grid(np.ones((8, 8), np.bool_), where)
    np.testing.assert_allclose(cover, 0.5)
    image = to_image(np.array([[1.0, 2.0], [3.0, 4.0]]), where, (8, 8))
    np.testing.assert_array_equal(image[:4, :4], 1)
    np.testing.assert_array_equal(image[4:, 4:], 4)
