"""A chat model behind an OpenAI-compatible server: one question, one answer, or the class of what went wrong.

Nothing that is asked or answered is ever logged. Only the address that the recipe names is spoken to.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from radpref.config import ServerSection
from radpref.judges.case import JudgeError

Messages = Sequence[Mapping[str, str]]

_LONGEST_ANSWER = 4 << 20
"""Bytes. More is no judgement, whatever it is."""
_LONGEST_PAUSE = 60.0
"""Seconds between two tries, whatever the server asks for."""
_FIRST_PAUSE = 0.5

log = logging.getLogger(__name__)


class Failure(Exception):
    """A question without a usable answer. Its text is the reason, ``class: what happened``; see ``REASONS``."""


TIMEOUT = "timeout: no whole answer within the section's timeout"
UNREACHABLE = "unreachable: the connection failed or was closed"
REFUSED = "refused: the server did not take the question (status {})"
DECLINED = "refused: the model declined to answer"
SERVER_ERROR = "server error: status {}"
NO_PROTOCOL = "server error: the answer does not follow the protocol"
EMPTY = "empty: the model answered nothing"
INCOMPLETE = "incomplete: the answer was cut at max_tokens"
UNPARSABLE = "unparsable: the answer does not have the form that was asked for"

TRANSIENT = ("timeout:", "unreachable:", "server error:")
"""Reasons begin so that may be gone at the next try, so that the same command asks again."""


class _Retry(Exception):
    """A failure that another try may heal; ``pause`` is the seconds that the server asks to wait."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.pause = reason, pause


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
        headers = {}
        if section.api_key_env:
            key = os.environ.get(section.api_key_env)
            if not key:
                raise JudgeError(
                    f"`{name}.api_key_env` is {section.api_key_env!r}, but there is no such environment variable, "
                    "or it is empty. Set it to the server's key."
                )
            headers["Authorization"] = f"Bearer {key}"
        self._section, self._name = section, name
        self._address = section.server.rstrip("/")
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(section.timeout, connect=min(section.timeout, 10.0)),
                limits=httpx.Limits(max_connections=section.concurrency),
            )
            if not httpx.URL(self._address).host:
                raise ValueError("it names no host; write http://HOST:PORT/v1")
        except (httpx.InvalidURL, ValueError) as error:
            raise JudgeError(f"`{name}.server` is {section.server!r}, which is no address: {error}") from error

    def check(self) -> None:
        """One light question to the server: is it there, and does it take the key?

        Raises:
            JudgeError: it is not, or it does not.
        """
        try:
            status = self._client.get(f"{self._address}/models", timeout=min(self._section.timeout, 10.0)).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise JudgeError(
                f"`{self._name}.server` is {self._section.server!r}, which cannot be reached "
                f"({type(error).__name__}). Start the server, or choose what needs none (--judge.name green, "
                "--edit.editor rule)."
            ) from error
        if status in (401, 403):
            raise JudgeError(
                f"{self._section.server} does not let us in (status {status}). Name the environment variable that "
                f"holds its key: --{self._name}.api_key_env NAME."
            )

    def ask(self, messages: Messages, schema: Mapping[str, Any] | None = None) -> str:
        """The model's answer, decoded greedily.

        Tried again, with pauses that double (and a ``Retry-After`` where the server sends one), after a timeout, a
        lost connection, 429 and 5xx.

        Raises:
            Failure: with the reason. `SchemaRefused` where the server does not take ``schema``.
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
        for attempt in range(self._section.retries + 1):
            try:
                return _content(self._post(question, schema is not None))
            except _Retry as failure:
                if attempt == self._section.retries:
                    raise Failure(failure.reason) from None
                log.info("judge server: %s; try %d follows", failure.reason, attempt + 2)
                doubled = _FIRST_PAUSE * 2**attempt * random.uniform(0.75, 1.25)  # so that threads do not march in step
                time.sleep(min(failure.pause if failure.pause is not None else doubled, _LONGEST_PAUSE))
        raise AssertionError("not reached")

    def _post(self, question: Mapping[str, Any], with_schema: bool) -> bytes:
        """The body of a good response. A server that trickles cannot hold us longer than the timeout."""
        deadline = time.monotonic() + self._section.timeout
        body = bytearray()
        try:
            with self._client.stream("POST", f"{self._address}/chat/completions", json=question) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:
                        raise _Retry(TIMEOUT)
                    if len(body) > _LONGEST_ANSWER:
                        raise Failure(NO_PROTOCOL)
        except httpx.TimeoutException:
            raise _Retry(TIMEOUT) from None
        except httpx.HTTPError:
            raise _Retry(UNREACHABLE) from None
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Retry(SERVER_ERROR.format(status), _seconds(response.headers.get("retry-after")))
        if with_schema and status in (400, 404, 415, 422, 501):
            raise SchemaRefused(REFUSED.format(status))
        if status != 200:
            raise Failure(REFUSED.format(status))
        return bytes(body)


class SchemaRefused(Failure):
    """The server did not take a question with a schema; it may take the same one without."""


def _content(body: bytes) -> str:
    """The answer's text out of a response of the chat completions protocol."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Retry(NO_PROTOCOL) from None
    if refusal or finish == "content_filter":
        raise Failure(DECLINED)
    if finish == "length":
        raise Failure(INCOMPLETE)
    if not isinstance(text, str) or not text.strip():
        raise Failure(EMPTY)
    return text


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; its other form, a date, is left to our own pauses."""
    try:
        return max(float(header), 0.0) if header is not None else None
    except ValueError:
        return None
