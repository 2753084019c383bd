"""A probe: what can be read from a model's own image features, without its language model.

Where a plain report of what a probe finds is better than the model's, the model sees more than it says, or its language
model has not learned to look; where it is no better, sight is the limit, and no alignment of words adds any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from radpref.models import Vlm, image_features
from radpref.records import Finding, Severity, Side

GRADES: tuple[Severity, ...] = ("mild", "moderate", "severe")
ZONES = ("upper zone", "mid zone", "lower zone")
PLACES, WIDTH = 64, 512
"""Most places an image and numbers a place that are kept: a longer row of patches is averaged in parts, wider features
are projected at random (Johnson and Lindenstrauss, 1984). 10,000 studies of one image are 1.3 GB."""
SLOTS = {"side": slice(1, 3), "severity": slice(3, 6), "place": slice(6, 9)}
"""Where an attribute's logits stand among a finding's: left and right apart, grades, zones. First is presence."""
_SIDES, _GRADE, _ZONE = SLOTS.values()
_OUTPUTS = 9


class Sight(NamedTuple):
    """What is seen of N studies."""

    features: Tensor
    """(N, T, D) float32; T places of all images of a study."""
    mask: Tensor
    """(N, T) bool: where there is a place."""


def sight(vlm: Vlm, studies: Iterable[Sequence[Image.Image]]) -> Sight:
    """The features that a model's tower and projector make of each study's images, one study at a time."""
    rows = [torch.cat([_kept(part) for part in image_features(vlm, pictures)]) for pictures in studies]
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    return Sight(nn.utils.rnn.pad_sequence(rows, batch_first=True), mask)


def _kept(places: Tensor) -> Tensor:
    """(places, width) of an image, no more than ``PLACES`` and ``WIDTH``."""
    if len(places) > PLACES:
        places = F.adaptive_avg_pool1d(places.T[None], PLACES)[0].T
    if places.shape[1] > WIDTH:
        rng = torch.Generator().manual_seed(places.shape[1])
        places = places @ (torch.randn(places.shape[1], WIDTH, generator=rng) * WIDTH**-0.5)
    return places


class Probe(nn.Module):
    """For every finding presence, side, severity and zone, by attention of its own over the places of the images.

    What each finding's query attends to is read by a linear map that all share and by one of its own.
    """

    def __init__(self, width: int, known: Sequence[Sequence[Finding]]) -> None:
        super().__init__()
        self.kinds = _kinds(known)
        self.names = tuple(self.kinds)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(len(self.names), width) * width**-0.5)
        self.own = nn.Parameter(torch.zeros(len(self.names), _OUTPUTS, width))
        self.shared = nn.Linear(width, _OUTPUTS)
        self.offset = nn.Parameter(torch.zeros(len(self.names), _OUTPUTS))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(N, findings, 9) logits from (N, T, D) features and (N, T) bool."""
        normed = self.norm(features)
        weights = (normed @ self.query.T).masked_fill(~mask[..., None], -torch.inf).softmax(1)
        pooled = torch.einsum("ntf,ntd->nfd", weights, normed)
        told: Tensor = self.shared(pooled) + torch.einsum("nfd,fod->nfo", pooled, self.own) + self.offset
        return told

    @torch.no_grad()
    def findings(self, seen: Sight) -> list[list[Finding]]:
        """Of each study what is there at above even odds, each attribute at its likeliest, and what is not there."""
        return [[self._one(name, row) for name, row in zip(self.names, logits, strict=True)] for logits in self(*seen)]

    def _one(self, name: str, row: Tensor) -> Finding:
        known = self.kinds[name]
        if row[0] <= 0:
            return Finding(name=name, presence="absent")
        left, right = (bool(one > 0) for one in row[_SIDES])
        side: Side = "bilateral" if left and right else "left" if row[1] > row[2] else "right"
        severity = GRADES[int(row[_GRADE].argmax())] if _mostly(known, "severity") else None
        place = Counter(one.place for one in known).most_common(1)[0][0]
        if place in ZONES:
            place = ZONES[int(row[_ZONE].argmax())]
        return Finding(name=name, side=side if _mostly(known, "side") else None, severity=severity, place=place)


RARE = 5
"""A finding that fewer training reports name is not probed."""


def _kinds(known: Sequence[Sequence[Finding]]) -> dict[str, list[Finding]]:
    """Finding to how it is told where it is there, for those that are told often enough; by name."""
    told: dict[str, list[Finding]] = {}
    for found in known:
        for one in found:
            if one.presence != "absent":
                told.setdefault(one.name, []).append(one)
    return {name: told[name] for name in sorted(told) if len(told[name]) >= RARE}


def _mostly(known: Sequence[Finding], attribute: Literal["side", "severity"]) -> bool:
    """Whether a finding is mostly told with an attribute."""
    return 2 * sum(getattr(one, attribute) is not None for one in known) > len(known)


def train_probe(seen: Sight, known: Sequence[Sequence[Finding]], *, steps: int = 1000, seed: int = 17) -> Probe:
    """A probe of N studies on what their reports say, uncertain findings as present: AdamW, batches of 64, cosine.

    What a report does not name is taken as absent, as in CheXpert's labels read as "U-ones, blank negative".

    Raises:
        ValueError: no finding is named by ``RARE`` of the reports.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Probe(seen.features.shape[2], known)
        if not probe.names:
            raise ValueError(f"none of {len(known)} training reports names a finding that {RARE} of them name")
        target, noise = _targets(known, probe.names), 0.1 * seen.features[seen.mask].std()
        optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.3)
        plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            rows = torch.randint(len(known), (64,))
            features = seen.features[rows]
            loss = _loss(probe(features + noise * torch.randn_like(features), seen.mask[rows]), target[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()
    return probe.eval()


def _targets(known: Sequence[Sequence[Finding]], names: Sequence[str]) -> Tensor:
    """(N, findings, 9) float32: presence and sides as 0 or 1, classes one-hot, NaN where nothing is said."""
    target = torch.full((len(known), len(names), _OUTPUTS), torch.nan)
    target[..., 0] = 0.0
    for row, found in zip(target, known, strict=True):
        for one in found:
            if one.name not in names or one.presence == "absent":
                continue
            entry = row[names.index(one.name)]
            entry[0] = 1.0
            if one.side:
                entry[_SIDES] = torch.tensor([float(one.side != "right"), float(one.side != "left")])
            for slot, classes, value in ((_GRADE, GRADES, one.severity), (_ZONE, ZONES, one.place)):
                if value in classes:
                    entry[slot] = torch.tensor([float(value == named) for named in classes])
    return target


def _loss(told: Tensor, wanted: Tensor) -> Tensor:
    known = ~wanted[..., :3].isnan()
    loss = F.binary_cross_entropy_with_logits(told[..., :3][known], wanted[..., :3][known])
    for slot in (_GRADE, _ZONE):
        asked = ~wanted[..., slot.start].isnan()
        if asked.any():
            loss = loss + 0.3 * F.cross_entropy(told[..., slot][asked], wanted[..., slot][asked])
    return loss
