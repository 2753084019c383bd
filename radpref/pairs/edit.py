"""Edits of the model's own words: what is wrong set right, or what is right made minimally wrong (FiRe-MPO).

An editor, by rule or by a chat model, turns cases into edits; nothing that it says is believed. `verify` judges both
sides again: the chosen side must agree with the truth, the rejected one must not, one of them must be the model's own
words, and outside the spans both must be the same words. Whatever fails is dropped with its reason and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, Protocol

from radpref.config import EditSection
from radpref.findings import lexicon
from radpref.findings.labelled import tellable
from radpref.findings.rewrite import contradictions
from radpref.judges import Verdict, compare, compare_labels, compare_truth
from radpref.pairs.backing import unbacked, vaguer
from radpref.pairs.spans import Marked, changes, fault, marked, same_words, size, spliced
from radpref.records import Completion, Finding, Pair, Quarantined, Question, Record, ReportError, Span
from radpref.tasks.answers import EXCLUSIVE, matches

NO_ANSWER = "no answer of the model"
UNFINISHED = "the model's answer is cut"
EMPTY = "the answer has no words"
UNREADABLE = "the reference tells nothing to edit by"
NO_EDIT = "no rewriting makes the answer right"
NO_COUNTERPART = "no rewriting makes the answer wrong in one attribute"
NOT_OWN = "neither side is the model's own words"
UNCHANGED = "both sides are the same words"
LANGUAGE = "the edit is not in English"
LENGTH = "the sides differ in length beyond the bound"
REWRITTEN = "the edit distance is beyond the bound"
UNBALANCED = "the spans are not balanced"
OUTSIDE = "words outside the spans differ"
STILL_WRONG = "the chosen side does not agree with the truth"
STILL_RIGHT = "the rejected side agrees with the truth"
UNBACKED = "the chosen side says what neither question nor reference tells"
VAGUER = "the rejected side only says less"
CONTRADICTS = "the edit contradicts itself"

_FREE_WORDS = 3
"""Words that may be changed in any answer: short answers have no others."""
_SENTENCE = 8
"""Words by which sides may always differ in length: a short sentence more or less."""
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class EditCase:
    """An answer of the model, and what is true."""

    id: str
    """The question's id; whatever is drawn for the case follows from it."""
    words: str
    """The model's own answer."""
    reference: str
    """The reference report, or the sentences of the reference answer."""
    truth: tuple[Finding, ...] | None = None
    """What is there, where that is known; it is then believed instead of the reference."""
    task: str = "report"
    prompt: str = ""
    """The question."""
    answer: str = ""
    """The short reference answer; empty for reports."""
    kind: str = ""
    closed: bool = False
    about: tuple[Finding, ...] = ()
    """What the question is about, where its source says."""
    labels: tuple[Finding, ...] = ()
    """What labels say of the study; they are believed where there is neither truth nor reference."""

    @property
    def bare(self) -> bool:
        """Whether labels are all that is known."""
        return self.truth is None and not self.reference.strip() and bool(self.labels)


class Edited(Record):
    """What an editor made of a case, or why it made nothing."""

    id: str
    chosen: str = ""
    rejected: str = ""
    chosen_spans: tuple[Span, ...] = ()
    rejected_spans: tuple[Span, ...] = ()
    findings: tuple[str, ...] = ()
    """What was edited, in order; a VQA answer's kind where it names no finding."""
    attributes: tuple[str, ...] = ()
    """For each of them what: presence, side, place, severity, type, change, answer."""
    was_right: bool | None = None
    """Whether the model's own words are the chosen side."""
    failed: str | None = None
    """Why there is no edit; the other fields then mean nothing."""


Editor = Callable[[Sequence[EditCase]], list[Edited]]
"""Edits in the order of the cases, one each. An editor fills all fields but the spans, which `edit` fills."""


class Maker(Protocol):
    """Makes an editor; raises an error that reaches the user where the section lacks what it needs."""

    def __call__(self, section: EditSection) -> Editor: ...


