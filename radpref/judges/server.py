"""A chat model behind an OpenAI-compatible server: one question, one answer, or the class of what went wrong.

Nothing that is asked or answered is ever logged. Only the address that the recipe names is spoken to.
"""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from radpref.config import ServerSection
from radpref.judges.case import JudgeError
from radpref.outside import OutsideError, parse_json, without_key

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
NOT_TAKEN = "refused: the server did not take the question"
REFUSED = f"{NOT_TAKEN} (status {{}})"
DECLINED = "refused: the model declined to answer"
SERVER_ERROR = "server error: status {}"
NO_PROTOCOL = "server error: the answer does not follow the protocol"
EMPTY = "empty: the model answered nothing"
INCOMPLETE = "incomplete: the answer was cut at max_tokens"
UNPARSABLE = "unparsable: the answer does not have the form that was asked for"

TRANSIENT = ("timeout:", "unreachable:", "server error:")
"""Reasons begin so that may be gone at the next try, so that the same command asks again."""
_OF_THE_QUESTION = frozenset({400, 413, 414, 415, 422, 431, 451, 501})
"""Statuses that refuse one question and not us: the next one may be taken."""
_PASSING = frozenset({408, 409, 421, 423, 424, 425, 429})
"""Statuses that another try may heal, beside those from 500 on."""


class Shut(JudgeError):
    """The server takes no question of ours: a key, an address or a model is wrong, or the money is spent."""


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
                # a connection a question, so that the one that has to be cut is known
                limits=httpx.Limits(max_connections=section.concurrency, max_keepalive_connections=0),
            )
            url = httpx.URL(self._address)
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("it names no host; write http://HOST:PORT/v1")
        except (httpx.InvalidURL, ValueError) as error:
            given = without_key(section.server)
            raise JudgeError(f"`{name}.server` is {given!r}, which is no address: {error}") from error

    def check(self) -> None:
        """One light question to the server: is it there, and does it take the key?

        Raises:
            JudgeError: it is not, or it does not.
        """
        seconds = min(self._section.timeout, 10.0)
        try:
            with (
                _cut_after(seconds) as trace,
                self._client.stream("GET", f"{self._address}/models", timeout=seconds, extensions=trace) as response,
            ):
                status = response.status_code  # what it lists is not read: it may have no end
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
            Shut: the server takes no question of ours at all; nothing is kept as refused because of that.
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
        address = f"{self._address}/chat/completions"
        try:
            with (
                _cut_after(self._section.timeout) as trace,
                self._client.stream("POST", address, json=question, extensions=trace) as response,
            ):
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:
                        raise _Retry(TIMEOUT)
                    if len(body) > _LONGEST_ANSWER:
                        raise Failure(NO_PROTOCOL)
            if time.monotonic() > deadline:  # a connection that was cut may look like the end of a body
                raise _Retry(TIMEOUT)
        except httpx.TimeoutException:
            raise _Retry(TIMEOUT) from None
        except (httpx.HTTPError, httpx.StreamError):
            raise _Retry(TIMEOUT if time.monotonic() > deadline else UNREACHABLE) from None
        status = response.status_code
        if with_schema and status == 501:
            raise SchemaRefused(REFUSED.format(status))
        if status in _PASSING or status >= 500:
            raise _Retry(SERVER_ERROR.format(status), _seconds(response.headers.get("retry-after")))
        if with_schema and status in (400, 404, 415, 422):
            raise SchemaRefused(REFUSED.format(status))
        if status in _OF_THE_QUESTION:
            raise Failure(REFUSED.format(status))
        if 300 <= status < 500:
            raise Shut(self._shut(status))
        if status != 200:
            raise _Retry(NO_PROTOCOL)
        return bytes(body)

    def _shut(self, status: int) -> str:
        name = self._name
        if status in (401, 403, 407):
            why = f"the key is absent, wrong or expired: --{name}.api_key_env NAME names the variable that holds it"
        elif status == 402:
            why = "the account is to be paid"
        elif status < 400:
            why = f"it sends us elsewhere, where nothing is sent: give the true address, --{name}.server URL"
        else:
            why = f"it knows no such address or model: --{name}.server URL up to /v1, --{name}.model NAME"
        return (
            f"{self._address} takes no question (status {status}): {why}. What was answered is kept; the same command "
            "then goes on."
        )


class SchemaRefused(Failure):
    """The server did not take a question with a schema; it may take the same one without."""


@contextmanager
def _cut_after(seconds: float) -> Iterator[dict[str, Any]]:
    """httpx's extensions for one request, whose connection is cut when the time is up.

    httpx's own timeouts are of one read each: a server that sends a byte a second would hold us for ever.
    """
    sockets: list[socket.socket] = []
    over = threading.Event()

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))
            if over.is_set():
                cut()

    def cut() -> None:
        over.set()
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield {"trace": trace}
    finally:
        timer.cancel()


def _content(body: bytes) -> str:
    """The answer's text out of a response of the chat completions protocol."""
    try:
        choice = parse_json(body, "the answer")["choices"][0]
        message = choice["message"]
        text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    except (OutsideError, KeyError, IndexError, TypeError, AttributeError):
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
        seconds = float(header) if header is not None else math.nan
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
