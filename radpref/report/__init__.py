"""One run as one page: a self-contained HTML file that says what ran, what came of it, and whether it means anything.

``render`` turns ``ReportData`` (plain records that the pipeline fills) into the page: the verdict in words, the
results with intervals and tests, training curves, the pairs, and a browser of studies and pairs. ``verdict`` is the
part that reads the numbers; it can stand alone.
"""

from radpref.report.data import (
    Choice,
    PairStatistics,
    PairView,
    ReportData,
    Setting,
    SplitCount,
    StudyView,
    TrainingLog,
)
from radpref.report.headroom import headroom_page
from radpref.report.render import CURVES, render
from radpref.report.verdict import Check, Verdict, verdict
from radpref.report.views import TITLES, choices, pair_views, settings, split_count, study_views

__all__ = [
    "CURVES",
    "TITLES",
    "Check",
    "Choice",
    "PairStatistics",
    "PairView",
    "ReportData",
    "Setting",
    "SplitCount",
    "StudyView",
    "TrainingLog",
    "Verdict",
    "choices",
    "headroom_page",
    "pair_views",
    "render",
    "settings",
    "split_count",
    "study_views",
    "verdict",
]
