"""The client of OpenAI-compatible servers: one question, one response, or the class of what went wrong.

Several addresses are one server to whoever asks: a question goes to the one that has least to do, and to another where
one fails. Nothing that is asked or answered is ever logged. Only the addresses that the recipe names are spoken to.
"""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from radpref.errors import RadprefError
from radpref.outside import OutsideError, parse_json, without_key

_LONGEST_ANSWER = 4 << 20
"""Bytes. More is no answer to a chat, whatever it is."""
_LONGEST_PAUSE = 60.0
"""Seconds between two tries, whatever the server asks for."""
_FIRST_PAUSE = 0.5
_LONGEST_CHECK = 10.0
PATIENCE = 20
"""Lost questions in a row, with no answer between them, after which the server is taken to be gone."""

T = TypeVar("T")
Read = Callable[[Any], T]
"""A response's JSON to what is wanted of it; raises `Failure`, or LookupError, TypeError, ValueError or AttributeError
where it does not follow the protocol."""

log = logging.getLogger(__name__)


class ClientError(RadprefError):
    """A server that cannot be used; the message says why and what to do."""


class Failure(Exception):
    """A question without a usable answer. Its text is the reason, ``class: what happened``."""


class Shut(ClientError):
    """The server takes no question of ours: a key, an address or a model is wrong, or the money is spent."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


NOT_TAKEN = "refused: the server did not take the question"


class Rejected(Failure):
    """The server did not take the question; another one may do."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{NOT_TAKEN} (status {status})")
        self.status = status


TIMEOUT = "timeout: no whole answer within the section's timeout"
UNREACHABLE = "unreachable: the connection failed or was closed"
SERVER_ERROR = "server error: status {}"
NO_PROTOCOL = "server error: the answer does not follow the protocol"

TRANSIENT = ("timeout:", "unreachable:", "server error:")
"""Reasons begin so that may be gone at the next try, so that the same command asks again."""
_OF_THE_QUESTION = frozenset({400, 413, 414, 415, 422, 431, 451, 501})
"""Statuses that refuse one question and not us: the next one may be taken."""
_PASSING = frozenset({408, 409, 421, 423, 424, 425, 429})
"""Statuses that another try may heal, beside those from 500 on."""


