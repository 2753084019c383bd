"""Confidence, cells, calibration, quotas, hit rates, and mining as a whole: closed forms and properties."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.config import MineSection
from radpref.mining import (
    Asked,
    Rows,
    Vectors,
    answer_span,
    apportion,
    as_tensor,
    calibration,
    cell,
    cells,
    confidence,
    correct_reports,
    cut,
    finding_vectors,
    mine,
    names_of,
    rate,
    remembered,
    retrieval_hits,
    sensitivity,
    tail_names,
    tempered,
    text_vectors,
    unit,
)
from radpref.mining.hits import random_rates
from radpref.mining.vectors import _bucket
from radpref.records import Finding, ImageFile, Judgement, Question, ReportError, Span, TokenScores

# ---------------------------------------------------------------------------------------------- confidence

SCORES = TokenScores(
    logps=(math.log(0.5), math.log(0.8), math.log(0.2), math.log(1.0)),
    margins=(0.1, 0.7, 0.05, 1.0),
    ends=(3, 7, 9, 9),
)
"""Of ``Yes, mild`` in tokens ``Yes``, ``, mi``, ``ld`` and the end."""


def test_confidence_by_every_rule_over_all_tokens() -> None:
    assert confidence(SCORES, "mean") == pytest.approx(0.625)
    assert confidence(SCORES, "minimum") == pytest.approx(0.2)
    assert confidence(SCORES, "geometric") == pytest.approx((0.5 * 0.8 * 0.2) ** 0.25)
    assert confidence(SCORES, "margin") == pytest.approx(1.85 / 4)


def test_confidence_over_a_span_takes_the_tokens_that_touch_it() -> None:
    assert confidence(SCORES, "mean", Span(start=0, end=3)) == pytest.approx(0.5)
    assert confidence(SCORES, "mean", Span(start=2, end=4)) == pytest.approx(0.65)
    assert confidence(SCORES, "margin", Span(start=8, end=9)) == pytest.approx(0.05)  # not the end token
    assert confidence(SCORES, "mean", Span(start=9, end=12)) is None
    assert confidence(TokenScores(logps=(), margins=(), ends=()), "minimum") is None


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ("No, there is no effusion.", "yes", "No"),
        ("The heart is large, so yes. No edema.", "no", "yes"),
        ("Abnormal image. Answer: no", "yes", "no"),
        ("Left lower lobe. The opacity is dense.", "right upper lobe", "Left lower lobe"),
        ("It is dense. The answer is: left base", "right base", "left base"),
        ("", "yes", None),
    ],
)
def test_the_models_own_answer_is_found_right_or_wrong(text: str, reference: str, said: str | None) -> None:
    span = answer_span(text, reference)
    assert (None if span is None else text[span.start : span.end]) == said


def test_the_four_cells_and_the_cut() -> None:
    assert [cell(right, sure, 0.5) for right in (False, True) for sure in (0.5, 0.49)] == [
        *("wrong-confident", "wrong-unsure"), *("right-confident", "right-unsure"),
    ]  # fmt: skip
    assert cut([0.1, 0.2, 0.3, 0.4, 0.5], 0.25) == pytest.approx(0.2)
    correct = {"a": False, "b": True, "c": False, "d": True, "without confidence": True}
    found, cuts = cells(correct, {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.2, "without verdict": 0.5}, 0.5)
    assert found == {"a": "wrong-confident", "b": "right-confident", "c": "wrong-unsure", "d": "right-unsure"}
    assert cuts == {"": pytest.approx(0.5)}


def test_cuts_within_groups_compare_like_with_like() -> None:
    correct = dict.fromkeys("abcd", False)
    sure = {"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.1}
    found, cuts = cells(correct, sure, 0.5, {"a": "basic", "b": "basic", "c": "report", "d": "report"})
    assert [found[id] for id in "abcd"] == ["wrong-confident", "wrong-unsure"] * 2
    assert cuts == {"basic": pytest.approx(0.85), "report": pytest.approx(0.15)}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_a_rescaled_confidence_gives_the_same_cells(values: list[float], quantile: float) -> None:
    """Quantiles, never absolutes: any model's own scale will do."""
    sure = {str(i): round(value, 3) for i, value in enumerate(values)}
    correct = {id: i % 2 == 0 for i, id in enumerate(sure)}
    halves = {id: value / 2 for id, value in sure.items()}
    assert cells(correct, sure, quantile)[0] == cells(correct, halves, quantile)[0]


