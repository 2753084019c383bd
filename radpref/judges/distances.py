"""How far apart two findings' names and places are, by the lexicon."""

from __future__ import annotations

from functools import cache

from radpref.findings import lexicon

_BANDS = {"upper": 0, "mid": 1, "lower": 2}


@cache
def off_place(first: str | None, second: str | None) -> int:
    """Bands of the lung (upper, mid, lower) between two places; 0 where either tells none."""
    bands = lexicon().bands
    here, there = bands.get(first or ""), bands.get(second or "")
    if not here or not there:
        return 0
    return min(abs(_BANDS[a] - _BANDS[b]) for a in here for b in there)


@cache
def unlike(first: str, second: str) -> int | None:
    """0 for one name, 1 for kin, 2 where one is the general name of the other, 3 for one thing of two sizes.

    None for different things.
    """
    book = lexicon()
    if first == second:
        return 0
    if any(first in group and second in group for group in book.kin):
        return 1
    if any(first in group and second in group for group in book.sizes):
        return 3
    general = book.general
    return 2 if second in general.get(first, ()) or first in general.get(second, ()) else None
