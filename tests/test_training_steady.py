"""What a training must not do silently: drop out what is frozen, stand still, skip data, or end on a single pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from radpref.config import LoraSection, ModelSection, SftSection
from radpref.models import Vlm, load, without_dropout
from radpref.records import Pair
from radpref.training import TrainingError, align, checkpoints, last_tenth, prepare, sft
from radpref.training.loop import rates
from tests import training_toys as toys

pytestmark = pytest.mark.heavy

LN2 = math.log(2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steady")


@pytest.fixture(scope="module")
def pairs(base: Path) -> list[Pair]:
    return toys.pairs(base / "images")


def dropping(vlm: Vlm, rate: float = 0.3) -> Vlm:
    """The model with dropout everywhere, as a config with ``attention_dropout`` gives it, and in layers."""
    for module in vlm.model.modules():
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
    vlm.model.model.multi_modal_projector.act = nn.Sequential(
        vlm.model.model.multi_modal_projector.act, nn.Dropout(rate)
    )
    return vlm


@pytest.fixture
def dropped(base: Path) -> Vlm:
    return dropping(toys.vlm(base / "llava"))


# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("rank", [0, 4])
def test_the_first_loss_is_ln_2_whatever_the_models_dropout(
    rank: int, dropped: Vlm, pairs: list[Pair], base: Path, tmp_path: Path
) -> None:
    section = toys.section(lora=LoraSection(rank=rank))
    prepared = prepare(dropped, pairs, section, base / "dropped")
    result = align(dropped, prepared, section, tmp_path / "still", seed=0)
    assert result.history[0]["loss"] == pytest.approx(LN2, abs=1e-6)
    wild = section.model_copy(update={"dropout": True})
    result = align(dropped, prepared, wild, tmp_path / "wild", seed=0)
    assert abs(result.history[0]["loss"] - LN2) > 1e-4
    rates_after = {m.attention_dropout for m in dropped.model.modules() if hasattr(m, "attention_dropout")}
    assert rates_after == {0.3}  # as it was


def test_a_frozen_towers_dropout_changes_nothing_whether_features_are_kept_or_not(
    dropped: Vlm, pairs: list[Pair], tmp_path: Path
) -> None:
    losses = []
    for kept in ("always", "never"):
        section = toys.section(cache_features=kept, epochs=2)
        prepared = prepare(dropped, pairs, section, tmp_path / kept)
        assert prepared.features == (kept == "always")
        losses.append(
            [entry["loss"] for entry in align(dropped, prepared, section, tmp_path / f"a{kept}", seed=0).history]
        )
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_dropout_is_off_in_frozen_parts_alone_where_trained_ones_keep_it(dropped: Vlm) -> None:
    tower, decoder = dropped.model.model.vision_tower, dropped.model.model.language_model
    for parameter in dropped.model.parameters():
        parameter.requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.requires_grad_(True)

    def rates_of(part: nn.Module) -> set[float]:
        found = {m.p for m in part.modules() if isinstance(m, nn.Dropout)}
        for module in part.modules():
            found |= {value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)}
        return found

    assert rates_of(tower) == rates_of(decoder) == {0.3}
    with without_dropout(dropped.model, trained=False):
        assert rates_of(tower) == rates_of(dropped.model.model.multi_modal_projector) == {0.0}
        assert rates_of(decoder) == {0.3}
    with without_dropout(dropped.model, trained=True):
        assert rates_of(dropped.model) == {0.0}
    assert rates_of(dropped.model) == {0.3}


def test_an_adapter_on_a_tied_head_trains_against_the_heads_own_reference(
    pairs: list[Pair], base: Path, tmp_path: Path
) -> None:
    """With a KL over the vocabulary, whose reference is the head below the adapter."""
    vlm = toys.vlm(base / "gemma3", "gemma3")
    kl = {"weight": 1.0, "scope": "completion"}
    section = toys.section(kl=kl, lora=LoraSection(rank=2, head=True), epochs=6, lr=3e-3)
    prepared = prepare(vlm, pairs, section, tmp_path / "prepared")
    result = align(vlm, prepared, section, tmp_path / "aligned", seed=0)
    assert result.history[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    assert result.history[0]["term_kl"] == pytest.approx(0, abs=1e-5)
    assert result.history[-1]["term_kl"] > 1e-4
    weights = toys.weights(result.checkpoints[-1].path)
    assert weights["base_model.model.lm_head.lora_B.weight"].abs().max() > 1e-4
    load(ModelSection(path=str(base / "gemma3"), adapter=str(result.checkpoints[-1].path)), toys.FLOAT32)


# --------------------------------------------------------------------------------------- rates, standing still


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_no_step_is_taken_at_rate_0(schedule: Any) -> None:
    for warmup, steps in ((0, 1), (1, 1), (1, 8), (5, 20), (0, 9)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        scheduler = rates(optimizer, schedule, warmup, steps)
        taken = []
        for _ in range(steps):
            taken.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert min(taken) > 0
        assert max(taken) <= 2.0
        assert taken[: warmup + 1] == sorted(taken[: warmup + 1])
        if warmup < steps:
            assert taken[warmup] == 2.0
        if schedule == "constant":
            assert taken[warmup:] == [2.0] * (steps - warmup)


def test_the_published_rate_moves_every_tensor_in_two_steps(pairs: list[Pair], base: Path, tmp_path: Path) -> None:
    """A warm-up of a tenth of two steps is the first step; A of a fresh LoRA has no gradient in it."""
    vlm = toys.vlm(base / "llava")
    section = toys.section(lr=1e-6, warmup=0.1, save_steps=1)
    prepared = prepare(vlm, pairs, section, base / "prepared")
    result = align(vlm, prepared, section, tmp_path, seed=0)
    first, last = (toys.weights(checkpoint.path) for checkpoint in result.checkpoints)
    assert result.steps == 2
    assert all(value.any() for name, value in first.items() if "lora_B" in name)
    assert all(not torch.equal(first[name], last[name]) for name in first)


def test_a_training_that_changed_nothing_is_an_error_each_time(pairs: list[Pair], base: Path, tmp_path: Path) -> None:
    vlm = toys.vlm(base / "llava")
    section = toys.section(lr=1e-16, lora=LoraSection(rank=0))
    prepared = prepare(vlm, pairs, section, base / "prepared")
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"changed no tensor .* 2 steps at a rate of at most .* float32"):
            align(vlm, prepared, section, tmp_path, seed=0)
        assert checkpoints(tmp_path) == []


# ------------------------------------------------------------------------------------------- resuming, reporting


@pytest.mark.parametrize("way", ["align", "sft"])
def test_a_step_may_be_divided_otherwise_when_training_is_resumed(
    way: str, pairs: list[Pair], base: Path, tmp_path: Path
) -> None:
    """Four items a step, in one batch or in two: no item is skipped or seen twice. Another number is refused."""
    lora = LoraSection(rank=2)

    def train(folder: str, batch: int, accumulate: int, max_steps: int | None = None) -> Path:
        vlm = toys.vlm(base / "llava")
        if way == "sft":
            some = SftSection(batch=batch, accumulate=accumulate, epochs=2, lora=lora)
            return sft(vlm, toys.questions(base / "images"), some, tmp_path / folder, seed=0, max_steps=max_steps).path
        section = toys.section(batch=batch, accumulate=accumulate, epochs=2, lora=lora)
        prepared = prepare(vlm, pairs, section, base / "prepared")
        return align(vlm, prepared, section, tmp_path / folder, seed=0, max_steps=max_steps).checkpoints[-1].path

    whole = toys.weights(train("whole", 4, 1))
    train("parts", 4, 1, max_steps=3)
    with pytest.raises(TrainingError, match=r"was 4, is 8"):
        train("parts", 4, 2)
    parts = toys.weights(train("parts", 2, 2))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


def test_a_short_step_counts_by_its_items(pairs: list[Pair], base: Path, tmp_path: Path) -> None:
    """At a rate that changes next to nothing: the fifth pair alone is logged as it is, and pushes a quarter."""
    vlm = toys.vlm(base / "llava")
    norms = {}
    for batch in (1, 4):
        section = toys.section(batch=batch, lr=1e-9)
        prepared = prepare(vlm, pairs[:5], section, base / "prepared")
        result = align(vlm, prepared, section, tmp_path / f"{batch}", seed=0)
        norms[batch] = [entry["grad_norm"] for entry in result.history]
        assert [entry["items"] for entry in result.history] == ([1] * 5 if batch == 1 else [4, 1])
        assert [entry["loss"] for entry in result.history] == pytest.approx([LN2] * len(result.history), abs=1e-5)
    assert min(abs(norms[4][1] - norm / 4) for norm in norms[1]) < 1e-4 * norms[4][1]


def test_what_is_reported_is_a_mean_over_the_last_tenth_by_items() -> None:
    history = [{"step": float(i), "loss": 1.0, "items": 4.0} for i in range(18)]
    history += [{"step": 18.0, "loss": 2.0, "items": 4.0, "kl": 3.0}, {"step": 19.0, "loss": 12.0, "items": 1.0}]
    found = last_tenth(history)
    assert found["loss"] == pytest.approx((2.0 * 4 + 12.0) / 5)
    assert found["kl"] == 3.0
    assert last_tenth(history[:3])["loss"] == 1.0


def test_a_tracker_is_fed_or_named_where_it_is_not_installed(pairs: list[Pair], base: Path, tmp_path: Path) -> None:
    vlm = toys.vlm(base / "llava")
    prepared = prepare(vlm, pairs, toys.section(), base / "prepared")
    if find_spec("trackio") is None:
        with pytest.raises(TrainingError, match="pip install trackio"):
            align(vlm, prepared, toys.section(), tmp_path / "absent", seed=0, trackers=("tensorboard", "trackio"))
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        align(vlm, prepared, toys.section(), tmp_path / "fed", seed=0, trackers=("tensorboard",))
        assert list((tmp_path / "fed").rglob("events.out.tfevents.*"))
