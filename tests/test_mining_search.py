"""The search is exact: it equals a plain sort of all distances, ties included, whatever the blocks are."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radpref.mining import Part, SearchError, approximate, search, signs, unit
from radpref.mining.distinct import distinct


def plain(
    parts: list[Part], k: int, groups: list[tuple[Tensor, Tensor]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All distances in float64 by their definition, then a stable sort: the nearest, of equals the first."""
    total = torch.zeros(parts[0].queries.shape[0], parts[0].gallery.shape[0], dtype=torch.float64)
    for part in parts:
        a, b = torch.as_tensor(part.queries).double(), torch.as_tensor(part.gallery).double()
        if part.kind == "cosine":
            total += part.weight * (1 - a @ b.T)
        else:
            total += part.weight * (a[:, None] != b[None]).double().mean(-1)
    for of_query, of_row in groups or []:
        total[of_query[:, None] == of_row[None]] = torch.inf
    distance = total.round(decimals=9)  # parts add up in another order there: 1e-16 apart
    order = torch.from_numpy(np.argsort(distance.numpy(), axis=1, kind="stable"))[:, :k]
    return order.numpy(), total.gather(1, order).numpy()


def world(seed: int, queries: int, gallery: int, dims: int, clones: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors and signs; with ``clones`` few distinct rows, so that most distances are ties."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(6 if clones else queries + gallery, dims, generator=generator)
    pick = torch.randint(len(pool), (queries + gallery,), generator=generator) if clones else torch.arange(len(pool))
    vectors = unit(pool[pick])
    flags = signs(torch.rand(queries + gallery, 5, generator=generator) < 0.4)
    return vectors[:queries], vectors[queries:], flags[:queries], flags[queries:]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 9),
    gallery=st.integers(1, 90),
    dims=st.integers(2, 24),
    k=st.integers(1, 12),
    clones=st.booleans(),
    weights=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0])] * 2),
    block=st.integers(1, 100),
    tile=st.integers(1, 10),
    spare=st.integers(0, 20),
)
def test_it_equals_a_plain_sort(
    seed: int, queries: int, gallery: int, dims: int, k: int, clones: bool, weights: tuple[float, float], block: int,
    tile: int, spare: int,
) -> None:  # fmt: skip
    q, g, flags_q, flags_g = world(seed, queries, gallery, dims, clones)
    parts = [Part(q, g, weights[0]), Part(flags_q, flags_g, weights[1], "signs")]
    if not any(weights):
        with pytest.raises(SearchError, match="weight other than 0"):
            search(parts, k)
        return
    found = search(parts, k, block=block, tile=tile, spare=spare)
    order, distance = plain(parts, k)
    here = min(k, gallery)
    assert found.row.shape == (queries, k)
    np.testing.assert_array_equal(found.row[:, :here].numpy(), order)
    np.testing.assert_allclose(found.distance[:, :here].numpy(), distance, atol=1e-12)
    assert (found.row[:, here:] == -1).all()
    assert found.distance[:, here:].isposinf().all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), clones=st.booleans(), groups=st.integers(1, 6))
def test_rows_of_the_same_group_are_left_out(seed: int, clones: bool, groups: int) -> None:
    q, g, *_ = world(seed, 7, 60, 12, clones)
    generator = torch.Generator().manual_seed(seed)
    own = [(torch.randint(groups, (7,), generator=generator), torch.randint(groups, (60,), generator=generator))]
    own.append((torch.arange(7), torch.arange(60)))
    found = search([Part(q, g)], 8, exclude=own, block=16)
    order, distance = plain([Part(q, g)], 8, own)
    for row in range(7):
        real = np.isfinite(distance[row])
        np.testing.assert_array_equal(found.row[row].numpy(), np.where(real, order[row], -1))
        assert found.distance[row].isposinf().numpy().tolist() == (~real).tolist()


def test_blocks_tiles_and_spare_make_no_difference_to_the_last_bit() -> None:
    q, g, flags_q, flags_g = world(3, 40, 700, 32, clones=False)
    g = torch.cat([g, g[:200]])  # twins: ties whose order must be the gallery's
    flags_g = torch.cat([flags_g, flags_g[:200]])
    parts = [Part(q, g), Part(flags_q, flags_g, 1.0, "signs"), Part(q, g, -0.25)]
    first = search(parts, 10)
    for block, tile, spare in ((1, 40, 0), (64, 7, 3), (257, 1, 30), (899, 13, 14), (1024, 64, 900)):
        again = search(parts, 10, block=block, tile=tile, spare=spare)
        assert torch.equal(first.row, again.row)
        assert torch.equal(first.distance, again.distance)


def test_long_rows_are_folded_and_still_exact() -> None:
    q, g, *_ = world(5, 5, 4096, 16, clones=False)
    found = search([Part(q, g)], 10)
    order, _ = plain([Part(q, g)], 10)
    np.testing.assert_array_equal(found.row.numpy(), order)


