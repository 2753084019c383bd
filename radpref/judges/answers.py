"""What a chat model answered, read into a verdict: our JSON, or the sections of GREEN's own model."""

from __future__ import annotations

import json
import re
from itertools import zip_longest
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from radpref.judges.case import Verdict
from radpref.records import ErrorKind, Finding, ReportError, Span

KINDS: tuple[ErrorKind, ...] = (
    "false_finding",
    "missing_finding",
    "wrong_place",
    "wrong_severity",
    "false_comparison",
    "missing_comparison",
)
"""GREEN's (a) to (f), in order."""


NOTHING = "empty: the judge named neither an agreement nor an error"


class Unreadable(ValueError):
    """An answer that does not have the form that was asked for; the message tells the model what is wrong."""


class Part(BaseModel):
    """An object of an answer in JSON; what else stands in it is passed over."""

    model_config = ConfigDict(extra="ignore")


class _Error(Part):
    kind: ErrorKind
    finding: str
    significant: bool
    reference: str = Field("", description="the words of the reference that show it, copied exactly; may be empty")
    candidate: str = Field("", description="the words of the candidate that show it, copied exactly; may be empty")


class _Match(Part):
    finding: str
    candidate: str = Field("", description="the words of the candidate, copied exactly")


Form = TypeVar("Form", bound=Part)


class _Answer(Part):
    errors: list[_Error]
    matched: list[_Match]


def schema() -> dict[str, Any]:
    """The JSON schema of an answer, with every property required, as strict servers ask for."""
    return dict(strict(_Answer.model_json_schema()))


def read_json(answer: str, reference: str, candidate: str) -> Verdict:
    """A verdict from an answer in JSON; words around the object, and a fence, are passed over.

    Raises:
        Unreadable: there is no whole object, it has other fields, or it names an agreement whose words (or whose
            finding, where it copies none) do not stand in the candidate: an agreement that nobody can see is none.
    """
    said = parsed(answer, _Answer)
    errors = tuple(
        ReportError(
            kind=one.kind,
            finding=one.finding,
            significant=one.significant,
            reference_span=_span(reference, one.reference),
            candidate_span=_span(candidate, one.candidate),
        )
        for one in said.errors
    )
    matched = tuple(
        Finding(name=one.finding, span=_span(candidate, one.candidate or one.finding)) for one in said.matched
    )
    if invented := [one for one, found in zip(said.matched, matched, strict=True) if found.span is None]:
        raise Unreadable(
            f"matched: {len(invented)} of {len(matched)} have words that do not stand in the candidate; copy them "
            "exactly, or leave out what the candidate does not say"
        )
    return _verdict(matched, errors)


_HEADING = re.compile(
    r"^[ \t#*]*\[?[ \t]*(clinically (?:in)?significant errors|matched findings|explanation)\b"
    r"[^\n]*?(?:\]?[ \t]*:|\])[ \t*]*",
    re.IGNORECASE | re.MULTILINE,
)
_ERROR_LINE = re.compile(r"^[ \t*-]*\(?([a-f1-6])\)[^:\n]*:[ \t]*(\d+)\b[ \t]*[.:;,]?[ \t]*([^\n]*)", re.MULTILINE)
_MATCHED = re.compile(r"^\s*(\d+)\b[ \t]*[.:;,]?[ \t]*([^\n]*)")


def read_green(answer: str, reference: str, candidate: str) -> Verdict:
    """A verdict from the sections that StanfordAIMI/GREEN-radllama2-7b writes (Ostmeier et al. 2024).

    ``[Clinically Significant Errors]`` and ``[Clinically Insignificant Errors]`` hold lines ``(a) KIND: COUNT.
    TEXT; TEXT`` for the six kinds, ``[Matched Findings]`` a line ``COUNT. TEXT; TEXT``; a section that begins with
    "No" is empty. The counts decide, as in the published parser; the texts explain them, as far as there are any.

    Raises:
        Unreadable: a section is absent, or has neither a count nor a "No". (The published parser takes that for
            no errors or no matches, and so for a score.)
    """
    sections = _sections(answer)
    names = ("clinically significant errors", "clinically insignificant errors", "matched findings")
    if absent := [name for name in names if name not in sections]:
        raise Unreadable(f"the section [{absent[0]}] is absent")
    errors = [
        ReportError(
            kind=kind,
            finding=text,
            significant=significant,
            reference_span=_span(reference, text),
            candidate_span=_span(candidate, text),
        )
        for name, significant in ((names[0], True), (names[1], False))
        for kind, text in _listed(name, sections[name])
    ]
    section = sections[names[2]]
    count = _MATCHED.match(section)
    if count is None and not _says_none(section):
        raise Unreadable("the section [matched findings] does not begin with a number")
    texts = _texts(count[2], int(count[1])) if count else []
    return _verdict(tuple(Finding(name=text, span=_span(candidate, text)) for text in texts), tuple(errors))


