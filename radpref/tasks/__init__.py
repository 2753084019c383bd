"""Tasks: what a model is asked about a study, and what the right answer is.

``report`` asks for the findings section (CheXalign). Questions come from a data set that asks its own, or are made
from findings (CheXPO): ``basic`` about an image, ``region`` about a marked part, ``comparison`` about an image and
an earlier one. ``answers`` says whether an answer is right; ``controls`` alters questions to see what their accuracy
rests on.
"""

from radpref.tasks.answers import answer_set, matches, normalise, polarity, stated, tokens
from radpref.tasks.asked import in_sentence, question_of
from radpref.tasks.controls import BLANK, NEGATED, SWAPPED, blanked, negated, swapped, twins
from radpref.tasks.known import Known, known, vocabulary
from radpref.tasks.questions import questions
from radpref.tasks.report import MAX_INDICATION, clean_indication, report_question

__all__ = [
    "BLANK",
    "MAX_INDICATION",
    "NEGATED",
    "SWAPPED",
    "Known",
    "answer_set",
    "blanked",
    "clean_indication",
    "in_sentence",
    "known",
    "matches",
    "negated",
    "normalise",
    "polarity",
    "question_of",
    "questions",
    "report_question",
    "stated",
    "swapped",
    "tokens",
    "twins",
    "vocabulary",
]
