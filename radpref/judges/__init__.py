"""Judges: how good a candidate report is against its reference, with the reasons, or why it could not be judged."""

from collections.abc import Callable

from radpref.findings import lexicon
from radpref.judges.case import Case, Judge, Verdict, judge_by, length_controlled
from radpref.judges.report_errors import green
from radpref.judges.soft_matching import text

JUDGES: dict[str, Callable[[], Judge]] = {
    "green": lambda: green,
    "text": lambda: text,
    "lc-green": lambda: length_controlled(green),
    "lc-text": lambda: length_controlled(text),
}
"""Name to the making of a judge."""

VERSION = f"1-{lexicon().digest}"
"""Changes with whatever can change a judgement: raised by hand with the rules, by itself with the lexicon."""

__all__ = ["JUDGES", "VERSION", "Case", "Judge", "Verdict", "green", "judge_by", "length_controlled", "text"]
