"""Mining: which questions a model gets wrong, how sure it was, what lies near them, and how many of each to take.

``mine`` does it all from rows, verdicts, confidences and vectors. Its parts stand alone: ``confidence`` and
``cells``, ``calibration``, the vectors of texts, images and findings, the exact ``search``, ``apportion`` and the hit
rates.
"""

from radpref.mining.approximate import approximate
from radpref.mining.calibration import Bin, Calibration, calibration
from radpref.mining.confidence import (
    CELLS,
    RULES,
    Moved,
    answer_span,
    cell,
    cells,
    confidence,
    correct_reports,
    cut,
    sensitivity,
)
from radpref.mining.encoders import EncoderError, image_encoder, sentence_vectors
from radpref.mining.hits import Rate, Retrieval, rate, retrieval_hits, tail_names, tail_shares
from radpref.mining.mine import Asked, Mined, Stratum, Summary, mine, neighbours, remembered
from radpref.mining.quotas import apportion, tempered
from radpref.mining.rows import Rows, Vectors, as_tensor
from radpref.mining.search import Neighbours, Part, SearchError, search
from radpref.mining.vectors import (
    finding_vectors,
    findings_of,
    image_vectors,
    mean_vectors,
    names_of,
    packed,
    signs,
    text_vectors,
    tower,
    unit,
    unpacked,
)
from radpref.mining.verdicts import verdicts

__all__ = [
    "CELLS",
    "RULES",
    "Asked",
    "Bin",
    "Calibration",
    "EncoderError",
    "Mined",
    "Moved",
    "Neighbours",
    "Part",
    "Rate",
    "Retrieval",
    "Rows",
    "SearchError",
    "Stratum",
    "Summary",
    "Vectors",
    "answer_span",
    "apportion",
    "approximate",
    "as_tensor",
    "calibration",
    "cell",
    "cells",
    "confidence",
    "correct_reports",
    "cut",
    "finding_vectors",
    "findings_of",
    "image_encoder",
    "image_vectors",
    "mean_vectors",
    "mine",
    "names_of",
    "neighbours",
    "packed",
    "rate",
    "remembered",
    "retrieval_hits",
    "search",
    "sensitivity",
    "sentence_vectors",
    "signs",
    "tail_names",
    "tail_shares",
    "tempered",
    "text_vectors",
    "tower",
    "unit",
    "unpacked",
    "verdicts",
]
