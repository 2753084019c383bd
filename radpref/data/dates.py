"""Dates and times as tables write them, and the study before by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

from radpref.records import Study

_ISO = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]\s*(.*))?$")
_SLASHED_ISO = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(?:[T ]\s*(.*))?$")
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2})?)?(?:\.\d*)?$")
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[T ,]\s*(.*))?$")
_SLASHED = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?:[T ,]\s*(.*))?$")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_NAMED = re.compile(
    r"(?:(\d{1,2})[ .-]*([a-z]{3})[a-z]*|([a-z]{3})[a-z]* +(\d{1,2}))[ .,-]+(\d{4})(?:[T ,]\s*(.*))?$", re.IGNORECASE
)
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\.\d+)?\s*([ap]m)?(?:\s*(?:z|[+-]\d{2}:?\d{2}))?$", re.IGNORECASE
)
_CLOCK_DIGITS = re.compile(r"(\d{2})(\d{2})(\d{2})?(?:\.\d*)?$")

When = tuple[int, int]
"""Days and seconds; later is greater."""


def readings(day: str, clock: str = "") -> dict[str, When]:
    """When a study was made, by each way in which its date can be read: ``day first``, ``month first``.

    ``2021-03-04``, ``20210304``, ``04.03.2021`` and ``4 Mar 2021`` read the same both ways, ``04/03/2021`` not, and
    ``25/03/2021`` can be read with the day first alone. Empty: no date. ``clock``: a time in a cell of its own.
    """
    day = day.strip()
    if found := _ISO.match(day) or _SLASHED_ISO.match(day):
        year, month, number, rest = int(found[1]), int(found[2]), int(found[3]), found[4]
        return _both(year, month, number, rest or clock)
    if found := _DIGITS.match(day):
        rest = f"{found[4]}{found[5]}{found[6] or '00'}" if found[4] else clock
        return _both(int(found[1]), int(found[2]), int(found[3]), rest)
    if found := _DOTTED.match(day):
        return _both(int(found[3]), int(found[2]), int(found[1]), found[4] or clock)
    if (found := _NAMED.match(day)) and (found[2] or found[3]).lower() in _MONTHS:
        month = _MONTHS.index((found[2] or found[3]).lower()) + 1
        return _both(int(found[5]), month, int(found[1] or found[4]), found[6] or clock)
    if found := _SLASHED.match(day):
        rest = found[4] or clock
        ways = {"day first": (found[2], found[1]), "month first": (found[1], found[2])}
        return {
            way: when
            for way, (month, number) in ways.items()
            if (when := _when(int(found[3]), int(month), int(number), rest)) is not None
        }
    return {}


def _both(year: int, month: int, day: int, clock: str) -> dict[str, When]:
    when = _when(year, month, day, clock)
    return {} if when is None else {"day first": when, "month first": when}


def _when(year: int, month: int, day: int, clock: str) -> When | None:
    try:
        return date(year, month, day).toordinal(), _seconds(clock)
    except ValueError:
        return None


def _seconds(clock: str) -> int:
    clock = clock.strip()
    if found := _CLOCK.match(clock):
        hour = int(found[1]) % 12 + 12 * (found[4].lower() == "pm") if found[4] else int(found[1])
        return hour * 3600 + int(found[2]) * 60 + int(found[3] or 0)
    clock = clock.split(".")[0].zfill(6) if clock.split(".")[0].isdigit() else clock
    found = _CLOCK_DIGITS.match(clock)
    return int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3] or 0) if found else 0


def with_priors(studies: Sequence[tuple[When | None, Study]]) -> list[Study]:
    """One patient's studies in the order of time, each with the nearest earlier one as its prior.

    A study without a date has none and is none; one that has a prior already keeps it. Studies of one moment are not
    each other's priors.
    """
    dated = sorted(((when, study) for when, study in studies if when is not None), key=lambda one: (one[0], one[1].id))
    done: list[Study] = [study for when, study in studies if when is None]
    for place, (when, study) in enumerate(dated):
        earlier = next((other.id for then, other in reversed(dated[:place]) if then < when), None)
        done.append(study if study.prior or earlier is None else study.model_copy(update={"prior": earlier}))
    return done
