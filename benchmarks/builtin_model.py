"""What the built-in model sees and writes, on phantoms of worlds that it was not made from.

    python benchmarks/builtin_model.py                      the tower, and the model as shipped
    python benchmarks/builtin_model.py --sft chexalign      after the recipe's own fine-tuning on 1,000 studies
    python benchmarks/builtin_model.py --sft chexalign --interpolate .3 .5 .7
                                                            the same, a part of the way back (docs/interpolation.md)

Prints Markdown: the tower's AUC for each finding; AUC of side, severity and place at the words of the references,
beside a probe on the same tower trained on the same studies; the reports of both by the judge and by the truth.
Every number has its n and a 95 % bootstrap interval over images or studies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attributes
import numpy as np
import torch

from radpref import training
from radpref.config import JudgeSection, ModelSection, PhantomSection, RunSection, TaskSection
from radpref.config import load as load_recipe
from radpref.data import phantom
from radpref.judges import JUDGES, Case, compare_truth
from radpref.models import Vlm, generate, load
from radpref.models.make_builtin import SIZE, auc, image_logits, load_head, tensors, tower_features
from radpref.records import Finding, Question, Study
from radpref.tasks import report_question
from radpref.tasks.wording import noun


def sight(vlm: Vlm, count: int, seed: int) -> None:
    """AUC of each finding by a smooth maximum over the patches' logits of the head that is stored beside the tower."""
    head, names = load_head(vlm.folder)
    scores, truth = [], []
    with torch.no_grad():
        for start in range(0, count, 50):
            images = [phantom.draw(start + i, seed=seed, size=SIZE) for i in range(50)]
            both = [tensors(vlm.processor, image, names) for image in images]
            logits = head(tower_features(vlm.model, torch.stack([pixels for pixels, _ in both])))
            scores.append(image_logits(logits).numpy())
            truth.append(torch.stack([target for _, target in both]).amax(1).numpy() > 0)
    score, present = np.concatenate(scores), np.concatenate(truth)
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(score), len(score)) for _ in range(500)]
    print(f"\n{len(score)} frontal images of world {seed}\n")
    print("| finding | present | AUC | 95 % interval |\n|---|---|---|---|")
    for i, name in enumerate(names):
        low, high = np.nanpercentile([auc(score[d, i], present[d, i]) for d in draws], [2.5, 97.5])
        print(f"| {name} | {present[:, i].sum()} | {auc(score[:, i], present[:, i]):.3f} | {low:.3f} to {high:.3f} |")


