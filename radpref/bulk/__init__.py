"""One file in, one file out, outside any run: labels for anyone's reports, scores for anyone's pairs of reports."""

from radpref.bulk.label import label_file
from radpref.bulk.refused import Done
from radpref.bulk.score import score_file

__all__ = ["Done", "label_file", "score_file"]
