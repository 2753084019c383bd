"""What each stage does: read rows, hand them to a room with its section of the recipe, write rows.

A stage knows its own folder and the tables it reads. Everything it computes is keyed by what it was computed from,
so that after a kill or a change the same command does what is missing and nothing else. A stage returns one line
about what is there now, which goes to the terminal and the event log: counts and rates, never report text.
"""

from radpref.stages.align import align, prepare
from radpref.stages.common import NO_STUDIES, check
from radpref.stages.control import control
from radpref.stages.corrupt import corrupt
from radpref.stages.evaluate import evaluate
from radpref.stages.export import export_model, export_pairs
from radpref.stages.given_pairs import given_pairs
from radpref.stages.ground import ground
from radpref.stages.grpo import grpo
from radpref.stages.judge import judge
from radpref.stages.mine import mine
from radpref.stages.own_pairs import counterfactual_pairs, edited_pairs, own_answers
from radpref.stages.pair import pair
from radpref.stages.report import report
from radpref.stages.sample import sample
from radpref.stages.select import select
from radpref.stages.sft import sft
from radpref.stages.studies import studies

__all__ = [
    "NO_STUDIES",
    "align",
    "check",
    "control",
    "corrupt",
    "counterfactual_pairs",
    "edited_pairs",
    "evaluate",
    "export_model",
    "export_pairs",
    "given_pairs",
    "ground",
    "grpo",
    "judge",
    "mine",
    "own_answers",
    "pair",
    "prepare",
    "report",
    "sample",
    "select",
    "sft",
    "studies",
]
