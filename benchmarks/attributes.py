"""How well attributes of findings are seen: a model at the words of its references, and a probe on its tower.

The model is given the image, the prompt and the reference up to the word that names a side, a severity or a place,
and its log-probabilities of the possible words are compared (teacher forcing). What it says before that word cannot
mislead it, and what it would rather say than name the attribute does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radpref.findings import read
from radpref.findings.reader import sentence_bounds
from radpref.images import read_image
from radpref.models import Vlm, autocast, collate, encode_answer, encode_prompt
from radpref.models.make_builtin import auc
from radpref.records import Finding, ImageFile, Question, Study
from radpref.training.probe import SLOTS, Probe, Sight, train_probe

CLASSES: dict[str, tuple[str, ...]] = {
    "side": ("left", "right"),
    "severity": ("mild", "moderate", "severe"),
    "place": ("upper zone", "mid zone", "lower zone"),
}
_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "side": {"left": ("left",), "right": ("right",)},
    "severity": {
        "mild": ("mild", "small", "minimal", "mildly", "slight", "slightly", "tiny", "trace"),
        "moderate": ("moderate", "moderately", "medium"),
        "severe": ("severe", "large", "marked", "severely", "markedly", "extensive"),
    },
    "place": {"upper zone": ("upper",), "mid zone": ("mid", "middle"), "lower zone": ("lower",)},
}


class Told(NamedTuple):
    """One decision: which class of an attribute a finding has, and what each class got."""

    attribute: str
    finding: str
    truth: int
    scores: tuple[float, ...]
    """Log-probability, or logit, of each class."""
    study: str


def value(finding: Finding, attribute: str) -> str | None:
    return {"side": finding.side, "severity": finding.severity, "place": finding.place}[attribute]


# ---------------------------------------------------------------- the model at its words


def words_of(question: Question) -> Iterator[tuple[str, str, int, int]]:
    """(attribute, finding, class, offset of the word) of the reference's words that name what is true of a finding.

    The word is the nearest one to the finding's name in its sentence; bilateral findings have no word for a side.
    """
    truth = {finding.name: finding for finding in question.truth or ()}
    text = question.reference
    bounds = sentence_bounds(text)
    for finding in read(text):
        real = truth.get(finding.name)
        if finding.presence == "absent" or finding.span is None or real is None:
            continue
        at = finding.span.start
        start, end = next(((a, b) for a, b in bounds if a <= at < b), (0, 0))
        for attribute, classes in CLASSES.items():
            named = value(real, attribute)
            if named not in classes or value(finding, attribute) != named:
                continue
            words = "|".join(_WORDS[attribute][named])
            found = [start + m.start() for m in re.finditer(rf"\b(?:{words})\b", text[start:end], re.IGNORECASE)]
            if found:
                yield attribute, finding.name, classes.index(named), min(found, key=lambda offset: abs(offset - at))


def model_told(vlm: Vlm, questions: Sequence[Question], *, batch: int = 25) -> list[Told]:
    """What the model gives to the classes at every such word: log of the summed probabilities of their words.

    A word counts by its first token, written as the reference writes it at this place (after a blank, or with a
    capital letter). ValueError where a tokenizer begins two classes alike.
    """
    told: list[Told] = []
    for start in range(0, len(questions), batch):
        some = questions[start : start + batch]
        prompts = [encode_prompt(vlm, q.prompt, [read_image(image) for image in q.images]) for q in some]
        tensors = collate(vlm, prompts, [encode_answer(vlm, q.reference) for q in some])
        tensors.pop("completion_mask")
        with torch.no_grad(), autocast(vlm):
            logits = vlm.model(**{key: tensor.to(vlm.device) for key, tensor in tensors.items()}).logits
        for row, (question, prompt) in enumerate(zip(some, prompts, strict=True)):
            for attribute, finding, truth, offset in words_of(question):
                before, heads = _heads(vlm, question.reference, offset, attribute)
                at = prompt["input_ids"].shape[1] + before - 1
                logps = logits[row, at].float().log_softmax(-1).cpu()
                scores = tuple(float(logps[list(ids)].logsumexp(0)) for ids in heads)
                told.append(Told(attribute, finding, truth, scores, question.study))
    return told


def _heads(vlm: Vlm, text: str, offset: int, attribute: str) -> tuple[int, list[set[int]]]:
    """Number of tokens before the word, and the first tokens of each class's words in its place."""
    begin = offset - (offset > 0 and text[offset - 1] == " ")
    before = len(vlm.tokenizer(vlm.turn.lead + text[:begin], add_special_tokens=False)["input_ids"])
    lead, capital = text[begin:offset], text[offset].isupper()
    heads: list[set[int]] = []
    for named in CLASSES[attribute]:
        words = [word.capitalize() if capital else word for word in _WORDS[attribute][named]]
        heads.append({vlm.tokenizer(lead + word, add_special_tokens=False)["input_ids"][0] for word in words})
    shared = set().union(*(a & b for a, b in combinations(heads, 2)))
    heads = [ids - shared for ids in heads]
    if not all(heads):
        raise ValueError(f"{vlm.name}: the tokenizer begins words of two classes of {attribute} alike")
    return before, heads


