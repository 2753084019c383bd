"""``radpref doctor``."""

from __future__ import annotations

from radpref.cli.terminal import friendly, out
from radpref.doctor import examine


def doctor() -> None:
    """What is installed, what hardware is seen, which extras are missing, and what other packages add."""
    with friendly():
        out.print(examine())
