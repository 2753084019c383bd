"""What must not change a training: how rows, caches, batches and processes are arranged, in each family of models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import TrainingArguments

from radpref import config
from radpref.config import AlignSection, LoraSection, ModelSection
from radpref.images import read_image
from radpref.losses import LossError
from radpref.models import Vlm, attach_lora, encode_answer, encode_prompt, load, token_mask, unwrapped
from radpref.records import ImageFile, Pair, Span
from radpref.training import (
    Collator,
    PairTrainer,
    Prepared,
    TrainingError,
    align,
    prepare,
    way_of,
)  # fmt: skip
from radpref.training.head import Head
from radpref.training.layout import Group, pack
from radpref.training.loop import arguments
from radpref.training.scoring import PLAIN, score
from radpref.training.trainer import LikeLengths
from tests import tiny
from tests import training_toys as toys

pytestmark = pytest.mark.heavy

HERE = Path(__file__)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("invariance")


@pytest.fixture(scope="module")
def pairs(base: Path) -> list[Pair]:
    return marked(toys.pairs(base / "images"), base / "images")


def marked(pairs: Sequence[Pair], folder: Path) -> list[Pair]:
    """The same with two words of each answer as spans, and corrupted images for all but every third pair."""
    random = np.random.default_rng(1)
    made = []
    for number, pair in enumerate(pairs):
        images = []
        for place in range(len(pair.images)):
            path = folder / f"corrupted{number}-{place}.png"
            Image.fromarray((random.random((70, 60)) * 255).astype("uint8")).save(path)
            images.append(ImageFile(path=str(path)))
        made.append(
            pair.model_copy(
                update={
                    "chosen_spans": (span(pair.chosen, 1, 3),),
                    "rejected_spans": (span(pair.rejected, 0, 1), span(pair.rejected, 3, 4)),
                    "corrupted": tuple(images) if number % 3 else (),
                    "weight": 1.0 + number % 2,
                }
            )
        )
    return made


def span(text: str, first: int, last: int) -> Span:
    words = text.split(" ")
    start = len(" ".join(words[:first])) + (1 if first else 0)
    return Span(start=start, end=start + len(" ".join(words[first:last])))


def section_of(objective: str, **settings: Any) -> AlignSection:
    return toys.section(**config.objectives()[objective], objective=objective, **settings)


def student(vlm: Vlm, section: AlignSection) -> Vlm:
    """With an adapter whose output is not zero."""
    with_adapter = attach_lora(vlm, section.lora)
    random = torch.Generator().manual_seed(0)
    for name, parameter in with_adapter.model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return with_adapter


def loss_and_gradient(vlm: Vlm, prepared: Prepared, section: AlignSection, folder: Path) -> tuple[float, Tensor]:
    """Of all items at once, under the adapter of ``student``."""
    head = Head.of(unwrapped(vlm.model).get_output_embeddings()) if prepared.objective.kl else None
    trained = student(vlm, section)
    try:
        trainer = PairTrainer(trained, TrainingArguments(**arguments(trained, section, folder, 0)), prepared, head)
        batches, _ = trainer.get_batch_samples(iter([Collator(trained, prepared)(prepared.items)]), 1, vlm.device)
        loss = trainer.compute_loss(trained.model, batches[0])
        wanted = [p for p in trained.model.parameters() if p.requires_grad]
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)])
        return float(loss), gradient
    finally:
        trained.model.unload()


def assert_same(one: tuple[float, Tensor], other: tuple[float, Tensor], rel: float = 2e-4) -> None:
    assert one[0] == pytest.approx(other[0], abs=2e-5)
    assert other[1].norm() > 1e-4
    assert (one[1] - other[1]).norm() / other[1].norm() < rel


# ------------------------------------------------------------------------------------------ rows and caches


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_takes_the_fast_way(family: str, base: Path) -> None:
    way = way_of(toys.vlm(base / family, family))
    assert way[:3] == (True, True, True), way.notes


@pytest.mark.parametrize("objective", ["dpo", "firempo", "kto", "tdpo", "mdpo"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shared_rows_and_caches_change_nothing(
    family: str, objective: str, base: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """Shared rows with kept features, against a row an answer with the images encoded at every step."""
    vlm = toys.vlm(base / family, family)
    fast = section_of(objective, cache_features="always")
    slow = section_of(objective, cache_features="never", shared_prefix="never")
    found = []
    for section in (fast, slow):
        prepared = prepare(vlm, pairs, section, tmp_path / section.cache_features)
        assert prepared.features == prepared.way.shared == (section is fast)
        found.append(loss_and_gradient(vlm, prepared, section, tmp_path))
    assert_same(*found)


def test_kept_images_are_not_read_again(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """Once prepared, a training needs neither the images nor the tower."""
    vlm = toys.vlm(base / "llava")
    images = {}
    for pair in pairs:
        for image in (*pair.images, *pair.corrupted):
            images[image.path] = tmp_path / Path(image.path).name
            images[image.path].write_bytes(Path(image.path).read_bytes())

    def moved(some: tuple[ImageFile, ...]) -> tuple[ImageFile, ...]:
        return tuple(ImageFile(path=str(images[image.path])) for image in some)

    here = [p.model_copy(update={"images": moved(p.images), "corrupted": moved(p.corrupted)}) for p in pairs]
    section = section_of("firempo", cache_features="always")
    prepared = prepare(vlm, here, section, tmp_path / "prepared")
    for path in images.values():
        path.unlink()
    tower = vlm.model.model.vision_tower
    handle = tower.register_forward_pre_hook(lambda *_: pytest.fail("the tower was asked"))
    try:
        assert align(vlm, prepared, section, tmp_path / "run", seed=0).finished
    finally:
        handle.remove()


def test_a_cheap_tower_is_not_cached_and_that_is_said(
    base: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vlm = toys.vlm(base / "llava")
    monkeypatch.setattr(sys.modules["radpref.training.prepare"], "WORTH", 0.99)
    with caplog.at_level("INFO", "radpref"):
        assert not prepare(vlm, pairs, toys.section(), tmp_path).features
    assert "encoded at every step" in caplog.text
    assert not json.loads((tmp_path / "features.json").read_text())["kept"]
    monkeypatch.setattr(sys.modules["radpref.training.prepare"], "WORTH", 0.0)
    assert not prepare(vlm, pairs, toys.section(), tmp_path).features  # what was settled stays, also after a resume
    assert prepare(vlm, pairs, toys.section(cache_features="always"), tmp_path).features


def test_features_of_a_trained_projector_are_not_kept(
    base: Path, pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlm = toys.vlm(base / "llava")
    section = toys.section(lora=LoraSection(rank=0), train_projector=True, cache_features="always", lr=1e-3)
    prepared = prepare(vlm, pairs, section, tmp_path / "prepared")
    assert not prepared.features
    assert "projector is trained" in caplog.text
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    result = align(vlm, prepared, section, tmp_path / "run", seed=0)
    after = load(ModelSection(path=str(result.checkpoints[-1].path)), toys.FLOAT32).model.state_dict()
    for name, value in after.items():
        assert torch.equal(before[name], value) == ("vision_tower" in name), name
    with pytest.raises(TrainingError, match=r"lora\.rank 0"):
        align(vlm, prepared, section.model_copy(update={"lora": LoraSection(rank=4)}), tmp_path / "no", seed=0)


def test_training_in_full_has_the_reference_of_before(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """With the head trained, the divergence is still one from the head as it was."""
    vlm = toys.vlm(base / "llava")
    section = section_of("rrpo", lora=LoraSection(rank=0), epochs=3, lr=3e-3, batch=8)
    result = align(vlm, prepare(vlm, pairs, section, tmp_path / "prepared"), section, tmp_path / "run", seed=0)
    assert result.history[0]["term_kl"] == pytest.approx(0, abs=1e-5)
    assert result.history[-1]["term_kl"] > 1e-3


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3), st.randoms())
def test_any_number_of_answers_shares_a_row(words: list[list[int]], random: Any) -> None:
    """Several candidates a prompt: the log-probs of each are those of a row of its own."""
    vlm = _tiny_llava()
    grey = Image.new("RGB", (40, 40), (90, 90, 90))
    groups = [
        Group(
            encode_prompt(vlm, "Write the findings." * random.randint(1, 2), [grey] * random.randint(0, 2)),
            [encode_answer(vlm, toys.text(random.randint(0, 99), n)) for n in some],
        )
        for some in words
    ]
    with torch.no_grad():
        together = score(vlm.model, pack(vlm, groups, shared=True), PLAIN._replace(shared=True, fused=True))
        apart = score(vlm.model, pack(vlm, groups, shared=False), PLAIN)
    assert torch.equal(together.mask, apart.mask)
    assert torch.allclose(together.logps, apart.logps, atol=2e-5)


_KEPT: list[Vlm] = []


def _tiny_llava() -> Vlm:
    if not _KEPT:
        import tempfile

        _KEPT.append(toys.vlm(Path(tempfile.mkdtemp()) / "llava"))
    return _KEPT[0]


def test_a_head_with_something_behind_it_takes_the_plain_way(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """A model that scales its logits: found out, still right, and refused where a divergence needs its head."""
    vlm = toys.vlm(base / "llava")
    head = vlm.model.lm_head
    handle = head.register_forward_hook(lambda _m, _i, out: torch.tanh(out / 2) * 2)
    try:
        way = way_of(vlm)
        assert not way.fused
        assert "the head is not read in chunks" in " ".join(way.notes)
        prepared = prepare(vlm, pairs, toys.section(), tmp_path / "a")
        row = prepared.items[0].chosen
        assert row is not None
        prompt = encode_prompt(vlm, row.prompt, [read_image(image) for image in row.images])
        ids = torch.tensor([encode_answer(vlm, row.answer)])
        whole = {**prompt, "input_ids": torch.cat([prompt["input_ids"], ids], 1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        with torch.no_grad():
            logits = vlm.model(**whole).logits[0, -ids.shape[1] - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[0][:, None])[:, 0]
        assert torch.allclose(prepared.cache[f"logps/{row.key}"], expected, atol=2e-5)
        with pytest.raises(TrainingError, match=r"align\.kl\.weight 0"):
            prepare(vlm, pairs, section_of("rrpo"), tmp_path / "b")
    finally:
        handle.remove()


# ------------------------------------------------------------------------------------------- batches, processes


@pytest.mark.parametrize(
    ("family", "objective"),
    [*((family, "firempo") for family in tiny.FAMILIES), ("llava", "kto"), ("llava", "dpo-nll")],
)
def test_eight_at_once_are_one_by_one_accumulated(
    family: str, objective: str, base: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = toys.vlm(base / family, family)
    runs = []
    for batch, accumulate in ((8, 1), (1, 8)):
        section = section_of(objective, batch=batch, accumulate=accumulate, epochs=2)
        prepared = prepare(vlm, pairs, section, tmp_path / "prepared")
        runs.append(align(vlm, prepared, section, tmp_path / f"{batch}x{accumulate}", seed=0))
    names = ("loss", "grad_norm", "chosen_reward", "chosen_tokens")
    at_once, one_by_one = (torch.tensor(toys.numbers(run.history, *names)) for run in runs)
    assert torch.allclose(at_once, one_by_one, rtol=1e-4, atol=1e-5)
    last = [toys.weights(run.checkpoints[-1].path) for run in runs]
    assert all(torch.allclose(last[0][name], last[1][name], atol=1e-5) for name in last[0])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stopped_and_resumed_is_never_stopped(family: str, base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """Bit for bit, with dropout, in the middle of an epoch."""
    vlm = toys.vlm(base / family, family)
    section = section_of("firempo", batch=2, epochs=2, save_steps=2, lora=LoraSection(rank=4, dropout=0.2), warmup=0.2)
    prepared = prepare(vlm, pairs, section, tmp_path / "prepared")
    whole = align(vlm, prepared, section, tmp_path / "whole", seed=3)
    align(vlm, prepared, section, tmp_path / "broken", seed=3, max_steps=3)
    anew = prepare(vlm, pairs, section, tmp_path / "prepared")
    resumed = align(vlm, anew, section, tmp_path / "broken", seed=3)
    assert resumed.history == whole.history
    ours, theirs = (toys.weights(run.checkpoints[-1].path) for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


RUNS = [*((family, "firempo") for family in tiny.FAMILIES), ("llava", "kto")]
"""What two processes train, one after another: starting them takes longer than the training."""


def test_two_processes_are_one(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """Over gloo: the same losses, gradients and weights, whoever computes which half of a step."""
    (tmp_path / "pairs.jsonl").write_text("\n".join(pair.model_dump_json() for pair in pairs))
    alone = {}
    for family, objective in RUNS:
        vlm = toys.vlm(base / family, family)
        section = section_of(objective, batch=4, epochs=2)
        prepared = prepare(vlm, pairs, section, tmp_path / f"prepared-{family}")
        alone[family, objective] = align(vlm, prepared, section, tmp_path / f"alone-{family}-{objective}", seed=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parents[1])}
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", *command, "-m", "tests.test_training_invariance", str(base), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for (family, objective), before in alone.items():
        folder = tmp_path / f"together-{family}-{objective}"
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        ours, theirs = (torch.tensor(toys.numbers(rows, "loss", "grad_norm")) for rows in (log, before.history))
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5), (family, objective)
        last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        together, single = toys.weights(last), toys.weights(before.checkpoints[-1].path)
        assert all(torch.allclose(together[name], single[name], atol=2e-5) for name in single), (family, objective)


def _process(models: Path, folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    pairs = [Pair.model_validate_json(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for family, objective in RUNS:
        vlm = toys.vlm(models / family, family)
        section = section_of(objective, batch=4, epochs=2)
        prepared = prepare(vlm, pairs, section, folder / f"prepared-{family}")
        align(vlm, prepared, section, folder / f"together-{family}-{objective}", seed=0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_items_of_like_length_go_together_and_none_is_lost(
    lengths: list[int], step: int, seed: int, epoch: int
) -> None:
    sampler = LikeLengths(lengths, step, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)
    short = len(lengths) % step
    assert len(order) - short == step * (len(lengths) // step)


def test_like_lengths_hold_less_padding_and_another_epoch_is_another_order() -> None:
    lengths = np.random.default_rng(0).integers(20, 300, 400).tolist()

    def padding(order: list[int]) -> int:
        steps = [[lengths[i] for i in order[at : at + 8]] for at in range(0, len(order), 8)]
        return sum(max(some) * len(some) - sum(some) for some in steps)

    sampler = LikeLengths(lengths, 8, 0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert padding(first) < 0.2 * padding(list(range(400)))
    assert first != list(sampler)


# ---------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize("objective", config.objectives())
def test_each_objective_trains_the_built_in_model(
    objective: str, built_in: tuple[Vlm, list[Pair], Path], tmp_path: Path
) -> None:
    """Thirty steps: every trainable parameter moves, every frozen one stays."""
    vlm, pairs, folder = built_in
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    section = section_of(objective, batch=2, lr=1e-3, epochs=30 * 2 / len(pairs), lora=LoraSection(rank=2))
    if objective == "kto":
        section = section.model_copy(update={"epochs": 30 * 2 / (2 * len(pairs))})
    prepared = prepare(vlm, pairs, section, folder)
    first = toys.weights(align(vlm, prepared, section, tmp_path, seed=0, max_steps=1).checkpoints[0].path)
    result = align(vlm, prepared, section, tmp_path, seed=0)
    assert result.steps == 30
    last = toys.weights(result.checkpoints[-1].path)
    assert all(not torch.equal(first[name], last[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in vlm.model.state_dict().items())
    assert all(np.isfinite(entry["loss"]) for entry in result.history)
    if section.visual.weight:
        assert any("visual_margin" in entry for entry in result.history)


@pytest.fixture(scope="module")
def built_in(base: Path) -> tuple[Vlm, list[Pair], Path]:
    vlm = load(ModelSection(), toys.FLOAT32)
    images = base / "built-in"
    return vlm, marked(toys.pairs(images, 4), images), base / "built-in-prepared"


def test_dora_and_rank_stabilised_adapters_train(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    vlm = toys.vlm(base / "llava")
    prepared = prepare(vlm, pairs, toys.section(), tmp_path / "prepared")
    dora = toys.section(lora=LoraSection(rank=4, dora=True))
    result = align(vlm, prepared, dora, tmp_path / "dora", seed=0)
    assert any("magnitude" in name for name in toys.weights(result.checkpoints[-1].path))
    stable = toys.section(lora=LoraSection(rank=4, rslora=True))
    result = align(vlm, prepared, stable, tmp_path / "rslora", seed=0)
    config = json.loads((result.checkpoints[-1].path / "adapter_config.json").read_text())
    assert config["use_rslora"]


def test_pairs_without_spans_are_quarantined_where_spans_are_rewarded(
    base: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = toys.vlm(base / "llava")
    bare = pairs[0].model_copy(update={"id": "bare", "chosen_spans": ()})
    prepared = prepare(vlm, [bare, *pairs], section_of("mask-dpo"), tmp_path)
    assert [row.id for row in prepared.quarantined] == ["bare"]
    assert "spans" in prepared.quarantined[0].reason


def test_what_was_prepared_for_another_objective_is_refused(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    vlm = toys.vlm(base / "llava")
    prepared = prepare(vlm, pairs, toys.section(), tmp_path / "prepared")
    with pytest.raises(TrainingError, match="prepare stage"):
        align(vlm, prepared, section_of("rrpo"), tmp_path / "run", seed=0)
    with pytest.raises(LossError):
        prepare(vlm, pairs, toys.section(loss="orpo", spans=True), tmp_path / "other")


def test_only_tokens_of_spans_are_rewarded(base: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """The gradient with respect to log-probs, seen through the reward: words beside the spans change nothing."""
    vlm = toys.vlm(base / "llava")
    pair = pairs[1]
    prepared = prepare(vlm, [pair], section_of("mask-dpo"), tmp_path)
    inputs = Collator(vlm, prepared)(prepared.items)
    marks = token_mask(vlm, pair.chosen, pair.chosen_spans)
    assert inputs["rewarded"][int(inputs["chosen"][0]), : len(marks)].bool().tolist() == marks
    assert 0 < sum(marks) < len(marks)


if __name__ == "__main__":
    _process(Path(sys.argv[1]), Path(sys.argv[2]))
