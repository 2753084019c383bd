"""Pairs: what was sampled and judged becomes preferences, with a reason for every question that yields none."""

from radpref.pairs.rank import Ranked, Unpaired, rank, statistics, unpair

__all__ = ["Ranked", "Unpaired", "rank", "statistics", "unpair"]
