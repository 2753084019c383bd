"""Editors: what turns the model's own words into a pair. ``EDITORS`` maps a recipe's name to the making of one."""

from radpref.config import EditSection
from radpref.files import content_key
from radpref.judges.prompts import template_file
from radpref.judges.server import Server
from radpref.pairs.edit import Maker
from radpref.pairs.editors.chat import SHIPPED, chat
from radpref.pairs.editors.rule import rule

EDITORS: dict[str, Maker] = {"rule": rule, "chat": chat}


def check_editor(section: EditSection) -> None:
    """Whether the editor could begin now: its server answers. Raises JudgeError."""
    EDITORS[section.editor](section)
    if section.editor == "chat":
        Server(section).check()


def editor_version(section: EditSection) -> str:
    """What an edit follows from besides its case: the rules, or the chat model and how it is asked."""
    if section.editor == "rule":
        return "rule"
    template = template_file(section.template, SHIPPED, "edit").read_text("utf-8")
    return content_key(section.server, section.model, template, section.json_schema, section.max_tokens)


__all__ = ["EDITORS", "chat", "check_editor", "editor_version", "rule"]