def _verdict(matched: tuple[Finding, ...], errors: tuple[ReportError, ...]) -> Verdict:
    """GREEN's score: matched / (matched + significant errors), 0 where nothing matched.

    Neither an agreement nor an error, significant or not, is no judgement: two reports without words are not asked.
    """
    if not matched and not errors:
        return Verdict(None, NOTHING)
    charged = sum(error.significant for error in errors)
    return Verdict(len(matched) / (len(matched) + charged) if matched else 0.0, matched=matched, errors=errors)


def _sections(answer: str) -> dict[str, str]:
    heads = list(_HEADING.finditer(answer))
    sections: dict[str, str] = {}
    for head, after in zip_longest(heads, heads[1:]):
        text = answer[head.end() : after.start() if after else None]
        sections.setdefault(head[1].lower(), text.strip())
    return sections


def _listed(name: str, section: str) -> list[tuple[ErrorKind, str]]:
    lines = list(_ERROR_LINE.finditer(section))
    if not lines and not _says_none(section):
        raise Unreadable(f"the section [{name}] holds no line of the form (a) KIND: COUNT. TEXT")
    first: dict[ErrorKind, list[str]] = {}
    for line in lines:
        letter = line[1].lower()
        kind = KINDS[int(letter) - 1 if letter.isdigit() else "abcdef".index(letter)]
        first.setdefault(kind, _texts(line[3], int(line[2])))
    return [(kind, text) for kind, texts in first.items() for text in texts]


def _says_none(section: str) -> bool:
    return section == "" or re.match(r"(?:no|none|0|n/a)\b", section, re.IGNORECASE) is not None


def _texts(listed: str, count: int) -> list[str]:
    """As many texts as were counted; what is not told has an empty text."""
    if count > 100:
        raise Unreadable(f"a count of {count} cannot be meant")
    parts = [part.strip(" .") for part in listed.split(";") if part.strip(" .")]
    return [*parts[:count], *[""] * (count - len(parts))]


def parsed(answer: str, form: type[Form]) -> Form:
    """The object that an answer holds; words around it, and a fence, are passed over.

    Raises:
        Unreadable: there is no whole object, or it has other fields.
    """
    found = _first_object(answer, set(form.model_fields))
    if found is None:
        raise Unreadable("there is no whole JSON object in the answer")
    try:
        return form.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


def _first_object(answer: str, keys: set[str]) -> dict[str, Any] | None:
    """The first whole JSON object of a text that has all of ``keys``, else the first one; None for none."""
    decoder = json.JSONDecoder()
    best: dict[str, Any] | None = None
    for start in [match.start() for match in re.finditer(r"\{", answer)][:50]:
        try:
            value, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            if keys <= value.keys():
                return value
            best = best or value
    return best


def _span(text: str, words: str) -> Span | None:
    """Where the words stand in a text, in any case and with any blanks between them; None where they do not."""
    parts = words.strip().strip(".\"'").split()
    if sum(map(len, parts)) <= 2:
        return None
    found = re.search(r"\s+".join(map(re.escape, parts)), text, re.IGNORECASE)
    return Span(start=found.start(), end=found.end()) if found else None


def strict(value: Any) -> Any:
    """Every property required and none besides: what OpenAI's strict mode and its followers ask for."""
    if isinstance(value, dict):
        inner = {key: strict(entry) for key, entry in value.items() if key not in ("title", "default")}
        if "properties" in inner:
            inner |= {"required": list(inner["properties"]), "additionalProperties": False}
        return inner
    return [strict(entry) for entry in value] if isinstance(value, list) else value
