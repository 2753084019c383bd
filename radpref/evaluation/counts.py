"""What one study adds to the corpus statistics: counts and sums, never ratios.

Every metric of the results table is a function of *sums* of these columns over studies. That is what makes
a micro F1 or a corpus BLEU exact in every bootstrap resample: the resample re-adds the counts, and the
ratio is taken afterwards (``metrics.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, get_args

from radpref.findings import CLASSES_14
from radpref.records import ErrorKind, Finding, Judgement

ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
RULES: dict[str, frozenset[str]] = {
    "uncertain-positive": frozenset({"present", "uncertain"}),
    "uncertain-negative": frozenset({"present"}),
}
"""How an uncertain statement counts: the presences that are taken as a claim."""
_POSITIVE_LABELS = {"uncertain-positive": (1, -1), "uncertain-negative": (1,)}
BLEU_ORDERS = (1, 2, 3, 4)

Counts = dict[str, float]


def claimed(findings: Iterable[Finding], rule: str = "uncertain-positive") -> frozenset[str]:
    """Names that a report claims under ``rule``; one claiming statement is enough, whatever else it says."""
    return frozenset(finding.name for finding in findings if finding.presence in RULES[rule])


def agreement(wanted: Collection[str], given: Collection[str], prefix: str) -> Counts:
    """True positives, false positives and false negatives of two sets, as ``{prefix}:tp`` and so on."""
    wanted, given = set(wanted), set(given)
    return {
        f"{prefix}:tp": float(len(wanted & given)),
        f"{prefix}:fp": float(len(given - wanted)),
        f"{prefix}:fn": float(len(wanted - given)),
    }


def finding_counts(answer: Iterable[Finding], wanted: Iterable[Finding], source: str) -> Counts:
    """Name-level agreement of an answer's findings with those of ``source`` (``reference`` or ``truth``).

    A hallucination is a finding that the answer states as present without a hedge, and that the source gives
    neither as present nor as uncertain.
    """
    answer, wanted = tuple(answer), tuple(wanted)
    counts: Counts = {f"{source}:n": 1.0}
    for rule in RULES:
        counts |= agreement(claimed(wanted, rule), claimed(answer, rule), f"{source}:{rule}")
    stated = claimed(answer, "uncertain-negative")
    counts[f"{source}:stated"] = float(len(stated))
    counts[f"{source}:hallucinated"] = float(len(stated - claimed(wanted, "uncertain-positive")))
    return counts


def label_counts(answer: Mapping[str, int | None], reference: Mapping[str, int | None]) -> Counts:
    """Agreement on each of the 14 CheXpert classes, one set of counts a class and uncertain rule.

    Labels are 1 positive, 0 negative, -1 uncertain, None (or absent) not mentioned.
    """
    counts: Counts = {}
    for rule, positive in _POSITIVE_LABELS.items():
        for name in CLASSES_14:
            given, wanted = answer.get(name) in positive, reference.get(name) in positive
            prefix = f"label:{rule}:{name}"
            counts[f"{prefix}:tp"] = float(given and wanted)
            counts[f"{prefix}:fp"] = float(given and not wanted)
            counts[f"{prefix}:fn"] = float(wanted and not given)
    return counts


def judge_counts(judgement: Judgement, name: str) -> Counts:
    """Score, significant errors by kind and matched findings of a scored answer; nothing of an unscored one."""
    if judgement.score is None:
        return {f"{name}:n": 0.0, f"{name}:asked": 1.0}
    counts = {
        f"{name}:n": 1.0,
        f"{name}:asked": 1.0,
        f"{name}:score": judgement.score,
        f"{name}:matched": float(len(judgement.matched)),
    }
    significant: list[str] = [error.kind for error in judgement.errors if error.significant]
    return counts | {f"{name}:{kind}": float(significant.count(kind)) for kind in ERROR_KINDS}


@cache
def _scorers() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    return BLEU(lowercase=True, tokenize="13a", effective_order=True), RougeScorer(["rougeL"])


def text_counts(answer: str, reference: str) -> Counts:
    """n-gram counts for corpus BLEU-4 (sacrebleu, 13a, lower case), ROUGE-L F (no stemming) and words."""
    bleu, rouge = _scorers()
    statistics = bleu.sentence_score(answer, [reference])
    counts = {
        "bleu:system": float(statistics.sys_len),
        "bleu:reference": float(statistics.ref_len),
        "rouge": float(rouge.score(reference, answer)["rougeL"].fmeasure),
        "words": float(len(answer.split())),
        "reference_words": float(len(reference.split())),
        "empty": float(not answer.strip()),
        "studies": 1.0,
    }
    for order in BLEU_ORDERS:
        counts[f"bleu:correct{order}"] = float(statistics.counts[order - 1])
        counts[f"bleu:total{order}"] = float(statistics.totals[order - 1])
    return counts
