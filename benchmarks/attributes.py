"""How well attributes of findings are seen: a model at the words of its references, and a probe on its tower.

The model is given the image, the prompt and the reference up to the word that names a side, a severity or a place,
and its log-probabilities of the possible words are compared (teacher forcing). What it says before that word cannot
mislead it, and what it would rather say than name the attribute does not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from radpref.findings import read
from radpref.findings.reader import sentence_bounds
from radpref.images import read_image
from radpref.models import Vlm, autocast, collate, encode_answer, encode_prompt
from radpref.models.make_builtin import auc
from radpref.records import Finding, ImageFile, Question, Severity, Side, Study

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


class Probe(nn.Module):
    """Attention-pooled readout of patches: for every finding presence, side, severity and place.

    Each finding has a query that attends to the patches; what it attends to is read by linear maps that all findings
    share, with an offset of their own.
    """

    def __init__(self, width: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        outputs = 3 + sum(len(classes) for classes in CLASSES.values())  # presence, sides apart, the classes
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(len(names), width) * width**-0.5)
        self.own = nn.Parameter(torch.zeros(len(names), outputs, width))
        self.shared = nn.Linear(width, outputs)
        self.offset = nn.Parameter(torch.zeros(len(names), outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(images, findings, outputs) from features (images, patches, width)."""
        normed = self.norm(features)
        attention = (normed @ self.query.T).softmax(1)
        pooled = torch.einsum("ipf,ipw->ifw", attention, normed)
        return self.shared(pooled) + torch.einsum("ifw,fow->ifo", pooled, self.own) + self.offset


_SLOTS = {"side": slice(1, 3), "severity": slice(3, 6), "place": slice(6, 9)}


def _targets(studies: Sequence[Study], names: Sequence[str]) -> Tensor:
    """(studies, findings, outputs) float32: presence and both sides as 0 or 1, classes one-hot, NaN where not asked."""
    target = torch.full((len(studies), len(names), 9), torch.nan)
    target[..., 0] = 0.0
    for row, study in zip(target, studies, strict=True):
        for finding in study.truth or ():
            entry = row[names.index(finding.name)]
            entry[0] = 1.0
            if finding.side:
                entry[1], entry[2] = float(finding.side != "right"), float(finding.side != "left")
            for attribute in ("severity", "place"):
                named = value(finding, attribute)
                if named in CLASSES[attribute]:
                    entry[_SLOTS[attribute]] = torch.tensor([float(named == c) for c in CLASSES[attribute]])
    return target


def train_probe(features: Tensor, studies: Sequence[Study], *, steps: int = 1500, seed: int = 0) -> Probe:
    """A probe of ``features`` (studies, patches, width) on the studies' truth: AdamW, batches of 64, cosine."""
    names = sorted({finding.name for study in studies for finding in study.truth or ()})
    torch.manual_seed(seed)
    probe, target = Probe(features.shape[2], names), _targets(studies, names)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.3)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(len(studies), (64,))
        told, wanted = probe(features[rows] + 0.1 * torch.randn_like(features[rows])), target[rows]
        known = ~wanted[..., :3].isnan()
        loss = F.binary_cross_entropy_with_logits(told[..., :3][known], wanted[..., :3][known])
        for attribute in ("severity", "place"):
            slot = _SLOTS[attribute]
            asked = ~wanted[..., slot.start].isnan()
            if asked.any():
                loss = loss + 0.3 * F.cross_entropy(told[..., slot][asked], wanted[..., slot][asked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
    return probe.eval()


@torch.no_grad()
def probe_told(probe: Probe, features: Tensor, studies: Sequence[Study]) -> list[Told]:
    """What the probe gives to the classes of every attribute of every finding that is there."""
    told: list[Told] = []
    for logits, study in zip(probe(features), studies, strict=True):
        for finding in study.truth or ():
            if finding.name not in probe.names:
                continue
            row = logits[probe.names.index(finding.name)]
            for attribute, classes in CLASSES.items():
                named = value(finding, attribute)
                if named in classes:
                    scores = tuple(row[_SLOTS[attribute]].tolist())
                    told.append(Told(attribute, finding.name, classes.index(named), scores, study.id))
    return told


@torch.no_grad()
def probe_findings(probe: Probe, features: Tensor, known: Sequence[Study]) -> list[list[Finding]]:
    """What the probe says is there: findings above even odds, each attribute at its likeliest class.

    Which attributes a finding has, and a place that is no zone (base, apex), are what ``known`` studies mostly have.
    """
    kinds = {name: [f for study in known for f in study.truth or () if f.name == name] for name in probe.names}
    return [
        [_likeliest(name, row, kinds[name]) for name, row in zip(probe.names, logits, strict=True) if row[0] > 0]
        for logits in probe(features)
    ]


def _likeliest(name: str, row: Tensor, known: Sequence[Finding]) -> Finding:
    left, right = bool(row[1] > 0), bool(row[2] > 0)
    both: Side = "bilateral" if left and right else "left" if row[1] > row[2] else "right"
    graded: Severity = ("mild", "moderate", "severe")[int(row[_SLOTS["severity"]].argmax())]
    severity = graded if any(f.severity for f in known) else None
    alike = [f for f in known if f.severity == severity] or list(known)
    place = Counter(f.place for f in alike).most_common(1)[0][0]
    if place in CLASSES["place"]:
        place = CLASSES["place"][int(row[_SLOTS["place"]].argmax())]
    return Finding(name=name, side=both if any(f.side for f in known) else None, severity=severity, place=place)


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