def test_far_queries_are_proved_by_integers_and_ties_are_not() -> None:
    q, g, *_ = world(1, 20, 500, 64, clones=False)
    assert search([Part(q, g)], 5).searched == {"int8": 20}
    q = unit(torch.eye(64)[:20])  # every other row of the gallery is at the same distance
    assert search([Part(q, unit(torch.eye(64)))], 5).searched == {"int8": 20, "float64": 20}


def test_rows_that_repeat_are_searched_once_and_spread() -> None:
    q, g, flags_q, flags_g = world(1, 20, 500, 64, clones=True)
    assert search([Part(q, g)], 5).searched == {"distinct": 20}
    one = torch.arange(500) % 400 // 80  # a patient has many of the same rows: what is listed does not do
    own = [(torch.arange(20) % 5, one)]
    found = search([Part(q, g), Part(flags_q, flags_g, 0.5, "signs")], 7, exclude=own)
    order, _ = plain([Part(q, g), Part(flags_q, flags_g, 0.5, "signs")], 7, own)
    np.testing.assert_array_equal(found.row.numpy(), order)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), queries=st.integers(1, 30), k=st.integers(1, 9), pool=st.integers(1, 40),
    groups=st.integers(1, 8),
)  # fmt: skip
def test_repeating_rows_with_exclusions_equal_a_plain_sort(
    seed: int, queries: int, k: int, pool: int, groups: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = unit(torch.randn(pool, 9, generator=generator))
    g = vectors[torch.randint(pool, (150,), generator=generator)]
    q = g[torch.randint(150, (queries,), generator=generator)]
    own = [tuple(torch.randint(groups, (n,), generator=generator) for n in (queries, 150))]
    found = search([Part(q, g)], k, exclude=own)  # type: ignore[arg-type]
    order, distance = plain([Part(q, g)], k, own)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.row.numpy(), np.where(np.isfinite(distance), order, -1))


def test_distinct_rows_are_told_apart_by_their_bits() -> None:
    rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    found = distinct([rows, np.ones((5, 1), np.float16)])
    assert found is not None
    assert (found.first.tolist(), found.of.tolist()) == ([0, 1], [0, 1, 0, 0, 1])
    members, counts = found.members(2)
    assert (members.tolist(), counts.tolist()) == ([[0, 2], [1, 4]], [3, 2])
    assert distinct([torch.arange(9.0)[:, None]]) is None
    many = torch.arange(40_000.0)[:, None]
    assert distinct([many]) is None
    again = distinct([many % 1000])
    assert again is not None
    assert len(again.first) == 1000


def test_a_negative_weight_asks_for_unlike_rows() -> None:
    g = unit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    found = search([Part(g[:1], g, -1.0)], 3)
    assert found.row.tolist() == [[2, 1, 0]]
    assert found.distance.tolist() == [[-2.0, -1.0, 0.0]]


def test_memory_maps_of_half_precision_are_read_in_blocks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    q, g, *_ = world(2, 6, 300, 16, clones=False)
    half = g.half()
    file = np.memmap(tmp_path / "gallery.bin", np.float16, "w+", shape=tuple(half.shape))
    file[:] = half.numpy()
    from_file, from_memory = search([Part(q, file)], 4, block=50), search([Part(q, half)], 4)
    assert torch.equal(from_file.row, from_memory.row)
    assert torch.equal(from_file.distance, from_memory.distance)


def test_unit_vectors_lie_on_the_grid_and_zeros_stay() -> None:
    vectors = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    assert ((vectors * 2**20) == (vectors * 2**20).round()).all()
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]), atol=2e-6, rtol=0)


def test_the_hamming_distance_is_the_share_of_signs_that_differ() -> None:
    a = signs(torch.tensor([[True, False, True, False]]))
    b = signs(torch.tensor([[True, True, False, False], [True, False, True, False]]))
    assert search([Part(a, b, 2.0, "signs")], 2).distance.tolist() == [[0.0, 1.0]]


def test_parts_that_do_not_fit_are_an_error() -> None:
    q, g, *_ = world(1, 3, 5, 4, clones=False)
    with pytest.raises(SearchError, match="shapes"):
        search([Part(q, g), Part(q[:2], g)], 1)
    with pytest.raises(SearchError, match="shapes"):
        search([Part(q, g[:, :3])], 1)


def test_faiss_finds_the_same_where_it_looks_everywhere() -> None:
    pytest.importorskip("faiss")
    q, g, flags_q, flags_g = world(4, 12, 900, 24, clones=False)
    parts = [Part(q, g), Part(flags_q, flags_g, 0.5, "signs"), Part(q.flip(1), g, -0.5)]
    groups = [(torch.arange(12), torch.arange(900))]
    exact, found = search(parts, 6, exclude=groups), approximate(parts, 6, exclude=groups, probes=900)
    assert torch.equal(found.row, exact.row)
    assert torch.equal(found.distance, exact.distance)


def test_faiss_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    q, g, *_ = world(4, 2, 9, 4, clones=False)
    with pytest.raises(SearchError, match="pip install"):
        approximate([Part(q, g)], 1)
