"""Training: supervised fine-tuning, the reference's log-probs, and alignment on pairs.

``sft`` teaches a model the reference reports, ``prepare`` checks every pair and computes what the frozen parts say of
it, ``align`` trains on the pairs and keeps checkpoints. Each can be killed at any moment and called
again with the same arguments: it goes on, and ends where it would have ended.
"""

from radpref.training.align import Aligned, align
from radpref.training.check import check
from radpref.training.check import rows as check_rows
from radpref.training.errors import TrainingError
from radpref.training.grpo import grpo
from radpref.training.loop import Checkpoint, Training, checkpoints, history, last_tenth
from radpref.training.memory import estimate
from radpref.training.memory import rows as estimate_rows
from radpref.training.prepare import Prepared, prepare
from radpref.training.probe import Probe, sight, train_probe
from radpref.training.rows import Item, Prompts, Row
from radpref.training.scoring import Way, way_of
from radpref.training.settings import check_settings
from radpref.training.sft import Tuned, interpolate, sft
from radpref.training.trainer import Collator, PairTrainer

__all__ = [
    "Aligned",
    "Checkpoint",
    "Collator",
    "Item",
    "PairTrainer",
    "Prepared",
    "Probe",
    "Prompts",
    "Row",
    "Training",
    "TrainingError",
    "Tuned",
    "Way",
    "align",
    "check",
    "check_rows",
    "check_settings",
    "checkpoints",
    "estimate",
    "estimate_rows",
    "grpo",
    "history",
    "interpolate",
    "last_tenth",
    "prepare",
    "sft",
    "sight",
    "train_probe",
    "way_of",
]
