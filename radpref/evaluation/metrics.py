"""Every number of the results table, each with its averaging rule, as a function of summed counts.

A metric is a :class:`Definition`: a title, the rule in words, which direction is better, and a function from
column sums (arrays of any one shape: a scalar for the point estimate, ``(resamples,)`` for the bootstrap) to
values of that shape, NaN where undefined. To add a metric, add its counts in ``counts.py`` and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from radpref.evaluation.counts import BLEU_ORDERS, ERROR_KINDS, RULES, SOURCES
from radpref.findings import CLASSES_5, CLASSES_14

Array = NDArray[np.float64]
Sums = Mapping[str, Array]


@dataclass(frozen=True)
class Definition:
    """One metric: what it is called, how it averages, and how it follows from the sums."""

    title: str
    rule: str
    value: Callable[[Sums], Array]
    better: Literal["higher", "lower", "neither"] = "higher"
    count: str = "studies"
    """The column whose sum is the number of studies that the metric rests on."""


def ratio(above: Array, below: Array) -> Array:
    """``above / below``, NaN where ``below`` is not positive."""
    value: Array = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return value


def f1(tp: Array, fp: Array, fn: Array) -> Array:
    """``2 tp / (2 tp + fp + fn)``, NaN where nothing was wanted and nothing was given."""
    return ratio(2 * tp, 2 * tp + fp + fn)


def corpus_bleu(sums: Sums) -> Array:
    """BLEU-4 in 0 to 1 from summed n-gram counts, as sacrebleu's default (exponential smoothing) computes it.

    Post, *A Call for Clarity in Reporting BLEU Scores*, WMT 2018.
    """
    system, reference = sums["bleu:system"], sums["bleu:reference"]
    smooth = np.ones_like(system)
    log_precision = np.zeros_like(system)
    for order in BLEU_ORDERS:
        correct, total = sums[f"bleu:correct{order}"], sums[f"bleu:total{order}"]
        smooth = np.where(correct == 0, smooth * 2, smooth)
        log_precision += np.log(np.where(correct == 0, 1 / smooth, correct) / np.maximum(total, 1))
    penalty = np.minimum(0.0, 1 - reference / np.maximum(system, 1))
    # No 4-gram at all, or no word in common, is 0, whatever the smoothing would make of it.
    defined = (sums["bleu:total4"] > 0) & (sums["bleu:correct1"] > 0)
    value = np.where(defined, np.exp(penalty + log_precision / len(BLEU_ORDERS)), 0.0)
    return np.where(sums["studies"] > 0, value, np.nan)


def macro_f1(sums: Sums, rule: str, classes: Sequence[str]) -> Array:
    """Mean F1 over the classes with at least one positive in the references; NaN where there is none.

    A class without a positive reference has no recall; leaving it out depends on the references alone, so two
    systems are always averaged over the same classes. Its false positives count in the micro average.
    """
    scores, supported = [], []
    for name in classes:
        tp, fp, fn = (sums[f"label:{rule}:{name}:{part}"] for part in ("tp", "fp", "fn"))
        supported.append(tp + fn > 0)
        scores.append(np.where(supported[-1], f1(tp, fp, fn), 0.0))
    return ratio(np.sum(scores, axis=0), np.sum(supported, axis=0, dtype=np.float64))


def _mean(column: str, count: str) -> Callable[[Sums], Array]:
    return lambda sums: ratio(sums[column], sums[count])


def _judged(judge: str, title: str, what: str) -> Definition:
    return Definition(
        title,
        f"{what}; mean over the studies that the judge scored",
        _mean(f"{judge}:score", f"{judge}:n"),
        count=f"{judge}:n",
    )


def _finding(source: str, rule: str) -> dict[str, Definition]:
    prefix = f"{source}:{rule}"
    suffix = f"micro_{source}_{rule}"
    uncertain = rule.replace("-", " counts as ")
    said = f"names of findings against {SOURCES[source]}; counts summed over studies (micro); {uncertain}"

    def counts(sums: Sums) -> tuple[Array, Array, Array]:
        return sums[f"{prefix}:tp"], sums[f"{prefix}:fp"], sums[f"{prefix}:fn"]

    def precision(sums: Sums) -> Array:
        tp, fp, _ = counts(sums)
        return ratio(tp, tp + fp)

    def recall(sums: Sums) -> Array:
        tp, _, fn = counts(sums)
        return ratio(tp, tp + fn)

    count = f"{source}:n"
    return {
        f"finding_f1_{suffix}": Definition(
            f"Finding F1, {source}", f"F1 of {said}", lambda s: f1(*counts(s)), count=count
        ),
        f"finding_precision_{suffix}": Definition(
            f"Finding precision, {source}", f"precision of {said}", precision, count=count
        ),
        f"finding_recall_{suffix}": Definition(f"Finding recall, {source}", f"recall of {said}", recall, count=count),
    }


def _label(rule: str, classes: Sequence[str]) -> dict[str, Definition]:
    size = len(classes)
    which = ", No Finding among them" if "No Finding" in classes else ""
    said = f"{size} CheXpert classes{which}; {rule.replace('-', ' counts as ')}; not mentioned counts as negative"

    def micro(sums: Sums) -> Array:
        tp, fp, fn = (sum(sums[f"label:{rule}:{name}:{part}"] for name in classes) for part in ("tp", "fp", "fn"))
        return f1(np.asarray(tp), np.asarray(fp), np.asarray(fn))

    return {
        f"label_f1_micro_{size}_{rule}": Definition(
            f"Label F1 micro {size}", f"F1 with counts summed over studies and classes; {said}", micro
        ),
        f"label_f1_macro_{size}_{rule}": Definition(
            f"Label F1 macro {size}",
            f"mean of the F1 of each class that has a positive reference (others are left out); {said}",
            lambda sums: macro_f1(sums, rule, classes),
        ),
    }


def _hallucination(source: str) -> Definition:
    return Definition(
        f"Hallucination rate, {source}",
        f"share of the findings stated as present, without a hedge, that are neither present nor uncertain by "
        f"{SOURCES[source]}; counts summed over studies (micro)",
        _mean(f"{source}:hallucinated", f"{source}:stated"),
        better="lower",
        count=f"{source}:n",
    )


_ERROR_TITLES = {
    "false_finding": "False findings",
    "missing_finding": "Missing findings",
    "wrong_place": "Wrong place",
    "wrong_severity": "Wrong severity",
    "false_comparison": "False comparisons",
    "missing_comparison": "Missing comparisons",
}


def _all_errors(sums: Sums) -> Array:
    return ratio(np.sum([sums[f"green:{kind}"] for kind in ERROR_KINDS], axis=0), sums["green:n"])


ERROR_METRICS: tuple[str, ...] = tuple(f"errors_per_report_{kind}" for kind in ERROR_KINDS)

METRICS: dict[str, Definition] = {
    "green_mean": _judged(
        "green",
        "GREEN",
        "a rule-based reading of GREEN's scheme, not its published 7B model: weight of what agrees / (that + weight of "
        "the errors)",
    ),
    "lc-green_mean": _judged("lc-green", "LC-GREEN", "GREEN / max(words / reference words, 1)"),
    "text_mean": _judged("text", "Text similarity", "similarity of the words of answer and reference"),
    **{name: definition for source in SOURCES for rule in RULES for name, definition in _finding(source, rule).items()},
    **{
        name: definition
        for rule in RULES
        for classes in (CLASSES_14, CLASSES_5)
        for name, definition in _label(rule, classes).items()
    },
    **{f"hallucination_rate_micro_{source}": _hallucination(source) for source in SOURCES},
    "bleu": Definition(
        "BLEU",
        "corpus BLEU-4 of sacrebleu (13a tokens, lower case, exponential smoothing), in 0 to 1; not the BLEU of "
        "coco-caption, which takes other tokens and does not smooth",
        corpus_bleu,
    ),
    "rouge_l_coco": Definition(
        "ROUGE-L, coco",
        "ROUGE-L of coco-caption (recall counts 1.2 times, stops are tokens), as papers on report generation have it; "
        "mean over studies",
        _mean("rouge:coco", "studies"),
    ),
    "rouge_l_stemmed": Definition(
        "ROUGE-L, stemmed",
        "F measure of rouge-score (lower case, Porter's stemmer, no stops), mean over studies",
        _mean("rouge:stemmed", "studies"),
    ),
    "verbosity_ratio_total": Definition(
        "Words / reference", "all words over all reference words", _mean("words", "reference_words"), better="neither"
    ),
    "words_mean": Definition("Words", "mean words of an answer", _mean("words", "studies"), better="neither"),
    **{
        name: Definition(
            _ERROR_TITLES[kind],
            f"significant errors of GREEN's kind '{kind}' per scored report",
            _mean(f"green:{kind}", "green:n"),
            better="lower",
            count="green:n",
        )
        for name, kind in zip(ERROR_METRICS, ERROR_KINDS, strict=True)
    },
    "errors_per_report_all": Definition(
        "Errors",
        "significant errors of all six GREEN kinds per scored report",
        _all_errors,
        better="lower",
        count="green:n",
    ),
    "matched_per_report": Definition(
        "Matched",
        "statements that agree per scored report, normal ones among them",
        _mean("green:matched", "green:n"),
        count="green:n",
    ),
    "unscored_share_green": Definition(
        "Unscored",
        "share of the answers that GREEN could not score; they count in no GREEN number",
        lambda sums: 1 - ratio(sums["green:n"], sums["green:asked"]),
        better="lower",
        count="green:asked",
    ),
    "empty_share": Definition(
        "Empty answers", "share of the answers without a word", _mean("empty", "studies"), better="lower"
    ),
}

HEADLINE: tuple[str, ...] = (
    "green_mean",
    "lc-green_mean",
    "text_mean",
    "finding_f1_micro_reference_uncertain-positive",
    "finding_f1_micro_truth_uncertain-positive",
    "label_f1_micro_14_uncertain-positive",
    "label_f1_macro_14_uncertain-positive",
    "label_f1_micro_5_uncertain-positive",
    "label_f1_macro_5_uncertain-positive",
    "hallucination_rate_micro_reference",
    "bleu",
    "rouge_l_coco",
    "verbosity_ratio_total",
)
"""The metrics that the terminal table shows and that are tested together (Holm) by default."""
