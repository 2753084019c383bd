"""The group-relative trainer: against TRL's on one batch, against plain forwards, and stopped, split and resumed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from radpref.config import GrpoSection, LoraSection, ModelSection, SampleSection
from radpref.images import read_image
from radpref.models import Vlm, attach_lora, collate, encode_answer, encode_prompt, freeze, load
from radpref.records import Question
from radpref.training import history
from radpref.training.errors import TrainingError
from radpref.training.groups import Asked, GroupTrainer, advantages, group_logps
from radpref.training.grpo import grpo
from radpref.training.prepare import identity
from radpref.training.rows import Prompts, keyed
from tests import tiny
from tests import training_toys as toys

pytestmark = pytest.mark.heavy

NAN = math.nan
N = 4
SAMPLE = SampleSection(max_new_tokens=12, temperature=0.9)
SECTION = GrpoSection(
    questions=2, n=N, steps=2, lr=1e-2, warmup=0.0, lora=LoraSection(rank=4), save_steps=1, unfinished="judged"
)


def count_of_e(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:
    """A reward that every text has, of another value for nearly every text."""
    return [text.count("e") / 10 + len(text) / 100 for text in completions]


@pytest.fixture
def vlm(tmp_path: Path) -> Vlm:
    return toys.vlm(tmp_path / "llava")


@pytest.fixture
def questions(tmp_path: Path) -> list[Question]:
    return toys.questions(tmp_path / "images", 4)


def with_adapter(vlm: Vlm) -> Vlm:
    """An adapter that is not zero, so that the model is not its own start."""
    student = attach_lora(vlm, LoraSection(rank=4))
    torch.manual_seed(1)
    for name, parameter in student.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return student


def trainer_of(vlm: Vlm, questions: Sequence[Question], folder: Path, section: GrpoSection, reward: Any) -> Any:
    prompts, make = Prompts(vlm), keyed(identity(vlm))
    asked = [Asked(question, make(question.prompt, question.images, question.reference)) for question in questions]
    args = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    return GroupTrainer(vlm, args, asked, prompts, reward, section, SAMPLE)


def gradients(model: Any, loss: Tensor) -> Tensor:
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, wanted)])


def test_the_reward_is_told_the_short_answer_and_whether_there_are_few(tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def reward(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        given.update(columns)
        return [0.0] * len(completions)

    vlm = toys.vlm(tmp_path / "model", "llava")
    asked = [
        question.model_copy(update={"answer": answer, "closed": closed})
        for question, answer, closed in zip(
            toys.questions(tmp_path / "images", 2), ("yes", "left lung"), (True, False), strict=True
        )
    ]
    trainer = trainer_of(vlm, asked, tmp_path / "out", GrpoSection(n=N, lora=LoraSection(rank=0)), reward)
    trainer._judged(asked, [encode_answer(vlm, "No.")] * (2 * N))
    assert given["answer"] == ["yes"] * N + ["left lung"] * N
    assert given["closed"] == [True] * N + [False] * N


# ---------------------------------------------------------------- advantages


def test_advantages_are_what_stands_above_the_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]])
    assert advantages(rewards).tolist() == [[0.5, -0.5, 0.0, 0.0], [0.0] * 4]
    std = math.sqrt(0.5 / 3)
    assert advantages(rewards, "group")[0].tolist() == pytest.approx([0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0, 0])
    assert advantages(rewards, "group")[1].tolist() == [0.0] * 4
    whole = rewards.std().item() + 1e-4
    assert advantages(rewards, "batch")[0].tolist() == pytest.approx([0.5 / whole, -0.5 / whole, 0, 0])


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_what_has_no_reward_teaches_nothing(scale: Any) -> None:
    without = advantages(torch.tensor([[1.0, 0.0, 0.5]]), scale)
    found = advantages(torch.tensor([[1.0, NAN, 0.0, 0.5], [NAN] * 4, [0.3, NAN, NAN, NAN]]), scale)
    assert found[0, 1] == 0
    if scale != "batch":
        assert found[0, [0, 2, 3]].tolist() == pytest.approx(without[0].tolist())
    assert found[1:].abs().max() == 0


# ---------------------------------------------------------------- log-probs


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_group_on_one_prompt_is_scored_like_each_answer_alone(family: str, tmp_path: Path) -> None:
    vlm = toys.vlm(tmp_path / "model", family)
    freeze(vlm)
    asked = toys.questions(tmp_path / "images", 2)  # one image and two
    prompts = [encode_prompt(vlm, q.prompt, [read_image(image) for image in q.images]) for q in asked]
    texts = [
        "No acute finding.",
        "Small left pleural effusion.",
        "The heart is large and the lungs are clear.",
        "No.",
    ]
    answers = [encode_answer(vlm, text) for text in texts]
    answers[1] = answers[1][:-1]  # cut
    vlm.model.eval()
    logps, entropies, mask = group_logps(vlm, vlm.model, prompts, answers, 2, temperature=0.7)

    batch = collate(vlm, [prompts[0], prompts[0], prompts[1], prompts[1]], answers)
    spoken = batch.pop("completion_mask")
    logits = vlm.model(**batch, use_cache=False).logits[:, :-1][spoken[:, 1:]].float() / 0.7
    plain = logits.log_softmax(-1)
    own = plain.gather(-1, batch["input_ids"][spoken][:, None]).squeeze(-1)
    assert mask.sum(1).tolist() == [len(ids) for ids in answers]
    assert logps[~mask].abs().sum() == 0
    torch.testing.assert_close(logps[mask], own, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(entropies[mask], -(plain.exp() * plain).sum(-1), atol=1e-4, rtol=1e-4)
    ours, theirs = gradients(vlm.model, logps.sum()), gradients(vlm.model, own.sum())
    assert (ours - theirs).norm() / theirs.norm() < 1e-4


# ---------------------------------------------------------------- against TRL


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_loss_and_gradient_equal_trls(vlm: Vlm, questions: list[Question], tmp_path: Path, beta: float) -> None:
    one_image = [question.model_copy(update={"images": question.images[:1]}) for question in questions[:2]]
    student = with_adapter(vlm)
    section = SECTION.model_copy(update={"beta": beta, "scale": "group"})
    trainer = trainer_of(student, one_image, tmp_path / "ours", section, count_of_e)
    drawn: list[Any] = []
    draw = trainer._draw
    trainer._draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]
    ours = trainer.compute_loss(student.model, {"asked": [0, 1]})
    answers = [ids for ids, _ in drawn[0]]

    config = GRPOConfig(
        output_dir=str(tmp_path / "theirs"), per_device_train_batch_size=len(answers), num_generations=N,
        max_completion_length=SAMPLE.max_new_tokens, temperature=SAMPLE.temperature, beta=beta, loss_type="dr_grpo",
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
    )  # fmt: skip
    theirs = GRPOTrainer(
        student.model, count_of_e, config, Dataset.from_dict({"prompt": ["p"] * 8}), processing_class=vlm.processor
    )
    prompts = [encode_prompt(vlm, q.prompt, [read_image(image) for image in q.images]) for q in one_image]
    repeated = [prompt for prompt in prompts for _ in range(N)]
    longest = max(map(len, answers))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in answers])
    texts = [text.strip() for text in vlm.tokenizer.batch_decode(answers, skip_special_tokens=True)]
    rewards = torch.tensor(count_of_e([], texts)).view(-1, N)
    inputs = {
        "prompt_ids": torch.cat([prompt["input_ids"] for prompt in repeated]),
        "prompt_mask": torch.cat([prompt["attention_mask"] for prompt in repeated]),
        "pixel_values": torch.cat([prompt["pixel_values"] for prompt in repeated]),
        "num_images": [1] * len(repeated),
        "completion_ids": ids,
        "completion_mask": torch.tensor([[int(t < len(row)) for t in range(longest)] for row in answers]),
        "advantages": ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten(),
        "num_items_in_batch": torch.tensor(sum(map(len, answers))),
    }
    if beta:
        with torch.no_grad(), student.model.disable_adapter():
            inputs["ref_per_token_logps"] = group_logps(vlm, student.model, prompts, answers, N, SAMPLE.temperature)[0]
    student.model.eval()
    expected = theirs.compute_loss(student.model, inputs)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    our_gradient, their_gradient = gradients(student.model, ours), gradients(student.model, expected)
    assert their_gradient.norm() > 1e-3
    assert (our_gradient - their_gradient).norm() / their_gradient.norm() < 1e-4


# ---------------------------------------------------------------- rewards


def test_silence_has_the_reward_zero_and_a_failed_judge_none(
    vlm: Vlm, questions: list[Question], tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def failing(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        seen.update(columns)
        return [None] * len(completions)

    trainer = trainer_of(attach_lora(vlm, LoraSection(rank=4)), questions, tmp_path, SECTION, failing)
    end = [vlm.turn.end[-1]]
    answers = [end, encode_answer(vlm, "clear"), end, end]
    rewards = trainer._judged([questions[0].model_copy(update={"answer": "yes"})], answers)
    assert rewards.nan_to_num(-1).tolist() == [0, -1, 0, 0]
    assert seen == {"reference": [questions[0].reference] * N, "answer": ["yes"] * N, "closed": [False] * N}


# ---------------------------------------------------------------- training


def weights(path: Path) -> Tensor:
    model = load(ModelSection(path=str(path)), toys.FLOAT32).model
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("rank", [0, 4])
def test_a_resumed_training_ends_like_one_that_never_stopped(
    vlm: Vlm, questions: list[Question], tmp_path: Path, rank: int
) -> None:
    section = SECTION.model_copy(update={"steps": 3, "beta": 0.1, "lora": LoraSection(rank=rank)})

    def train(folder: str, max_steps: int | None = None) -> Any:
        fresh = load(ModelSection(path=str(vlm.folder)), toys.FLOAT32)
        return grpo(fresh, questions, count_of_e, section, SAMPLE, tmp_path / folder, seed=3, max_steps=max_steps)

    whole, part = train("whole"), train("parts", 2)
    assert (part.step, part.finished) == (2, False)
    parts = train("parts")
    assert [checkpoint.step for checkpoint in parts.checkpoints] == [1, 2, 3]
    torch.testing.assert_close(weights(whole.path), weights(parts.path), atol=0, rtol=0)
    assert whole.history[-1]["reward"] == parts.history[-1]["reward"]
    assert {
        "reward",
        "reward_std",
        "groups_without_spread",
        "unrewarded",
        "unfinished",
        "tokens",
        "entropy",
        "kl",
    } <= (whole.history[0].keys())
    assert whole.history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert whole.history[-1]["kl"] > 0
    assert not torch.equal(weights(whole.path), weights(vlm.folder))


def test_batches_of_one_accumulated_equal_one_batch(vlm: Vlm, questions: list[Question], tmp_path: Path) -> None:
    def train(folder: str, batch: int, accumulate: int) -> Tensor:
        section = SECTION.model_copy(update={"steps": 1, "questions": batch, "accumulate": accumulate, "lr": 1e-4})
        fresh = load(ModelSection(path=str(vlm.folder)), toys.FLOAT32)
        return weights(grpo(fresh, questions, count_of_e, section, SAMPLE, tmp_path / folder, seed=3).path)

    before, one, four = weights(vlm.folder), train("one", 4, 1), train("four", 1, 4)
    assert (one - before).norm() > 0
    assert (one - four).norm() / (one - before).norm() < 0.05


def test_the_reward_rises(vlm: Vlm, questions: list[Question], tmp_path: Path) -> None:
    """A toy that can be learnt at once: shorter answers."""

    def short(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [1 - len(text) / 60 for text in completions]

    section = SECTION.model_copy(update={"steps": 12, "n": 8, "questions": 4, "lr": 2e-2, "save_steps": 50})
    history = grpo(vlm, questions, short, section, SAMPLE, tmp_path / "run", seed=3).history
    assert history[-1]["reward"] > history[0]["reward"] + 0.05


def test_a_question_that_cannot_be_asked_is_left_out_with_its_reason(
    vlm: Vlm, questions: list[Question], tmp_path: Path
) -> None:
    gone = questions[0].model_copy(update={"images": (questions[0].images[0].model_copy(update={"path": "/no.png"}),)})
    section = SECTION.model_copy(update={"steps": 1})
    result = grpo(vlm, [gone, *questions[1:]], count_of_e, section, SAMPLE, tmp_path / "run", seed=3)
    assert [(row.id, row.stage) for row in result.quarantined] == [(gone.id, "grpo")]
    with pytest.raises(TrainingError, match="no question is left"):
        grpo(replace(vlm), [gone], count_of_e, section, SAMPLE, tmp_path / "none", seed=3)


def test_an_answer_that_was_cut_has_the_reward_zero(vlm: Vlm, questions: list[Question], tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"steps": 1, "unfinished": "zero"})
    with pytest.raises(TrainingError, match="gradient was 0 at every step"):  # all of them were
        grpo(vlm, questions, lambda prompts, texts, **_: [1.0] * len(texts), section, SAMPLE, tmp_path, seed=3)
    logged = history(tmp_path)
    assert logged[0]["reward"] == pytest.approx(1 - logged[0]["unfinished"])
    assert logged[0]["unfinished"] > 0


_PROCESS = """
import sys
from pathlib import Path
from radpref.records import Question
from radpref.training.grpo import grpo
from tests.test_grpo_trainer import SAMPLE, SECTION, count_of_e, toys

model, root = Path(sys.argv[1]), Path(sys.argv[2])
questions = [Question.model_validate_json(line) for line in (root / "questions.jsonl").read_text().splitlines()]
section = SECTION.model_copy(update={"questions": 4, "lr": 1e-4, "beta": 0.1})
grpo(toys.vlm(model), questions, count_of_e, section, SAMPLE, root / "two", seed=3)
"""


@pytest.mark.slow
def test_two_processes_equal_one(vlm: Vlm, questions: list[Question], tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"questions": 4, "lr": 1e-4, "beta": 0.1})
    fresh = load(ModelSection(path=str(vlm.folder)), toys.FLOAT32)
    one = weights(grpo(fresh, questions, count_of_e, section, SAMPLE, tmp_path / "one", seed=3).path)
    script = tmp_path / "process.py"
    script.write_text(_PROCESS)
    (tmp_path / "questions.jsonl").write_text("\n".join(question.model_dump_json() for question in questions))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), str(vlm.folder), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, two = weights(vlm.folder), weights(tmp_path / "two" / "model")
    assert (one - two).norm() / (one - before).norm() < 1e-3
