"""Radiology text to structured findings: what, present or not, where, how severe, how changed, with its span.

The words are data (``lexicon.yaml``); ``lexicon`` finds them in a sentence; ``reader`` applies ConText's rules to them.
"""

from hashlib import blake2b
from importlib import resources

from radpref.findings.labelled import in_words
from radpref.findings.labels import CHEXPERT, CLASSES_5, CLASSES_14, labels
from radpref.findings.language import language_of, unreadable
from radpref.findings.lexicon import lexicon
from radpref.findings.reader import in_one_sentence, read


def grammar_digest() -> str:
    """A hash of the words that findings are written with (``grammar.yaml``)."""
    text = (resources.files("radpref.findings") / "grammar.yaml").read_text("utf-8")
    return blake2b(text.encode(), digest_size=6).hexdigest()


COVERS: dict[str, tuple[str, ...]] = dict(lexicon().covers)
"""General statement to the findings that its absence denies: ``lung disease`` to consolidation, ..."""

__all__ = [
    "CHEXPERT",
    "CLASSES_5",
    "CLASSES_14",
    "COVERS",
    "grammar_digest",
    "in_one_sentence",
    "in_words",
    "labels",
    "language_of",
    "lexicon",
    "read",
    "unreadable",
]
