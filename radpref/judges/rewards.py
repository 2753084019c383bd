"""Judges as rewards, in the form that TRL's GRPOTrainer and RLOOTrainer call: lists in, a number an answer out.

A reward is None where the judge could not judge; TRL leaves such an answer out of the mean, and so never learns
from a judge's failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from radpref.findings import read
from radpref.judges.case import Case
from radpref.judges.contract import Judge

Reward = Callable[..., list[float | None]]
"""``(prompts, completions, **columns)`` to a reward for each completion; columns are the data set's."""

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or a conversation whose assistant turns are the answer."""

_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)


def reward_function(judge: Judge, *, reference: str = "reference", name: str | None = None) -> Reward:
    """A judge as a TRL reward: the score of every completion against the column ``reference``.

    Columns ``answer`` and ``closed``, where the data set has them, tell the judge of answers what is right, and
    ``labels`` (`Question.labels` each) tells the judge of labels.

    Args:
        judge: any judge; ``JUDGES[name]()`` makes one.
        reference: the data set's column with the reference reports.
        name: what TRL logs the reward as; the judge's own name where absent.
    """

    def reward(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        references = _column(columns, reference, len(completions))
        answers = columns.get("answer") or [""] * len(completions)
        closed = columns.get("closed") or [False] * len(completions)
        labels = columns.get("labels") or [()] * len(completions)
        cases = [
            Case(
                id=str(number),
                question=str(number),
                reference=told,
                candidate=_text(said),
                answer=answer,
                closed=bool(one_of_few),
                prompt=prompt if isinstance(prompt, str) else "",
                labels=tuple(known),
            )
            for number, (prompt, told, said, answer, one_of_few, known) in enumerate(
                zip(prompts, references, completions, answers, closed, labels, strict=True)
            )
        ]
        return [judgement.score for judgement in judge(cases)]

    reward.__name__ = name or str(getattr(judge, "name", "judge"))
    return reward


def answer_match(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answer: Sequence[str], **_: Any
) -> list[float | None]:
    """1 where any of the answer's comma-separated parts is one of the column ``answer``'s, else 0 (CheXPO-v2).

    The answer is what stands between ``<answer>`` tags, or the whole completion where there are none.
    """
    return [float(bool(_parts(_answer(said)) & _parts(told))) for said, told in zip(completions, answer, strict=True)]


def finding_graph(
    prompts: Sequence[Any], completions: Sequence[Completion], *, reference: Sequence[str], **_: Any
) -> list[float | None]:
    """Overlap of the findings' graphs of completion and column ``reference``, from 0 to 1 (CheXPO-v2).

    The mean of two intersections over unions, of entities and of relations; one of two empty sets is 1. CheXPO-v2
    reads the graph with a ReXKG-style model. Here `radpref.findings` reads it: an entity is a finding with its
    presence, a relation ties a finding to its side, its place, its severity or its change. None where the reference is
    empty: it says nothing, and saying nothing must not be rewarded.
    """
    return [
        _overlap(_text(said), told) if told.strip() else None for said, told in zip(completions, reference, strict=True)
    ]


def chexpo(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """CheXPO-v2's reward: `finding_graph`, and `answer_match` on top where the data set has a column ``answer``."""
    graph = finding_graph(prompts, completions, **columns)
    if columns.get("answer") is None:
        return graph
    match = answer_match(prompts, completions, **columns)
    return [(one or 0.0) + (other or 0.0) for one, other in zip(graph, match, strict=True)]


def _column(columns: Mapping[str, Any], name: str, length: int) -> Sequence[str]:
    if name not in columns:
        raise KeyError(
            f"the reward reads the column {name!r}, but the data set has {', '.join(sorted(columns)) or 'none'}; "
            "add it, or name another one: reward_function(judge, reference=...)"
        )
    column: Sequence[str] = columns[name]
    if len(column) != length:
        raise ValueError(f"the column {name!r} has {len(column)} rows for {length} completions")
    return column


def _text(completion: Completion) -> str:
    """The answer's words, of a text or of the assistant's turns of a conversation."""
    if isinstance(completion, str):
        return completion
    parts: list[str] = []
    for turn in completion:
        content: Any = turn.get("content") or ""
        if turn.get("role", "assistant") == "assistant":
            parts += [content] if isinstance(content, str) else [str(part.get("text") or "") for part in content]
    return " ".join(part for part in parts if part)


def _answer(completion: Completion) -> str:
    text = _text(completion)
    tagged = _ANSWER.search(text)
    return tagged[1] if tagged else text


def _parts(answer: str) -> set[str]:
    return {part for raw in answer.split(",") if (part := " ".join(raw.lower().strip(" .\n\t").split()))}


def _overlap(said: str, told: str) -> float:
    ours, theirs = _graph(_answer(said)), _graph(told)
    return sum(_iou(a, b) for a, b in zip(ours, theirs, strict=True)) / 2


def _graph(text: str) -> tuple[set[Hashable], set[Hashable]]:
    findings = read(text)
    entities: set[Hashable] = {(finding.name, finding.presence) for finding in findings}
    relations: set[Hashable] = {
        (finding.name, finding.presence, relation, value)
        for finding in findings
        for relation in ("side", "place", "severity", "change")
        if (value := getattr(finding, relation)) is not None
    }
    return entities, relations


def _iou(ours: set[Hashable], theirs: set[Hashable]) -> float:
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0