def test_sensitivity_tells_how_the_hard_set_moves() -> None:
    sure = {str(i): i / 10 for i in range(10)}
    correct = dict.fromkeys(sure, False)
    rows = {row.quantile: row for row in sensitivity(correct, sure, 0.5, ["wrong-confident"])}
    assert rows[0.5].hard == 5
    assert rows[0.5].overlap == 1
    assert rows[0.8].hard == 2  # the cut is 7.2
    assert rows[0.8].overlap == pytest.approx(2 / 5)
    assert rows[0.2].overlap == pytest.approx(5 / 8)
    assert {row.overlap for row in sensitivity(correct, sure, 0.5, ["wrong-confident", "wrong-unsure"])} == {1.0}


def test_reports_are_wrong_by_errors_or_by_score_and_unscored_ones_are_neither() -> None:
    error = ReportError(kind="missing_finding", finding="edema")
    rows = [
        Judgement(id=f"{name}/0", question=name, judge="green", score=score, errors=errors,
                  unscored=None if score is not None else "empty")
        for name, score, errors in (
            ("a", 1.0, ()), ("b", 0.9, (error,)), ("c", 0.1, (error.model_copy(update={"significant": False}),)),
            ("d", None, ()),
        )
    ]  # fmt: skip
    assert correct_reports(rows, "errors") == {"a": True, "b": False, "c": True}
    assert correct_reports(rows, "score", 0.5) == {"a": True, "b": True, "c": False}


# ---------------------------------------------------------------------------------------------- calibration


def test_calibration_of_one_confidence_is_its_distance_from_accuracy() -> None:
    found = calibration([0.8] * 10, [True] * 6 + [False] * 4, [str(i) for i in range(10)])
    assert found is not None
    assert found.ece_width == pytest.approx(0.2)
    assert found.ece_mass == pytest.approx(0.2)
    assert found.brier == pytest.approx(0.6 * 0.04 + 0.4 * 0.64)
    assert [(one.n, one.accuracy) for one in found.bins_width] == [(10, pytest.approx(0.6))]


def test_calibration_by_hand_with_both_kinds_of_bins() -> None:
    sure, right = [0.1, 0.2, 0.9, 1.0], [False, True, True, True]
    found = calibration(sure, right, list("abcd"), bins=2)
    assert found is not None
    # width: [0, .5) holds .1 and .2 (accuracy .5, confidence .15), [.5, 1] the others (1, .95)
    assert found.ece_width == pytest.approx(0.5 * 0.35 + 0.5 * 0.05)
    assert [one.n for one in found.bins_mass] == [2, 2]
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0) / 4)
    assert found.ece_width_interval is not None
    assert found.ece_width_interval[0] <= found.ece_width <= found.ece_width_interval[1]
    assert calibration([], [], []) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 12))
def test_ece_lies_between_the_mean_gap_and_one_and_bins_hold_all(rows: list[tuple[float, bool]], bins: int) -> None:
    sure, right = zip(*rows, strict=True)
    found = calibration(sure, right, ["p"] * len(rows), bins=bins, resamples=100)
    assert found is not None
    for ece, own in ((found.ece_width, found.bins_width), (found.ece_mass, found.bins_mass)):
        assert abs(found.accuracy - found.confidence) - 1e-12 <= ece <= 1
        assert sum(one.n for one in own) == len(rows)


# ---------------------------------------------------------------------------------------------- quotas


