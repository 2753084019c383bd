"""The built-in world: drawn chest radiographs with known truth, masks, reports and priors.

It is a test bed. Everything follows from a seed, so that a claim about a method can be checked against what is
really there; no claim about patients rests on it.
"""

from radpref.data.phantom.image import STREAM, Phantom, draw, stream
from radpref.data.phantom.patients import NAMES
from radpref.data.phantom.sheet import contact_sheet
from radpref.data.phantom.studies import studies

__all__ = ["NAMES", "STREAM", "Phantom", "contact_sheet", "draw", "stream", "studies"]
