"""What one study adds to the corpus statistics: counts and sums, never ratios.

Every metric of the results table is a function of *sums* of these columns over studies. That is what makes
a micro F1 or a corpus BLEU exact in every bootstrap resample: the resample re-adds the counts, and the
ratio is taken afterwards (``metrics.py``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from radpref.findings import CLASSES_14
from radpref.findings.labelled import NO_FINDING, members
from radpref.records import ErrorKind, Finding, Judgement

ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
RULES: dict[str, frozenset[str]] = {
    "uncertain-positive": frozenset({"present", "uncertain"}),
    "uncertain-negative": frozenset({"present"}),
}
"""How an uncertain statement counts: the presences that are taken as a claim."""
SOURCES: dict[str, str] = {
    "reference": "what the reference says",
    "truth": "what is really there",
    "labels": "the data set's own labels, of the labelled findings alone",
}
"""What an answer's findings are measured against, and in words."""
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
    return _claims(
        {rule: claimed(wanted, rule) for rule in RULES}, {rule: claimed(answer, rule) for rule in RULES}, source
    )


def labelled_counts(answer: Iterable[Finding], labels: Iterable[Finding]) -> Counts:
    """Agreement of an answer's findings with what labels say (``Question.labels``), of the labelled names alone.

    A label of a class (``Lung Lesion``) is met by any finding of the class. What labels do not name, and
    ``No Finding``, count nothing: there, nothing is known. No labels, no counts.
    """
    answer, labels = tuple(answer), [label for label in labels if label.name != NO_FINDING]
    if not labels:
        return {}
    given = {rule: claimed(answer, rule) for rule in RULES}
    met = {rule: frozenset(label.name for label in labels if members(label.name) & given[rule]) for rule in RULES}
    return _claims({rule: claimed(labels, rule) for rule in RULES}, met, "labels")


def _claims(wanted: Mapping[str, frozenset[str]], given: Mapping[str, frozenset[str]], source: str) -> Counts:
    """What two sides claim, by rule."""
    counts: Counts = {f"{source}:n": 1.0}
    for rule in RULES:
        counts |= agreement(wanted[rule], given[rule], f"{source}:{rule}")
    stated = given["uncertain-negative"]
    counts[f"{source}:stated"] = float(len(stated))
    counts[f"{source}:hallucinated"] = float(len(stated - wanted["uncertain-positive"]))
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


_STOP_AT_WORD = re.compile(r"(?<=\w)([.,;:!?])(?=\s|$)")
_APART = re.compile(r" \.(?: |$)")
_BETA = 1.2
"""How much more recall counts than precision in coco-caption's ROUGE-L."""


@cache
def _scorers() -> tuple[Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    return BLEU(lowercase=True, tokenize="13a", effective_order=True), RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l_coco(answer: str, reference: str) -> float:
    """ROUGE-L of coco-caption, 0 to 1, as papers on report generation have it (R2Gen and its followers).

    ``(1 + b^2) P R / (R + b^2 P)`` of the longest common subsequence with b = 1.2, over tokens in lower case parted
    at single blanks, a stop being a token of its own. Where texts come in that form (``clear . no effusion .``) this
    is pycocoevalcap's number, empty tokens between two blanks included.
    """
    said, told = _coco_tokens(answer), _coco_tokens(reference)
    common = _common(said, told)
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(told)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _coco_tokens(text: str) -> list[str]:
    """Tokens between single blanks; stops are set apart unless the text has come with its stops apart."""
    text = text.lower()
    if not _APART.search(text):
        text = _STOP_AT_WORD.sub(r" \1", text.replace("\n", " "))
    return text.split(" ")


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for index, other in enumerate(second, 1):
            above = row[index]
            row[index] = before + 1 if word == other else max(above, row[index - 1])
            before = above
    return row[-1]


def text_counts(answer: str, reference: str) -> Counts:
    """n-gram counts for sacrebleu's corpus BLEU-4 (13a, lower case), both conventions of ROUGE-L, and words."""
    bleu, rouge = _scorers()
    statistics = bleu.sentence_score(answer, [reference])
    counts = {
        "bleu:system": float(statistics.sys_len),
        "bleu:reference": float(statistics.ref_len),
        "rouge:coco": rouge_l_coco(answer, reference) if answer.strip() else 0.0,
        "rouge:stemmed": float(rouge.score(reference, answer)["rougeL"].fmeasure),
        "words": float(len(answer.split())),
        "reference_words": float(len(reference.split())),
        "empty": float(not answer.strip()),
        "studies": 1.0,
    }
    for order in BLEU_ORDERS:
        counts[f"bleu:correct{order}"] = float(statistics.counts[order - 1])
        counts[f"bleu:total{order}"] = float(statistics.totals[order - 1])
    return counts
