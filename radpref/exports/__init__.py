"""What leaves a run: the aligned model as an ordinary checkpoint, the pairs for another tool, a leaderboard's file."""

from radpref.exports.of_run import export_model, export_pairs
from radpref.exports.rexrank import export_rexrank

__all__ = ["export_model", "export_pairs", "export_rexrank"]
