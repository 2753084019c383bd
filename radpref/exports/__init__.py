"""What leaves a run: the aligned model or its adapter, pairs for another tool, a leaderboard's file; servers' lines."""

from radpref.exports.of_run import export_adapter, export_model, export_pairs
from radpref.exports.rexrank import export_rexrank
from radpref.exports.serving import serve_command

__all__ = ["export_adapter", "export_model", "export_pairs", "export_rexrank", "serve_command"]
