"""Editors: what turns the model's own words into a pair. ``EDITORS`` maps a recipe's name to the making of one."""

from radpref.pairs.edit import Maker
from radpref.pairs.editors.chat import chat
from radpref.pairs.editors.rule import rule

EDITORS: dict[str, Maker] = {"rule": rule, "chat": chat}

__all__ = ["EDITORS", "chat", "rule"]
