"""What the built-in tower sees: image-level AUC of each finding on phantoms of a world that it was not trained on.

    python benchmarks/builtin_model.py [--images 1000] [--seed 100]

Scores are a smooth maximum over the patches' logits of the tower's linear head, which is stored beside the
checkpoint. Prints a Markdown table with n and 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from radpref.config import ModelSection, RunSection
from radpref.data import phantom
from radpref.models import load
from radpref.models.make_builtin import SIZE, auc, image_logits, load_head, tensors, tower_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100, help="of the world; the model was made from world 1")
    parser.add_argument("--model", default="builtin")
    options = parser.parse_args()

    vlm = load(ModelSection(path=options.model), RunSection(precision="float32"))
    head, names = load_head(vlm.folder)
    scores, truth = [], []
    with torch.no_grad():
        for start in range(0, options.images, 50):
            images = [phantom.draw(start + i, seed=options.seed, size=SIZE) for i in range(50)]
            both = [tensors(vlm.processor, image, names) for image in images]
            logits = head(tower_features(vlm.model, torch.stack([pixels for pixels, _ in both])))
            scores.append(image_logits(logits).numpy())
            truth.append(torch.stack([target for _, target in both]).amax(1).numpy() > 0)
    score, present = np.concatenate(scores), np.concatenate(truth)

    rng = np.random.default_rng(options.seed)
    draws = [rng.integers(0, len(score), len(score)) for _ in range(500)]
    print(f"{len(score)} frontal images of world {options.seed}\n")
    print("| finding | present | AUC | 95 % interval |\n|---|---|---|---|")
    for i, name in enumerate(names):
        spread = [auc(score[d, i], present[d, i]) for d in draws]
        low, high = np.nanpercentile(spread, [2.5, 97.5])
        print(f"| {name} | {present[:, i].sum()} | {auc(score[:, i], present[:, i]):.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
