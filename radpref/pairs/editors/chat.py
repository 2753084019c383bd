"""The editor by a chat model behind an OpenAI-compatible server. What it answers is verified like any other edit.

Whether the model's words are right is our own judge's verdict; the chat model is then asked to mend them, or to make
them wrong. A question that fails costs one case, with the server's reason (``radpref.judges.server``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from radpref.config import EditSection
from radpref.files import content_key
from radpref.findings.labelled import in_words
from radpref.findings.rewrite.phrases import sentence
from radpref.judges.answers import Part, Unreadable, parsed, strict
from radpref.judges.asker import Asker
from radpref.judges.prompts import template_file, template_of
from radpref.judges.server import Failure
from radpref.pairs.edit import EMPTY, UNREADABLE, EditCase, Edited, Editor, judged, right
from radpref.tasks.answers import normalise

SHIPPED = Path(__file__).parent.parent / "templates" / "edit.jinja"
_EXAMPLE = {
    "task": "report",
    "prompt": "",
    "wrong": True,
    "flips": 1,
    "attributes": ["side"],
    "mark": "MARK",
    "schema": "",
}
"""Values that a template is tried out with, beside the words and what is known."""


class _Change(Part):
    finding: str
    attribute: Literal["presence", "side", "place", "severity", "type", "change", "answer"]


class _Answer(Part):
    text: str
    changes: list[_Change]


def chat(section: EditSection) -> Editor:
    """Any chat model, which answers in JSON.

    Raises:
        JudgeError: no server or model is named, or the template cannot be used.
    """
    schema = strict(_Answer.model_json_schema())
    path = template_file(section.template, SHIPPED, "edit")
    template = template_of(path, ("words", "known"), _EXAMPLE)

    def question(case: EditCase) -> str:
        return template.render(
            task=case.task,
            words=case.words,
            known=known(case),
            prompt=case.prompt if case.task != "report" else "",
            wrong=not right(case, case.words, section),
            flips=section.flips,
            attributes=section.attributes,
            mark=content_key(case.words, case.reference),  # no text can write the mark that closes it
            schema=json.dumps(schema),
        )

    def read(answer: str, case: EditCase) -> Edited:
        return _read(answer, case, was_right=right(case, case.words, section))

    asker: Asker[EditCase, Edited] = Asker(
        section,
        question=question,
        read=read,
        key=lambda case: (case.words, known(case), case.prompt, case.task),
        identity=content_key(
            section.model, path.read_text("utf-8"), section.max_tokens, section.flips, section.attributes, schema
        ),
        schema=schema,
        section="edit",
    )

    def editor(cases: Sequence[EditCase]) -> list[Edited]:
        refused = [_refusal(case) for case in cases]
        asked = [case for case, reason in zip(cases, refused, strict=True) if reason is None]
        answers = iter(asker(asked))
        return [
            Edited(id=case.id, failed=reason) if reason else _made(case, next(answers))
            for case, reason in zip(cases, refused, strict=True)
        ]

    return editor


def known(case: EditCase) -> str:
    """What is true, in words: the truth's findings, else the reference, else what labels say; with the short answer."""
    if case.truth is not None:
        present = [f"{sentence(f)}." for f in case.truth if f.presence != "absent"]
        return "\n".join([*present, "Nothing else is abnormal."])
    if case.bare:
        return f"{in_words(case.labels)}\nNothing else is known: leave it as it is."
    return f"{case.reference}\nAnswer: {case.answer}" if case.answer else case.reference


def _refusal(case: EditCase) -> str | None:
    """Why a case is not worth a question."""
    if not case.words.split():
        return EMPTY
    readable = normalise(case.answer) if case.task != "report" else judged(case, case.words).score is not None
    return None if readable else UNREADABLE


def _made(case: EditCase, answer: Edited | Failure) -> Edited:
    return Edited(id=case.id, failed=str(answer)) if isinstance(answer, Failure) else answer


def _read(answer: str, case: EditCase, *, was_right: bool) -> Edited:
    """The edit out of an answer in JSON; words around the object are passed over.

    Raises:
        Unreadable: there is no whole object, it has other fields, or its text is empty.
    """
    said = parsed(answer, _Answer)
    text = said.text.strip()
    if not text:
        raise Unreadable("`text` is empty")
    return Edited(
        id=case.id,
        chosen=case.words if was_right else text,
        rejected=text if was_right else case.words,
        findings=tuple(change.finding for change in said.changes),
        attributes=tuple(change.attribute for change in said.changes),
        was_right=was_right,
    )