def test_quotas_in_closed_form() -> None:
    assert tempered([8, 2, 0], 1) == [0.8, 0.2, 0]
    assert tempered([8, 2, 0], 0) == [1, 1, 1]
    assert tempered([9, 1], 0.5) == pytest.approx([math.sqrt(0.9), math.sqrt(0.1)])
    assert apportion([0.8, 0.2], [100, 100], 10) == [8, 2]
    assert apportion([1, 1, 1], [100, 100, 100], 10) == [4, 3, 3]  # largest remainders, of equal ones the first
    assert apportion([1, 1, 1], [1, 100, 100], 11) == [1, 5, 5]  # never more than there are, the rest shared anew
    assert apportion([0.9, 0.1, 0], [2, 3, 50], 10) == [2, 3, 5]  # weight 0 takes what is left over
    assert apportion([1, 0, 0], [5, 5, 5], 4) == [4, 0, 0]
    assert apportion([3, 1], [2, 2], 100) == [2, 2]
    assert apportion([], [], 3) == []
    # Hamilton's apportionment of 43 seats among 5, 10, 15, 20 of 50
    assert apportion([5, 10, 15, 20], [99] * 4, 43) == [4, 9, 13, 17]


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50)), max_size=12),
    st.integers(0, 300),
)
def test_quotas_keep_to_capacities_and_spend_the_budget(rows: list[tuple[float, int]], total: int) -> None:
    weights, capacities = [w for w, _ in rows], [c for _, c in rows]
    given_ = apportion(weights, capacities, total)
    assert sum(given_) == min(total, sum(capacities))
    assert all(0 <= g <= c for g, c in zip(given_, capacities, strict=True))
    for (w, c), g in zip(rows, given_, strict=True):
        for (other_w, _), other in zip(rows, given_, strict=True):
            if w >= other_w and g < c:
                assert g >= other - 1  # who weighs no less and is not full has no less, but for the rounding


def test_quotas_refuse_what_cannot_be_shared() -> None:
    for arguments in (([1.0], [1, 2], 1), ([-1.0], [1], 1), ([1.0], [1], -1), ([math.inf], [1], 1)):
        with pytest.raises(ValueError, match="weight"):
            apportion(*arguments)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- hits and tails


def test_rates_count_answers_and_resample_patients() -> None:
    found = rate("x", [1, 0, 2], ["a", "a", "b"], [2, 1, 5])
    assert found.rate == pytest.approx(3 / 8)
    assert (found.n, found.patients) == (8, 2)
    assert found.low == pytest.approx(1 / 3)  # patient a alone
    assert found.high == pytest.approx(2 / 5)
    assert rate("none", [], []).rate is None


def test_the_random_rate_is_that_of_all_a_query_could_have_met() -> None:
    correct = [False, False, True, None, True]
    assert random_rates(correct, [], [0, 2]) == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    patients = ["p", "p", "q", "q", "r"]
    assert random_rates(correct, [patients], [0, 4]) == [0.0, pytest.approx(2 / 3)]


def test_retrieval_hits_leave_unscored_neighbours_out() -> None:
    found = retrieval_hits(
        [False, False, True, None, True], list("abcde"), [list("abcde")], [0, 1], [[1, 3, 2], [0, -1, -1]]
    )
    assert found.retrieved.rate == pytest.approx(2 / 3)
    assert found.retrieved.n == 3
    assert found.random.rate == pytest.approx(1 / 3)
    assert found.gain.rate == pytest.approx(1 / 3)
    assert found.at == (1.0, 1.0, pytest.approx(2 / 3))


def test_the_tail_is_the_rarest_findings_up_to_a_share() -> None:
    findings = ["a"] * 12 + ["b"] * 4 + ["c"] * 2 + ["d"] + [""]
    assert tail_names(findings, 0.2) == ("c", "d")
    assert tail_names(findings, 0.04) == ()
    assert tail_names(["x"], 0.9) == ()


# ---------------------------------------------------------------------------------------------- vectors


def everything(rows: Vectors) -> torch.Tensor:
    return as_tensor(rows, slice(None))


def test_text_vectors_tell_like_from_unlike_and_do_not_depend_on_company_of_equals() -> None:
    texts = [
        "Is there an effusion?",
        "Is there a large effusion?",
        "Where is the nodule?",
        "is there AN effusion",
        "",
    ]
    vectors = everything(text_vectors(texts, 256))
    cosine = vectors @ vectors.T
    assert torch.equal(vectors[0], vectors[3])
    assert cosine[0, 1] > cosine[0, 2]
    assert (vectors[4] == 0).all()
    assert torch.equal(vectors, everything(text_vectors(texts, 256)))


def test_texts_that_come_again_count_as_often_as_they_come() -> None:
    """Repeats are stored once, and weigh in the rarity of terms as if each stood there."""
    texts = ["an effusion", "a nodule", "an effusion", "an effusion", "no nodule"]
    vectors = text_vectors(texts, 64)
    dense = everything(vectors)
    for number, text in enumerate(texts):
        row = torch.zeros(64, dtype=torch.float64)
        words = text.split()
        for term in (*words, " ".join(words)):
            having = sum(term in (*own.split(), own) for own in texts)
            place, sign = _bucket(term, 64)
            row[place] += sign * (1 + math.log((1 + len(texts)) / (1 + having)))
        torch.testing.assert_close(dense[number], unit(row[None].float())[0], atol=2e-6, rtol=0)
    assert isinstance(vectors, Rows)
    assert torch.equal(as_tensor(vectors, torch.tensor([4, 0, 2])), dense[[4, 0, 2]])
    assert torch.equal(everything(vectors.take(np.array([3, 1]))), dense[[3, 1]])


