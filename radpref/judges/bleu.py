"""BLEU as a score of one pair, for the audit beside the judges; as a judge it would teach a model to copy phrases."""

from __future__ import annotations

from functools import cache
from typing import Any

from radpref.judges.case import Verdict
from radpref.judges.contract import Judge, judge_by


@cache
def _scorer() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(lowercase=True, tokenize="13a", effective_order=True)


def compare(reference: str, candidate: str) -> Verdict:
    """sacrebleu's sentence BLEU-4 (0 to 1): 13a tokens, lower case, exponential smoothing, effective order."""
    return Verdict(min(_scorer().sentence_score(candidate, [reference]).score / 100, 1.0))


bleu: Judge = judge_by("bleu", compare)
"""Sentence BLEU; see the module's docstring."""
