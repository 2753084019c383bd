"""The causal test, on models whose dependence on the image is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from radpref.config import CorruptSection
from radpref.data import phantom
from radpref.grounding import (
    Grounding,
    attention_table,
    causal_table,
    compare_effects,
    drops,
    looks,
    measure_grounding,
    targets,
    token_logps,
)
from radpref.grounding import causal as room
from radpref.grounding.causal import GroundingError, body, moved, patches
from radpref.grounding.measure import INPAINT, drop_metrics, drop_tests
from radpref.grounding.targets import sentence_of
from radpref.images import read_image
from radpref.models import ModelError, Vlm, encode_answer, encode_prompt
from radpref.records import Drop, ImageFile, Look, Quarantined, Question, Span
from tests.tiny import FAMILIES, fresh_vlm, picture, tiny_vlm

REPORT = "Heart size is normal. There is a small left pleural effusion. No pneumothorax."


def image(folder: Path, name: str, masks: dict[str, tuple[slice, slice]], size: int = 64) -> ImageFile:
    """A grey disc of a body on black air; a bright square where a mask is."""
    y, x = np.mgrid[:size, :size]
    pixels = np.where((y - size / 2) ** 2 + (x - size / 2) ** 2 < (0.47 * size) ** 2, 120, 0).astype(np.uint8)
    paths = {}
    for finding, place in masks.items():
        pixels[place] = 230
        mask = np.zeros((size, size), np.uint8)
        mask[place] = 255
        paths[finding] = str(folder / f"{name}-{finding}.png".replace(" ", "_"))
        Image.fromarray(mask).save(paths[finding])
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return ImageFile(path=str(folder / f"{name}.png"), masks=paths, digest=name)


def question(name: str, *images: ImageFile, reference: str = REPORT) -> Question:
    return Question(
        id=name,
        study=name,
        patient=name,
        split="test",
        images=images,
        prompt="Write the findings.",
        reference=reference,
    )


LEFT = (slice(36, 44), slice(40, 48))


def test_targets_are_what_the_answer_says_is_there(tmp_path: Path) -> None:
    one = image(tmp_path, "a", {"pleural effusion": LEFT, "pneumothorax": LEFT})
    found, without = targets([question("q", one), question("bare", ImageFile(path="x.png"))])
    assert [target.id for target in found] == ["q/pleural effusion"]
    words = found[0].words
    assert REPORT[words.start : words.end] == "pleural effusion"
    sentence = found[0].sentence
    assert REPORT[sentence.start : sentence.end] == "There is a small left pleural effusion."
    assert [row.id for row in without] == ["q/pneumothorax"]
    assert targets([question("q", one)], {"q": "No effusion."})[0] == []


def test_sentences_at_the_edges() -> None:
    assert sentence_of("Effusion", Span(start=0, end=8)) == Span(start=0, end=8)
    text = "Clear. Left effusion measures 1.5 cm.  Done."
    assert sentence_of(text, Span(start=12, end=20)) == Span(start=7, end=37)


def test_body_is_the_chest_and_not_the_air() -> None:
    drawn = phantom.draw(3, seed=3)
    inside = body(np.repeat(drawn.image[..., None], 3, -1))
    assert inside[64, 30:100].all()  # lungs are dark, and inside
    assert not inside[0, :10].any()
    assert not body(np.zeros((16, 16, 3), np.uint8)).any()


def test_moved_patches_keep_their_shape_and_their_distance() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), np.bool_)
    mask[3:6, 3:6] = True
    mask[4, 6] = True
    allowed = np.zeros((40, 40), np.bool_)
    allowed[20:30, 20:30] = True
    copies = moved(mask, allowed, 5, rng)
    assert len({copy.tobytes() for copy in copies}) == 5
    for copy in copies:
        assert copy.sum() == mask.sum()
        assert not (copy & ~allowed).any()
        row, col = np.argwhere(copy).min(0)
        assert copy[row : row + 3, col : col + 4].tolist() == mask[3:6, 3:7].tolist()
    tight = np.zeros((40, 40), np.bool_)
    tight[20:23, 20:24] = True
    assert len(moved(mask, tight, 3, rng)) == 3  # one place, taken three times
    assert moved(mask, ~allowed & False, 3, rng) == []


def test_patches_follow_from_the_seed_and_keep_off_every_lesion(tmp_path: Path) -> None:
    other = (slice(16, 26), slice(16, 30))
    shown = image(tmp_path, "a", {"pleural effusion": LEFT, "mass": other})
    pixels = np.asarray(read_image(shown))
    lesion, *copies = patches(shown, "pleural effusion", pixels, 6, seed=4)
    assert lesion[LEFT].all()
    for copy in copies:
        assert copy.sum() == lesion.sum()
        assert not (copy & lesion).any()
        assert not copy[other].any()
        assert not (copy & ~body(pixels)).any()
    again = patches(shown, "pleural effusion", pixels, 6, seed=4)
    assert all((a == b).all() for a, b in zip([lesion, *copies], again, strict=True))


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ((slice(0, 0), slice(0, 0)), "empty"),
        ((slice(None), slice(None)), "covers the whole image"),
        ((slice(8, 56), slice(8, 56)), "no room"),
    ],
)
def test_masks_that_cannot_be_used(tmp_path: Path, place: tuple[slice, slice], reason: str) -> None:
    shown = image(tmp_path, "a", {"pleural effusion": place})
    with pytest.raises(GroundingError, match=reason):
        patches(shown, "pleural effusion", np.asarray(read_image(shown)), 2, seed=0)
    found, _ = targets([question("q", shown)])
    rows = list(drops(tiny_vlm("llava"), found, system="s", section=INPAINT))
    assert [type(row) for row in rows] == [Quarantined]
    assert reason in rows[0].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_those_of_the_plain_forward(family: str) -> None:
    """Rows of different prompts, images and answers in one batch, against each row alone with all its logits."""
    vlm = tiny_vlm(family)
    rows = [
        (encode_prompt(vlm, prompt, [picture(seed)]), encode_answer(vlm, answer))
        for prompt, answer, seed in (("Write the findings.", "Heart size is normal.", 0), ("Why?", "No effusion.", 1))
    ]
    found = token_logps(vlm, rows)
    for (prompt, answer), scores in zip(rows, found, strict=True):
        ids = torch.cat([prompt["input_ids"], torch.tensor([answer])], 1)
        images = {name: value for name, value in prompt.items() if name.startswith(("pixel", "image"))}
        kinds = {
            name: torch.cat([prompt[name], torch.zeros(1, len(answer), dtype=torch.int64)], 1)
            for name in ("token_type_ids", "mm_token_type_ids")
            if name in prompt
        }
        with torch.no_grad():
            logits = vlm.model(input_ids=ids, **images, **kinds, use_cache=False).logits[0, -len(answer) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
        torch.testing.assert_close(scores, expected, atol=2e-4, rtol=1e-4)
    assert token_logps(vlm, []) == []


def test_a_model_that_looks_scores_and_one_that_does_not_is_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer whose log-probs rise with the brightness of the lesion's place, and one that is given no image."""
    questions = [question(f"q{i}", image(tmp_path, f"f{i}", {"pleural effusion": LEFT})) for i in range(5)]
    found, _ = targets(questions)
    vlm = tiny_vlm("llava")

    def scorer(weight: float) -> Any:
        def score(vlm: Vlm, rows: Any) -> list[torch.Tensor]:
            def one(prompt: Any, answer: Any) -> torch.Tensor:
                # the image comes normalised, 32 x 32: the lesion lies at rows 18 to 22, columns 20 to 24
                bright = float(prompt["pixel_values"][0, :, 18:22, 20:24].mean())
                return torch.full((len(answer),), -1.0 + weight * bright)

            return [one(*row) for row in rows]

        return score

    measured = {}
    for name, weight in (("looks", 0.1), ("blind", 0.0)):
        monkeypatch.setattr(room, "token_logps", scorer(weight))
        rows = [row for some in drops(vlm, found, system=name, section=INPAINT) for row in some]
        assert all(isinstance(row, Drop) for row in rows)
        measured[name] = rows
        effect = next(m for m in drop_metrics(rows) if m.name == "effect_words")
        if name == "looks":
            assert effect.low is not None
            assert effect.low > 0
        else:
            assert effect.value == effect.low == effect.high == 0
    tests = drop_tests(measured["looks"])
    assert [test.p for test in tests] == [pytest.approx(2 / 2**5)] * 2
    gap = compare_effects(measured["blind"], measured["looks"])
    assert gap is not None
    assert gap.low > 0
    assert (gap.before, gap.after) == ("blind", "looks")
    row = measured["looks"][0]
    assert row.effect == pytest.approx(row.drop - row.control)
    assert row.changed > row.changed_elsewhere


