"""Fronts and hypervolume against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.pareto.fronts import front_ranks, hypervolume, on_coarse_front, on_front

# A coarse grid makes ties common.
points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=25).map(
    lambda p: np.array(p, dtype=float).reshape(-1, 2)
)


def dominated(a: np.ndarray, others: np.ndarray) -> bool:
    """Some point costs no more and is no worse, and is better in one of the two."""
    no_worse = (others[:, 0] <= a[0]) & (others[:, 1] >= a[1])
    better = (others[:, 0] < a[0]) | (others[:, 1] > a[1])
    return bool((no_worse & better).any())


@given(points)
def test_the_front_is_the_non_dominated_points(p: np.ndarray) -> None:
    assert on_front(p).tolist() == [not dominated(a, p) for a in p]


@given(points)
def test_hypervolume_counts_the_cells_that_some_point_dominates(p: np.ndarray) -> None:
    reference = (10.0, 2.0)  # some points do not beat it
    cells = sum(
        bool(((p[:, 0] <= cost) & (p[:, 1] >= quality + 1)).any()) for cost in range(10) for quality in range(2, 12)
    )
    assert hypervolume(p, reference) == pytest.approx(cells)


@given(points, st.randoms())
def test_order_does_not_matter(p: np.ndarray, rng) -> None:
    order = list(range(len(p)))
    rng.shuffle(order)
    assert on_front(p)[order].tolist() == on_front(p[order]).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_points_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        on_front(np.array([[1.0, bad]]))
    with pytest.raises(ValueError, match="finite"):
        hypervolume(np.array([[bad, 1.0]]), (1.0, 0.0))


positive = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=25).map(
    lambda p: np.array(p, dtype=float).reshape(-1, 2)
)


@given(points)
def test_without_tolerance_the_coarse_front_is_the_front_less_duplicates(p: np.ndarray) -> None:
    coarse, front = p[on_coarse_front(p, 0.0)], p[on_front(p)]
    assert sorted(map(tuple, coarse)) == sorted({tuple(point) for point in front})


@given(positive, st.sampled_from([0.05, 0.5, 2.0]))
def test_the_coarse_front_covers_all_and_nothing_twice(p: np.ndarray, tolerance: float) -> None:
    taken = on_coarse_front(p, tolerance)
    kept = p[taken]

    def covers(a: np.ndarray, b: np.ndarray) -> bool:
        """No worse, and at most (1 + tolerance) times the cost."""
        return bool(a[1] >= b[1] and a[0] <= (1 + tolerance) * b[0])

    assert all(any(covers(a, b) for a in kept) for b in p[~taken])
    assert not any(covers(a, b) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j)


@given(points)
def test_fronts_are_peeled_one_by_one(p: np.ndarray) -> None:
    ranks = front_ranks(p)
    left, level = p, 0
    while len(left):
        front = on_front(left)
        assert sorted(map(tuple, left[front])) == sorted(map(tuple, p[ranks == level]))
        left, level = left[~front], level + 1
