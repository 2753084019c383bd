"""The words of a preference row: one prompt and two answers, from plain texts or from conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from radpref.data.source import RowError, text_of

IMAGE = "<image>"
_TAG = re.compile(rf"{IMAGE}[ \t]*\n?")
_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
          "system": "system"}  # fmt: skip


class Said(NamedTuple):
    """A row's words."""

    prompt: str
    chosen: str
    rejected: str
    moved: bool
    """Whether an image stood after words of the prompt."""


class _Turn(NamedTuple):
    role: str
    text: str
    """With an ``<image>`` for every image part."""


def answered(prompt: Any, chosen: Any, rejected: Any, images: int) -> Said:
    """Prompt and answers of a row, each a text or a list of messages.

    A message has ``role`` and ``content``, or ``from`` and ``value``. Conversations may begin with the prompt. A
    system message goes before the user's words, as the templates of models without a system role have it.
    ``<image>`` tags and image parts of the prompt are taken out; there must be none, or one for each of ``images``.

    Raises RowError for several turns, roles out of place, and image tokens that do not match.
    """
    before, good = _split(chosen)
    also_before, bad = _split(rejected)
    if before != also_before:
        raise RowError("two prompts: chosen and rejected begin with different turns")
    turns = before or _turns(prompt, "user")
    if not turns:
        raise RowError("empty text: there is no prompt")
    *system, last = turns
    if last.role != "user" or [turn.role for turn in system] not in ([], ["system"]):
        raise RowError("several turns: a pair has one prompt of the user, after a system message at most")
    words = "\n\n".join(turn.text for turn in turns if turn.text)
    tags = words.count(IMAGE)
    if tags not in (0, images):
        raise RowError(f"image tokens do not match: {tags} in the prompt, {images} images")
    moved = bool(words[: words.rfind(IMAGE)].replace(IMAGE, "").strip()) if tags else False
    return Said(_TAG.sub("", words).strip(), good, bad, moved)


def _split(cell: Any) -> tuple[list[_Turn], str]:
    """What stands before the last answer, and that answer."""
    turns = _turns(cell, "assistant")
    if not turns:
        return [], ""
    *before, last = turns
    if last.role != "assistant":
        raise RowError("no answer: a conversation does not end with the assistant")
    return before, last.text


def _turns(cell: Any, role: str) -> list[_Turn]:
    """A cell's turns; a plain text is one of ``role``."""
    if not isinstance(cell, Sequence) or isinstance(cell, str | bytes) or not all(isinstance(m, Mapping) for m in cell):
        text = text_of(cell)
        return [_Turn(role, text)] if text else []
    return [_turn(message) for message in cell]


def _turn(message: Mapping[str, Any]) -> _Turn:
    given = str(message.get("role") or message.get("from"))
    if given not in _ROLES:
        raise RowError(f"role unknown: {given[:20]!r} is none of {', '.join(_ROLES)}")
    content = message.get("content", message.get("value"))
    if isinstance(content, list | tuple):
        return _Turn(_ROLES[given], text_of("".join(map(_part, content))))
    return _Turn(_ROLES[given], text_of(content))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text":
        return part.get("text") or ""
    if isinstance(part, Mapping) and part.get("type") in ("image", "image_url"):
        return IMAGE
    raise RowError("content not readable: a part is neither text nor image")
