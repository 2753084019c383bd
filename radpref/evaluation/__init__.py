"""Measure answers, honestly: metrics with intervals, paired tests, and what trivial answers reach.

``baselines`` makes the trivial answers, ``measure`` turns any system's answers into metrics with bootstrap
intervals over patients, ``measure_questions`` does so for questions with short answers, ``compare`` tests two
systems on the same studies, and ``tables`` lays it all out for a terminal and for ``metrics.json``. Every metric
names its averaging and uncertain rule in its key; its ``definition`` states the rule in words.
"""

from radpref.evaluation.baselines import BASELINES, NORMAL_REPORT, baselines
from radpref.evaluation.counts import ERROR_KINDS
from radpref.evaluation.definitions import STYLE, definition, headline, kept
from radpref.evaluation.everyone import details, measure_all
from radpref.evaluation.headroom import GREEDY, REFERENCE, Answered, as_plain, choices, headroom, headroom_verdict
from radpref.evaluation.measure import LabelScore, Measured, by_label, compare, error_totals, measure
from radpref.evaluation.metrics import ERROR_METRICS, HEADLINE, METRICS, Definition
from radpref.evaluation.resampling import holm
from radpref.evaluation.seeds import (
    Estimate,
    PatientSums,
    Seeds,
    SeedsError,
    by_patient,
    counted,
    difference_over_seeds,
    is_counted,
    over_seeds,
    sums_of,
)
from radpref.evaluation.tables import comparison_table, markdown_table, markdown_tests, metrics_json, terminal_table
from radpref.evaluation.vqa import VQA_BASELINES, measure_questions, question_baselines

__all__ = [
    "BASELINES",
    "ERROR_KINDS",
    "ERROR_METRICS",
    "GREEDY",
    "HEADLINE",
    "METRICS",
    "NORMAL_REPORT",
    "REFERENCE",
    "STYLE",
    "VQA_BASELINES",
    "Answered",
    "Definition",
    "Estimate",
    "LabelScore",
    "Measured",
    "PatientSums",
    "Seeds",
    "SeedsError",
    "as_plain",
    "baselines",
    "by_label",
    "by_patient",
    "choices",
    "compare",
    "comparison_table",
    "counted",
    "definition",
    "details",
    "difference_over_seeds",
    "error_totals",
    "headline",
    "headroom",
    "headroom_verdict",
    "holm",
    "is_counted",
    "kept",
    "markdown_table",
    "markdown_tests",
    "measure",
    "measure_all",
    "measure_questions",
    "metrics_json",
    "over_seeds",
    "question_baselines",
    "sums_of",
    "terminal_table",
]
