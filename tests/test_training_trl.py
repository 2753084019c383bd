"""Our whole road against TRL's own trainers: the same pairs and weights, loss and gradients.

Ours goes through ``prepare``, the collator and ``PairTrainer`` with both answers in one row, images encoded once and
the reference's log-probs from the cache. TRL's goes through its collator and ``_compute_loss``, with a row an answer,
doubled images, and the reference computed by switching the adapter off.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from radpref.config import LoraSection, SftSection
from radpref.images import read_image
from radpref.losses import objective
from radpref.models import Vlm, attach_lora, collate, encode_answer, freeze, language_targets
from radpref.records import Pair
from radpref.training import Collator, Item, PairTrainer, Prepared, Prompts, prepare, way_of
from radpref.training.answers import AnswerTrainer, encoded
from radpref.training.rows import answer_ids
from radpref.training.sft import usable
from tests import tiny
from tests import training_toys as toys

PAIRS = 4
LORA = LoraSection(rank=4, alpha=8)
KTO_LABELS = [True] * PAIRS + [False] * PAIRS


class Road(NamedTuple):
    """Both ways to a loss, for one family."""

    student: Vlm
    """Our model, with an adapter that is not zero."""
    prepared: Prepared
    folder: Path
    pairs: list[Pair]
    trl: Any
    """TRL's DPOTrainer, on a model of its own with the same weights."""
    batch: dict[str, Tensor]
    """Of TRL's collator, without what follows the end of turn among the scored tokens."""

    def ours(self, prepared: Prepared | None = None, items: list[Item] | None = None, **section: Any) -> Tensor:
        """Our loss of all items, with its gradient."""
        prepared = prepared or self.prepared
        prepared = prepared._replace(objective=objective(toys.section(**section)))
        args = TrainingArguments(
            output_dir=str(self.folder), use_cpu=True, report_to="none", remove_unused_columns=False
        )
        trainer = PairTrainer(self.student, args, prepared, None)
        batch = Collator(self.student, prepared)(items or prepared.items)
        (inputs,), _ = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
        loss: Tensor = trainer.compute_loss(self.student.model, trainer._prepare_inputs(inputs))
        return loss

    def theirs(self, losses: list[str], beta: float, batch: dict[str, Tensor] | None = None, **settings: Any) -> Tensor:
        """TRL's."""
        settings = {"label_smoothing": 0.0, "ld_alpha": None, "loss_weights": [1.0] * len(losses), **settings}
        for name, value in {"loss_types": losses, "beta": beta, **settings}.items():
            assert hasattr(self.trl, name)
            setattr(self.trl, name, value)
        loss: Tensor = self.trl._compute_loss(self.trl.model, batch or self.batch, False)
        return loss

    def assert_equal(self, ours: Tensor, theirs: Tensor, model: Any = None) -> None:
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-5)
        mine, other = gradients(self.student.model, ours), gradients(model or self.trl.model, theirs)
        assert mine.keys() == other.keys()
        difference, whole = (torch.cat([part.flatten() for part in parts]).norm() for parts in (
            [mine[name] - other[name] for name in mine], list(other.values())
        ))  # fmt: skip
        assert whole > 1e-3
        assert difference / whole < 1e-4


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in wanted)
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


