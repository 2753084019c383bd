"""How the built-in model is taught: lessons say what is on the image, and a packed row is its turns one by one."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from PIL import Image

from radpref.config import ModelSection, RunSection, TaskSection
from radpref.data import phantom
from radpref.findings import read
from radpref.models import Vlm, collate, encode_answer, encode_prompt, load
from radpref.models.lessons import LIST, TELL, lessons, report
from radpref.models.make_builtin import (
    ATTRIBUTES,
    PATCHES,
    SIZE,
    STEP,
    Talks,
    answer_loss,
    attribute_logits,
    attributes,
    build,
    make_tokenizer,
)

NAMES = sorted(phantom.NAMES)


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load(ModelSection(), RunSection(precision="float32"))


def drawn(count: int, view: str = "frontal") -> list[phantom.Phantom]:
    return [phantom.draw(index, seed=8, size=64, view=view) for index in range(count)]  # type: ignore[arg-type]


def test_a_list_names_every_finding_with_its_attributes_and_no_other() -> None:
    orders = set()
    for image in drawn(60):
        answers = dict(lessons(image, Random(image.index)))
        entries = {} if answers[LIST] == "none." else dict(e.split(": ") for e in answers[LIST][:-1].split("; "))
        assert set(entries) == {finding.name for finding in image.truth}
        orders.add(tuple(entries) == tuple(sorted(entries, key=phantom.NAMES.index)))
        for finding in image.truth:
            words = entries[finding.name]
            assert (finding.severity or "present" if not finding.side else finding.severity or "") in words
            if finding.side:
                assert ("both" if finding.side == "bilateral" else finding.side) in words
        told = {f.name: (f.side, f.severity) for f in read(answers[TELL]) if f.presence == "present"}
        assert told == {f.name: (f.side, f.severity) for f in image.truth}, answers[TELL]
    assert orders == {True, False}


def test_lessons_follow_from_their_rng_and_never_use_the_reports_prompt() -> None:
    image = next(image for image in drawn(20) if len(image.truth) > 1)
    assert lessons(image, Random(3)) == lessons(image, Random(3)) != lessons(image, Random(4))
    assert all(TaskSection().prompt not in prompt for prompt, _ in lessons(image, Random(3)))
    assert report(image)[0][0].startswith(TaskSection().prompt)


def test_a_lateral_image_is_asked_for_nothing_that_it_hides() -> None:
    for image in drawn(60, "lateral"):
        turns = lessons(image, Random(0))
        answers = dict(turns)[LIST]
        hidden = {finding.name for finding in image.truth} - set(image.masks)
        assert not any(name in answers for name in hidden)
        assert not any(word in answers.split() for word in ("left", "right", "both"))


def test_targets_of_the_tower_are_the_truth() -> None:
    for image in drawn(40):
        target = attributes(image, NAMES)
        for finding in image.truth:
            row = dict(zip(ATTRIBUTES, target[NAMES.index(finding.name)].tolist(), strict=True))
            if finding.side:
                assert (row["left"], row["right"]) == (finding.side != "right", finding.side != "left")
            if finding.severity:
                grade = row["at least moderate"] + row["severe"]
                assert grade == ["mild", "moderate", "severe"].index(finding.severity)
        absent = [i for i, name in enumerate(NAMES) if name not in {f.name for f in image.truth}]
        assert target[absent].isnan().all()


def test_attributes_are_read_where_the_finding_is() -> None:
    patches = torch.full((1, 4, 2), -9.0)
    patches[0, 3, 1] = 9.0
    values = torch.arange(4.0)[None, :, None].expand(1, 4, 2 * len(ATTRIBUTES))
    told = attribute_logits(patches, values)
    assert told.shape == (1, 2, len(ATTRIBUTES))
    assert torch.allclose(told[0, 1], torch.tensor(3.0), atol=1e-3)
    assert torch.allclose(told[0, 0], torch.tensor(1.5))


@pytest.mark.parametrize("step", [0, 8])
def test_a_packed_row_has_the_loss_of_its_turns_asked_one_by_one(vlm: Vlm, step: int) -> None:
    """Frontal images (0), and both views (8): as the model is asked later, through processor and chat template."""
    talks = Talks(vlm.processor, 0, lambda step: 1.0)
    images, seed = (["frontal"], 11) if step == 0 else (["frontal", "lateral"], 12)
    pictures = [
        Image.fromarray(phantom.draw(seed, seed=8, size=SIZE, view=view).image).convert("RGB")  # type: ignore[arg-type]
        for view in images
    ]
    image = phantom.draw(seed, seed=8, size=SIZE)
    turns = [*report(image), *lessons(image, Random(0))][:5]
    ids, labels, positions, numbers = talks.row(turns, len(pictures))
    assert len(set(numbers)) > 2
    pixels = vlm.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    talk = talks.batch(step)._replace(
        pixels=pixels,
        ids=torch.tensor([ids]),
        labels=torch.tensor([labels]),
        positions=torch.tensor([positions]),
        turns=torch.tensor([numbers]),
    )
    with torch.no_grad():
        together = answer_loss(vlm.model, vlm.model.model.language_model, talk)
        total, count = 0.0, 0
        for number in sorted(set(numbers) - {0}):
            prompt, answer = turns[number - 1]
            batch = collate(vlm, [encode_prompt(vlm, prompt, pictures)], [encode_answer(vlm, answer)])
            wanted = batch.pop("completion_mask")[:, 1:]
            logps = vlm.model(**batch).logits[:, :-1].log_softmax(-1)
            total -= float(logps.gather(2, batch["input_ids"][:, 1:, None])[..., 0][wanted].sum())
            count += int(wanted.sum())
    assert count == sum(label != -100 for label in labels)
    assert float(together) == pytest.approx(total / count, rel=1e-4)


def test_batches_follow_from_their_number() -> None:
    tokenizer = make_tokenizer(iter(["Write the findings of this chest X-ray.", "The lungs are clear."] * 5))
    _, processor = build(tokenizer)
    talks = Talks(processor, 0, lambda step: 0.5)
    one, again, both, lateral = (talks.batch(step) for step in (3, 3, 8, 9))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert len(both.pixels) == 2 * len(both.ids)
    assert len(lateral.pixels) == len(lateral.ids)
    for talk, images in ((one, 1), (both, 2), (lateral, 1)):
        assert talk.ids.shape[1] % STEP == 0
        assert ((talk.ids == tokenizer.convert_tokens_to_ids("<image>")).sum(1) == images * PATCHES).all()
        assert (talk.turns[talk.labels != -100] > 0).all()


def test_the_checkpoint_is_small_and_half_precision(vlm: Vlm) -> None:
    from safetensors import safe_open

    weights = vlm.folder / "model.safetensors"
    assert weights.stat().st_size < 12e6
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118 - no mapping
    assert "auto_map" not in json.loads((vlm.folder / "config.json").read_text("utf-8"))
