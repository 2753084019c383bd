"""A chat model behind an OpenAI-compatible server, as judges and editors ask it: words in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radpref.chat_client import NO_PROTOCOL, TRANSIENT, UNREACHABLE, Client, ClientError, Failure, Rejected, Shut
from radpref.config import ServerSection
from radpref.judges.case import JudgeError

__all__ = [
    "DECLINED",
    "EMPTY",
    "INCOMPLETE",
    "NO_PROTOCOL",
    "TRANSIENT",
    "UNPARSABLE",
    "UNREACHABLE",
    "Failure",
    "Messages",
    "SchemaRefused",
    "Server",
]

Messages = Sequence[Mapping[str, str]]

DECLINED = "refused: the model declined to answer"
EMPTY = "empty: the model answered nothing"
INCOMPLETE = "incomplete: the answer was cut at max_tokens"
UNPARSABLE = "unparsable: the answer does not have the form that was asked for"


class SchemaRefused(Failure):
    """The server did not take a question with a schema; it may take the same one without."""


class Server:
    """The server of a recipe. It may be used by many threads.

    Args:
        section: ``server``, ``model``, ``timeout``, ``retries``, ``max_tokens`` and ``api_key_env`` are read.
        name: the section's name in the recipe, for messages.

    Raises:
        JudgeError: no server or model is named, or the named environment variable holds no key.
    """

    def __init__(self, section: ServerSection, name: str = "judge") -> None:
        if not section.server or not section.model:
            absent = f"{name}.server" if not section.server else f"{name}.model"
            raise JudgeError(
                f"the {name} stage asks a model behind a server, but `{absent}` is not given. Start one "
                f"(`transformers serve`, `vllm serve MODEL`) and name it: --{name}.server http://localhost:8000/v1 "
                f"--{name}.model MODEL."
            )
        self._section, self._name = section, name
        try:
            self._client = Client(
                section.server,
                key=f"{name}.server",
                api_key_env=section.api_key_env,
                timeout=section.timeout,
                retries=section.retries,
                concurrency=section.concurrency,
            )
        except ClientError as error:
            raise JudgeError(str(error)) from error

    def check(self) -> None:
        """One light question to the server: is it there, and does it take the key?

        Raises:
            JudgeError: it is not, or it does not.
        """
        try:
            self._client.models()
        except ClientError as error:
            raise JudgeError(
                f"{error} Start the server, or choose what needs none (--judge.name green, --edit.editor rule)."
            ) from error

    def ask(self, messages: Messages, schema: Mapping[str, Any] | None = None) -> str:
        """The model's answer, decoded greedily.

        Raises:
            Failure: with the reason. `SchemaRefused` where the server does not take ``schema``.
            JudgeError: so many questions in a row were lost that the server must be gone, or it takes none of ours.
        """
        question: dict[str, Any] = {
            "model": self._section.model,
            "messages": list(messages),
            "max_tokens": self._section.max_tokens,
            "temperature": 0.0,
        }
        if schema is not None:
            question["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "judgement", "strict": True, "schema": schema},
            }
        try:
            return self._client.ask(question, _content)
        except Rejected as refused:
            if schema is not None and refused.status in (400, 404, 415, 422, 501):
                raise SchemaRefused(str(refused)) from None
            raise
        except ClientError as error:
            if schema is not None and isinstance(error, Shut) and error.status == 404:  # so do some answer a schema
                raise SchemaRefused(str(error)) from None
            raise JudgeError(str(error)) from None


def _content(response: Any) -> str:
    """The answer's text out of a response of the chat completions protocol."""
    choice = response["choices"][0]
    message = choice["message"]
    text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if refusal or finish == "content_filter":
        raise Failure(DECLINED)
    if finish == "length":
        raise Failure(INCOMPLETE)
    if not isinstance(text, str) or not text.strip():
        raise Failure(EMPTY)
    return text
