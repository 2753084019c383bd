"""A chat model as a judge: GREEN's six kinds of errors, asked of any model behind an OpenAI-compatible server.

A question that fails costs one case, which is then ``unscored`` with one of these reasons (``server.py``):
``timeout``, ``unreachable``, ``refused``, ``server error``, ``empty``, ``incomplete``, ``unparsable``. Nothing is
ever scored 0 because the judge failed. A server that has gone away ends the run after ``_PATIENCE`` lost questions
in a row; what was answered is kept.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2

from radpref.judges import answers
from radpref.judges.case import Judge, JudgeError, Verdict, judge_all
from radpref.judges.server import TRANSIENT, UNPARSABLE, Failure, Messages, SchemaRefused, Server
from radpref.recipe import JudgeSection
from radpref.store import content_key, write_atomically

_TEMPLATES = Path(__file__).parent / "templates"
_PATIENCE = 20
"""Lost questions in a row, with no answer between them, after which the server is taken to be gone."""

Read = Callable[[str, str, str], Verdict]
"""(answer, reference, candidate) to a verdict; raises Unreadable."""


def chat(section: JudgeSection) -> Judge:
    """Any chat model, which answers in JSON.

    Raises:
        JudgeError: no server or model is named, or the template cannot be used.
    """
    return judge_all("chat", _Asker(section, "json", answers.read_json, answers.schema()))


def green_model(section: JudgeSection) -> Judge:
    """GREEN's own model (StanfordAIMI/GREEN-radllama2-7b), which answers in three sections.

    Raises:
        JudgeError: no server or model is named, or the template cannot be used.
    """
    return judge_all("green-model", _Asker(section, "green", answers.read_green, None))


def identity(section: JudgeSection, form: str) -> str:
    """A key of all that an answer depends on but the two reports: the model and the words, never the address."""
    words = _template_file(section, form).read_text("utf-8")
    asked = section.json_schema != "never" if form == "json" else False
    return content_key(section.model, words, section.max_tokens, asked, answers.schema())


class _Asker:
    """Pairs of reports to verdicts, ``section.concurrency`` at a time."""

    def __init__(self, section: JudgeSection, form: str, read: Read, schema: dict[str, Any] | None) -> None:
        self._section, self._read, self._form_schema = section, read, schema
        self._schema = None if section.json_schema == "never" else schema
        self._template = _template(section, form)
        self._identity = identity(section, form)
        self._cache = Path(section.cache).expanduser() if section.cache else None
        self._lost = 0
        self._lock = threading.Lock()
        self._server = Server(section)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        pool = ThreadPoolExecutor(self._section.concurrency, thread_name_prefix="judge")
        try:
            return list(pool.map(self._verdict, pairs))
        finally:
            pool.shutdown(cancel_futures=True)

    def _verdict(self, pair: tuple[str, str]) -> Verdict:
        try:
            verdict = self._ask(*pair)
        except Failure as failure:
            reason = str(failure)
            self._count(lost=reason.startswith(TRANSIENT))
            return Verdict(None, reason)
        self._count(lost=False)
        return verdict

    def _count(self, *, lost: bool) -> None:
        with self._lock:
            self._lost = self._lost + 1 if lost else 0
            if self._lost >= _PATIENCE:
                raise JudgeError(
                    f"{self._section.server} has failed {_PATIENCE} questions in a row, each tried "
                    f"{self._section.retries + 1} times. Look at the server; the same command then goes on, and asks "
                    "nothing twice that was answered."
                )

    def _ask(self, reference: str, candidate: str) -> Verdict:
        """Ask, and ask again with the mistake named where the answer cannot be read."""
        kept = self._kept(reference, candidate)
        if kept and kept.exists():
            with suppress(ValueError, KeyError, TypeError):  # a file changed by hand: ask again
                return self._read(json.loads(kept.read_text("utf-8"))["answer"], reference, candidate)
        messages: list[dict[str, str]] = [{"role": "user", "content": self._question(reference, candidate)}]
        for _ in range(self._section.repairs + 1):
            answer = self._send(messages)
            try:
                verdict = self._read(answer, reference, candidate)
            except answers.Unreadable as problem:
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
            return verdict
        raise Failure(UNPARSABLE)

    def _send(self, messages: Messages) -> str:
        schema = self._schema
        try:
            return self._server.ask(messages, schema)
        except SchemaRefused:
            if self._section.json_schema == "always":
                raise
            answer = self._server.ask(messages)
            self._schema = None  # the same question without it was taken: do not try it again
            return answer

    def _question(self, reference: str, candidate: str) -> str:
        mark = content_key(reference, candidate)  # no report can write the mark that closes it
        schema = json.dumps(self._form_schema) if self._form_schema else ""
        return self._template.render(reference=reference, candidate=candidate, mark=mark, schema=schema)

    def _kept(self, reference: str, candidate: str) -> Path | None:
        if self._cache is None:
            return None
        key = content_key(self._identity, reference, candidate)
        return self._cache / key[:2] / f"{key}.json"


def _template_file(section: JudgeSection, form: str) -> Path:
    path = Path(section.template).expanduser() if section.template else _TEMPLATES / f"{form}.jinja"
    if not path.is_file():
        raise JudgeError(f"`judge.template` is {section.template!r}, but there is no such file.")
    return path


def _template(section: JudgeSection, form: str) -> jinja2.Template:
    path = _template_file(section, form)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # a prompt is no page
    try:
        template = environment.from_string(path.read_text("utf-8"))
        shown = template.render(reference="REFERENCE", candidate="CANDIDATE", mark="MARK", schema="")
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        raise JudgeError(f"the template {path} cannot be used: {error}") from error
    if "REFERENCE" not in shown or "CANDIDATE" not in shown:
        raise JudgeError(f"the template {path} must show both `reference` and `candidate`.")
    return template
