"""The certificate of a judge: corruptions, named exploits, and an attacker that searches.

``battery`` makes the trials and ``audit`` scores them; ``attack`` searches on its own. Both run for any judge.
"""

from radpref.judges.auditing.attacker import (
    ATTACK_HEADER,
    Attack,
    Summary,
    Target,
    attack,
    attack_cells,
    attack_markdown,
    summary,
    templates,
)
from radpref.judges.auditing.battery import (
    HALF,
    HEADER,
    REFERENCE,
    REWORDING,
    WHOLE,
    Row,
    Trial,
    audit,
    battery,
    cells,
    markdown,
)
from radpref.judges.auditing.plain import agreement, of_labels, of_names, plain

__all__ = [
    "ATTACK_HEADER",
    "HALF",
    "HEADER",
    "REFERENCE",
    "REWORDING",
    "WHOLE",
    "Attack",
    "Row",
    "Summary",
    "Target",
    "Trial",
    "agreement",
    "attack",
    "attack_cells",
    "attack_markdown",
    "audit",
    "battery",
    "cells",
    "markdown",
    "of_labels",
    "of_names",
    "plain",
    "summary",
    "templates",
]
