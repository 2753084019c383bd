"""A made-up run for the tests of evaluation and report: patients, reports, two models, and everything in between."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from radpref.evaluation import ERROR_METRICS, HEADLINE, Measured, baselines, by_label, compare, error_totals, measure
from radpref.findings import read
from radpref.judges import JUDGES, Case
from radpref.records import Finding, ImageFile, Pair, Quarantined, Question, Split
from radpref.report import (
    Choice,
    PairStatistics,
    PairView,
    ReportData,
    Setting,
    SplitCount,
    StudyView,
    TrainingLog,
)

SENTENCES = {
    "pleural effusion": ("There is a small left pleural effusion.", "Small left effusion.", "No pleural effusion."),
    "cardiomegaly": ("The heart is enlarged.", "There is cardiomegaly.", "Heart size is normal."),
    "pneumothorax": ("There is a right apical pneumothorax.", "Right apical pneumothorax.", "No pneumothorax."),
    "atelectasis": ("Left basilar atelectasis is present.", "There is left basilar atelectasis.", "No atelectasis."),
    "nodule": ("A nodule in the right upper lobe.", "Right upper lobe nodule is seen.", "No pulmonary nodule."),
    "consolidation": (
        "Right lower lobe consolidation.",
        "There is right lower lobe consolidation.",
        "No consolidation.",
    ),
    "edema": ("Mild pulmonary edema.", "There is mild pulmonary edema.", "No pulmonary edema."),
}
"""Finding to two ways of stating it and one of denying it."""
RATES = (0.4, 0.45, 0.1, 0.35, 0.15, 0.25, 0.2)


def questions(count: int, split: Split, seed: int, folder: Path | None = None) -> tuple[list[Question], np.ndarray]:
    """Questions with references and truth, two studies for every fifth patient; and who has what, bool (count, 7)."""
    generator = np.random.default_rng([seed, count])
    has = generator.random((count, len(SENTENCES))) < RATES
    rows = []
    for index in range(count):
        images: tuple[ImageFile, ...] = ()
        if folder is not None:
            images = (
                ImageFile(path=str(draw_image(folder / f"{split}{index}.png", has[index], index)), view="frontal"),
            )
        rows.append(
            Question(
                id=f"{split}-{index:04d}",
                study=f"{split}-{index:04d}",
                patient=f"p{split}{index - (index % 5 == 1):04d}",
                split=split,
                images=images,
                prompt="Write the findings of this chest X-ray.\nIndication: cough & fever.",
                reference=write(has[index], generator),
                truth=tuple(Finding(name=name) for name, there in zip(SENTENCES, has[index], strict=True) if there),
            )
        )
    return rows, has


def write(has: np.ndarray, generator: np.random.Generator, style: int = 0) -> str:
    """A report that states what ``has`` says, and denies most of the rest."""
    sentences = [
        ways[style if there else 2]
        for ways, there in zip(SENTENCES.values(), has, strict=True)
        if there or generator.random() < 0.6
    ]
    return " ".join(sentences) or "The lungs are clear."


def answers(rows: list[Question], has: np.ndarray, miss: float, invent: float, seed: int) -> dict[str, str]:
    """A model that misses and invents findings at these rates."""
    generator = np.random.default_rng(seed)
    said = np.where(has, generator.random(has.shape) >= miss, generator.random(has.shape) < invent)
    return {row.id: write(some, generator, style=1) for row, some in zip(rows, said, strict=True)}


def draw_image(path: Path, has: np.ndarray, seed: int) -> Path:
    """Two lungs and a heart; enough of an image to look at in a page."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    image = 150 - 40 * (x**2 + 0.5 * y**2)
    for side in (-1, 1):
        image -= 95 / (1 + np.exp(18 * (((x - side * 0.42) / 0.3) ** 2 + ((y + 0.05) / 0.72) ** 2 - 1)))
    image += (45 + 25 * has[1]) / (
        1 + np.exp(14 * (((x - 0.08) / (0.24 + 0.1 * has[1])) ** 2 + ((y - 0.3) / 0.33) ** 2 - 1))
    )
    image += 7 * np.sin(9 * y + 2 * np.abs(x)) + generator.normal(0, 5, image.shape)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


