"""Text similarity without a model: greedy soft matching of words, in BERTScore's form, but **not BERTScore**.

BERTScore (Zhang et al., 2020) matches each token greedily to its most similar token on the other side, by a language
model's contextual vectors. Nothing can be downloaded here, so a word's vector is the sum of its hashed character
n-grams (as in fastText, Bojanowski et al., 2017, but with random signs in place of training), plus a share of its
neighbours', so that the order of words has weight. Stop words weigh a quarter of other words; words of denial weigh
fully. Numbers are comparable among themselves only. Like every surface measure it is easily fooled: see the audit.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from radpref.judges.case import Verdict, words
from radpref.judges.contract import Judge, judge_by

_DIM = 256
_NGRAMS = range(3, 6)
_NEIGHBOUR = 0.35
_STOP_WEIGHT = 0.25
_STOP_WORDS = """
    a an the of in on at to for with and or by from as is are was were be been being has have had this that these
    those there it its which who also both again seen noted identified demonstrated appears appear
"""
_STOP = frozenset(_STOP_WORDS.split())


@lru_cache(maxsize=1 << 14)
def _word(word: str) -> NDArray[np.float32]:
    """Unit vector (256,) of a word, from the signed hashes of its character n-grams."""
    marked = f"<{word}>"
    grams = {marked} | {marked[i : i + n] for n in _NGRAMS for i in range(len(marked) - n + 1)}
    vector = np.zeros(_DIM, dtype=np.float32)
    for gram in sorted(grams):
        code = crc32(gram.encode())
        vector[code % _DIM] += 1 if code & 0x80000000 else -1
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


@lru_cache(maxsize=1 << 8)
def _embed(text: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors (words, 256) of a text's words in their context, and their weights (words,), which sum to 1."""
    tokens = [word.lower() for word in words(text)]
    plain = np.stack([_word(token) for token in tokens])
    mixed = plain.copy()
    mixed[1:] += _NEIGHBOUR * plain[:-1]
    mixed[:-1] += _NEIGHBOUR * plain[1:]
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    weights = np.array([_STOP_WEIGHT if token in _STOP else 1.0 for token in tokens], dtype=np.float32)
    return mixed, weights / weights.sum()


def compare(reference: str, candidate: str) -> Verdict:
    """F1 (0 to 1) of the weighted greedy soft matches in both directions."""
    told, told_weights = _embed(reference)
    said, said_weights = _embed(candidate)
    similar = np.clip(said @ told.T, 0.0, 1.0)
    precision = float(similar.max(axis=1) @ said_weights)
    recall = float(similar.max(axis=0) @ told_weights)
    total = precision + recall
    return Verdict(min(2 * precision * recall / total, 1.0) if total else 0.0)


text: Judge = judge_by("text", compare, version="2", free=True)
"""Text similarity; see the module's docstring."""
