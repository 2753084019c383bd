"""Findings back into text: a statement denied, made, or changed in one attribute, as little else changed as possible.

Nothing here decides what is true. Candidates are written by rule, read again with our own reader, and taken only
where they say what was wanted and nothing else has changed.
"""

from radpref.findings.rewrite.attributes import turned
from radpref.findings.rewrite.flips import (
    ATTRIBUTES,
    Attribute,
    Difference,
    Flip,
    absent,
    changed,
    difference,
    flip,
    flips,
    present,
    related,
    turn,
)
from radpref.findings.rewrite.presence import denied, stated
from radpref.findings.rewrite.sentences import contradictions, sentences

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "Difference",
    "Flip",
    "absent",
    "changed",
    "contradictions",
    "denied",
    "difference",
    "flip",
    "flips",
    "present",
    "related",
    "sentences",
    "stated",
    "turn",
    "turned",
]
