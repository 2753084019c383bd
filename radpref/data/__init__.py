"""Where studies come from, and the one gate they all pass.

A source is a function ``(section, cache, seed) -> Found`` in a module of its own, named in ``SOURCES``
(``radpref.data.load``). It only says what is there. The gate (``load_studies``) refuses what cannot be used, decodes
every image once, splits by patient and checks that no patient, study or image stands on both sides of a split.
"""

from radpref.data.gate import MAX_CHARACTERS, ImageCheck
from radpref.data.load import SOURCES, check, load_studies
from radpref.data.preview import preview_sheet
from radpref.data.source import DataError, Found, Loaded
from radpref.data.splits import leakage
from radpref.data.spool import Spool

__all__ = [
    "MAX_CHARACTERS",
    "SOURCES",
    "DataError",
    "Found",
    "ImageCheck",
    "Loaded",
    "Spool",
    "check",
    "leakage",
    "load_studies",
    "preview_sheet",
]
