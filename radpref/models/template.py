"""How a model's chat template writes a conversation: learnt once, when the model is loaded."""

from __future__ import annotations

from typing import Any, Literal

from transformers import ProcessorMixin

from radpref.models.vlm import ModelError, Turn
from radpref.outside import reason_of

Form = Literal["parts", "answer as text", "text"]
"""How a template takes contents: lists of parts; a list for the user and a string for the assistant; strings alone,
with the image's own marker in the user's."""
_FORMS: tuple[Form, ...] = ("parts", "answer as text", "text")
_PROMPT, _ANSWER = "Write the findings.", "No acute finding. Heart size is normal."


def messages(
    prompt: str, n_images: int, answer: str | None = None, form: Form = "parts", marker: str = "<image>"
) -> list[dict[str, Any]]:
    """A conversation in the form of chat templates: the images, then ``prompt``, then perhaps ``answer``."""
    parts: list[dict[str, str]] = [{"type": "image"} for _ in range(n_images)]
    user: Any = [*parts, {"type": "text", "text": prompt}]
    if form == "text":
        user = "".join(f"{marker}\n" for _ in range(n_images)) + prompt
    conversation: list[dict[str, Any]] = [{"role": "user", "content": user}]
    if answer is not None:
        said: Any = [{"type": "text", "text": answer}] if form == "parts" else answer
        conversation.append({"role": "assistant", "content": said})
    return conversation


def render(processor: Any, prompt: str, n_images: int, answer: str | None = None, form: Form = "parts") -> str:
    """The conversation as the template writes it; without an answer it ends where the model begins to speak.

    Templates that let a model think first are asked not to, in Qwen3's way.
    """
    marker = getattr(processor, "image_token", None) or "<image>"
    # the common method, not the class's own: SmolVLM's asks its video processor, which is left out here
    quiet = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    text: str = ProcessorMixin.apply_chat_template(
        processor,
        messages(prompt, n_images, answer, form, str(getattr(marker, "content", marker))),
        add_generation_prompt=answer is None,
        tokenize=False,
        **quiet,
    )
    return text


def tokenised(tokenizer: Any, text: str) -> list[int]:
    """Ids of a rendered conversation; the BOS token is added where the template has not written it.

    The rule of transformers' own ``apply_chat_template``.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=adds_special(tokenizer, text))["input_ids"]
    return ids


def adds_special(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer should put its own special tokens around a rendered text."""
    return not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that stands within a conversation."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def special_ids(tokenizer: Any) -> set[int]:
    """Named special tokens, and those that the vocabulary marks as special without a name."""
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def no_template(name: str) -> str:
    """What is said of a model without one."""
    return (
        f"{name} has no chat template, so that it is unknown how a prompt is put to it. Use the instruction-tuned "
        "variant of the model, or put its template into chat_template.jinja in its folder."
    )


def learn_turn(processor: Any, tokenizer: Any, name: str) -> Turn:
    """What the template puts before and after an answer, checked against the whole conversation.

    Words that it puts there itself, such as an empty ``<think></think>``, are the prompt's: they are given and not
    asked for. Raises ModelError where there is no template or it fails, where it rewrites the prompt once that is
    answered, or where prompt and answer tokenised apart differ from both tokenised together: a model trained on the
    one would be asked in the other.
    """
    if not getattr(processor, "chat_template", None):
        raise ModelError(no_template(name))
    form, before, whole = _written(processor, name)
    if not whole.startswith(before):
        raise ModelError(
            f"the chat template of {name} writes an answered conversation differently from the prompt that the "
            f"answer is generated from: the prompt ends in {before[-60:]!r}, the conversation in {whole[-120:]!r}. "
            "Training would teach another context than the one used. Use a variant of the model whose template "
            "keeps the prompt (for example the one without hidden reasoning), or edit chat_template.jinja."
        )
    lead, _, after = whole[len(before) :].partition(_ANSWER)
    opening, lead = (lead, "") if lead.strip() else ("", lead)
    end = _end_of_turn(tokenizer, after, name)
    prompt, together = tokenised(tokenizer, before + opening), tokenised(tokenizer, whole)
    # Some tokenizers put a space before every text that they are given, and so write the lead themselves.
    for candidate in dict.fromkeys((lead, lead.rstrip(" "))):
        ids = prompt + plain_ids(tokenizer, candidate + _ANSWER)
        if together[: len(ids)] == ids:
            return Turn(lead=candidate, end=end, opening=opening, form=form)
    raise ModelError(
        f"the tokenizer of {name} joins the end of the prompt ({before[-20:]!r}) with the start of an answer, so "
        "that prompt and answer tokenised apart differ from the whole conversation. End the generation prompt of "
        "chat_template.jinja in a special token or a newline."
    )


def _written(processor: Any, name: str) -> tuple[Form, str, str]:
    """The first form of contents that the template writes as they are: (form, prompt, answered conversation)."""
    problem = "it leaves out the words of the prompt or of the answer"
    for form in _FORMS:
        try:
            before, whole = (render(processor, _PROMPT, 0, answer, form) for answer in (None, _ANSWER))
        except Exception as error:  # a template raises whatever its expressions do
            problem = reason_of(error) if form == "parts" else problem
            continue
        if _PROMPT in before and _ANSWER in whole and "'text':" not in before + whole:  # not a list printed as it is
            return form, before, whole
    raise ModelError(
        f"the chat template of {name} cannot write a prompt with its answer, neither as parts nor as plain text: "
        f"{problem}. Use the template that belongs to this version of the model, in chat_template.jinja."
    )


def _end_of_turn(tokenizer: Any, after: str, name: str) -> tuple[int, ...]:
    """Ids up to the first special token of what the template writes after an answer, else the EOS token."""
    special = special_ids(tokenizer)
    ids = plain_ids(tokenizer, after)
    for position, token in enumerate(ids):
        if token in special:
            return tuple(ids[: position + 1])
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"nothing ends an answer of {name}: its chat template writes no special token after the assistant's "
            "words and its tokenizer has no EOS token. Set eos_token in tokenizer_config.json."
        )
    return (int(tokenizer.eos_token_id),)
