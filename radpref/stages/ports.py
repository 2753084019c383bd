"""What stages hand to each other: tables of rows, and facts that stand in a finished stage's mark."""

from __future__ import annotations

from dataclasses import replace

from radpref import records
from radpref.runs.stage import Fact, TableOf

STUDIES = TableOf("studies", records.Study)
TRAIN = TableOf("train", records.Question)
VALIDATION = TableOf("validation", records.Question)
TEST = TableOf("test", records.Question)
"""The questions of each split: a stage reads, and depends on, those that it uses."""
ALL_TRAIN = replace(TRAIN, first=True)
"""All training questions, of which each round has a part."""
TWINS = TableOf("twins", records.Question)
"""Altered questions of the test split, that show what an accuracy rests on."""
COMPLETIONS = TableOf("completions", records.Completion)
"""Answers of the fine-tuned model to the training questions: several drawn, or one greedy."""
JUDGEMENTS = TableOf("judgements", records.Judgement)
VECTORS = TableOf("vectors", records.ImageVector)
MINED = TableOf("mined", records.MinedQuestion)
PAIRS = TableOf("pairs", records.Pair)
VALIDATED = TableOf("validated", records.Completion)
"""Greedy answers of every checkpoint to the validation questions."""
PREDICTED = TableOf("predicted", records.Completion)
"""Greedy answers of every measured system to the test questions."""
GROUNDED = TableOf("grounded", records.Grounded)
STYLED = TableOf("styled", records.Styled)
"""How likely every measured answer is under the model before alignment."""
METRICS = TableOf("metrics", records.Metric)
COMPARISONS = TableOf("comparisons", records.Comparison)
BY_PATIENT = TableOf("by-patient", records.PatientCounts)
"""Of every measured system, sums by test patient: what statistics over several runs are made of."""
TEST_JUDGEMENTS = TableOf("test-judgements", records.Judgement)

MODEL = Fact("model", records.Weights)
"""What answers and is aligned: the fine-tuned model, or the newest where there are several rounds."""
TUNED = replace(MODEL, first=True)
"""The fine-tuned model, which alignment is held against, whatever rounds came after."""
CHECKPOINTS = Fact("checkpoints", records.Systems)
"""What an alignment left behind, by beta and step."""
CONTROLS = Fact("controls", records.Systems)
"""SFT on the chosen side of the same pairs, by learning rate."""
INTERPOLATED = Fact("interpolated", records.Systems)
"""Models on the way from the given one to those of an alignment and its controls."""
CHOICE = Fact("choice", records.Choice)
ROUNDS = Fact("rounds", records.Systems)
"""The models that the rounds before this one have chosen."""

HEADROOM = Fact("headroom", records.Headroom)
"""What a better choice among the fine-tuned model's own answers would give."""

UNTOUCHED = "base"
BEFORE = "sft"
AFTER = "aligned"
CONTROL = "sft on chosen"
"""Names of the measured systems: the model as it was given, the fine-tuned one, the aligned one, and the control."""


def before(model: records.Weights) -> str:
    """What the model that alignment starts from is called: what it is."""
    return UNTOUCHED if model.untouched else BEFORE
