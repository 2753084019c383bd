"""The typed rows that travel down the road: Study, Question, Completion, Judgement, Pair, Metric.

Every row is immutable, has an ``id`` that is unique in its table, and round-trips through JSON. An unknown
field or a wrong type is an error when a row is read, so that a table written by another version is noticed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
)

Presence = Literal["present", "absent", "uncertain"]
Side = Literal["left", "right", "bilateral"]
Severity = Literal["mild", "moderate", "severe"]
Change = Literal["new", "worse", "better", "unchanged"]
Stage = Literal["acute", "old"]
"""How old a finding is said to be; healed, chronic and remote are ``old``."""
View = Literal["frontal", "lateral", "unknown"]
Split = Literal["train", "validation", "test"]
QuestionTask = Literal["basic", "region", "comparison"]
"""Whether a question is about an image, about a marked part of it, or about an image and the one before it (CheXPO)."""
Scope = Literal["words", "sentence"]
"""What of an answer a lesion's removal is measured on: the words that name the finding, or the sentence around."""
Source = Literal["relative", "raw", "relative, another mask", "raw, another mask", "uniform", "centre"]
ErrorKind = Literal[
    "false_finding",  # GREEN (a): the candidate reports what the reference does not
    "missing_finding",  # GREEN (b): the candidate leaves out what the reference reports
    "wrong_place",  # GREEN (c): right finding, wrong side or place
    "wrong_severity",  # GREEN (d): right finding, wrong severity
    "false_comparison",  # GREEN (e): a comparison that the reference does not make
    "missing_comparison",  # GREEN (f): a comparison of the reference left out
]


class Record(BaseModel):
    """Base of all rows: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of_checked(cls, fields: dict[str, Any]) -> Self:
        """The record of fields that are known to be valid, all of them, without asking again.

        For what is made by the ten thousand out of parts that were checked; checking takes longer than the work.
        """
        record = cls.__new__(cls)
        _put(record, "__dict__", fields)
        _put(record, "__pydantic_fields_set__", cls._every_field())
        _put(record, "__pydantic_extra__", None)
        _put(record, "__pydantic_private__", None)
        return record

    @classmethod
    @cache
    def _every_field(cls) -> set[str]:
        return set(cls.model_fields)


_put = object.__setattr__


class Span(Record):
    """Character offsets into a plain text, end exclusive."""

    start: int = Field(ge=0)
    end: int = Field(ge=0)


class Finding(Record):
    """One statement of a report (or, for phantoms, of the truth) about one finding."""

    name: str
    """A term of the findings vocabulary in lower case, e.g. ``pleural effusion``."""
    presence: Presence = "present"
    side: Side | None = None
    place: str | None = None
    """Anatomical place without the side, e.g. ``lower zone``, ``base``, ``apex``; of a device, where its tip lies
    (``trachea``, ``carina``, ``main bronchus``, ``stomach``, ``superior vena cava``)."""
    severity: Severity | None = None
    change: Change | None = None
    size_mm: float | None = None
    """Its largest measure in millimetres, where the text tells one."""
    count: int | Literal["several"] | None = None
    """How many there are said to be, from two on or in words (``a single`` is 1); ``several`` without a number."""
    stage: Stage | None = None
    span: Span | None = None
    """Where in the text the finding is named; None for a truth that has no text."""


def _below(path: str, root: object) -> str | None:
    """A path relative to a folder, with forward slashes; None where it does not lie below it. Without pathlib: every
    row of every table asks."""
    start = f"{root}{os.sep}"
    return path[len(start) :].replace(os.sep, "/") if root and path.startswith(start) else None


def _absolute(path: str, info: ValidationInfo) -> str:
    root = (info.context or {}).get("root")
    return os.path.join(root, path) if root else path  # noqa: PTH118 - as above


def _relative(path: str, info: SerializationInfo) -> str:
    below = _below(path, (info.context or {}).get("root"))
    return path if below is None else below


StoredPath = Annotated[str, AfterValidator(_absolute), PlainSerializer(_relative)]
"""A file's path. A table writes it relative to the context's ``root`` where it lies below that (a run folder can then
be moved) and makes it absolute again when it is read."""


def _found(path: str, info: ValidationInfo) -> str:
    root = (info.context or {}).get("root")
    return str(Path(root, path)) if root and path.startswith("./") else path


def _noted(path: str, info: SerializationInfo) -> str:
    below = _below(path, (info.context or {}).get("root"))
    return path if below is None else f"./{below}"


StoredModel = Annotated[str, AfterValidator(_found), PlainSerializer(_noted)]
"""A model's folder or name. What lies below the context's ``root`` is written from ``./`` and found again wherever that
folder has moved; a name on the hub stays a name."""


class Box(Record):
    """A rectangle on an image, as shares of its width and height from the upper left corner, whatever its pixels."""

    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)


class ImageFile(Record):
    """One image of a study."""

    path: StoredPath
    """Absolute path of the image file."""
    view: View = "unknown"
    rows: int | None = None
    cols: int | None = None
    """The image's true height and width in pixels, where the file has been squashed out of its aspect."""
    digest: str = ""
    """Hash of the file's bytes, filled in when the studies are read; caches are keyed by it."""
    masks: dict[str, StoredPath] = Field(default_factory=dict)
    """Finding name to the path of its binary lesion mask (PNG, the image's size), where known."""
    boxes: dict[str, tuple[Box, ...]] = Field(default_factory=dict)
    """Finding name to the boxes drawn around it, where known."""


