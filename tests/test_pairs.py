"""Ranked pairs: who may be chosen, who may be rejected, and a reason for every question without a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.config import PairSection
from radpref.pairs import Ranked, both, by_consensus, rank, statistics, unpair
from radpref.records import Completion, Judgement, Question

Candidate = tuple[float | None, str, bool]
"""Score (None: unscored), text, finished."""


def question(id: str) -> Question:
    return Question(
        id=id, study=id, patient=f"p-{id}", split="train", images=(), prompt="Findings?", reference="Clear."
    )


def rows(id: str, candidates: Sequence[Candidate]) -> tuple[list[Completion], list[Judgement]]:
    completions = [
        Completion(id=f"{id}/{i}", question=id, index=i, text=text, tokens=3, finished=finished)
        for i, (_, text, finished) in enumerate(candidates)
    ]
    judgements = [
        Judgement(
            id=f"{id}/{i}",
            question=id,
            judge="green",
            score=score,
            unscored=None if score is not None else "empty",
        )
        for i, (score, _, _) in enumerate(candidates)
    ]
    return completions, judgements


def ranked(candidates: Sequence[Candidate], **settings: object) -> Ranked:
    completions, judgements = rows("q", candidates)
    # the order of the tables must not matter
    return rank([question("q")], completions[::-1], judgements, PairSection.model_validate(settings))


def test_best_against_worst() -> None:
    (pair,) = ranked([(0.5, "b", True), (0.9, "a", True), (0.1, "c", True)]).pairs
    assert (pair.chosen, pair.rejected) == ("a", "c")
    assert (pair.chosen_score, pair.rejected_score) == (0.9, 0.1)
    assert pair.id == "q/1-2"
    assert pair.patient == "p-q"
    assert pair.provenance["chosen"] == "q/1"
    assert pair.provenance["judge"] == "green"


def test_the_reference_may_be_chosen() -> None:
    pair = ranked([(0.5, "b", True), (0.1, "c", False), (None, "d", True)], chosen="reference").pairs[0]
    assert (pair.chosen, pair.rejected, pair.chosen_score, pair.rejected_score) == ("Clear.", "c", None, 0.1)
    assert (pair.id, pair.provenance["chosen"], pair.provenance["rejected_finished"]) == (
        "q/reference-1",
        "reference",
        "no",
    )
    one = ranked([(0.5, "b", True)], chosen="reference")
    assert one.pairs[0].rejected == "b", "one answer is enough"
    same = ranked([(1.0, "Clear.", True)], chosen="reference")
    assert same.dropped == {"best and worst are the same text": 1}


def test_ranking_by_what_the_others_say() -> None:
    completions, judgements = rows("q", [(0.5, "b", True), (0.9, "a", True), (None, "c", True)])
    agreed = by_consensus(completions, [0.6, 0.2, 0.4])
    (pair,) = rank([question("q")], completions, agreed, PairSection()).pairs
    assert (pair.chosen, pair.rejected, pair.provenance["judge"]) == ("b", "a", "consensus")
    mean = both(agreed, judgements)
    assert [row.score for row in mean] == [pytest.approx(0.55), pytest.approx(0.55), None]
    assert {row.judge for row in mean} == {"green and consensus"}
    assert mean[2].unscored == "empty"
    tie = rank([question("q")], completions, mean, PairSection(tie=1e-3))
    assert tie.dropped == {"tie": 1}


def test_equal_scores_go_to_the_lower_index() -> None:
    (pair,) = ranked([(0.9, "a", True), (0.1, "b", True), (0.9, "c", True), (0.1, "d", True)]).pairs
    assert (pair.chosen, pair.rejected) == ("a", "b")


def test_unscored_is_neither_chosen_nor_rejected() -> None:
    result = ranked([(None, "x", True), (0.5, "a", True), (0.2, "b", True), (math.nan, "y", True)])
    (pair,) = result.pairs
    assert (pair.chosen, pair.rejected) == ("a", "b")
    assert result.unscored == {"empty": 1, "no finite score": 1}


def test_a_completion_without_judgement_takes_no_part() -> None:
    completions, judgements = rows("q", [(0.9, "a", True), (0.5, "b", True), (0.1, "c", True)])
    result = rank([question("q")], completions, judgements[1:], PairSection())
    assert [(p.chosen, p.rejected) for p in result.pairs] == [("b", "c")]
    assert result.unscored == {"no judgement": 1}


def test_unfinished_is_rejected_at_most() -> None:
    (pair,) = ranked([(0.9, "cut", False), (0.5, "a", True), (0.1, "b", True)]).pairs
    assert pair.chosen == "a"
    (pair,) = ranked([(0.9, "a", True), (0.1, "cut", False)]).pairs
    assert pair.rejected == "cut"
    assert pair.provenance["rejected_finished"] == "no"
    (pair,) = ranked([(0.9, "cut", False), (0.1, "b", True)], drop_unfinished=False).pairs
    assert pair.chosen == "cut"


@pytest.mark.parametrize(
    ("candidates", "settings", "reason"),
    [
        ([], {}, "no candidate"),
        ([(0.5, "a", True)], {}, "fewer than two scored candidates"),
        ([(0.5, "a", True), (None, "b", True)], {}, "fewer than two scored candidates"),
        ([(0.5, "a", False), (0.1, "b", False)], {}, "no scored candidate is finished"),
        ([(0.5, "a", True), (0.5 + 1e-9, "b", True)], {}, "tie"),
        ([(0.5, "a", True), (0.9, "cut", False)], {}, "tie"),
        ([(0.5, "a", True), (0.4, "b", True)], {"margin": 0.2}, "difference below the margin"),
        ([(0.5, "a  b", True), (0.4, "a b\n", True)], {}, "best and worst are the same text"),
    ],
)
def test_reasons(candidates: list[Candidate], settings: dict[str, object], reason: str) -> None:
    result = ranked(candidates, **settings)
    assert result.pairs == []
    assert result.dropped == {reason: 1}


def test_limit_takes_the_first_in_the_order_of_the_questions() -> None:
    ids = ["b", "c", "a"]
    tables = [rows(id, [(0.9, "x", True), (0.1, "y", True)]) for id in ids]
    completions = [row for table, _ in tables for row in table]
    judgements = [row for _, table in tables for row in table]
    result = rank([question(id) for id in ids], completions, judgements, PairSection(limit=2))
    assert [pair.question for pair in result.pairs] == ["b", "c"]
    assert result.dropped == {"beyond the limit": 1}


def test_two_judgements_of_one_answer_are_refused() -> None:
    completions, judgements = rows("q", [(0.9, "a", True), (0.1, "b", True)])
    with pytest.raises(ValueError, match="judged twice"):
        rank([question("q")], completions, [*judgements, judgements[0]], PairSection())
    mixed = [judgements[0], judgements[1].model_copy(update={"judge": "text"})]
    with pytest.raises(ValueError, match="several judges"):
        rank([question("q")], completions, mixed, PairSection())


candidates = st.lists(
    st.tuples(
        st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(allow_nan=True),
        st.sampled_from(["clear", "effusion", "no effusion"]),
        st.booleans(),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), candidates), st.floats(0, 1), st.sampled_from([None, 1, 2]))
def test_whatever_comes_in(world: dict[str, list[Candidate]], margin: float, limit: int | None) -> None:
    tables = [rows(id, some) for id, some in world.items()]
    section = PairSection(margin=margin, limit=limit)
    result = rank(
        [question(id) for id in world],
        [row for table, _ in tables for row in table],
        [row for _, table in tables for row in table],
        section,
    )
    assert len(result.pairs) + sum(result.dropped.values()) == len(world)
    assert len({pair.id for pair in result.pairs}) == len(result.pairs)
    assert limit is None or len(result.pairs) <= limit
    for pair in result.pairs:
        own = world[pair.question]
        chosen, rejected = (own[int(pair.provenance[side].split("/")[1])] for side in ("chosen", "rejected"))
        scores = [score for score, _, _ in own if score is not None and math.isfinite(score)]
        assert chosen[0] is not None
        assert rejected[0] is not None
        assert rejected[0] == min(scores)
        assert chosen[2]
        assert chosen[0] == max(s for s, _, done in own if done and s is not None and math.isfinite(s))
        assert chosen[0] - rejected[0] > section.tie
        assert chosen[0] - rejected[0] >= margin
        assert pair.chosen != pair.rejected
    assert sum(result.unscored.values()) == sum(
        score is None or not math.isfinite(score) for some in world.values() for score, _, _ in some
    )


def test_statistics() -> None:
    pairs = ranked([(0.9, "no effusion seen", True), (0.1, "clear", True)]).pairs
    assert statistics(pairs) == {
        "pairs": 1.0,
        "chosen_words": 3.0,
        "rejected_words": 1.0,
        "chosen_longer": 1.0,
        "rejected_longer": 0.0,
        "chosen_score": 0.9,
        "rejected_score": 0.1,
        "score_difference": 0.8,
    }
    assert statistics([]) == {}


def test_unpair_gives_both_sides() -> None:
    (pair,) = ranked([(0.9, "a", True), (0.1, "b", True)]).pairs
    assert [(row.text, row.desirable) for row in unpair([pair])] == [("a", True), ("b", False)]
    assert [row.id for row in unpair([pair])] == ["q/0-1/chosen", "q/0-1/rejected"]
