"""The editor by rule: offline, from structured findings; the default."""

from __future__ import annotations

from collections.abc import Sequence

from radpref.config import EditSection
from radpref.pairs.edit import EditCase, Edited, Editor
from radpref.pairs.editors.answer import answer_edit
from radpref.pairs.editors.report import report_edit


def rule(section: EditSection) -> Editor:
    """Reports by their findings, other tasks by the words of the short answer."""

    def editor(cases: Sequence[EditCase]) -> list[Edited]:
        return [(report_edit if case.task == "report" else answer_edit)(case, section) for case in cases]

    return editor
