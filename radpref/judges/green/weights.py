"""What a statement weighs and what a slip costs, and the words of claims: ``weights.yaml`` and ``claims.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import yaml

from radpref.findings import COVERS, lexicon

UNKNOWN = "unknown"
"""The kind of a disease that the lexicon does not know."""
WHOLE = "whole"
"""The region of statements about the whole image."""


@dataclass(frozen=True)
class Weights:
    """What ``weights.yaml`` says, ready to be looked up."""

    of: Mapping[str, float]
    """Finding to its weight, severity aside."""
    unknown: float
    """Weight of a claim that the lexicon does not know."""
    grave: frozenset[str]
    """Findings of weight: those that are not minor, general statements aside."""
    severity: Mapping[str | None, float]
    suspected: float
    region: Mapping[str, str]
    """Finding to its region."""
    regions: Mapping[str, float]
    general: Mapping[str, str]
    """General statement to the region it speaks of."""
    normals: Mapping[str, float]
    credit: Mapping[str, Any]
    charge: Mapping[str, float]
    near: float
    far: float
    """Ratios of measures: up to ``near`` they agree, up to ``far`` nearly."""
    apart: frozenset[frozenset[str]]
    """Pairs of names that never stand for each other."""
    tips: Mapping[str, int]
    """Place of a tube's tip to the number of its group."""

    def weight(self, name: str, severity: str | None = None) -> float:
        """Weight of a finding, a claim that the lexicon does not know included."""
        return self.of.get(name, self.unknown) * self.severity[severity]


@dataclass(frozen=True)
class Words:
    """What ``claims.yaml`` says, as patterns over lower-case text."""

    disease: frozenset[str]
    endings: tuple[str, ...]
    """Of words of disease."""
    no_disease: frozenset[str]
    """Words that have such an ending."""
    diseases: re.Pattern[str]
    """Diseases of several words."""
    normal: re.Pattern[str]
    looked_for: re.Pattern[str]
    qualified: re.Pattern[str]
    otherwise: re.Pattern[str]
    subjects: tuple[tuple[str, re.Pattern[str]], ...]
    """General statement to the words that narrow a statement about the whole to it."""


def _raw(name: str) -> Any:
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def weights() -> Weights:
    """The shipped weights."""
    raw = _raw("weights.yaml")
    minor = lexicon().minor
    kinds, of, region = raw["kinds"], {}, {}
    for where, table in raw["findings"].items():
        for kind, names in table.items():
            for name in names:
                of[name] = float(kinds["minor" if name in minor else kind])
                region[name] = where
    near, far = raw["ratios"]
    return Weights(
        of=of,
        unknown=float(kinds[UNKNOWN]),
        grave=frozenset(of) - minor - COVERS.keys() - {n for n, w in of.items() if w <= kinds["minor"]},
        severity={None: 1.0, **{name: float(value) for name, value in raw["severities"].items()}},
        suspected=raw["suspected"],
        region=region,
        regions=raw["regions"],
        general=raw["general"],
        normals=raw["normals"],
        credit=raw["credit"],
        charge=raw["charge"],
        near=near,
        far=far,
        apart=frozenset(frozenset(pair) for pair in raw["apart"]),
        tips={place: number for number, group in enumerate(raw["tips"]) for place in group},
    )


@cache
def words() -> Words:
    """The shipped words of claims."""
    raw = _raw("claims.yaml")
    disease = raw["disease"]
    return Words(
        disease=frozenset(word for word in disease["words"] if " " not in word),
        endings=tuple(disease["endings"]),
        no_disease=frozenset(disease["not"]),
        diseases=re.compile(rf"\b(?:{_any(word for word in disease['words'] if ' ' in word)})\b"),
        normal=re.compile(rf"(?:^|(?<=[.;!\n]))[\s*\-]*({_any(raw['all normal'])})\s*(?=[.;!\n]|$)"),
        # The test of what stands before comes last: in front it would cost a try at every letter.
        looked_for=re.compile(rf"(?:{_any(raw['looked for'])})\b"),
        qualified=re.compile(rf"\b(?:{_any(raw['qualified'])})\b[\w\s,-]{{0,24}}$"),
        otherwise=re.compile(rf"\b(?:{_any(raw['otherwise'])})\b"),
        subjects=tuple((name, re.compile(rf"\b(?:{_any(forms)})\b")) for name, forms in raw["subjects"].items()),
    )


def _any(phrases: Iterable[str]) -> str:
    """The longest first, blanks as any white space."""
    return "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in sorted(phrases, key=len, reverse=True))


@cache
def digest() -> str:
    """Hash of both files."""
    names = ("weights.yaml", "claims.yaml")
    return sha256(b"".join((files(__package__) / name).read_bytes() for name in names)).hexdigest()[:12]