@given(st.lists(st.integers(0, 5), max_size=40), st.data())
@settings(deadline=None, max_examples=50)
def test_rows_in_a_file_are_read_as_a_tensor_is(of: list[int], data: st.DataObject) -> None:
    distinct = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    rows = Rows([distinct[:4], distinct[4:]], np.array(of, dtype=np.int64))
    whole = distinct[of] if of else distinct[:0]
    assert rows.shape == tuple(whole.shape)
    assert torch.equal(everything(rows), whole)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40))))
    assert torch.equal(as_tensor(rows, slice(start, stop)), whole[start:stop])
    if of:
        which = torch.tensor(data.draw(st.lists(st.integers(0, len(of) - 1), min_size=1)))
        assert torch.equal(as_tensor(rows, which), whole[which])


def test_finding_vectors_hold_what_is_not_absent() -> None:
    edema, no_nodule = Finding(name="edema"), Finding(name="nodule", presence="absent")
    perhaps = Finding(name="nodule", presence="uncertain")
    rows = [(edema, no_nodule), (perhaps,), ()]
    vectors, names = finding_vectors([names_of(row) for row in rows])
    assert names == ["edema", "nodule"]
    assert everything(vectors).tolist() == [[1, -1], [-1, 1], [-1, -1]]


# ---------------------------------------------------------------------------------------------- mining as a whole


World = tuple[list[Asked], dict[str, bool], dict[str, float], dict[str, Vectors]]
"""Questions, correct, confidences, vectors."""


def pool(n: int = 60, seed: int = 0) -> World:
    """Questions about common (effusion) and rare (nodule) findings; of nodules most answers are wrong."""
    generator = np.random.default_rng(seed)
    questions, correct, sure = [], {}, {}
    for i in range(n):
        name = "nodule" if i % 6 == 0 else "pleural effusion"
        questions.append(
            Question(
                id=f"q{i:03d}",
                study=f"s{i}",
                patient=f"p{i // 2}",
                split="train",
                images=(ImageFile(path="x"),),
                prompt=f"Is there a {name}?",
                reference=f"Yes. There is a {name}.",
                task="basic" if i % 3 else "region",
                answer="yes",
                kind="presence",
                closed=True,
                about=(Finding(name=name),),
            )
        )
        correct[f"q{i:03d}"] = bool(generator.random() < (0.2 if name == "nodule" else 0.8))
        sure[f"q{i:03d}"] = float(generator.random())
    vectors: dict[str, Vectors] = {
        "question": text_vectors([q.prompt for q in questions], 64),
        "rationale": text_vectors([q.reference for q in questions], 64),
    }
    return remembered(questions), correct, sure, vectors


def test_mining_says_why_each_question_was_taken() -> None:
    questions, correct, sure, vectors = pool()
    section = MineSection(k=3, budget=20, exclude=("patient",))
    rows, summary = mine(questions, correct, sure, vectors, section, seed=1)
    assert len(rows) == summary.taken == 20
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    patient = {q.id: q.patient for q in questions}
    for row in rows:
        if row.of is None:
            assert row.correct is False
            assert row.cell in section.cells
        else:
            assert row.correct is True
            assert correct[row.of] is False
            assert patient[row.id] != patient[row.of]
            assert row.rank in (1, 2, 3)
            assert row.distance is not None
    assert {row.of is None for row in rows} == {True, False}
    taken = Counter(row.stratum for row in rows)
    assert all(row.quota == taken[row.stratum] for row in rows)
    assert sum(summary.cells.values()) == 60
    assert summary.hard == sum(not value for value in correct.values())


def test_neighbours_of_hard_questions_are_harder_than_random_where_like_questions_fail_alike() -> None:
    questions, correct, sure, vectors = pool(300)
    summary = mine(questions, correct, sure, vectors, MineSection(k=5, budget=30), seed=1).summary
    assert summary.retrieval is not None
    assert summary.retrieval.gain.low is not None
    assert summary.retrieval.gain.low > 0
    by_name = {one.name: one.rate for one in summary.found}
    assert by_name["random"] == pytest.approx(np.mean([not value for value in correct.values()]))
    assert summary.retrieval.retrieved.rate > summary.retrieval.random.rate + 0.1  # type: ignore[operator]


