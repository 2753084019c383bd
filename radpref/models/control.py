"""Control tokens that stand in data: found in prompts and answers alike, before a model reads either.

A report, an indication or a question may spell ``<|end|>`` or ``<image>``. A tokenizer makes a control token of it:
the turn ends within the prompt, or an image is asked for that is not there, which stops a whole batch. No such text is
of use, so its row is refused, and quarantined by whoever asked.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from radpref.models.template import plain_ids, special_ids
from radpref.models.vlm import Control

_PLACEHOLDER = re.compile(r"(image|video|audio|vision|boi|eoi|boa|eoa)\w*_(token_id|token_index)$")
"""Names under which a model's config keeps tokens that stand for, or around, what is no text."""

THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),
)
"""Marks that families put around what is thought and not said."""


def control_of(processor: Any, tokenizer: Any, config: Any) -> Control:
    """The tokens of a model that no data may spell.

    Special tokens, placeholders of the model's config, tokens that its processor names, and added tokens that its
    chat template writes (``<think>`` is no special token). The unknown token and white space are left out.
    """
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    template = str(getattr(processor, "chat_template", None) or "")
    ids = special_ids(tokenizer)
    ids |= {value for key, value in vars(config).items() if _PLACEHOLDER.match(key) and isinstance(value, int)}
    ids |= {number for number, text in added.items() if text in template and not text.strip().isalnum()}
    named = (getattr(processor, key, None) for key in vars(processor) if key.endswith("_token"))
    texts = {str(getattr(token, "content", token)) for token in named if token}
    texts |= {added[number] for number in ids if number in added}
    texts |= {
        mark for marks in THOUGHTS for mark in marks if mark in template
    }  # an added token in some, text in others
    unknown = {tokenizer.unk_token_id, tokenizer.unk_token}
    blank = {number for number, text in added.items() if not text.strip()}
    return Control(frozenset(ids - unknown - blank), tuple(sorted(text for text in texts - unknown if text.strip())))


class Speaking(Protocol):
    """What is known of a model's words: of a `Vlm`, and of one that another process runs."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""

    @property
    def control(self) -> Control:
        """What no data may spell."""


def unthought(text: str) -> str:
    """What is said, without a hidden thought before it; nothing where the thought never ends."""
    for opening, closing in THOUGHTS:
        if closing in text:
            return text.rpartition(closing)[2].strip()
        if text.lstrip().startswith(opening):
            return ""
    return text.strip()


def refuse_control(vlm: Speaking, text: str, what: str) -> None:
    """Raises ValueError where ``text`` spells a control token of the model; ``what`` names the text."""
    spelt = {token for token in vlm.control.texts if token in text}
    if not spelt:
        ids = vlm.control.ids.intersection(plain_ids(vlm.tokenizer, text))
        spelt = {str(vlm.tokenizer.convert_ids_to_tokens(number)) for number in ids}
    if spelt:
        raise ValueError(
            f"{what} spells special tokens of {vlm.name}: {', '.join(map(repr, sorted(spelt)))}; the model would read "
            "a command in it. Remove them from the text"
        )