def test_all_images_that_show_the_lesion_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [image(tmp_path, name, {"pleural effusion": LEFT}) for name in ("a", "b")]
    plain = image(tmp_path, "c", {})
    found, _ = targets([question("q", *shown, plain)])
    assert found[0].images == (0, 1)
    seen: list[Any] = []

    def score(vlm: Vlm, rows: Any) -> list[torch.Tensor]:
        seen.extend(prompt["pixel_values"] for prompt, _ in rows)
        return [torch.zeros(len(answer)) for _, answer in rows]

    monkeypatch.setattr(room, "token_logps", score)
    list(drops(tiny_vlm("llava"), found, system="s", section=CorruptSection(operator="noise"), placements=1))
    clean, removed, elsewhere = seen
    for variant in (removed, elsewhere):
        same = [bool(torch.equal(clean[number], variant[number])) for number in range(3)]
        assert same == [False, False, True]


def measured(folder: Path, **more: Any) -> Grounding:
    questions = [question(f"q{i}", image(folder, f"f{i}", {"pleural effusion": LEFT, "mass": LEFT})) for i in range(3)]
    return measure_grounding(tiny_vlm("llava"), questions, system="tiny", placements=2, resamples=100, **more)


def test_a_measurement_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    kept: list[Look | Drop] = []
    whole = measured(tmp_path, keep=kept.append)
    assert len(whole.looks) == 3
    assert len(whole.drops) == 6
    assert {row.id for row in whole.quarantined} == {f"q{i}/mass" for i in range(3)}
    for cut in (1, 4, 6, len(kept)):  # 6: between the two scopes of one target
        rest: list[Look | Drop] = []
        again = measured(tmp_path, known=kept[:cut], keep=rest.append)
        assert again.metrics == whole.metrics
        assert again.tests == whole.tests
        assert sorted(row.id for row in kept[cut:]) == sorted(row.id for row in rest)
    assert all(type(row).model_validate_json(row.model_dump_json()) == row for row in kept)


