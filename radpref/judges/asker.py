"""Many questions to one server: asked in parallel, kept on disk once answered, asked again where unreadable.

What fails costs one question, with its reason (``server.py``). A server that has gone away ends the run
(``chat_client.PATIENCE``); what was answered is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from radpref.config import ServerSection
from radpref.errors import RadprefError
from radpref.files import content_key, write_atomically
from radpref.judges.answers import Unreadable
from radpref.judges.server import UNPARSABLE, Failure, Messages, SchemaRefused, Server
from radpref.outside import read_json

Item = TypeVar("Item")
Result = TypeVar("Result")


class Asker(Generic[Item, Result]):
    """Items to results, ``settings.concurrency`` at a time.

    Args:
        question: what is asked about an item.
        read: (answer, item) to a result; raises `Unreadable`, whose message tells the model what is wrong.
        key: what an answer to an item depends on, beside ``identity``.
        identity: what every answer depends on: the model and the words of the question.
        schema: JSON schema of an answer, or None.
        section: the section of the recipe that ``settings`` are, for messages.

    Raises:
        JudgeError: no server or model is named.
    """

    def __init__(
        self,
        settings: ServerSection,
        *,
        question: Callable[[Item], str],
        read: Callable[[str, Item], Result],
        key: Callable[[Item], Sequence[Any]],
        identity: str,
        schema: Mapping[str, Any] | None,
        section: str = "judge",
    ) -> None:
        self._settings, self._question, self._read, self._key = settings, question, read, key
        self._schema = None if settings.json_schema == "never" else schema
        self._identity = identity
        self._cache = Path(settings.cache).expanduser() if settings.cache else None
        self._server = Server(settings, section)

    def __call__(self, items: Sequence[Item]) -> list[Result | Failure]:
        """A result each, in order, or why there is none."""
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="asker")
        try:
            return list(pool.map(self._result, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def _result(self, item: Item) -> Result | Failure:
        try:
            return self._ask(item)
        except Failure as failure:
            return failure

    def _ask(self, item: Item) -> Result:
        """Ask, and ask again with the mistake named where the answer cannot be read."""
        kept = self._kept(item)
        if kept and kept.exists():
            with suppress(RadprefError, ValueError, KeyError, TypeError):  # a file changed by hand: ask again
                return self._read(read_json(kept)["answer"], item)
        messages: list[dict[str, str]] = [{"role": "user", "content": self._question(item)}]
        for _ in range(self._settings.repairs + 1):
            answer = self._send(messages)
            try:
                result = self._read(answer, item)
            except Unreadable as problem:
                messages = [
                    messages[0],
                    {"role": "assistant", "content": answer},
                    {
                        "role": "user",
                        "content": f"That cannot be read: {problem}. Answer again, in the form asked for.",
                    },
                ]
                continue
            if kept:
                write_atomically(kept, json.dumps({"answer": answer}, ensure_ascii=False))
            return result
        raise Failure(UNPARSABLE)

    def _send(self, messages: Messages) -> str:
        try:
            return self._server.ask(messages, self._schema)
        except SchemaRefused:
            if self._settings.json_schema == "always":
                raise
            answer = self._server.ask(messages)
            self._schema = None  # the same question without it was taken: do not try it again
            return answer

    def _kept(self, item: Item) -> Path | None:
        if self._cache is None:
            return None
        key = content_key(self._identity, *self._key(item))
        return self._cache / key[:2] / f"{key}.json"
