"""The judge `green`, version 2: a rule-based reading of GREEN's scheme (Ostmeier et al., 2024), not its 7B model.

``score = earned / (earned + charged)``. Every statement of the reference has a weight (``weights.yaml``): findings by
kind and severity, normal statements by region. What of it the candidate says is earned; what it leaves out, gets
wrong or invents is charged. The rules:

- **A slip costs a share** of the finding's weight. What is left out (side, place, severity, change, size, number,
  age, where a tube ends, certainty) costs less than what is wrong, and more than nothing. What is wrong is one error,
  never a false finding and a missing one.
- **Nothing of less weight pays for what weighs more.** Minor findings and normal statements are paid in the share of
  the findings of weight that was found.
- **Saying more of what is true scores higher.** A region that the reference calls normal is earned by what the
  candidate says of it; a general statement ("no acute disease") earns a part.
- **A contradiction cancels**: what a report states and denies earns nothing on either side, and stays charged where it
  is false.
- **A denial of a kind is no denial**: "no large effusion" says less than "no effusion", and earns less.
- **Nothing hides**: brackets are read; what is "correlated for" or looked for is a suspicion, and false where the
  reference knows nothing of it; a disease that the lexicon does not know is false unless the reference has the word.

- **What is no report is unscored**: another language, a refusal, a question, thinking aloud.

``matching`` holds the shares, ``normals`` the regions, ``statements`` what is read, ``scoring`` the sheet.
"""

from __future__ import annotations

from functools import partial

from radpref.config import JudgeSection
from radpref.config.schema import NormalsRule
from radpref.findings import lexicon, unreadable
from radpref.judges.case import Verdict
from radpref.judges.contract import Judge, judge_by
from radpref.judges.green.scoring import judged, report_of
from radpref.judges.green.statements import unmasked
from radpref.judges.green.weights import digest

RULES = "2.3"
"""Raised by hand with the rules."""


def compare(reference: str, candidate: str, rule: NormalsRule = "weigh") -> Verdict:
    """The verdict on one pair of reports; unscored where the reference tells nothing that can be read."""
    return _compared(rule, unmasked(reference), unmasked(candidate))


def _compared(rule: NormalsRule, reference: str, candidate: str) -> Verdict:
    for what, text in (("reference", reference), ("candidate", candidate)):
        if why := unreadable(text):
            return Verdict(None, f"the {what} is no report: {why}")
    return judged(report_of(reference), report_of(candidate), rule)


def make(section: JudgeSection | None = None) -> Judge:
    """The judge `green` with the section's ``normals``."""
    rule = section.normals if section else "weigh"
    version = f"{RULES}-{digest()}-{lexicon().digest}-{rule}"
    return judge_by("green", partial(_compared, rule), version=version, cleaned=unmasked, free=True)
