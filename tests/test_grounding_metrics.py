"""Measures of grounding against closed forms."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radpref.grounding import (
    Value,
    attention_ratio,
    js,
    kl,
    mean_metric,
    paired_mean,
    pass_at,
    pass_metrics,
    pointing,
    relative,
    reward_share,
)
from radpref.grounding.metrics import centre, over_layers, uniform

grids = arrays(np.float64, (4, 5), elements=st.just(0.0) | st.floats(1e-6, 1))
MASK = np.zeros((4, 4))
MASK[1, 2] = MASK[1, 3] = 1.0


def test_even_attention_scores_chance_everywhere() -> None:
    even = uniform(4, 4)
    assert attention_ratio(even, MASK) == pytest.approx(1)
    assert kl(even, MASK) == pytest.approx(math.log(8))
    assert pointing(even, MASK) == pytest.approx(2 / 16)
    m, half = 1 / 2, (1 / 2 + 1 / 16) / 2
    expected = (2 * m * math.log(m / half) + 2 / 16 * math.log(1 / 16 / half) + 14 / 16 * math.log(2)) / 2
    assert js(even, MASK) == pytest.approx(expected)


def test_attention_on_the_lesion_alone_is_perfect() -> None:
    assert attention_ratio(MASK, MASK) == pytest.approx(8)
    assert kl(3 * MASK, MASK) == pytest.approx(0, abs=1e-6)
    assert js(3 * MASK, MASK) == pytest.approx(0)
    assert pointing(MASK, MASK) == 1


def test_attention_beside_the_lesion_is_the_worst() -> None:
    beside = np.zeros((4, 4))
    beside[0, 0] = 1
    assert attention_ratio(beside, MASK) == 0
    assert js(beside, MASK) == pytest.approx(math.log(2))
    assert kl(beside, MASK) > 15
    assert pointing(beside, MASK) == 0
    assert pointing(beside, MASK, tolerance=1) == 0
    assert pointing(beside, MASK, tolerance=2) == 1  # two columns away


def test_partly_covered_cells_count_partly() -> None:
    mask = np.zeros((2, 2))
    mask[0, 0], mask[0, 1] = 1.0, 0.5
    attention = np.array([[4.0, 2.0], [1.0, 1.0]])
    assert attention_ratio(attention, mask) == pytest.approx((4 + 1) / (8 / 4 * 1.5))


@pytest.mark.parametrize("measure", [attention_ratio, kl, js, pointing])
def test_nothing_to_measure_is_none_and_not_zero(measure: object) -> None:
    assert measure(uniform(4, 4), np.zeros((4, 4))) is None  # type: ignore[operator]
    assert measure(np.zeros((4, 4)), MASK) is None  # type: ignore[operator]


@given(grids, grids)
def test_bounds_and_scale(attention: np.ndarray, mask: np.ndarray) -> None:
    assume(attention.sum() > 1e-3 and mask.sum() > 1e-3)
    assert 0 <= attention_ratio(attention, mask) <= attention.size + 1e-9
    assert kl(attention, mask) >= -1e-9
    assert 0 <= js(attention, mask) <= math.log(2)
    assert 0 <= pointing(attention, mask) <= 1
    for measure in (attention_ratio, kl, js, pointing):
        assert measure(attention / 4, mask) == pytest.approx(measure(attention, mask), abs=1e-9)


def test_relative_attention_cancels_what_every_prompt_looks_at() -> None:
    habit = np.array([[8.0, 1.0], [1.0, 1.0]])
    asked = habit * np.array([[1.0, 1.0], [3.0, 1.0]])
    np.testing.assert_allclose(relative(asked, habit), [[1, 1], [3, 1]])
    assert relative(asked, 0 * habit) is None
    assert np.isfinite(relative(asked, np.array([[1.0, 0.0], [0.0, 0.0]]))).all()


def test_the_centre_blob_is_greatest_and_even_in_the_middle() -> None:
    blob = centre(4, 4)
    assert blob.max() == blob[1, 1] == blob[2, 2] == pytest.approx(blob[1, 2])
    assert blob[0, 0] == blob.min()


def test_reward_share() -> None:
    rewards = np.array([3.0, -1.0, 0.5, 0.5])
    spans = np.array([True, False, True, False])
    assert reward_share(rewards, spans) == pytest.approx(3.5 / 5)
    assert reward_share(rewards, spans, top=0.25) == 1
    assert reward_share(rewards, spans, top=0.5) == pytest.approx((1 + 0.5) / 2)  # two tokens tie for the second place
    assert reward_share(rewards, spans, top=1.0) == pytest.approx(0.5)
    assert reward_share(np.zeros(4), spans) is None
    assert reward_share(np.zeros(4), spans, top=0.5) == pytest.approx(0.5)  # all tie: chance
    assert reward_share(np.zeros(0), np.zeros(0, np.bool_)) is None
    with pytest.raises(ValueError, match="one number a token"):
        reward_share(rewards, spans[:2])
    with pytest.raises(ValueError, match="top is 0"):
        reward_share(rewards, spans, top=0)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations([True] * right + [False] * (n - right), k))
    assert pass_at(n, right, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


def test_pass_metrics_leave_out_what_was_not_judged() -> None:
    right = {"a": [True, False, None, False], "b": [None, None, None, None], "c": [True, True, True, True]}
    one, four = pass_metrics("sft", right, {"a": "1", "b": "2", "c": "3"}, (1, 4))
    assert (one.name, one.n, one.value) == ("pass@1", 2, pytest.approx((1 / 3 + 1) / 2))
    assert (four.name, four.n, four.value, four.low) == ("pass@4", 1, 1.0, None)
    with pytest.raises(ValueError, match="k must be 1 to n"):
        pass_at(4, 2, 5)


def test_means_are_over_values_and_intervals_over_patients() -> None:
    values = [Value("a", 1.0), Value("a", 1.0), Value("b", 0.0), Value("b", None)]
    metric = mean_metric("sft", "x", values)
    assert (metric.value, metric.n, metric.unit) == (pytest.approx(2 / 3), 3, "patient")
    assert (metric.low, metric.high) == (0.0, 1.0)
    assert mean_metric("sft", "x", list(reversed(values))) == metric
    empty = mean_metric("sft", "x", [Value("a", None)])
    assert (empty.value, empty.low, empty.n) == (None, None, 0)


def test_paired_test_is_exact_for_few_patients_and_blind_to_a_shared_part() -> None:
    patients = {str(i): f"p{i}" for i in range(6)}
    base = {key: 10.0 * place for place, key in enumerate(patients)}
    more = {key: value + 1 for key, value in base.items()}
    found = paired_mean("x", ("a", base), ("b", more), patients)
    assert found is not None
    assert (found.difference, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 6)
    assert found.p == pytest.approx(2 / 2**6)
    assert paired_mean("x", ("a", {"0": 1.0}), ("b", {"0": 2.0}), patients) is None


def test_a_mean_over_layers_is_over_those_that_have_a_value() -> None:
    assert over_layers([1.0, None, 3.0]) == 2
    assert over_layers([None]) is None