def test_quotas_bring_the_tail_in() -> None:
    questions, correct, sure, vectors = pool(300)
    correct = {q.id: i % 4 > 0 for i, q in enumerate(questions)}  # failures as frequent everywhere
    shares = {}
    for quota in ("proportional", "tempered", "uniform"):
        section = MineSection(k=3, budget=40, quota=quota, strata=("finding",))
        summary = mine(questions, correct, sure, vectors, section, seed=1).summary
        assert summary.tail == ("nodule",)
        shares[quota] = {one.name: one.rate for one in summary.tail_shares}
        assert shares[quota]["pool"] == pytest.approx(1 / 6)
    assert shares["uniform"]["taken"] == pytest.approx(1 / 2)
    assert shares["proportional"]["taken"] < shares["tempered"]["taken"] < shares["uniform"]["taken"]  # type: ignore[operator]


def test_quotas_of_the_pool_keep_the_shares_of_yes_and_no() -> None:
    questions, _, sure, vectors = pool(300)
    said = ["yes" if i % 3 == 0 else "no" for i in range(300)]
    questions = [q._replace(answer=a) for q, a in zip(questions, said, strict=True)]
    correct = {q.id: q.answer == "no" or i % 2 == 0 for i, q in enumerate(questions)}  # only yes is missed
    for quota, share in (("proportional", 1.0), ("pool", 1 / 3)):
        section = MineSection(k=60, budget=30, quota=quota, strata=("answer",))
        rows = mine(questions, correct, sure, vectors, section, seed=1).rows
        assert np.mean([row.stratum == ("", "", "", "yes") for row in rows]) == pytest.approx(share, abs=0.02), quota


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 100), budget=st.integers(1, 80), k=st.integers(0, 4), share=st.floats(0, 1),
    quota=st.sampled_from(["none", "uniform", "proportional", "tempered", "pool"]),
)  # fmt: skip
def test_mining_spends_its_budget_once_and_follows_from_its_seed(
    seed: int, budget: int, k: int, share: float, quota: str
) -> None:
    questions, correct, sure, vectors = pool(40, seed)
    section = MineSection(k=k, budget=budget + 0.0 if budget > 1 else 2, quota=quota, neighbours=share)  # type: ignore[arg-type]
    rows, summary = mine(questions, correct, sure, vectors, section, seed=seed, resamples=100)
    assert len({row.id for row in rows}) == len(rows) == min(summary.budget, summary.hard + summary.neighbours)
    assert mine(questions, correct, sure, vectors, section, seed=seed, resamples=100).rows == rows


def test_the_order_of_cells_is_the_order_of_preference() -> None:
    questions, correct, sure, vectors = pool()
    section = MineSection(k=0, budget=4, quota="none", cells=("wrong-confident", "wrong-unsure"))
    rows = mine(questions, correct, sure, vectors, section, seed=1).rows
    wrong = sorted((id for id in sure if not correct[id]), key=lambda id: -sure[id])
    assert {row.id for row in rows} == set(wrong[:4])
    fragile = section.model_copy(update={"cells": ("right-unsure",)})
    rows = mine(questions, correct, sure, vectors, fragile, seed=1).rows
    right = sorted((id for id in sure if correct[id]), key=lambda id: sure[id])
    assert {row.id for row in rows} == set(right[:4])


def test_unscored_answers_are_never_hard_but_may_be_neighbours() -> None:
    questions, correct, sure, vectors = pool()
    silent = {q.id for i, q in enumerate(questions) if i % 2}
    correct = {id: value for id, value in correct.items() if id not in silent}
    rows, summary = mine(questions, correct, sure, vectors, MineSection(k=5, budget=60), seed=1)
    assert summary.unscored == 30
    unscored = [row for row in rows if row.id in silent]
    assert unscored
    assert all(row.cell is None and row.correct is None and row.of for row in unscored)


def test_a_share_or_a_number_of_questions_is_the_budget() -> None:
    questions, correct, sure, vectors = pool()
    for budget, wanted in ((0.1, 6), (1.0, 60), (7, 7), (0.001, 1)):
        assert mine(questions, correct, sure, vectors, MineSection(budget=budget), seed=1).summary.budget == wanted