class Asked(Record):
    """A question that a source asks about a study, with its answer."""

    id: str
    """Unique within the study."""
    question: str
    answer: str
    """Short, as the source has it: ``yes``, ``left lower lobe``."""
    rationale: str = ""
    """A sentence or more that gives the answer with its evidence; empty where the source has none."""
    task: QuestionTask = "basic"
    kind: str = ""
    """What is asked for: presence, abnormality, location, severity, type, view, difference ... as the source says."""
    closed: bool = False
    """Whether the answer is one of a few that the question names or implies (yes or no, left or right)."""
    about: tuple[Finding, ...] = ()
    """The findings that answer and rationale rest on; empty where the source does not tell."""


class Study(Record):
    """Images of one patient at one time, with what a radiologist wrote about them."""

    id: str
    patient: str
    """The unit of splitting; equal to ``id`` where the source knows no patients."""
    images: tuple[ImageFile, ...]
    """Frontal images first."""
    findings: str
    """The FINDINGS section: the reference report."""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    prior: str | None = None
    """``id`` of the study before this one."""
    questions: tuple[Asked, ...] = ()
    """What the source asks about it; empty for a source of reports."""
    split: Split = "train"
    truth: tuple[Finding, ...] | None = None
    """What is really there; known for phantoms only."""
    labels: dict[str, int | None] = Field(default_factory=dict)
    """Labels of the source, by CheXpert class or finding: 1 positive, 0 negative, -1 uncertain, None blank."""
    marked: tuple[Finding, ...] = ()
    """What boxes, or labels of a region, tell of the findings that are there: side and place."""


class Quarantined(Record):
    """A row that could not be used, and why. It is counted and shown, never dropped silently."""

    id: str
    stage: str
    reason: str


def reasons(rows: Iterable[Quarantined]) -> str:
    """The most frequent reasons with their counts, in brackets; empty for no rows."""
    counts = Counter(row.reason.split(":")[0] for row in rows)
    text = ", ".join(f"{reason} {n}" for reason, n in counts.most_common(3))
    return f" ({text})" if text else ""


class Question(Record):
    """What a model is asked about a study, and the reference answer."""

    id: str
    study: str
    patient: str
    split: Split
    images: tuple[ImageFile, ...]
    prompt: str
    reference: str
    """Empty for a study without a report: nothing is trained on it or measured by it; ``labels`` say what is known."""
    task: str = "report"
    """``report``, or a question's ``QuestionTask``."""
    answer: str = ""
    """The short answer that an answer is scored against; empty for reports."""
    kind: str = ""
    closed: bool = False
    about: tuple[Finding, ...] = ()
    """The findings that answer and reference rest on, as structured as they are known; empty for reports."""
    truth: tuple[Finding, ...] | None = None
    """What is really there; known for phantoms only."""
    labels: tuple[Finding, ...] = ()
    """What labels and boxes say, by finding or CheXpert class: present, uncertain, absent (``findings.labelled``). Of
    what they do not name nothing is known."""


class TokenScores(Record):
    """How sure a model was of each token that it generated; the end token is the last one of a finished answer."""

    logps: tuple[float, ...]
    """Natural log-probability of each token under the model itself (temperature 1), whatever it was drawn with."""
    margins: tuple[float, ...]
    """Probability of the likeliest token less that of the second, at each position."""
    ends: tuple[int, ...]
    """Where in the answer's ``text`` each token ends: token ``t`` writes the characters from ``ends[t - 1]`` on."""


class Completion(Record):
    """One answer of a model."""

    id: str
    """``{question}/{index}`` within one system's table."""
    question: str
    system: str = ""
    """Whose answer it is, in a table of several systems."""
    index: int
    """Number of the candidate, from 0."""
    text: str
    tokens: int
    """Generated tokens, the end token included."""
    finished: bool
    """False when the answer was cut at ``max_new_tokens``."""
    scores: TokenScores | None = None
    """Where they were asked for."""


