"""Counterfactual rationales: the reference answer against itself with one clinical attribute changed (CheXPO).

An editor writes them, by rule or by a chat model, under the contract of `pairs.edit`; here they are read once more,
and kept where both readings differ in exactly one attribute of one finding. An answer without findings (a view, a
count) is kept where its short answer has become wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from radpref.config import EditSection
from radpref.findings import read
from radpref.findings.rewrite import difference
from radpref.pairs.edit import NO_ANSWER, Built, EditCase, Edited, Editor, built, case_of, edit, edit_pairs, right
from radpref.records import Completion, Finding, Question
from radpref.tasks.answers import matches, statement

NOT_RIGHT = "the text to be changed is not right itself"
NOT_ONE = "more than one attribute has changed"
NO_REFERENCE = "there is no reference, and no answer of the model that is right or can be set right"
OWN_RIGHT = "the model's own answer is right"


def counterfactuals(
    questions: Sequence[Question],
    editor: Editor,
    section: EditSection,
    words: Mapping[str, str] | None = None,
) -> Built:
    """Pairs: chosen the reference, rejected the same with one attribute changed.

    Args:
        editor: one of ``EDITORS``, made with ``single(section)`` so that it changes one attribute.
        words: instead of the reference, the model's own text by question id, right already or made so (the chosen
            side of an edit); a question that is not in it keeps its reference.

    The chosen side is taken for true where it is the reference: a report is held against itself, and not against a
    truth of which its writer may have left something out. ``Pair.provenance`` tells ``finding``, ``attribute``,
    ``from`` and ``to``.
    """
    own = words or {}
    bare = {q.id for q in questions if not q.reference and q.id not in own}
    cases = [_case(question, own.get(question.id)) for question in questions if question.id not in bare]
    made = {one.id: _single(one) for one in edit(cases, editor, single(section))}
    made |= {name: Edited(id=name, failed=NO_REFERENCE) for name in bare}
    result = built(questions, made, "flip", {"editor": section.editor, "chosen": "reference"})
    pairs = []
    for pair in result.pairs:
        notes = _notes(made[pair.question])
        source = {"chosen": "own"} if pair.question in own else {}
        pairs.append(pair.model_copy(update={"provenance": {**pair.provenance, **source, **notes}}))
    return Built(pairs, result.dropped, result.edits)


def mended(
    questions: Sequence[Question], completions: Iterable[Completion], editor: Editor, section: EditSection
) -> dict[str, str]:
    """The model's own text of each question, right or set right: what is flipped where there is no reference."""
    return {pair.question: pair.chosen for pair in edit_pairs(questions, completions, editor, section).pairs}


def against_own(questions: Sequence[Question], completions: Iterable[Completion]) -> Built:
    """Pairs: chosen the reference, rejected the model's own wrong answer (of index 0); right answers give none."""
    own = {row.question: row.text for row in completions if row.index == 0}
    made = {}
    for question in questions:
        words = own.get(question.id, "").strip()
        known = bool(question.reference or question.answer)
        wrong = (
            known
            and bool(words)
            and not (
                right(case_of(question, words), words, EditSection())
                or matches(words, question.answer, question.closed)
            )
        )
        made[question.id] = (
            Edited(id=question.id, chosen=question.reference, rejected=words, was_right=False)
            if wrong
            else Edited(id=question.id, failed=NO_REFERENCE if not known else OWN_RIGHT if words else NO_ANSWER)
        )
    return built(questions, made, "sampled", {"rejected": "own answer", "chosen": "reference"})


def single(section: EditSection) -> EditSection:
    """The section for edits of one attribute."""
    return section.model_copy(update={"flips": 1})


def _case(question: Question, own: str | None) -> EditCase:
    if own is not None:
        return case_of(question, own)
    return replace(case_of(question, question.reference), truth=None)


def _single(one: Edited) -> Edited:
    if one.failed is not None:
        return one
    if not one.was_right:
        return Edited(id=one.id, failed=NOT_RIGHT)
    before, after = _readings(one)
    if _plain(before) != _plain(after) and difference(before, after) is None:
        return Edited(id=one.id, failed=NOT_ONE)
    return one


def _readings(one: Edited) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Of both sides, without the yes or no that they begin with: it answers the question and denies no finding."""
    return read(statement(one.chosen)), read(statement(one.rejected))


def _plain(findings: Sequence[Finding]) -> list[Finding]:
    return [finding.model_copy(update={"span": None}) for finding in findings]


def _notes(one: Edited) -> dict[str, str]:
    """What has changed; of an answer that names no finding, its words."""
    told = difference(*_readings(one))
    if told is not None:
        return {"finding": told.finding, "attribute": told.attribute, "from": told.before, "to": told.after}
    return {
        "finding": "; ".join(one.findings),
        "attribute": "; ".join(one.attributes),
        "from": " ".join(one.chosen[span.start : span.end] for span in one.chosen_spans),
        "to": " ".join(one.rejected[span.start : span.end] for span in one.rejected_spans),
    }
