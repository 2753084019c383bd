"""Pairs in the layouts of other tools, and pairs that were made elsewhere.

Each of ``trl``, ``llama_factory`` and ``ms_swift`` turns pairs into the rows of one tool and writes them into a new
folder; ``ids`` writes what may be shared of data that may not: no text and no image. ``WRITERS`` names them.
``read_pairs`` is the way back: a preference data set in TRL's layout, or our own table, becomes pairs and a list of
the rows that cannot be used.
"""

from radpref.formats.common import Written
from radpref.formats.read import Imported, read_pairs
from radpref.formats.write import WRITERS, write_pairs

__all__ = ["WRITERS", "Imported", "Written", "read_pairs", "write_pairs"]