class Weights(Record):
    """A model as a stage leaves it: what to load, and the hash of all that decides its answers."""

    path: StoredModel
    fingerprint: str
    revision: str | None = None
    adapter: StoredModel | None = None
    """A PEFT adapter on top."""
    untouched: bool = False
    """Whether they are those that the recipe names, taken as they are in the place of fine-tuned ones."""


class System(Record):
    """A model that is measured beside others."""

    id: str
    """Its name: ``base``, ``sft``, ``aligned``, ``beta-0.1-step-40``."""
    weights: Weights
    drawn: int = 0
    """0: it answers greedily; else so many answers are drawn, and the one that the others agree with most is taken."""
    step: int | None = None
    beta: float | None = None
    lr: float | None = None
    scores: dict[str, float | None] = Field(default_factory=dict)
    """On the validation studies: judge to the mean score, ``words`` to the mean number of words."""


class Systems(Record):
    """Models of one stage, in its order."""

    rows: tuple[System, ...] = ()


class Choice(Record):
    """Which checkpoint was chosen on the validation studies, among which, by which judge."""

    by: str
    """The judge; empty where there was nothing to choose on, and the last checkpoint was taken."""
    before: System
    """The model that alignment started from."""
    tried: tuple[System, ...]
    chosen: System
    controls: tuple[System, ...] = ()
    control: System | None = None
    """The best of ``controls``, chosen in the same way."""


class Candidate(Record):
    """An answer with its question: what a judge or an editor is given."""

    id: str
    """The completion's id."""
    question: Question
    completion: Completion | None = None
    """None where the model gave no answer."""


class Posed(Record):
    """A question that is put to one of several models."""

    id: str
    """``{system}:{question}``."""
    system: System
    question: Question


class ReportError(Record):
    """One disagreement between a candidate report and its reference."""

    kind: ErrorKind
    finding: str
    significant: bool = True
    reference_span: Span | None = None
    candidate_span: Span | None = None
    note: str = ""
    """A few words for a reader, e.g. ``right instead of left``."""
    weight: float = 1.0
    """What it counts in the score of a judge that weighs its errors."""


class Judgement(Record):
    """What a judge says of one completion; ``unscored`` with a reason when it could not judge."""

    id: str
    """The completion's id."""
    question: str
    judge: str
    score: float | None
    unscored: str | None = None
    """The reason why there is no score; None when there is one."""
    matched: tuple[Finding, ...] = ()
    """Statements of the candidate that agree with the reference (judges that tell them)."""
    earned: tuple[float, ...] = ()
    """What each of ``matched`` counts in the score of a judge that weighs them; empty where each counts 1."""
    errors: tuple[ReportError, ...] = ()
    words: int = 0
    reference_words: int = 0


class Pair(Record):
    """A preference: the one record that serves every method."""

    id: str
    question: str
    patient: str
    images: tuple[ImageFile, ...]
    prompt: str
    chosen: str
    rejected: str
    chosen_spans: tuple[Span, ...] = ()
    rejected_spans: tuple[Span, ...] = ()
    """What differs on each side; empty for a pair that is preferred as a whole."""
    chosen_score: float | None = None
    rejected_score: float | None = None
    corrupted: tuple[ImageFile, ...] = ()
    """The corrupted images, in the order of ``images``; empty where there is no visual term."""
    weight: float = Field(default=1.0, gt=0)
    """What the pair counts in the loss, e.g. its clinical relevance (MMedPO)."""
    provenance: dict[str, str] = Field(default_factory=dict)
    """Sampler, seed, judge, editor, corruption: how this pair came to be."""


Cell = Literal["wrong-confident", "wrong-unsure", "right-unsure", "right-confident"]
"""What an answer is, and how sure the model was of it."""


class Shown(Record):
    """An image that is to be turned into a vector."""

    id: str
    """The image's digest."""
    image: ImageFile


class ImageVector(Record):
    """What an encoder makes of an image, to compare it with others."""

    id: str
    """The image's digest."""
    values: str
    """float32, little endian, in base64."""


class MinedQuestion(Record):
    """A question that is worth a pair, and why (CheXPO)."""

    id: str
    """The question's id."""
    cell: Cell | None
    """None where the answer could not be scored, which only a neighbour's may be."""
    correct: bool | None
    confidence: float | None
    """In [0, 1]; by the recipe's rule."""
    of: str | None = None
    """The hard question that this one is a neighbour of; None where it is hard itself."""
    distance: float | None = None
    """To ``of``: a weighted sum, which negative weights may make negative."""
    rank: int | None = None
    """Place among the neighbours of ``of``, from 1."""
    stratum: tuple[str, ...] = ()
    """Task, kind, finding and answer, whose quota it counts in; each empty where it makes no difference."""
    quota: int = 0
    """How many questions were taken of the stratum."""


