"""Measure answers, honestly: metrics with intervals, paired tests, and what trivial answers reach.

``baselines`` makes the trivial answers, ``measure`` turns any system's answers into metrics with bootstrap
intervals over patients, ``compare`` tests two systems on the same studies, and ``tables`` lays it all out
for a terminal and for ``metrics.json``. Every metric names its averaging and uncertain rule in its key;
``METRICS`` states the rule in words.
"""

from radpref.evaluation.baselines import BASELINES, NORMAL_REPORT, baselines
from radpref.evaluation.counts import ERROR_KINDS
from radpref.evaluation.measure import LabelScore, Measured, by_label, compare, error_totals, measure
from radpref.evaluation.metrics import ERROR_METRICS, HEADLINE, METRICS, Definition
from radpref.evaluation.tables import comparison_table, markdown_table, markdown_tests, metrics_json, terminal_table

__all__ = [
    "BASELINES",
    "ERROR_KINDS",
    "ERROR_METRICS",
    "HEADLINE",
    "METRICS",
    "NORMAL_REPORT",
    "Definition",
    "LabelScore",
    "Measured",
    "baselines",
    "by_label",
    "compare",
    "comparison_table",
    "error_totals",
    "markdown_table",
    "markdown_tests",
    "measure",
    "metrics_json",
    "terminal_table",
]
