"""Python's garbage collector, kept from looking again and again through what is never garbage."""

from __future__ import annotations

import gc
from functools import lru_cache


@lru_cache(maxsize=1)
def leave_out_imports() -> None:
    """Once a process: what there is by now is left out of every later search for garbage.

    torch, transformers and what they import make half a million objects, and a search through them takes a third of a
    second; accelerate asks for one at the start of every training. To be called when these are imported and before a
    model is loaded: what is left out is freed when nothing refers to it any more, but never as a part of a cycle.
    """
    gc.collect()
    gc.freeze()