class Agreement(Record):
    """How one map agrees with one mask; None where it is undefined."""

    ratio: float | None
    """``grounding.metrics.attention_ratio``."""
    kl: float | None
    js: float | None
    hit: float | None
    """``grounding.metrics.pointing``."""


class Look(Record):
    """Attention of one model for one target."""

    id: str
    """``{system}/{question}/{finding}``."""
    target: str
    system: str
    question: str
    patient: str
    finding: str
    share: tuple[float, ...]
    """Share of all attention that the image gets, a layer."""
    inside: float
    """Share of the mask that the processor shows to the model."""
    agreement: dict[Source, tuple[Agreement, ...]]
    """A layer each, for what comes from the model; one value for ``uniform`` and ``centre``. ``another mask``
    is missing where there is no other patient."""


class Drop(Record):
    """Log-probs of one finding's words on the clean image, without its lesion, and without a patch elsewhere."""

    id: str
    """``{system}/{question}/{finding}/{scope}``."""
    target: str
    """``{question}/{finding}``."""
    system: str
    question: str
    patient: str
    finding: str
    scope: Scope
    """``words``: those that name the finding; ``sentence``: the whole sentence around them."""
    tokens: int
    clean: float
    """Sum over the tokens of log p(token | images, prompt, the answer so far), in nats."""
    removed: float
    elsewhere: tuple[float, ...]
    """One a placement."""
    changed: float
    """Mean absolute change of the removed pixels, 0 to 1 of the image's range."""
    changed_elsewhere: float
    """The same for the patches elsewhere: far below ``changed``, the control has changed less of the picture."""

    @property
    def drop(self) -> float:
        """Nats that the removal of the lesion costs."""
        return self.clean - self.removed

    @property
    def control(self) -> float:
        """Nats that the removal of an equal patch elsewhere costs, mean over the placements."""
        return self.clean - fmean(self.elsewhere)

    @property
    def effect(self) -> float:
        """``drop - control``: what is due to the lesion; 0 for a model that does not look."""
        return self.drop - self.control


class Grounded(Record):
    """What was measured of one system on one question: of each lesion that the answer names."""

    id: str
    """``{system}:{question}``."""
    system: str
    looks: tuple[Look, ...] = ()
    drops: tuple[Drop, ...] = ()
    lost: tuple[Quarantined, ...] = ()
    """Lesions that could not be measured."""


class Styled(Record):
    """How likely one answer of one system is under the model before alignment."""

    id: str
    """That of the answer."""
    system: str
    question: str
    nats: float
    """Sum of -log p over its tokens, end of turn included."""
    tokens: int


class Metric(Record):
    """One number of the results table."""

    id: str
    """``{system}/{name}``."""
    system: str
    """Who is measured: ``sft``, ``aligned``, ``sft on chosen``, a trivial baseline."""
    name: str
    """The metric with its averaging rule in the name, e.g. ``label_f1_micro_14_uncertain-positive``."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """Bootstrap interval of 95 % over ``unit``."""
    n: int = 0
    unit: str = "study"
    seed: int = 0


class PatientCounts(Record):
    """What a system's answers to one patient's questions add to the sums that metrics are made of."""

    id: str
    """``{system}:{patient}``."""
    system: str
    patient: str
    counts: dict[str, float] = {}
    """Column of ``evaluation.counts`` or ``evaluation.vqa`` to its sum; columns that are 0 are left out."""


class Comparison(Record):
    """A paired test between two systems on one metric."""

    id: str
    """``{name}:{after}-{before}``."""
    name: str
    before: str
    after: str
    difference: float
    low: float
    high: float
    p: float
    """Two-sided, from the paired permutation test over patients."""
    p_holm: float | None = None
    """``p`` after Holm's correction over the metrics tested together."""
    n: int
    seed: int = 0


class Choosing(Record):
    """One way to choose among a model's own answers, measured (``radpref headroom``)."""

    id: str
    """``greedy``, ``best of 8``, ``consensus of 16``, ``reference``."""
    words: float
    """Mean number of words of an answer."""
    metrics: dict[str, Metric] = {}
    gains: dict[str, Comparison] = {}
    """Metric to what is gained over greedy, paired; none for greedy itself."""
    errors: dict[str, float] = {}
    """Significant errors an answer, by kind; of reports alone."""


class Headroom(Record):
    """What a better choice among a model's own answers would give: what preferences can gain."""

    verdict: str
    questions: int
    """Validation questions that it was measured on."""
    judge: str
    drawn: int
    names: tuple[str, ...]
    """Metrics, the main one first."""
    ways: tuple[Choosing, ...]
    """Greedy first."""