@torch.no_grad()
def scale(model: Any, factor: float) -> None:
    """Multiply the adapter's update."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.mul_(factor)


def conversation(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": pair.prompt}],
        "images": [read_image(image) for image in pair.images],
    }


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def preferences(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [{**conversation(p), "chosen": said(p.chosen), "rejected": said(p.rejected)} for p in pairs]


def cut(batch: dict[str, Tensor], lengths: list[int], mask: str = "completion_mask") -> dict[str, Tensor]:
    """The batch with so many tokens scored in each row: not what the template writes after the end of turn."""
    scored = batch[mask]
    kept = scored.cumsum(-1) <= torch.tensor(lengths)[:, None]
    assert (scored.sum(-1) >= torch.tensor(lengths)).all()
    return {**batch, mask: scored * kept}


def peft_trainer(kind: Any, config: Any, vlm: Vlm, rows: list[dict[str, Any]], folder: Path, student: Vlm) -> Any:
    """A trainer of TRL's on its own copy of the weights, with the student's adapter."""
    trainer = kind(
        vlm.model,
        args=config(
            output_dir=str(folder),
            per_device_train_batch_size=len(rows),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=vlm.processor,
        peft_config=LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=language_targets(vlm.model)),
    )
    adapter = {name: value for name, value in student.model.named_parameters() if "lora_" in name}
    theirs = {name: value for name, value in trainer.model.named_parameters() if "lora_" in name}
    assert adapter.keys() == theirs.keys()
    with torch.no_grad():
        for name, value in theirs.items():
            value.copy_(adapter[name])
    trainer.model.eval()
    return trainer


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def road(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder = tmp_path_factory.mktemp(request.param)
    pairs = toys.pairs(folder / "images", PAIRS)
    vlm = toys.vlm(folder / "model", request.param)
    prepared = prepare(vlm, pairs, toys.section(), folder / "prepared")
    assert prepared.way.shared
    assert prepared.way.features
    assert prepared.way.fused
    torch.manual_seed(1)
    student = attach_lora(vlm, LORA)
    for name, parameter in student.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    rows = preferences(pairs)
    trl = peft_trainer(DPOTrainer, DPOConfig, toys.vlm(folder / "model"), rows, folder / "trl", student)
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    batch = cut(dict(trl.data_collator(copy.deepcopy(rows))), [len(encode_answer(vlm, text)) for text in answers])
    return Road(student, prepared, folder, pairs, trl, batch)


DPO_FAMILY: list[tuple[str, dict[str, Any], list[str], dict[str, Any]]] = [
    ("dpo", {"beta": 0.1}, ["sigmoid"], {}),
    ("hinge", {"beta": 0.3}, ["hinge"], {}),
    ("ipo", {"beta": 0.1}, ["ipo"], {}),
    ("robust", {"beta": 0.1, "label_smoothing": 0.2}, ["robust"], {"label_smoothing": 0.2}),
    ("exo", {"beta": 0.3, "label_smoothing": 0.1}, ["exo_pair"], {"label_smoothing": 0.1}),
    ("nca", {"beta": 0.1}, ["nca_pair"], {}),
    ("sppo", {"beta": 0.5}, ["sppo_hard"], {}),
    ("apo-zero", {"beta": 0.3}, ["apo_zero"], {}),
    ("apo-down", {"beta": 0.3}, ["apo_down"], {}),
    ("discopop", {"beta": 0.05}, ["discopop"], {}),
    ("dpo-norm", {"beta": 2.0}, ["sigmoid_norm"], {}),
    ("ld-dpo", {"beta": 0.1, "ld_alpha": 0.3}, ["sigmoid"], {"ld_alpha": 0.3}),
    ("0.8 dpo + 0.2 ipo", {"beta": 0.2}, ["sigmoid", "ipo"], {"loss_weights": [0.8, 0.2]}),
]


@pytest.mark.parametrize(("loss", "section", "types", "settings"), DPO_FAMILY, ids=[row[0] for row in DPO_FAMILY])
def test_losses_of_trls_dpo_trainer(
    road: Road, loss: str, section: dict[str, Any], types: list[str], settings: dict[str, Any]
) -> None:
    road.assert_equal(road.ours(loss=loss, **section), road.theirs(types, section["beta"], **settings))


def test_trl_smooths_no_labels_of_plain_dpo(road: Road) -> None:
    """Its ``label_smoothing`` is one of ``robust``, ``exo_pair`` and ``aot``; our conservative DPO is compared by its
    formula alone (tests/test_losses.py)."""
    assert road.theirs(["sigmoid"], 0.1, label_smoothing=0.2).item() == road.theirs(["sigmoid"], 0.1).item()


def test_the_likelihood_of_one_pair_is_trls_sft_loss(road: Road) -> None:
    """Of one: over a batch TRL takes the mean over all tokens, ours that of each pair and then over pairs."""
    pair = road.pairs[1]
    batch = dict(road.trl.data_collator(preferences([pair])))
    batch = cut(batch, [len(encode_answer(road.student, text)) for text in (pair.chosen, pair.rejected)])
    ours = road.ours(items=road.prepared.items[1:2], beta=0.1, nll=0.5)
    road.assert_equal(ours, road.theirs(["sigmoid", "sft"], 0.1, batch, loss_weights=[1.0, 0.5]))


def test_losses_without_a_reference(road: Road) -> None:
    """TRL's ORPO and CPO trainers take no images: their formulas, on the log-probs of its DPO trainer's forward."""
    inputs = {name: value for name, value in road.batch.items() if name != "completion_mask"}
    mask = road.batch["completion_mask"]
    labels = inputs["input_ids"].masked_fill(mask == 0, -100)
    here = SimpleNamespace(device="cpu")

    def logps() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        found = road.trl.model(**inputs, use_cache=False, labels=labels, fused_lm_head=True).log_probs.sum(-1)
        return found.chunk(2), (found / mask.sum(-1)).chunk(2)

    _, means = logps()
    odds = ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.3, accelerator=here), *means)[0]
    road.assert_equal(road.ours(loss="orpo", beta=0.3), (-means[0] - odds).mean())
    cpo = {"alpha": 0.0, "label_smoothing": 0.0, "accelerator": here}
    _, means = logps()
    simpo = SimpleNamespace(**cpo, beta=2.0, loss_type="simpo", simpo_gamma=1.2)
    road.assert_equal(
        road.ours(loss="simpo", beta=2.0, target_margin=1.2), CPOTrainer.cpo_loss(simpo, *means)[0].mean()
    )
    sums, means = logps()
    plain = SimpleNamespace(**{**cpo, "label_smoothing": 0.1}, beta=0.2, loss_type="sigmoid")
    road.assert_equal(
        road.ours(loss="cpo", beta=0.2, label_smoothing=0.1, nll=1.0),
        (CPOTrainer.cpo_loss(plain, *sums)[0] - means[0]).mean(),
    )


def test_kto_is_trls(road: Road) -> None:
    """With the same mismatched answers: TRL draws them from the batch, ours are fixed beforehand (``items``)."""
    pairs, student = road.pairs, road.student
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    own = [
        {**conversation(pair), "completion": said(text), "label": label}
        for pair, text, label in zip(pairs * 2, answers, KTO_LABELS, strict=True)
    ]
    vlm = toys.vlm(road.folder / "model")
    trainer = peft_trainer(KTOTrainer, KTOConfig, vlm, own, road.folder / "kto", student)
    kto = prepare(toys.vlm(road.folder / "model"), pairs, toys.section(loss="kto"), road.folder / "prepared")
    # each side with the same side of the next pair
    turned = [*answers[1:PAIRS], answers[0], *answers[PAIRS + 1 :], answers[PAIRS]]
    assert [item.mismatched.answer for item in kto.items if item.chosen and item.mismatched] == turned[:PAIRS]
    mismatched = [{**row, "completion": said(text)} for row, text in zip(own, turned, strict=True)]
    batch, other = (dict(trainer.data_collator(copy.deepcopy(rows))) for rows in (own, mismatched))
    batch |= {f"KL_{name}": other[name] for name in other if f"KL_{name}" in batch}
    batch = cut(batch, [len(encode_answer(student, text)) for text in answers])
    batch = cut(batch, [len(encode_answer(student, text)) for text in turned], "KL_completion_mask")
    trainer.beta, trainer.desirable_weight, trainer.undesirable_weight = 0.2, 1.5, 0.7
    for factor in (0.1, -1.0):  # the reference point of a small step is clamped at 0, or that of its opposite
        for model in (student.model, trainer.model):
            scale(model, factor)
        theirs = trainer._compute_loss(trainer.model, batch, False)
        ours = road.ours(kto, loss="kto", beta=0.2, desirable=1.5, undesirable=0.7)
        road.assert_equal(ours, theirs, trainer.model)
    scale(student.model, -10.0)
    assert min(trainer._metrics["eval"]["kl"]) == 0
    assert max(trainer._metrics["eval"]["kl"]) > 1e-3


@pytest.mark.parametrize("rank", [4, 0])
@pytest.mark.parametrize(("family", "accumulate"), [("llava", 2), ("qwen3_vl", 1)])
def test_fine_tuning_is_trls_sft(family: str, accumulate: int, rank: int, tmp_path: Path) -> None:
    """Loss and gradient of one step, with LLaVA over two batches: the mean over all its tokens.

    Over Qwen's batches the Trainer takes a mean of their means, as its model takes no ``num_items_in_batch``.
    """
    questions = toys.questions(tmp_path / "images", 6)
    ours, theirs = (toys.vlm(tmp_path / "model", family) for _ in range(2))
    prompts = Prompts(ours)
    rows, _ = usable(ours, questions, prompts)
    way = way_of(ours, shared=False)
    kept = encoded(ours, rows, prompts, 4, tmp_path / "features") if rank else None
    for vlm in (ours, theirs):
        torch.manual_seed(0)
        if rank:
            attach_lora(vlm, LORA)
        else:
            freeze(vlm, language=True, projector=True)
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    size = len(rows) // accumulate
    settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate, "report_to": "none"}
    settings |= {"output_dir": str(tmp_path / "out"), "use_cpu": True, "remove_unused_columns": False}
    section = SftSection(batch=size, accumulate=accumulate)
    mine = AnswerTrainer(ours, TrainingArguments(**settings), rows, prompts, way, kept, section)

    def collator(batch: list[dict[str, int]]) -> dict[str, Tensor]:
        some = [rows[entry["row"]] for entry in batch]
        tensors = collate(theirs, [prompts(row) for row in some], [answer_ids(theirs, row) for row in some])
        spoken = tensors.pop("completion_mask")
        return {**tensors, "labels": tensors["input_ids"].masked_fill(~spoken, -100)}

    config = SFTConfig(
        **settings, bf16=False, gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    data = Dataset.from_dict({"row": list(range(len(rows)))})
    other = SFTTrainer(
        theirs.model, args=config, train_dataset=data, data_collator=collator, processing_class=theirs.processor
    )
    halves = [list(range(start, start + size)) for start in range(0, len(rows), size)]
    found = []
    for trainer, collated in (
        (mine, [mine.collated(half) for half in halves]),
        (other, [collator([{"row": number} for number in half]) for half in halves]),
    ):
        batches, count = trainer.get_batch_samples(iter(collated), accumulate, torch.device("cpu"))
        loss = sum(trainer.compute_loss(trainer.model, b, num_items_in_batch=count) for b in batches)
        wanted = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        gradient = dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))
        found.append((loss.item(), torch.cat([gradient[name].flatten() for name in sorted(gradient)])))
    (loss, gradient), (expected, theirs_gradient) = found
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (gradient - theirs_gradient).norm() < 1e-4 * theirs_gradient.norm()


def test_rows_are_trls_but_for_what_follows_the_end_of_turn(road: Road) -> None:
    vlm = road.student
    batch = dict(road.trl.data_collator(preferences(road.pairs)))
    answers = [p.chosen for p in road.pairs] + [p.rejected for p in road.pairs]
    for i, text in enumerate(answers):
        item = road.prepared.items[i % PAIRS]
        row = item.chosen if i < PAIRS else item.rejected
        assert row is not None
        prompt = road.prepared.cache.below(f"prompt/{row.prompt_key}/")["input_ids"][0].tolist()
        ours = prompt + encode_answer(vlm, text)
        theirs = batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist()
        assert theirs[: len(ours)] == ours
        # the newline that the template writes after the end of turn: a model that has ended never generates it
        assert vlm.tokenizer.decode(theirs[len(ours) :]) == "\n"
        scored = batch["input_ids"][i][batch["completion_mask"][i].bool()].tolist()
        assert scored[:-1] == encode_answer(vlm, text)
