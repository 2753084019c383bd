"""Where studies come from, and the one gate they all pass.

A source is a record (``source.Source``: name, options, function) in a module of its own, named in ``SOURCES``
(``radpref.data.load``). It only says what is there, row by row. The gate (``load_studies``) refuses what cannot be
used, decodes every image once, splits by patient and checks that no patient, study or image, nor nearly the same
picture, stands on both sides of a split. What has to be held until the last row is read lies on disk.
"""

from radpref.data.gate import MAX_CHARACTERS, ImageCheck, frontal_first
from radpref.data.held_out import HeldOut
from radpref.data.inspect import Inspection, section_for
from radpref.data.inspect import inspect as inspect_data
from radpref.data.load import SOURCES, check, load_studies
from radpref.data.preview import preview_sheet
from radpref.data.rexrank import submission
from radpref.data.source import DataError, Found, Loaded, NoOptions, Source
from radpref.data.splits import leakage
from radpref.data.spool import Spool

__all__ = [
    "MAX_CHARACTERS",
    "SOURCES",
    "DataError",
    "Found",
    "HeldOut",
    "ImageCheck",
    "Inspection",
    "Loaded",
    "NoOptions",
    "Source",
    "Spool",
    "check",
    "frontal_first",
    "inspect_data",
    "leakage",
    "load_studies",
    "preview_sheet",
    "section_for",
    "submission",
]