# ---------------------------------------------------------------- a probe on the tower


def probe_on(features: Tensor, studies: Sequence[Study]) -> Probe:
    """A probe of ``features`` (studies, patches, width) on the studies' truth."""
    return train_probe(all_of(features), [study.truth or () for study in studies], steps=1500, seed=0)


def all_of(features: Tensor) -> Sight:
    """Features of studies with equally many patches."""
    return Sight(features, torch.ones(features.shape[:2], dtype=torch.bool))


@torch.no_grad()
def probe_told(probe: Probe, features: Tensor, studies: Sequence[Study]) -> list[Told]:
    """What the probe gives to the classes of every attribute of every finding that is there."""
    told: list[Told] = []
    for logits, study in zip(probe(*all_of(features)), studies, strict=True):
        for finding in study.truth or ():
            if finding.name not in probe.names:
                continue
            row = logits[probe.names.index(finding.name)]
            for attribute, classes in CLASSES.items():
                named = value(finding, attribute)
                if named in classes:
                    scores = tuple(row[SLOTS[attribute]].tolist())
                    told.append(Told(attribute, finding.name, classes.index(named), scores, study.id))
    return told


def tower_of(vlm: Vlm, images: Iterable[ImageFile], features: Callable[[Tensor], Tensor], batch: int = 50) -> Tensor:
    """(images, patches, width) float32 of the tower, as the projector is given it."""
    pictures = [read_image(image) for image in images]
    rows = []
    for start in range(0, len(pictures), batch):
        some = pictures[start : start + batch]
        pixels = vlm.processor.image_processor(images=some, return_tensors="pt")["pixel_values"]
        with torch.no_grad(), autocast(vlm):
            rows.append(features(pixels.to(vlm.device)).float().cpu())
    return torch.cat(rows)


# ---------------------------------------------------------------- AUC


def separation(told: Sequence[Told], classes: int) -> float:
    """Mean over pairs of classes of the AUC of their score's difference (Hand and Till, 2001, by pairs).

    Of two classes it is the AUC. A pair with fewer than five of either class is left out; NaN where none is left.
    """
    values = []
    for i, j in combinations(range(classes), 2):
        some = [one for one in told if one.truth in (i, j)]
        truth: NDArray[Any] = np.array([one.truth == j for one in some], dtype=bool)
        if min(truth.sum(), (~truth).sum(), len(some)) >= 5:
            values.append(auc(np.array([one.scores[j] - one.scores[i] for one in some]), truth))
    return float(np.mean(values)) if values else float("nan")


def interval(told: Sequence[Told], classes: int, *, resamples: int = 300, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of ``separation`` over studies."""
    by_study: dict[str, list[Told]] = {}
    for one in told:
        by_study.setdefault(one.study, []).append(one)
    groups, rng = list(by_study.values()), np.random.default_rng(seed)
    values = [
        separation([one for k in rng.integers(0, len(groups), len(groups)) for one in groups[k]], classes)
        for _ in range(resamples)
    ]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
