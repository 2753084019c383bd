"""Python's garbage collector, kept from looking again and again through what is never garbage."""

from __future__ import annotations

import gc
from functools import cache

_ours: list[bool] = []


def process_is_ours() -> None:
    """Said by the command line, and by processes that a sweep starts: nothing in them belongs to anybody else."""
    _ours.append(True)


def leave_out_imports() -> None:
    """In a process of our own, once: what there is by now is left out of every later search for garbage.

    torch, transformers and what they import make half a million objects, and a search through them takes a third of a
    second; accelerate asks for one at the start of every training. To be called when these are imported and before a
    model is loaded: what is left out is freed when nothing refers to it any more, but never as a part of a cycle. That
    is why nothing is done in a user's own process, which may hold models by then.
    """
    if _ours:
        _leave_out()


@cache
def _leave_out() -> None:
    gc.collect()
    gc.freeze()
