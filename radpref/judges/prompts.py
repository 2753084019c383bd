"""Questions to a chat model as Jinja2 files: the shipped one or the user's own, tried out before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from radpref import outside
from radpref.judges.case import JudgeError


def template_file(given: str | None, shipped: Path, name: str) -> Path:
    """The file of ``{name}.template``, or the shipped one. Raises JudgeError where it is not there."""
    path = Path(given).expanduser() if given else shipped
    if not path.is_file():
        raise JudgeError(f"`{name}.template` is {given!r}, but there is no such file.")
    return path


_COMMAND = re.compile(
    r"<(?=[|\uff5c]|[</]?[a-zA-Z_▁][\w▁|-]{0,40}>)|\[(?=/?(?:INST|SYS|SYSTEM_PROMPT|THINK|TOOL_\w+|AVAILABLE_TOOLS|IMG|gMASK)\])"
)
"""Where a control token of some family begins: ``<|im_end|>``, ``</s>``, ``<start_of_turn>``, ``[INST]``."""


def as_data(text: str) -> str:
    """A text that goes into a question: no control token of a chat model stands in it any more.

    Servers make commands of what spells one, in whosever words it stands; a blank behind its bracket makes it words.
    """
    return _COMMAND.sub(lambda found: f"{found[0]} ", text)


class Prompt(NamedTuple):
    """A question's template, tried out."""

    path: Path
    template: jinja2.Template

    def render(self, **values: Any) -> str:
        """The question; every text of ``values`` is made data but ``schema``, which is ours. Raises JudgeError."""
        told = {
            key: as_data(value) if isinstance(value, str) and key != "schema" else value
            for key, value in values.items()
        }
        return outside.rendered(self.template, told, f"the template {self.path}", JudgeError)


def template_of(path: Path, shows: Sequence[str], others: Mapping[str, Any]) -> Prompt:
    """The template of a file, rendered once with an example.

    Args:
        shows: two values that every question has to show.
        others: an example of all other values.

    Raises:
        JudgeError: the file is no template, asks for other values, or does not show what it has to.
    """
    marks = {name: name.upper() for name in shows}
    text = outside.read_text(path, JudgeError)
    prompt = Prompt(path, outside.template(text, f"the template {path}", JudgeError))
    shown = prompt.render(**marks, **others)
    if any(mark not in shown for mark in marks.values()):
        raise JudgeError(f"the template {path} must show both {' and '.join(f'`{name}`' for name in shows)}.")
    return prompt
