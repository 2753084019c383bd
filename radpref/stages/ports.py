"""What stages hand to each other: tables of rows, and facts that stand in a finished stage's mark."""

from __future__ import annotations

from radpref.records import (
    Choice,
    Comparison,
    Completion,
    Grounded,
    ImageVector,
    Judgement,
    Metric,
    MinedQuestion,
    Pair,
    Question,
    Study,
    Systems,
    Weights,
)
from radpref.runs.stage import Fact, TableOf

STUDIES = TableOf("studies", Study)
TRAIN = TableOf("train", Question)
VALIDATION = TableOf("validation", Question)
TEST = TableOf("test", Question)
"""The questions of each split: a stage reads, and depends on, those that it uses."""
TWINS = TableOf("twins", Question)
"""Altered questions of the test split, that show what an accuracy rests on."""
COMPLETIONS = TableOf("completions", Completion)
"""Answers of the fine-tuned model to the training questions: several drawn, or one greedy."""
JUDGEMENTS = TableOf("judgements", Judgement)
VECTORS = TableOf("vectors", ImageVector)
MINED = TableOf("mined", MinedQuestion)
PAIRS = TableOf("pairs", Pair)
VALIDATED = TableOf("validated", Completion)
"""Greedy answers of every checkpoint to the validation questions."""
PREDICTED = TableOf("predicted", Completion)
"""Greedy answers of every measured system to the test questions."""
GROUNDED = TableOf("grounded", Grounded)
METRICS = TableOf("metrics", Metric)
COMPARISONS = TableOf("comparisons", Comparison)
TEST_JUDGEMENTS = TableOf("test-judgements", Judgement)

MODEL = Fact("model", Weights)
"""The fine-tuned model, which alignment starts from and is held against."""
CHECKPOINTS = Fact("checkpoints", Systems)
"""What an alignment left behind, by beta and step."""
CONTROLS = Fact("controls", Systems)
"""SFT on the chosen side of the same pairs, by learning rate."""
CHOICE = Fact("choice", Choice)

BEFORE = "sft"
AFTER = "aligned"
CONTROL = "sft on chosen"
"""Names of the measured systems: before and after alignment, and the control."""
