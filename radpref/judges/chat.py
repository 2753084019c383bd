"""A chat model as a judge: GREEN's six kinds of errors, asked of any model behind an OpenAI-compatible server.

A question that fails costs one case, which is then ``unscored`` with one of these reasons (``server.py``):
``timeout``, ``unreachable``, ``refused``, ``server error``, ``empty``, ``incomplete``, ``unparsable``. Nothing is
ever scored 0 because the judge failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from radpref.config import JudgeSection
from radpref.files import content_key
from radpref.judges import answers
from radpref.judges.asker import Asker
from radpref.judges.case import Verdict
from radpref.judges.contract import CompareAll, Judge, PairJudge, Texts
from radpref.judges.prompts import template_file, template_of
from radpref.judges.server import Failure, Server

_TEMPLATES = Path(__file__).parent / "templates"
READING = 2
"""Of how an answer is read, raised when the same answer gives another verdict; what was answered stays answered."""
Read = Callable[[str, str, str], Verdict]
"""(answer, reference, candidate) to a verdict; raises Unreadable."""


def chat(section: JudgeSection) -> Judge:
    """Any chat model, which answers in JSON.

    Raises:
        JudgeError: no server or model is named, or the template cannot be used.
    """
    return _judge("chat", section, "json", answers.read_json, answers.schema())


def green_model(section: JudgeSection) -> Judge:
    """GREEN's own model (StanfordAIMI/GREEN-radllama2-7b), which answers in three sections.

    Raises:
        JudgeError: no server or model is named, or the template cannot be used.
    """
    return _judge("green-model", section, "green", answers.read_green, None)


def _judge(name: str, section: JudgeSection, form: str, read: Read, schema: dict[str, Any] | None) -> Judge:
    version = f"{name}-{READING}-{identity(section, form)}"
    return PairJudge(name, version, _asked(section, form, read, schema), ready=lambda section: Server(section).check())


def identity(section: JudgeSection, form: str) -> str:
    """A key of all that an answer depends on but the two reports: the model and the words, never the address."""
    words = _template_file(section, form).read_text("utf-8")
    asked = section.json_schema != "never" if form == "json" else False
    return content_key(section.model, words, section.max_tokens, asked, answers.schema())


def _asked(section: JudgeSection, form: str, read: Read, schema: dict[str, Any] | None) -> CompareAll:
    """Pairs of reports, or of answers to a question, to verdicts."""
    template = template_of(
        _template_file(section, form), ("reference", "candidate"), {"mark": "MARK", "schema": "", "question": ""}
    )
    written = json.dumps(schema) if schema else ""

    def question(texts: Texts) -> str:
        reference, candidate, asked = texts
        mark = content_key(*texts)  # no text can write the mark that closes it
        return template.render(reference=reference, candidate=candidate, question=asked, mark=mark, schema=written)

    asker: Asker[Texts, Verdict] = Asker(
        section,
        question=question,
        read=lambda answer, texts: read(answer, *texts[:2]),
        key=lambda texts: texts if texts[2] else texts[:2],
        identity=identity(section, form),
        schema=schema,
    )

    def verdicts(pairs: Sequence[Texts]) -> list[Verdict]:
        return [Verdict(None, str(one)) if isinstance(one, Failure) else one for one in asker(pairs)]

    return verdicts


def _template_file(section: JudgeSection, form: str) -> Path:
    return template_file(section.template, _TEMPLATES / f"{form}.jinja", "judge")
