"""Questions to a chat model as Jinja2 files: the shipped one or the user's own, tried out before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from radpref.judges.case import JudgeError


def template_file(given: str | None, shipped: Path, name: str) -> Path:
    """The file of ``{name}.template``, or the shipped one. Raises JudgeError where it is not there."""
    path = Path(given).expanduser() if given else shipped
    if not path.is_file():
        raise JudgeError(f"`{name}.template` is {given!r}, but there is no such file.")
    return path


def template_of(path: Path, shows: Sequence[str], others: Mapping[str, Any]) -> jinja2.Template:
    """The template of a file, rendered once with an example.

    Args:
        shows: two values that every question has to show.
        others: an example of all other values.

    Raises:
        JudgeError: the file is no template, asks for other values, or does not show what it has to.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # a prompt is no page
    marks = {name: name.upper() for name in shows}
    try:
        template = environment.from_string(path.read_text("utf-8"))
        shown = template.render(**marks, **others)
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        raise JudgeError(f"the template {path} cannot be used: {error}") from error
    if any(mark not in shown for mark in marks.values()):
        raise JudgeError(f"the template {path} must show both {' and '.join(f'`{name}`' for name in shows)}.")
    return template
