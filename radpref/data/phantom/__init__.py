"""The built-in world: drawn chest radiographs with known truth, masks, reports and priors.

It is a test bed. Everything follows from a seed, so that a claim about a method can be checked against what is
really there; no claim about patients rests on it.
"""

from radpref.data.phantom.habits import CLEAN, CLINICAL, Habits, habits_of
from radpref.data.phantom.image import STREAM, Phantom, describe, draw, stream
from radpref.data.phantom.patients import NAMES, sample
from radpref.data.phantom.sheet import contact_sheet
from radpref.data.phantom.studies import studies

__all__ = [
    "CLEAN",
    "CLINICAL",
    "NAMES",
    "STREAM",
    "Habits",
    "Phantom",
    "contact_sheet",
    "describe",
    "draw",
    "habits_of",
    "sample",
    "stream",
    "studies",
]
