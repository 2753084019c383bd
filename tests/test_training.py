"""SFT, prepare and align on tiny models: exact references, exact resume, and nothing trained that is frozen."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref import config
from radpref.config import LoraSection, ModelSection, SftSection
from radpref.images import read_image
from radpref.losses import LOSSES, objective
from radpref.models import Vlm, encode_answer, encode_prompt, load, vision_tower
from radpref.pipeline import road_of
from radpref.records import ImageFile, Pair
from radpref.runs.runner import check
from radpref.training import Prepared, TrainingError, align, checkpoints, prepare, sft
from radpref.training.loop import walked_once
from radpref.training.rows import items, keyed
from tests import tiny
from tests import training_toys as toys

pytestmark = pytest.mark.heavy


class Killed(Exception):
    """Stands for a process that dies."""


def kill_at(step: int) -> Any:
    def log(entry: dict[str, float]) -> None:
        if entry["step"] == step:
            raise Killed

    return log


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module")
def vlm(base: Path) -> Vlm:
    return toys.vlm(base / "llava")


@pytest.fixture(scope="module")
def pairs(base: Path) -> list[Pair]:
    return toys.pairs(base / "images")


@pytest.fixture(scope="module")
def prepared(vlm: Vlm, pairs: list[Pair], base: Path) -> Prepared:
    return prepare(vlm, pairs, toys.section(), base / "references")


# ------------------------------------------------------------------------------------------------ prepare


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_references_are_those_of_plain_forwards(family: str, base: Path, pairs: list[Pair]) -> None:
    """Batched, padded, images encoded once, head at answers only: equal to one whole forward an answer."""
    model = toys.vlm(base / family, family)
    found = prepare(model, pairs, toys.section(), base / f"references-{family}")
    for item, pair in zip(found.items, pairs, strict=True):
        for row, answer in zip(item.rows(), (pair.chosen, pair.rejected), strict=True):
            prompt = encode_prompt(model, pair.prompt, [read_image(image) for image in pair.images])
            ids = torch.tensor([encode_answer(model, answer)])
            whole = {**prompt, "input_ids": torch.cat([prompt["input_ids"], ids], 1)}
            for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
                if name in prompt:
                    tail = torch.full_like(ids, 1 if name == "attention_mask" else 0)
                    whole[name] = torch.cat([prompt[name], tail], 1)
            with torch.no_grad():
                logits = model.model(**whole, use_cache=False).logits[0, -ids.shape[1] - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, ids[0][:, None])[:, 0]
            assert torch.allclose(found.cache[f"logps/{row.key}"], expected, atol=2e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_starts_at_the_reference_and_moves(family: str, base: Path, pairs: list[Pair]) -> None:
    model = toys.vlm(base / family, family)
    section = toys.section(batch=8, epochs=4, lr=3e-3)
    result = align(
        model, prepare(model, pairs, section, base / f"references-{family}"), section, base / f"a-{family}", seed=0
    )
    assert result.history[0]["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert abs(result.history[0]["reward_margin"]) < 1e-5
    assert result.history[-1]["reward_margin"] > 1e-2


def test_prepare_goes_on_where_it_was_killed(
    vlm: Vlm, pairs: list[Pair], prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["radpref.training.cache"], "SHARD_BYTES", 1)

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise Killed

    with pytest.raises(Killed):
        prepare(vlm, pairs, toys.section(batch=2), tmp_path, progress=stop)
    seen: list[tuple[int, int]] = []
    whole = prepare(vlm, pairs, toys.section(batch=2), tmp_path, progress=lambda *at: seen.append(at))
    assert seen == [(12, 16), (16, 16)]
    assert whole.items == prepared.items
    for key, values in toys.logps(whole).items():
        assert torch.allclose(values, toys.logps(prepared)[key], atol=1e-5)
    never_stopped = prepare(vlm, pairs, toys.section(batch=2), tmp_path / "never-stopped")
    (tmp_path / "limited").mkdir()
    prepare(vlm, pairs, toys.section(batch=2), tmp_path / "limited", limit=5)
    limited = prepare(vlm, pairs, toys.section(batch=2), tmp_path / "limited")
    for key, values in toys.logps(never_stopped).items():
        assert torch.equal(values, toys.logps(whole)[key])
        assert torch.equal(values, toys.logps(limited)[key])
    shards = {path.name for path in tmp_path.iterdir()}
    prepare(vlm, pairs, toys.section(batch=2), tmp_path, progress=lambda *at: pytest.fail("scored again"))
    assert {path.name for path in tmp_path.iterdir()} == shards


def test_unusable_pairs_are_quarantined_with_a_reason(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(Path(pairs[0].images[0].path).read_bytes()[:200])
    odd = {
        "absent": pairs[0].model_copy(update={"id": "absent", "images": (ImageFile(path=str(tmp_path / "none.png")),)}),
        "torn": pairs[0].model_copy(update={"id": "torn", "images": (ImageFile(path=str(torn)),)}),
        "special": pairs[0].model_copy(update={"id": "special", "chosen": "clear <image>"}),
        "empty": pairs[0].model_copy(update={"id": "empty", "rejected": ""}),
        "long": pairs[0].model_copy(update={"id": "long", "rejected": toys.text(0, 60)}),
    }
    found = prepare(vlm, [*odd.values(), *pairs], toys.section(max_length=120), tmp_path / "references")
    reasons = {row.id: row.reason for row in found.quarantined}
    assert list(reasons) == list(odd)
    for id, words in {"absent": "not readable", "special": "special tokens", "empty": "empty", "long": "120"}.items():
        assert words in reasons[id]
    assert [item.pair for item in found.items] == [pair.id for pair in pairs]
    again = prepare(vlm, [*odd.values(), *pairs], toys.section(max_length=120), tmp_path / "references")
    assert again.quarantined == found.quarantined
    with pytest.raises(TrainingError, match="no pair is left"):
        prepare(vlm, [odd["empty"]], toys.section(), tmp_path / "references")


def test_a_visual_term_without_one_corrupted_image_is_refused(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    """It would be nothing, and the objective another one than the one named."""
    section = toys.section(visual={"weight": 0.1})
    with pytest.raises(TrainingError, match=f"none of {len(pairs)} pairs has corrupted images"):
        prepare(vlm, pairs, section, tmp_path)
    one = pairs[0].model_copy(update={"corrupted": pairs[0].images})
    assert len(prepare(vlm, [one, *pairs[1:]], section, tmp_path).items) == len(pairs)


def test_an_answer_that_was_cut_gets_no_end_of_turn(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    cut = pairs[0].model_copy(update={"provenance": {"rejected_finished": "no"}})
    found = prepare(vlm, [cut], toys.section(), tmp_path)
    (item,) = found.items
    assert item.chosen is not None
    assert item.rejected is not None
    ids = encode_answer(vlm, cut.rejected)
    assert len(found.cache[f"logps/{item.rejected.key}"]) == len(ids) - len(vlm.turn.end)
    assert len(found.cache[f"logps/{item.chosen.key}"]) == len(encode_answer(vlm, cut.chosen))


def test_a_changed_image_or_answer_is_scored_anew(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    shutil.copy(pairs[0].images[0].path, image)
    pair = pairs[0].model_copy(update={"images": (ImageFile(path=str(image)),)})
    before = prepare(vlm, [pair], toys.section(), tmp_path / "references")
    shutil.copy(pairs[1].images[1].path, image)
    after = prepare(vlm, [pair], toys.section(), tmp_path / "references")
    assert before.items[0].rows()[0].key != after.items[0].rows()[0].key
    assert len(toys.logps(before)) == len(toys.logps(after)) == 2


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=8).filter(lambda ids: len(set(ids)) > 1))
def test_kto_mismatched_answers_belong_to_other_questions(questions: list[str]) -> None:
    pairs = [
        Pair(
            id=f"{i}",
            question=question,
            patient="p",
            images=(),
            prompt=question,
            chosen=f"{question}+{i}",
            rejected=f"{question}-{i}",
        )
        for i, question in enumerate(questions)
    ]
    found = items(pairs, objective(toys.section(loss="kto")), keyed("model"))
    assert len(found) == 2 * len(pairs)
    for item in found:
        own = item.chosen or item.rejected
        assert own is not None
        assert item.mismatched is not None
        assert item.mismatched.prompt == own.prompt
        assert item.mismatched.answer[0] != own.prompt
        assert item.mismatched.answer[1] == own.answer[1]


def test_kto_needs_two_questions(vlm: Vlm, pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="two questions"):
        prepare(vlm, pairs[:1], toys.section(loss="kto"), tmp_path)


# -------------------------------------------------------------------------------------------------- align


@pytest.mark.parametrize("loss", LOSSES)
def test_each_objective_trains_all_of_the_adapter_and_nothing_else(
    loss: str, vlm: Vlm, pairs: list[Pair], base: Path, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    smoothing = 0.01 if LOSSES[loss].needs_smoothing else 0.0
    section = toys.section(loss=loss, epochs=2, save_steps=1, nll=0.1, label_smoothing=smoothing)
    result = align(vlm, prepare(vlm, pairs, section, base / "references"), section, tmp_path, seed=0)
    rows = 16 if loss == "kto" else 8
    assert result.finished
    assert [checkpoint.step for checkpoint in result.checkpoints] == list(range(1, rows // 4 * 2 + 1))
    first, last = (toys.weights(result.checkpoints[i].path) for i in (0, -1))
    assert first.keys() == last.keys()
    assert all(not torch.equal(first[name], last[name]) for name in first)
    assert all(".language_model." in name for name in first)
    after = vlm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not hasattr(vlm.model, "peft_config")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chexalign", "align.train_projector=true", "align.lora.rank=4"], "align.train_projector is true"),
        (["chexalign", "sft.train_tower=true", "sft.lora.rank=4"], "sft.train_tower is true"),
        (["chexalign", "run.trackers=[wandb]"], "pip install wandb"),
        (["grpo", "sft.enabled=false", "run.trackers=[wandb]"], "pip install wandb"),
        (["grpo", "grpo.optimizer=adamw-8bit"], "grpo.optimizer adamw-8bit"),
        (["firempo", "align.optimizer=adamw-8bit"], "align.optimizer adamw-8bit"),
    ],
)
def test_settings_that_rule_each_other_out_are_known_before_any_work(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radpref.training.settings.find_spec", lambda name: None)
    method, *overrides = words
    recipe = config.load(method, overrides=overrides).recipe
    with pytest.raises(TrainingError, match=message.replace(".", r"\.")):
        check(road_of(recipe), recipe)


def test_training_in_full_leaves_tower_projector_and_the_given_model_alone(
    vlm: Vlm, prepared: Prepared, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    result = align(vlm, prepared, toys.section(lora=LoraSection(rank=0)), tmp_path, seed=0)
    assert all(torch.equal(before[name], value) for name, value in vlm.model.state_dict().items())
    trained = load(ModelSection(path=str(result.checkpoints[-1].path)), toys.FLOAT32).model.state_dict()
    for name, value in trained.items():
        assert torch.equal(before[name], value) == ("vision_tower" in name or "projector" in name), name


def test_a_checkpoint_loads_as_an_adapter_of_its_base_alone(
    vlm: Vlm, prepared: Prepared, base: Path, tmp_path: Path
) -> None:
    result = align(vlm, prepared, toys.section(), tmp_path / "run", seed=0)
    adapter = str(result.checkpoints[-1].path)
    loaded = load(ModelSection(path=str(base / "llava"), adapter=adapter), toys.FLOAT32)
    assert loaded.fingerprint != vlm.fingerprint
    other = tiny.save_tiny("llava", tmp_path / "llava", seed=1)
    with pytest.raises(ValueError, match="trained on a model with other weights"):
        load(ModelSection(path=str(other), adapter=adapter), toys.FLOAT32)


def test_eight_at_once_are_one_by_one_accumulated(vlm: Vlm, prepared: Prepared, tmp_path: Path) -> None:
    runs = [
        align(vlm, prepared, toys.section(batch=b, accumulate=a, epochs=3, nll=0.1), tmp_path / f"{b}x{a}", seed=0)
        for b, a in ((8, 1), (1, 8))
    ]
    names = ("loss", "grad_norm", "reward_margin", "chosen_logp", "rejected_logp", "kl", "chosen_tokens")
    at_once, one_by_one = (torch.tensor(toys.numbers(run.history, *names)) for run in runs)
    assert len(at_once) == 3
    assert torch.allclose(at_once, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("loss", "rank"), [("dpo", 4), ("kto", 4), ("dpo", 0)])
def test_stopped_and_resumed_is_never_stopped(
    loss: str, rank: int, vlm: Vlm, pairs: list[Pair], base: Path, tmp_path: Path
) -> None:
    """Bit for bit, with dropout, through a kill between checkpoints, a torn checkpoint and a polite stop."""
    section = toys.section(
        loss=loss, batch=2, epochs=1.5, save_steps=2, lora=LoraSection(rank=rank, dropout=0.2), warmup=0.2
    )
    prepared = prepare(vlm, pairs, section, base / "references")
    whole = align(vlm, prepared, section, tmp_path / "whole", seed=3)
    folder = tmp_path / "broken"
    with pytest.raises(Killed):
        align(vlm, prepared, section, folder, seed=3, log=kill_at(3))
    torn = folder / "checkpoint-999"
    shutil.copytree(folder / "checkpoint-2", torn)
    (torn / "trainer_state.json").write_text('{"epoch"')
    assert [checkpoint.step for checkpoint in checkpoints(folder)] == [2]
    stopped = align(vlm, prepared, section, folder, seed=3, max_steps=1)
    assert (stopped.step, stopped.finished) == (3, False)
    resumed = align(vlm, prepared, section, folder, seed=3)
    assert resumed.finished
    assert resumed.step == resumed.steps == whole.steps == (12 if loss == "kto" else 6)
    ours, theirs = (toys.weights(run.checkpoints[-1].path) for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.history == whole.history
    again = align(vlm, prepared, section, folder, seed=3, log=lambda _: pytest.fail("trained again"))
    assert again.history == whole.history


def test_a_folder_is_bound_to_its_settings(vlm: Vlm, prepared: Prepared, tmp_path: Path) -> None:
    align(vlm, prepared, toys.section(), tmp_path, seed=0, max_steps=1)
    with pytest.raises(TrainingError, match=r"seed was 0, is 1"):
        align(vlm, prepared, toys.section(), tmp_path, seed=1)
    with pytest.raises(TrainingError, match=r"section was .*0\.2"):
        align(vlm, prepared, toys.section(beta=0.2), tmp_path, seed=0)


def test_references_of_another_model_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    tiny.save_tiny("llava", tmp_path / "other", seed=5)
    other = toys.vlm(tmp_path / "other")
    with pytest.raises(TrainingError, match="other weights"):
        align(other, prepared, toys.section(), tmp_path / "run", seed=0)


def test_a_loss_that_breaks_down_stops_with_advice(vlm: Vlm, prepared: Prepared, tmp_path: Path) -> None:
    section = toys.section(lr=1e30, epochs=4, save_steps=1)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        align(vlm, prepared, section, tmp_path, seed=0)
    assert not hasattr(vlm.model, "peft_config")


def test_the_journal_holds_what_was_logged(vlm: Vlm, prepared: Prepared, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    result = align(vlm, prepared, toys.section(), tmp_path, seed=0, log=seen.append)
    assert [{**entry, "steps": 2} for entry in result.history] == seen
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == result.history
    assert {"loss", "reward_margin", "reward_accuracy", "chosen_logp", "rejected_logp", "kl", "chosen_tokens"} <= set(
        lines[0]
    )


def test_a_training_sets_the_mode_of_its_modules_once(
    vlm: Vlm, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer asks a model for mode, parameters and gradients several times a step, and each is a walk."""
    tower = type(vision_tower(vlm.model))
    set_mode, calls = tower.train, list[bool]()
    monkeypatch.setattr(tower, "train", lambda self, mode=True: calls.append(mode) or set_mode(self, mode))
    steps = align(vlm, prepared, toys.section(), tmp_path / "t", seed=0).steps
    assert calls.count(True) < steps