def separations(model: Sequence[attributes.Told], probe: Sequence[attributes.Told]) -> None:
    """The table of AUCs by attribute, and by attribute and finding."""
    print("\n| attribute | finding | words | model | 95 % interval | probe | 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    for attribute, classes in attributes.CLASSES.items():
        ours = [one for one in model if one.attribute == attribute]
        theirs = [one for one in probe if one.attribute == attribute]
        for name in ["all", *sorted({one.finding for one in theirs})]:
            cells = []
            for told in (ours, theirs):
                some = [one for one in told if name in ("all", one.finding)]
                value = attributes.separation(some, len(classes))
                if np.isnan(value):
                    cells += ["too few", ""]
                else:
                    low, high = attributes.interval(some, len(classes))
                    cells += [f"{value:.3f}", f"{low:.3f} to {high:.3f}"]
            n = sum(name in ("all", one.finding) for one in ours)
            print(f"| {attribute} | {name} | {n} | {' | '.join(cells)} |", flush=True)


_NORMAL: dict[str, tuple[str, ...]] = {
    "The lungs are clear.": ("consolidation", "lung opacity", "nodule", "mass", "atelectasis", "edema"),
    "No focal consolidation.": ("consolidation", "lung opacity"),
    "No edema.": ("edema",),
    "No pleural effusion.": ("pleural effusion",),
    "No pneumothorax.": ("pneumothorax",),
    "Heart size is normal.": ("cardiomegaly",),
    "Mediastinal and hilar contours are normal.": ("enlarged mediastinum",),
    "No acute osseous abnormality.": ("rib fracture",),
    "The upper abdomen is unremarkable.": (),
}
"""Normal statements, and what must not be there for them."""


def plain_report(findings: Sequence[Finding]) -> str:
    """Findings that are there as sentences, then what is normal, region by region."""
    there = [finding for finding in findings if finding.presence != "absent"]
    names = {finding.name for finding in there}
    said = [f"{noun(finding)[0].upper()}{noun(finding)[1:]}." for finding in there]
    return " ".join([*said, *(text for text, without in _NORMAL.items() if not names & set(without))])


def told_truth(study: Study) -> str:
    return plain_report([finding.model_copy(update={"change": None}) for finding in study.truth or ()])


def scores(name: str, texts: Sequence[str], questions: Sequence[Question], judge: str) -> None:
    """A row: mean score by the judge against the references, by the truth, and length in words."""
    cases = [
        Case(id=f"{q.id}:{name}", question=q.id, reference=q.reference, candidate=text)
        for q, text in zip(questions, texts, strict=True)
    ]
    judged = [row.score for row in JUDGES[judge](JudgeSection(name=judge))(cases)]
    true = [compare_truth(q.truth or (), text).score for q, text in zip(questions, texts, strict=True)]
    rng, cells = np.random.default_rng(0), []
    for values in (judged, true):
        known = np.array([value for value in values if value is not None])
        means = known[rng.integers(0, len(known), (1000, len(known)))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        cells.append(f"{known.mean():.3f} ({low:.3f} to {high:.3f}), n = {len(known)}")
    words = np.mean([len(text.split()) for text in texts])
    print(f"| {name} | {cells[0]} | {cells[1]} | {words:.0f} |", flush=True)


def fine_tuned(vlm: Vlm, questions: Sequence[Question], recipe: str, folder: Path) -> Vlm:
    """The model after a recipe's own supervised fine-tuning on ``questions``; goes on where ``folder`` stands."""
    settings = load_recipe(recipe).recipe
    began = time.process_time()
    done = training.sft(vlm, questions, settings.sft, folder, seed=settings.run.seed)
    seconds = time.process_time() - began
    print(f"\nfine-tuned by {recipe}: {done.steps} steps on {len(questions)} studies, {seconds:.0f} s of CPU")
    return load(ModelSection(path=str(done.path)), RunSection())


def between(
    start: str, tuned: Vlm, shares: Sequence[float], questions: Sequence[Question], judge: str, folder: Path
) -> Vlm:
    """The best of the models at ``shares`` of the way to the tuned one, by the judge on validation ``questions``."""
    best, most = tuned, -1.0
    for share in shares:
        path = folder / f"share-{share}"
        if not path.exists():
            given = load(ModelSection(path=start), RunSection())
            training.interpolate(given, ModelSection(path=str(tuned.folder)), share, path, RunSection())
        vlm = load(ModelSection(path=str(path)), RunSection())
        cases = [
            Case(id=q.id, question=q.id, reference=q.reference, candidate=text)
            for q, text in zip(questions, said(vlm, questions), strict=True)
        ]
        judged = [row.score or 0.0 for row in JUDGES[judge](JudgeSection(name=judge))(cases)]
        score = float(np.mean(judged))
        print(f"\n{share} of the way: {judge} {score:.3f} on {len(cases)} validation studies", flush=True)
        best, most = (vlm, score) if score > most else (best, most)
    return best


def said(vlm: Vlm, questions: Sequence[Question]) -> list[str]:
    """The greedy answers."""
    return [
        found[0].text if isinstance(found, list) else ""
        for _, found in generate(vlm, questions, max_new_tokens=128, batch=32, seed=0)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="frontal images for the tower; 0 for none")
    parser.add_argument("--seed", type=int, default=100, help="world of those images; the model was made from world 1")
    parser.add_argument("--model", default="builtin", help="builtin, or the folder of a model with its head")
    parser.add_argument("--sft", help="a recipe, whose fine-tuning on the train studies comes first")
    parser.add_argument("--interpolate", type=float, nargs="+", default=(), help="shares of the way, the best is taken")
    parser.add_argument("--world", type=int, default=0, help="world of the studies; 0 is the recipes'")
    parser.add_argument("--reports", default="clean", choices=("clean", "clinical"), help="habits of that world")
    parser.add_argument("--train", type=int, default=1000, help="studies that probe and fine-tuning learn from")
    parser.add_argument("--test", type=int, default=1500, help="studies for the AUC at words")
    parser.add_argument("--write", type=int, default=400, help="studies that reports are written for; 0 for none")
    parser.add_argument("--judge", default="green", help="judge of the reports against the references")
    parser.add_argument("--work", type=Path, help="where images and the fine-tuned model are kept; nowhere if absent")
    options = parser.parse_args()

    vlm = load(ModelSection(path=options.model), RunSection())
    if options.images:
        sight(vlm, options.images, options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        world = PhantomSection(seed=options.world, reports=options.reports)
        rows = phantom.studies(world, train=options.train, validation=120, test=options.test, folder=folder)
        train = [study for study in rows if study.split == "train"]
        test = [study for study in rows if study.split == "test"]
        seen = [
            attributes.tower_of(vlm, [s.images[0] for s in some], lambda pixels: tower_features(vlm.model, pixels))
            for some in (train, test)
        ]
        probe = attributes.probe_on(seen[0], train)
        asked = [[report_question(study, TaskSection(), 2) for study in some] for some in (train, test)]
        if options.sft:
            vlm = fine_tuned(vlm, asked[0], options.sft, folder / "sft")
            held = [report_question(study, TaskSection(), 2) for study in rows if study.split == "validation"]
            vlm = between(options.model, vlm, options.interpolate, held, options.judge, folder)
        print(
            f"\n{options.model}, world {world.seed} ({world.reports}), {len(train)} train and {len(test)} test studies"
        )
        separations(attributes.model_told(vlm, asked[1]), attributes.probe_told(probe, seen[1], test))
        if options.write:
            written(vlm, asked[1][: options.write], test, probe.findings(attributes.all_of(seen[1])), options.judge)


def written(
    vlm: Vlm, questions: Sequence[Question], studies: Sequence[Study], guessed: Sequence[list[Finding]], judge: str
) -> None:
    """The table of reports: the model's, a plain one of what the probe finds, and what bounds them."""
    answers = said(vlm, questions)
    print(f"\n| reports | {judge} | green-1 against the truth | words |\n|---|---|---|---|")
    n = len(questions)
    scores("model, greedy", answers, questions, judge)
    scores("probe, plain report", [plain_report(found) for found in guessed[:n]], questions, judge)
    scores("truth, plain report", [told_truth(study) for study in studies[:n]], questions, judge)
    scores("references", [question.reference for question in questions], questions, judge)
    others = [question.reference for question in questions]
    Random(0).shuffle(others)
    scores("references of others", others, questions, judge)


if __name__ == "__main__":
    main()