class Built(NamedTuple):
    """Pairs, and what became of the rest: ``len(pairs) + sum(dropped.values())`` is the number of questions."""

    pairs: list[Pair]
    """In the order of the questions, at most one a question."""
    dropped: dict[str, int]
    """Reason to the number of questions without a pair."""
    edits: list[Edited]
    """Every edit, failed ones with their reason, in the order of the questions."""

    def of(self, questions: Iterable[Question]) -> Iterator[list[Pair] | Quarantined]:
        """Of each question its pair, or why there is none."""
        made = {pair.question: pair for pair in self.pairs}
        why = {one.id: one.failed or "" for one in self.edits}
        for question in questions:
            pair = made.get(question.id)
            yield [pair] if pair else Quarantined(id=question.id, stage="pair", reason=why[question.id])


def case_of(question: Question, words: str) -> EditCase:
    """The case of a question that a model answered with ``words``."""
    return EditCase(
        id=question.id,
        words=words.strip(),
        reference=question.reference,
        truth=question.truth if question.task == "report" else None,
        task=question.task,
        prompt=question.prompt,
        answer=question.answer,
        kind=question.kind,
        closed=question.closed,
        about=question.about,
        labels=question.labels,
    )


def edit(cases: Sequence[EditCase], editor: Editor, section: EditSection) -> list[Edited]:
    """Edits of all cases, with their spans, each verified; one that does not hold has ``failed`` set."""
    return [_checked(case, one, section) for case, one in zip(cases, editor(cases), strict=True)]


def edit_pairs(
    questions: Sequence[Question], completions: Iterable[Completion], editor: Editor, section: EditSection
) -> Built:
    """Pairs out of the model's own answers: of each question its first one (index 0), greedy as a rule.

    A cut answer is not edited: its missing end is no mistake of words. ``Pair.provenance`` holds the editor, whether
    the model was right, and which finding was edited in which attribute.
    """
    first: dict[str, Completion] = {}
    for completion in sorted(completions, key=lambda completion: completion.index):
        first.setdefault(completion.question, completion)
    made: dict[str, Edited] = {}
    cases: list[EditCase] = []
    for question in questions:
        own = first.get(question.id)
        if own is None or not own.finished:
            made[question.id] = Edited(id=question.id, failed=UNFINISHED if own else NO_ANSWER)
        else:
            cases.append(case_of(question, own.text))
    made |= {one.id: one for one in edit(cases, editor, section)}
    return built(questions, made, "edit", {"editor": section.editor})


def built(
    questions: Sequence[Question], made: Mapping[str, Edited], suffix: str, provenance: Mapping[str, str]
) -> Built:
    """The pairs of verified edits, with the reasons of the others counted."""
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for question in questions:
        one = made[question.id]
        if one.failed is not None:
            dropped[one.failed] += 1
            continue
        pairs.append(
            Pair(
                id=f"{question.id}/{suffix}",
                question=question.id,
                patient=question.patient,
                images=question.images,
                prompt=question.prompt,
                chosen=one.chosen,
                rejected=one.rejected,
                chosen_spans=one.chosen_spans,
                rejected_spans=one.rejected_spans,
                provenance={
                    **provenance,
                    "was_right": "yes" if one.was_right else "no",
                    "findings": "; ".join(one.findings),
                    "attributes": "; ".join(one.attributes),
                },
            )
        )
    return Built(pairs, dict(dropped), [made[q.id] for q in questions])


def _checked(case: EditCase, one: Edited, section: EditSection) -> Edited:
    if one.failed is None and not one.chosen_spans and not one.rejected_spans:
        spans = marked(one.chosen, one.rejected)
        one = one.model_copy(update={"chosen_spans": spans.before, "rejected_spans": spans.after})
    reason = verify(case, one, section)
    return one if reason is None else Edited(id=one.id, was_right=one.was_right, failed=reason)


# ---------------------------------------------------------------- verification