def measured(count: int = 200, seed: int = 3, folder: Path | None = None) -> tuple[dict[str, Measured], list[Question]]:
    """``sft``, ``aligned``, ``sft on chosen`` and the baselines, all measured on the same made-up test studies."""
    train, _ = questions(150, "train", seed)
    test, has = questions(count, "test", seed, folder)
    systems = {
        "sft": answers(test, has, miss=0.42, invent=0.16, seed=1),
        "aligned": answers(test, has, miss=0.24, invent=0.13, seed=2),
        "sft on chosen": answers(test, has, miss=0.36, invent=0.14, seed=4),
        **baselines(train, test, seed),
    }
    return {name: measure(name, test, said, resamples=300, seed=seed) for name, said in systems.items()}, test


def filled(folder: Path, count: int = 200, source: str = "phantom") -> ReportData:
    """A whole report's data."""
    systems, test = measured(count, folder=folder)
    _, has = questions(count, "test", 3)
    before, after = answers(test, has, 0.42, 0.16, 1), answers(test, has, 0.24, 0.13, 2)
    names = (*HEADLINE, *ERROR_METRICS)
    comparisons = compare(systems["sft"], systems["aligned"], metrics=HEADLINE, resamples=300)
    comparisons += compare(systems["sft"], systems["aligned"], metrics=ERROR_METRICS, resamples=300)
    for other in ("sft on chosen", "constant normal report", "most frequent findings", "shuffled reference"):
        comparisons += compare(systems[other], systems["aligned"], metrics=names[:2], resamples=300)
    train, train_has = questions(120, "train", 5, folder)
    candidates = [
        Case(f"{row.id}/{k}", row.id, row.reference, text)
        for k in range(4)
        for row, text in zip(
            train, answers(train, train_has, 0.2 + 0.15 * k, 0.1 + 0.1 * k, 10 + k).values(), strict=True
        )
    ]
    judgements = JUDGES["green"]()(candidates)
    scored = {case.id: (case, row) for case, row in zip(candidates, judgements, strict=True)}
    pairs = []
    for row in train:
        mine = [scored[f"{row.id}/{k}"] for k in range(4)]
        best = max(mine, key=lambda item: item[1].score or 0.0)
        worst = min(mine, key=lambda item: item[1].score or 0.0)
        if (best[1].score or 0) > (worst[1].score or 0):
            pairs.append(
                Pair(
                    id=f"{row.id}/{best[0].id[-1]}-{worst[0].id[-1]}",
                    question=row.id,
                    patient=row.patient,
                    images=row.images,
                    prompt=row.prompt,
                    chosen=best[0].candidate,
                    rejected=worst[0].candidate,
                    chosen_score=best[1].score,
                    rejected_score=worst[1].score,
                )
            )
    references = {row.id: row.reference for row in train}
    return ReportData(
        title="CheXalign on phantoms" if source == "phantom" else "CheXalign on Open-i",
        source=source,
        run="runs/2026-01-05-chexalign",
        created="5 January 2026, 14:02",
        command="radpref run chexalign --align.beta 0.1",
        metrics=[metric for system in systems.values() for metric in system.metrics],
        comparisons=comparisons,
        labels={name: by_label(systems[name]) for name in ("sft", "aligned", "sft on chosen")},
        errors={name: error_totals(systems[name]) for name in ("sft", "aligned", "sft on chosen")},
        unscored={"sft": systems["sft"].unscored(), "aligned": {"the candidate has no words": 2}},
        recipe=[
            Setting("run.seed", "17", "default", "seed of everything that draws"),
            Setting("align.loss", "dpo", "chexalign.yaml", "dpo, lc-dpo, ipo, kto, orpo"),
            Setting("align.beta", "0.1", "the command line", "strength of the tie to the reference"),
        ],
        facts={
            "versions": {"radpref": "0.2.0", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
            "hardware": {"processor": "2 cores, x86_64", "memory": "16 GiB", "precision": "float32"},
            "seeds": {"run": "17", "world": "0", "bootstrap": "17"},
            "times": {"sft": "3 min 12 s", "sample": "1 min 40 s", "align": "1 min 5 s"},
        },
        counts=[
            SplitCount("train", 120, 150, 150),
            SplitCount("validation", 40, 50, 50),
            SplitCount("test", 160, 200, 200),
        ],
        quarantined=[
            Quarantined(id="a", stage="studies", reason="the report is empty"),
            Quarantined(id="b", stage="studies", reason="image cut short: image file is truncated"),
            Quarantined(id="c", stage="studies", reason="image cut short: image file is truncated"),
        ],
        training=[
            TrainingLog("Supervised fine-tuning", sft_log()),
            TrainingLog("Alignment (dpo, beta 0.1)", align_log()),
        ],
        candidates=judgements,
        statistics=PairStatistics(
            questions=len(train),
            candidates=len(candidates),
            pairs=len(pairs),
            dropped={"tie": len(train) - len(pairs)},
            unscored={"no finding could be read in the reference": 3},
        ),
        scored_pairs=pairs,
        selection=[
            Choice("step 50", 0.1, {"green": 0.412, "lc-green": 0.401, "words": 22.1}),
            Choice("step 100", 0.1, {"green": 0.437, "lc-green": 0.421, "words": 23.4}, chosen=True),
            Choice("step 150", 0.1, {"green": 0.441, "lc-green": 0.418, "words": 25.0}),
        ],
        selected_by="lc-green",
        studies=[
            StudyView(
                question=row,
                before=before[row.id],
                after=after[row.id],
                before_judgement=systems["sft"].judgements["green"][row.id],
                after_judgement=systems["aligned"].judgements["green"][row.id],
                reference_findings=read(row.reference),
                before_findings=read(before[row.id]),
                after_findings=read(after[row.id]),
            )
            for row in test[:40]
        ],
        pairs=[PairView(pair, references[pair.question]) for pair in pairs[:20]],
        notes=["This run was limited to 200 test studies."],
    )


def sft_log() -> list[dict[str, float]]:
    generator = np.random.default_rng(0)
    return [
        {
            "step": 5 * i,
            "loss": 0.4 + 2.6 * math.exp(-i / 14) + generator.normal(0, 0.04),
            "learning_rate": 5e-4 * (1 + math.cos(math.pi * i / 60)),
        }
        for i in range(1, 61)
    ]


def align_log() -> list[dict[str, float]]:
    generator = np.random.default_rng(1)
    return [
        {
            "step": i,
            "loss": 0.69 - 0.16 * (1 - math.exp(-i / 60)) + generator.normal(0, 0.015),
            "reward_margin": 0.55 * (1 - math.exp(-i / 60)) + generator.normal(0, 0.04),
            "reward_accuracy": min(1.0, 0.5 + 0.28 * (1 - math.exp(-i / 40)) + generator.normal(0, 0.04)),
            "chosen_logp": -31 - 2.2 * (1 - math.exp(-i / 80)) + generator.normal(0, 0.5),
            "rejected_logp": -36 - 7 * (1 - math.exp(-i / 80)) + generator.normal(0, 0.5),
            "kl": 0.02 * (1 - math.exp(-i / 70)) + abs(generator.normal(0, 0.001)),
            "chosen_tokens": 34 + generator.normal(0, 1.2),
            "rejected_tokens": 32 + generator.normal(0, 1.2),
            "grad_norm": 1.4 + generator.normal(0, 0.2),
        }
        for i in range(1, 151)
    ]
