"""Pairs: what was sampled and judged, or edited, becomes preferences, with a reason for every question without one.

``rank`` takes the best and the worst of several answers (CheXalign); ``edit`` sets the model's own words right, or
makes them minimally wrong (FiRe-MPO); ``counterfactual`` changes one attribute of a reference (CheXPO). ``editors``
write, by rule or by a chat model; nothing that they write is believed before it has been judged again.
"""

from radpref.pairs.corrupt import Corrupted, Locate, by_prompt, check_corrupt, corrupt_content, corrupt_pair, own
from radpref.pairs.counterfactual import against_own, counterfactuals, mended, single
from radpref.pairs.edit import Built, EditCase, Edited, Editor, case_of, edit, edit_pairs, verify
from radpref.pairs.editors import EDITORS, check_editor, editor_version
from radpref.pairs.rank import Ranked, Ranking, Unpaired, both, by_consensus, rank, statistics, unpair
from radpref.pairs.spans import Marked, distance, marked, spliced

__all__ = [
    "EDITORS",
    "Built",
    "Corrupted",
    "EditCase",
    "Edited",
    "Editor",
    "Locate",
    "Marked",
    "Ranked",
    "Ranking",
    "Unpaired",
    "against_own",
    "both",
    "by_consensus",
    "by_prompt",
    "case_of",
    "check_corrupt",
    "check_editor",
    "corrupt_content",
    "corrupt_pair",
    "counterfactuals",
    "distance",
    "edit",
    "edit_pairs",
    "editor_version",
    "marked",
    "mended",
    "own",
    "rank",
    "single",
    "spliced",
    "statistics",
    "unpair",
    "verify",
]