def test_what_a_training_is_spared_is_answered_as_before(vlm: Vlm) -> None:
    model, tower = vlm.model, vision_tower(vlm.model)
    trainer = SimpleNamespace(model=model, accelerator=SimpleNamespace(distributed_type=DistributedType.NO))
    before, own = list(model.parameters()), list(model.parameters(recurse=False))
    with walked_once(trainer):
        assert model.train() is model
        assert tower.training
        assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
        assert list(model.parameters(recurse=False)) == own
        before[0].grad = torch.ones_like(before[0])
        model.zero_grad()
        assert before[0].grad is None
        assert not model.eval().training
        assert not tower.training
    sharded = SimpleNamespace(model=model, accelerator=SimpleNamespace(distributed_type=DistributedType.FSDP))
    with walked_once(sharded):
        assert "parameters" not in vars(model)


def test_gradient_checkpointing_changes_nothing_but_memory(vlm: Vlm, prepared: Prepared, tmp_path: Path) -> None:
    plain, thrifty = (
        align(vlm, prepared, toys.section(gradient_checkpointing=on), tmp_path / str(on), seed=0)
        for on in (False, True)
    )
    names = ("loss", "grad_norm", "chosen_logp")
    ours, theirs = (torch.tensor(toys.numbers(run.history, *names)) for run in (plain, thrifty))
    assert torch.allclose(ours, theirs, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------- sft


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_sft_learns_the_answers_and_leaves_the_tower_alone(family: str, base: Path, tmp_path: Path) -> None:
    model = toys.vlm(base / family, family)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    section = SftSection(batch=4, epochs=6, lr=3e-3, save_steps=50)
    result = sft(model, toys.questions(base / "images", 4), section, tmp_path / "sft", seed=0)
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.5
    after = load(ModelSection(path=str(result.path)), toys.FLOAT32).model.state_dict()
    for name, value in after.items():
        tower = ("vision" in name or "visual" in name) and "merger" not in name  # Qwen's projector is a merger
        assert torch.equal(before[name], value) == tower, name


def test_sft_has_the_answers_alone_in_its_loss(base: Path, tmp_path: Path) -> None:
    """The first step's loss is the mean negative log-likelihood of answer tokens, worked out apart."""
    model = toys.vlm(base / "llava")
    questions = toys.questions(base / "images", 4)
    pairs = [pair.model_copy(update={"rejected": pair.chosen}) for pair in toys.pairs(base / "images", 4)]
    logps = toys.logps(prepare(model, pairs, toys.section(), tmp_path / "references"))
    expected = -torch.cat(list(logps.values())).mean().item()
    result = sft(model, questions, SftSection(batch=4, epochs=1, lr=1e-6), tmp_path / "sft", seed=0)
    assert result.history[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rank", [0, 4])
def test_sft_stopped_and_resumed_is_never_stopped(rank: int, base: Path, tmp_path: Path) -> None:
    questions = toys.questions(base / "images", 6)
    section = SftSection(batch=2, epochs=1.5, save_steps=2, lora=LoraSection(rank=rank, dropout=0.1))

    def train(folder: str, **how: Any) -> Any:
        return sft(toys.vlm(base / "llava"), questions, section, tmp_path / folder, seed=0, **how)

    whole = train("whole")
    with pytest.raises(Killed):
        train("broken", log=kill_at(3))
    stopped = train("broken", max_steps=1)
    assert not stopped.finished
    assert not stopped.path.exists()
    resumed = train("broken")
    ours, theirs = toys.weights(resumed.path), toys.weights(whole.path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.history == whole.history
    assert not list((tmp_path / "broken").glob("checkpoint-*"))
    again = train("broken", log=lambda _: pytest.fail("trained again"))
    assert (again.step, again.steps, again.finished, again.loss) == (5, 5, True, whole.loss)


def test_sft_killed_after_the_last_step_still_saves_the_same_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a part of an epoch at the end, beyond which the Trainer itself would go on."""
    questions = toys.questions(base / "images", 6)
    section = SftSection(batch=2, epochs=0.5, save_steps=1)
    whole = sft(toys.vlm(base / "llava"), questions, section, tmp_path / "whole", seed=0)

    def die(vlm: Vlm, folder: Path) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(sys.modules["radpref.training.sft"], "save", die)
        with pytest.raises(Killed):
            sft(toys.vlm(base / "llava"), questions, section, tmp_path / "broken", seed=0)
    resumed = sft(toys.vlm(base / "llava"), questions, section, tmp_path / "broken", seed=0)
    ours, theirs = toys.weights(resumed.path), toys.weights(whole.path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.history == whole.history


def test_sft_quarantines_what_it_cannot_read(base: Path, tmp_path: Path) -> None:
    questions = toys.questions(base / "images", 3)
    bad = questions[0].model_copy(update={"id": "bad", "images": (ImageFile(path=str(tmp_path / "none.png")),)})
    model = toys.vlm(base / "llava")
    result = sft(model, [bad, *questions], SftSection(batch=4, epochs=1), tmp_path / "sft", seed=0)
    assert [row.id for row in result.quarantined] == ["bad"]
    with pytest.raises(TrainingError, match="no question is left"):
        sft(model, [bad], SftSection(), tmp_path / "none", seed=0)
