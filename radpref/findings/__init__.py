"""Radiology text to structured findings: what, present or not, where, how severe, how changed, with its span.

The words are data (``lexicon.yaml``); spaCy's PhraseMatcher finds them; ``reader`` applies ConText's rules to them.
"""

from radpref.findings.labels import CHEXPERT, CLASSES_5, CLASSES_14, labels
from radpref.findings.language import language_of, unreadable
from radpref.findings.lexicon import lexicon
from radpref.findings.reader import read

COVERS: dict[str, tuple[str, ...]] = dict(lexicon().covers)
"""General statement to the findings that its absence denies: ``lung disease`` to consolidation, ..."""

__all__ = ["CHEXPERT", "CLASSES_5", "CLASSES_14", "COVERS", "labels", "language_of", "lexicon", "read", "unreadable"]
