"""The Gaussian process behind the ridge search, against dense linear algebra and surfaces that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.schedulers.rate_surface import (
    LOG10_OF_2,
    NO_RUN,
    NOISE,
    SHAPES,
    Floats,
    Kernel,
    Shape,
    Sites,
    fit,
    variances,
)


def places(chance: np.random.Generator, n: int, families: int = 1) -> Sites:
    """Draw places of up to 4 batch sizes and 5 rates of each family; places of one cell may be of one run."""
    group, rate, rung = chance.integers(0, 4, n), chance.integers(0, 5, n), chance.integers(0, 4, n)
    family = chance.integers(0, families, n)
    return Sites(
        x=rate / 2 - 1.0, y=2.0 * group - 3, t=rung / 3, family=family, group=4 * family + group,
        cell=20 * family + 5 * group + rate, run=np.where(rung == 0, NO_RUN, 40 * family + 5 * group + rate),
    )  # fmt: skip


def ridge(slope: float, rungs: int = 1) -> tuple[Sites, Floats]:
    """Return the ends of a grid of 6 batch sizes and 7 rates, and scores that fall off from a line of this slope."""
    y, x = (part.ravel() for part in np.meshgrid(np.arange(6) * 2.0 - 5, np.arange(7) / 2 - 1.5, indexing="ij"))
    group = np.repeat(np.arange(6), 7)
    cell = np.arange(42)
    sites = Sites(x, y, np.zeros(42), np.zeros(42, dtype=np.int64), group, cell, cell)
    return sites, -((x - slope * LOG10_OF_2 * y - 0.2) ** 2)


shapes = st.sampled_from(SHAPES)


@given(st.integers(0, 2**32 - 1), shapes)
def test_covariances_are_symmetric_positive_and_their_diagonal_is_known(seed: int, shape: Shape) -> None:
    sites = places(np.random.default_rng(seed), 30, families=2)
    matrix = Kernel(sites, sites).of(shape)
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix + NOISE * np.eye(30)).min() > 0
    assert np.diag(matrix) == pytest.approx(variances(sites, shape))
    assert (matrix[sites.family == 0][:, sites.family == 1] == 0).all()


@given(st.integers(0, 2**32 - 1))
def test_means_and_covariances_are_those_of_dense_algebra(seed: int) -> None:
    chance = np.random.default_rng(seed)
    seen, others, pending = places(chance, 12), places(chance, 7), places(chance, 3)
    scores = chance.normal(size=12)
    surface = fit(seen, scores)

    def cov(a: Sites, b: Sites) -> Floats:
        return Kernel(a, b).of(surface.shape)

    inverse = np.linalg.inv(cov(seen, seen) + NOISE * np.eye(12))
    assert surface.means(others) == pytest.approx(
        scores.mean() + cov(others, seen) @ inverse @ (scores - scores.mean()), abs=1e-6
    )
    both = Sites(*(np.concatenate([getattr(s, name) for s in (seen, pending)]) for name in Sites.__annotations__))
    inverse = np.linalg.inv(cov(both, both) + NOISE * np.eye(15))
    left = surface.variance * (cov(others, others) - cov(others, both) @ inverse @ cov(both, others))
    known = surface.known(pending)
    assert known.covariance(others, others) == pytest.approx(left, abs=1e-6 * surface.variance)
    assert known.variances(others) == pytest.approx(np.diag(left) + surface.variance * NOISE, abs=1e-6)


def test_what_is_pending_changes_no_mean_and_leaves_less_doubt() -> None:
    chance = np.random.default_rng(0)
    surface = fit(places(chance, 8), chance.normal(size=8))
    others, pending = places(chance, 20), places(chance, 4)
    nothing = pending.take(np.array([], dtype=np.int64))
    assert (surface.known(pending).variances(others) <= surface.known(nothing).variances(others) + 1e-9).all()


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_the_slope_of_a_ridge_is_found_from_a_third_of_it(slope: float) -> None:
    sites, scores = ridge(slope)
    some = np.random.default_rng(1).permutation(42)[:16]
    surface = fit(sites.take(some), scores[some])
    assert surface.shape.slope == slope
    assert surface.shape.apart == 0
    best = [int(np.argmax(surface.means(sites)[7 * group : 7 * group + 7])) for group in range(6)]
    truly = [int(np.argmax(scores[7 * group : 7 * group + 7])) for group in range(6)]
    assert sum(abs(a - b) for a, b in zip(best, truly, strict=True)) <= 1


def test_rates_without_an_order_are_taken_for_what_they_are() -> None:
    sites, scores = ridge(0.5)
    chance = np.random.default_rng(2)
    shuffled = np.concatenate([chance.permutation(scores[7 * group : 7 * group + 7]) for group in range(6)])
    assert fit(sites, 3 * shuffled).shape.apart > 0