def test_tables_show_every_number_with_its_n(tmp_path: Path) -> None:
    found = measured(tmp_path)
    lines = causal_table(found.metrics, found.tests).splitlines()
    assert len(lines) == 4
    assert all(line.endswith("| 3 |") for line in lines[2:])
    attention = attention_table(found.metrics).splitlines()
    sources = ("relative", "raw", "relative, another mask", "raw, another mask")
    names = [line.split(" |")[0] for line in attention[2:]]
    assert names == [*(f"| tiny: {source}" for source in sources), "| *centre*", "| *uniform*"]
    assert attention_table(found.metrics, "layer-1").splitlines()[2] != attention[2]
    uniform = next(m for m in found.metrics if m.system == "tiny: uniform" and m.name == "ratio_mean")
    assert uniform.value == pytest.approx(1)
    assert uniform.n == 3


def test_looks_take_the_mask_of_another_patient(tmp_path: Path) -> None:
    right = (slice(36, 44), slice(16, 24))
    questions = [
        question("a", image(tmp_path, "a", {"pleural effusion": LEFT})),
        question("b", image(tmp_path, "b", {"pleural effusion": right})),
    ]
    found, _ = targets(questions)
    rows = [row for row in looks(tiny_vlm("llava"), found, system="s", query="prompt") if isinstance(row, Look)]
    first, second = rows
    swapped = looks(
        tiny_vlm("llava"),
        [found[0]._replace(question=questions[0].model_copy(update={"images": questions[1].images}))],
        system="s",
    )
    assert first.agreement["raw, another mask"] != first.agreement["raw"]
    alone = next(iter(swapped))
    assert isinstance(alone, Look)
    assert "raw, another mask" not in alone.agreement
    assert second.inside == pytest.approx(1)


def test_an_image_that_cannot_be_read_is_quarantined(tmp_path: Path) -> None:
    good = image(tmp_path, "a", {"pleural effusion": LEFT})
    bad = good.model_copy(update={"path": str(tmp_path / "gone.png")})
    found = measure_grounding(tiny_vlm("llava"), [question("q", bad)], system="s")
    assert found.looks == []
    assert found.drops == []
    assert found.tests == []
    assert ["missing" in row.reason for row in found.quarantined] == [True, True]


def test_what_is_wrong_with_the_model_ends_the_measurement(tmp_path: Path) -> None:
    """Every target would fail for the same reason: that is an error and not a list of quarantined rows."""
    found, _ = targets([question("q", image(tmp_path, "a", {"pleural effusion": LEFT}))])
    vlm = fresh_vlm("idefics3")
    vlm.processor.image_processor.do_image_splitting = True
    with pytest.raises(ModelError, match="do_image_splitting"):
        list(looks(vlm, found, system="s"))
    rows = measure_grounding(vlm, [found[0].question], system="s", attention=False, placements=1)
    assert rows.looks == []
    assert len(rows.drops) == 2