class _Retry(Exception):
    """A failure that another try may heal; ``pause`` is the seconds that the server asks to wait."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.pause = reason, pause


@dataclass
class _Endpoint:
    """One address, and how it has fared."""

    address: str
    asked: int = 0
    """Questions that it is working on."""
    failures: int = 0
    """In a row."""
    rests: float = 0.0
    """Until when others go before it, on the monotonic clock."""


class Client:
    """The server of a recipe, at one or several addresses. It may be used by many threads.

    Args:
        addresses: up to ``/v1``, with commas between several.
        key: the recipe's key that names them, for messages: ``judge.server``.
        api_key_env: environment variable that holds the key; None sends none.
        timeout: seconds for one whole answer.
        retries: more tries after a timeout, a lost connection, 429 and 5xx, at each address.
        concurrency: most connections at a time.

    Raises:
        ClientError: an address is none, or the named environment variable holds no key.
    """

    def __init__(
        self, addresses: str, *, key: str, api_key_env: str | None, timeout: float, retries: int, concurrency: int
    ) -> None:
        headers = {}
        self.key, self._timeout, self._retries = key, timeout, retries
        if api_key_env:
            secret = os.environ.get(api_key_env)
            if not secret:
                raise ClientError(
                    f"`{self._near('api_key_env')}` is {api_key_env!r}, but there is no such environment variable, "
                    "or it is empty. Set it to the server's key."
                )
            headers["Authorization"] = f"Bearer {secret}"
        self._endpoints = [_Endpoint(address.strip().rstrip("/")) for address in addresses.split(",")]
        self._lock, self._lost = threading.Lock(), 0
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, _LONGEST_CHECK), pool=None),
                # a connection a question, so that the one that has to be cut is known
                limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=0),
            )
            for endpoint in self._endpoints:
                url = httpx.URL(endpoint.address)
                if url.scheme not in ("http", "https") or not url.host:
                    raise ValueError("it names no host; write http://HOST:PORT/v1")
        except (httpx.InvalidURL, ValueError) as error:
            given = without_key(addresses)
            raise ClientError(f"`{key}` is {given!r}, which is no address: {error}") from error

    def _near(self, name: str) -> str:
        """A key beside the one that names the addresses."""
        return f"{self.key.rpartition('.')[0]}.{name}"

    def models(self) -> list[str]:
        """The names that are served, of the first address that answers; one light question to each, all of which count.

        Raises:
            ClientError: none of the addresses can be reached, or one does not take the key.
        """
        found: list[str] | None = None
        last: Exception | None = None
        seconds = min(self._timeout, _LONGEST_CHECK)
        for endpoint in self._endpoints:
            address, body = f"{endpoint.address}/models", bytearray()
            try:
                with (
                    _cut_after(seconds) as trace,
                    self._client.stream("GET", address, timeout=seconds, extensions=trace) as response,
                ):
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > _LONGEST_ANSWER:  # it may have no end
                            break
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
                last = error
                self._failed(endpoint)
                log.warning("%s cannot be reached (%s)", endpoint.address, type(error).__name__)
                continue
            if response.status_code in (401, 403):
                raise ClientError(
                    f"{endpoint.address} does not let us in (status {response.status_code}). Name the environment "
                    f"variable that holds its key: --{self._near('api_key_env')} NAME."
                )
            found = found if found is not None else _names(bytes(body))
        if found is None:
            given = ", ".join(endpoint.address for endpoint in self._endpoints)
            raise ClientError(f"`{self.key}` is {given!r}, which cannot be reached ({type(last).__name__}).")
        return found

    def ask(self, question: Mapping[str, Any], read: Read[T]) -> T:
        """What ``read`` makes of the response of ``/chat/completions``.

        Tried again after a timeout, a lost connection, 429 and 5xx: at another address, or with pauses that double (and
        a ``Retry-After`` where the server sends one).

        Raises:
            Failure: with the reason; `Rejected` where the server does not take the question.
            ClientError: ``PATIENCE`` questions in a row were lost, or (`Shut`) the server takes none of ours; nothing
                is kept as refused because of that.
        """
        try:
            found = self._tried(question, read)
        except Failure as failure:
            self._count(lost=str(failure).startswith((*TRANSIENT, NOT_TAKEN)))
            raise
        self._count(lost=False)
        return found

    def _tried(self, question: Mapping[str, Any], read: Read[T]) -> T:
        tries = (self._retries + 1) * len(self._endpoints)
        failed: _Endpoint | None = None
        pause = 0.0
        for attempt in range(tries):
            endpoint = self._taken()
            if endpoint is failed:  # nobody else is better off
                time.sleep(pause)
            try:
                found = _read(self._post(endpoint, question), read)
            except _Retry as problem:
                failed = endpoint
                self._failed(endpoint)
                if attempt + 1 == tries:
                    raise Failure(problem.reason) from None
                log.info("%s: %s; try %d follows", self.key, problem.reason, attempt + 2)
                times = 2 ** (attempt // len(self._endpoints))
                doubled = _FIRST_PAUSE * times * random.uniform(0.75, 1.25)  # so that threads do not march in step
                pause = min(problem.pause if problem.pause is not None else doubled, _LONGEST_PAUSE)
            else:
                with self._lock:
                    endpoint.failures, endpoint.rests = 0, 0.0
                return found
            finally:
                with self._lock:
                    endpoint.asked -= 1
        raise AssertionError("not reached")

    def _taken(self) -> _Endpoint:
        """The address with least to do, among those that have not just failed."""
        now = time.monotonic()
        with self._lock:
            endpoint = min(self._endpoints, key=lambda one: (max(one.rests - now, 0.0), one.asked))
            endpoint.asked += 1
            return endpoint

    def _failed(self, endpoint: _Endpoint) -> None:
        with self._lock:
            endpoint.failures += 1
            rest = min(_FIRST_PAUSE * 2**endpoint.failures, _LONGEST_PAUSE)
            endpoint.rests = time.monotonic() + rest

    def _count(self, *, lost: bool) -> None:
        with self._lock:
            self._lost = self._lost + 1 if lost else 0
            if self._lost < PATIENCE:
                return
        given = ", ".join(endpoint.address for endpoint in self._endpoints)
        raise ClientError(
            f"{given} has failed {PATIENCE} questions in a row, each tried {self._retries + 1} times. Look at the "
            "server; the same command then goes on, and asks nothing twice that was answered."
        )

    def _post(self, endpoint: _Endpoint, question: Mapping[str, Any]) -> bytes:
        """The body of a good response. A server that trickles cannot hold us longer than the timeout."""
        deadline = time.monotonic() + self._timeout
        body, address = bytearray(), f"{endpoint.address}/chat/completions"
        try:
            with (
                _cut_after(self._timeout) as trace,
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
        self._judge_status(endpoint, response)
        return bytes(body)

    def _judge_status(self, endpoint: _Endpoint, response: httpx.Response) -> None:
        """Raises for every status but 200: what another try may heal, what refuses the question, what refuses us."""
        status = response.status_code
        if status in _OF_THE_QUESTION:
            raise Rejected(status)
        if status in _PASSING or status >= 500:
            raise _Retry(SERVER_ERROR.format(status), _seconds(response.headers.get("retry-after")))
        if 300 <= status < 500:
            raise Shut(self._shut(endpoint, status), status)
        if status != 200:
            raise _Retry(NO_PROTOCOL)

    def _shut(self, endpoint: _Endpoint, status: int) -> str:
        if status in (401, 403, 407):
            variable = f"--{self._near('api_key_env')} NAME names the variable that holds it"
            why = f"the key is absent, wrong or expired: {variable}"
        elif status == 402:
            why = "the account is to be paid"
        elif status < 400:
            why = f"it sends us elsewhere, where nothing is sent: give the true address, --{self.key} URL"
        else:
            why = f"it knows no such address or model: --{self.key} URL up to /v1, --{self._near('model')} NAME"
        return (
            f"{endpoint.address} takes no question (status {status}): {why}. What was answered is kept; the same "
            "command then goes on."
        )


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


def _read(body: bytes, read: Read[T]) -> T:
    try:
        return read(parse_json(body, "the answer"))
    except (OutsideError, ValueError, LookupError, TypeError, AttributeError):
        raise _Retry(NO_PROTOCOL) from None


def _names(body: bytes) -> list[str]:
    try:
        return [str(one["id"]) for one in parse_json(body, "the list of models")["data"]]
    except (OutsideError, ValueError, LookupError, TypeError):
        return []


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; its other form, a date, is left to our own pauses."""
    try:
        seconds = float(header) if header is not None else math.nan
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
