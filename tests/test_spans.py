"""Spans of what differs, and the tokens that they are written in."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radpref.models import encode_answer, lost, token_mask
from radpref.pairs.spans import Marked, changes, distance, fault, marked, same_words, spliced
from radpref.records import Span

from .tiny import FAMILIES, tiny_vlm

WORDS = (
    "No",
    "small",
    "left",
    "pleural",
    "effusion",
    ".",
    ",",
    "is",
    "seen",
    "Épanchement",
    "1.5",
    "right-sided",
    "it's",
)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def cut(text: str, spans: tuple[Span, ...]) -> list[str]:
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("before", "after", "ours", "theirs"),
    [
        ("Small left effusion.", "Small right effusion.", ["left"], ["right"]),
        ("There is a small left effusion.", "There is no effusion.", ["a small left"], ["no"]),
        ("No effusion.", "No left effusion.", ["effusion"], ["left effusion"]),
        ("No effusion", "No effusion seen", ["effusion"], ["effusion seen"]),
        ("A B, C D", "A X, Y D", ["B, C"], ["X, Y"]),
        ("same words", "same  words", [], []),
    ],
)
def test_spans_are_minimal(before: str, after: str, ours: list[str], theirs: list[str]) -> None:
    spans = marked(before, after)
    assert (cut(before, spans.before), cut(after, spans.after)) == (ours, theirs)


@given(texts, texts)
def test_spans_are_balanced_and_reproduce_the_texts(before: str, after: str) -> None:
    spans = marked(before, after)
    assert fault(before, after, spans) is None
    assert same_words(spliced(before, after, spans), after)
    assert same_words(spliced(after, before, Marked(spans.after, spans.before)), before)
    assert bool(spans.before) != same_words(before, after)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_texts_are_survived(before: str, after: str) -> None:
    assert fault(before, after, marked(before, after)) is None
    assert 0 <= distance(before, after) <= 1
    assert changes(before, after) == changes(after, before)


def test_distance_counts_words() -> None:
    assert changes("small left effusion", "small right effusion now") == 2
    assert distance("small left effusion", "small right effusion now") == 0.5
    assert distance("", "") == 0
    assert distance("one two", "") == 1


@pytest.mark.parametrize(
    "spans",
    [
        Marked((Span(start=0, end=1),), ()),
        Marked((Span(start=1, end=1),), (Span(start=0, end=1),)),
        Marked((Span(start=0, end=9),), (Span(start=0, end=1),)),
        Marked((Span(start=0, end=2), Span(start=1, end=3)), (Span(start=0, end=1), Span(start=1, end=2))),
    ],
    ids=["unlike numbers", "empty", "outside", "overlapping"],
)
def test_spans_that_cannot_be_are_refused(spans: Marked) -> None:
    assert fault("abc", "abc", spans)
    with pytest.raises(ValueError, match="cannot be used"):
        spliced("abc", "abc", spans)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=7), min_size=1, max_size=8
    ),
    chosen=st.sets(st.integers(0, 7)),
)  # fmt: skip
def test_the_tokens_of_a_span_are_those_that_overlap_it(family: str, words: list[str], chosen: set[int]) -> None:
    vlm = tiny_vlm(family)
    answer, spans = "", []
    for number, word in enumerate(words):
        start = len(answer)
        answer += word
        if number in chosen and word.strip():
            spans.append(Span(start=start, end=len(answer)))
        answer += " "
    assume(not any(token in answer for token in vlm.control.texts))  # hypothesis reads them in this project's code
    ids = encode_answer(vlm, answer)
    mask = token_mask(vlm, answer, spans)
    assert len(mask) == len(ids)
    assert not any(mask[-len(vlm.turn.end) :])
    assert lost(vlm, answer, spans) == 0
    assert any(mask) == bool(spans)
    assert token_mask(vlm, answer, [Span(start=0, end=len(answer))]) == [True] * (len(ids) - len(vlm.turn.end)) + [
        False
    ] * len(vlm.turn.end)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_marked_word_gives_its_own_tokens_and_no_others(family: str) -> None:
    vlm = tiny_vlm(family)
    answer = "Small left pleural effusion."
    ids = encode_answer(vlm, answer)
    for word in ("Small", "left", "effusion", "."):
        start = answer.index(word)
        mask = token_mask(vlm, answer, [Span(start=start, end=start + len(word))])
        told = vlm.tokenizer.decode([i for i, yes in zip(ids, mask, strict=True) if yes])
        assert told.strip() == word


def test_a_span_without_characters_is_lost() -> None:
    assert lost(tiny_vlm("llava"), "left", [Span(start=4, end=4), Span(start=0, end=4)]) == 1