def verify(case: EditCase, one: Edited, section: EditSection) -> str | None:
    """Why an edit must not become a pair; None where it may.

    In this order: the editor's own reason; the model's words on the side they belong to; something changed; English;
    ``section.max_length_ratio``; ``section.max_distance`` (`spans.distance`); balanced spans; the same words outside
    them; the chosen side right and the rejected one wrong, both judged again; of short answers the chosen side
    confirmed by question and reference, and the rejected one more than a part of it (`backing`); no contradiction
    that the model's own words do not have. Reports are right without a significant error of findings-based GREEN,
    short answers by `tasks.answers.matches`.
    """
    if one.failed is not None:
        return one.failed
    own, other = (one.chosen, one.rejected) if one.was_right else (one.rejected, one.chosen)
    if own != case.words:
        return NOT_OWN
    if same_words(one.chosen, one.rejected):
        return UNCHANGED
    if not english(other, f"{case.words} {case.reference} {case.answer} {case.prompt}"):
        return LANGUAGE
    counts = sorted((len(own.split()), len(other.split())))
    if counts[1] > max(counts[0] * section.max_length_ratio, counts[0] + _SENTENCE):
        return LENGTH
    if changes(own, other) > max(section.max_distance * max(size(own), size(other)), _FREE_WORDS):
        return REWRITTEN
    spans = Marked(one.chosen_spans, one.rejected_spans)
    if not spans.before or fault(one.chosen, one.rejected, spans):
        return UNBALANCED
    if not same_words(spliced(one.chosen, one.rejected, spans), one.rejected):
        return OUTSIDE
    if not right(case, one.chosen, section):
        return STILL_WRONG
    if right(case, one.rejected, section):
        return STILL_RIGHT
    if case.task != "report" and beyond(case, one.chosen):
        return UNBACKED
    if case.task != "report" and vaguer(one.rejected, one.chosen):
        return VAGUER
    if contradictions(other) - contradictions(own):
        return CONTRADICTS
    return None


def right(case: EditCase, words: str, section: EditSection) -> bool:
    """Whether an answer agrees with what is true."""
    if case.task != "report":
        return matches(words, case.answer, case.closed, case.prompt)
    verdict = judged(case, words)
    return verdict.score is not None and not errors(verdict, section)


def beyond(case: EditCase, words: str) -> bool:
    """Whether an answer says more than its question and its reference confirm."""
    return unbacked(words, prompt=case.prompt, answer=case.answer, reference=case.reference)


def judged(case: EditCase, words: str) -> Verdict:
    """A report against the truth where that is known, else against the reference, else against labels."""
    if case.bare:
        return _by_labels(case.labels, words)
    return compare_truth(case.truth, words) if case.truth is not None else compare(case.reference, words)


def _by_labels(labels: tuple[Finding, ...], words: str) -> Verdict:
    """The verdict of the judge `labels`; what is missing, and labels could not tell, is no mistake unless denied."""
    verdict = compare_labels(labels, words)
    untold = {label.name for label in labels if label.presence == "present" and not tellable(label)}

    def counted(error: ReportError) -> bool:
        return error.significant and not (
            error.kind == "missing_finding" and error.finding in untold and error.candidate_span is None
        )

    return replace(verdict, errors=tuple(e.model_copy(update={"significant": counted(e)}) for e in verdict.errors))


def errors(verdict: Verdict, section: EditSection) -> list[ReportError]:
    """The errors that an edit has to mend: significant ones, comparisons only with ``section.comparisons``."""
    compared = ("false_comparison", "missing_comparison")
    return [e for e in verdict.errors if e.significant and (section.comparisons or e.kind not in compared)]


_GRAMMAR = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "cannot", "could", "for"),
        *("from", "has", "have", "in", "into", "is", "it", "its", "may", "of", "on", "or", "over", "than"),
        *("that", "the", "there", "these", "this", "to", "was", "were", "which", "with", "within", "without"),
        *("no", "not", "none", "yes", "seen", "noted", "present", "absent", "evidence", "identified"),
        *("demonstrated", "visualized", "prior", "study", "image", "exam", "since", "compared", "chest"),
        *("view", "image", "patient", "normal", "abnormal", "otherwise", "other", "both", "all", "any"),
        *("some", "one", "two", "three", "first", "last", "likely", "possible", "appears", "remains", "now"),
        *("size", "limits", "ct", "scan", "mri", "ultrasound"),
    }
)


@cache
def _english() -> frozenset[str]:
    terms = " ".join(term for terms in lexicon().phrases.values() for term in terms)
    return frozenset(_LETTERS.findall(terms)).union(_GRAMMAR, *EXCLUSIVE)


def english(text: str, given: str = "") -> bool:
    """Whether at least two of three words are of our lexicon, of English grammar, or of what was given.

    A check against replies in another language or about something else, not of spelling.
    """
    known = _english() | frozenset(_LETTERS.findall(given.lower()))
    words = _LETTERS.findall(text.lower())
    return sum(word in known for word in words) * 3 >= len(words) * 2
