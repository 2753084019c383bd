"""What a report is made of: plain records that the pipeline fills, and nothing else.

Every field but the first few has an empty default. A section without rows is left out, or says why it is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from radpref.evaluation import BASELINES, LabelScore
from radpref.records import Comparison, Finding, Headroom, Judgement, Metric, Pair, Quarantined, Question

if TYPE_CHECKING:
    from radpref.mining import Summary


@dataclass(frozen=True)
class Setting:
    """One value of the resolved recipe."""

    key: str
    """Dotted, e.g. ``align.beta``."""
    value: str
    provenance: str
    """``default``, ``chexalign.yaml``, ``the command line``."""
    help: str = ""


@dataclass(frozen=True)
class SplitCount:
    """How much data a split holds."""

    split: str
    patients: int
    studies: int
    images: int


@dataclass(frozen=True)
class TrainingLog:
    """The log of one training: rows as the trainer wrote them, each with ``step`` and any of the metrics.

    Drawn are the keys of ``render.CURVES``; others are ignored.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PairStatistics:
    """What became of the training questions and their candidates."""

    questions: int = 0
    candidates: int = 0
    pairs: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason to the number of questions that gave no pair."""
    unscored: Mapping[str, int] = field(default_factory=dict)
    """Reason to the number of candidates that the judge could not score."""


@dataclass(frozen=True)
class Choice:
    """One checkpoint that the selection looked at."""

    checkpoint: str
    beta: float
    scores: Mapping[str, float | None]
    """Score on validation by name, e.g. ``green``, ``lc-green``, ``words``."""
    chosen: bool = False


@dataclass(frozen=True)
class StudyView:
    """One held-out study for the browser: what was asked, what both models wrote, what the judge found."""

    question: Question
    before: str
    after: str
    before_judgement: Judgement | None = None
    after_judgement: Judgement | None = None
    reference_findings: Sequence[Finding] = ()
    before_findings: Sequence[Finding] = ()
    after_findings: Sequence[Finding] = ()


@dataclass(frozen=True)
class PairView:
    """One training pair for the browser, with the reference that it was judged against."""

    pair: Pair
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that stands in a report."""

    title: str
    """What was run, e.g. ``CheXalign on phantoms``."""
    source: str
    """``phantom``, ``openi``, ``table``; a phantom run says that no claim about patients rests on it."""
    run: str = ""
    """The run folder's name."""
    created: str = ""
    command: str = ""
    before: str = "sft"
    """Name of the system before alignment, as in ``metrics``."""
    after: str = "aligned"
    control: str = "sft on chosen"
    baselines: Sequence[str] = BASELINES
    main: str = "green_mean"
    """The metric that the verdict is about, that of the judge which selected; chosen before the run, not after."""
    untouched: str = ""
    """A metric that the run was neither judged nor selected by, which the verdict stands on too; empty for none."""
    metrics: Sequence[Metric] = ()
    comparisons: Sequence[Comparison] = ()
    """Paired tests; the verdict uses those of ``before``, ``control`` and the baselines against ``after``."""
    labels: Mapping[str, Sequence[LabelScore]] = field(default_factory=dict)
    """System to its score on each CheXpert class."""
    errors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """System to its number of significant errors by kind, over the scored answers."""
    unscored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """System to reason to the number of test answers that the judge could not score."""
    recipe: Sequence[Setting] = ()
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Groups of facts: ``versions``, ``hardware``, ``seeds``, ``times``; name to value in each."""
    counts: Sequence[SplitCount] = ()
    quarantined: Sequence[Quarantined] = ()
    training: Sequence[TrainingLog] = ()
    headroom: Headroom | None = None
    """What a better choice among the model's own answers would have given, where it was measured."""
    mining: Summary | None = None
    """What was mined, where the method mines."""
    candidates: Sequence[Judgement] = ()
    """Judgements of the sampled candidates, for score against length."""
    statistics: PairStatistics = field(default_factory=PairStatistics)
    scored_pairs: Sequence[Pair] = ()
    """All pairs, for the distributions of scores and lengths."""
    selection: Sequence[Choice] = ()
    selected_by: str = ""
    studies: Sequence[StudyView] = ()
    pairs: Sequence[PairView] = ()
    notes: Sequence[str] = ()
    """Anything else that a reader must know, e.g. what was limited in this run."""
