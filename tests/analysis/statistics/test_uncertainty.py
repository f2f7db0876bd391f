"""Fronts over draws: against brute force, against moocore, and calibrated on studies whose truth is known."""

from __future__ import annotations

import time

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t as student_t

from study.analysis.statistics.pooling import draw_means
from study.analysis.statistics.samples import Sample, mean_interval
from study.analysis.statistics.seed_noise import seed_noise
from study.analysis.statistics.uncertainty import frontier, hypervolumes, membership
from study.pareto.fronts import hypervolume, on_coarse_front, on_front

# A coarse grid makes ties common. Axes: draw, point, (cost, quality).
clouds = st.integers(1, 8).flatmap(lambda k: arrays(np.int64, (3, k, 2), elements=st.integers(0, 6)))


@given(clouds)
def test_membership_equals_brute_force(cloud: np.ndarray) -> None:
    cost, quality = cloud[..., 0].astype(float), cloud[..., 1].astype(float)
    member = membership(cost, quality)
    fronts = [on_front(draw) for draw in cloud.astype(float)]
    assert member == pytest.approx(np.mean(fronts, axis=0))


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.5]))
def test_membership_counts_close_costs_as_equal(seed: int, tolerance: float) -> None:
    cost, quality = np.random.default_rng(seed).random((2, 20, 6)) + 0.1
    fronts = [on_coarse_front(np.stack(draw, axis=1), tolerance) for draw in zip(cost, quality, strict=True)]
    assert membership(cost, quality, tolerance) == pytest.approx(np.mean(fronts, axis=0))


@given(clouds)
def test_hypervolume_is_moocores_and_a_count_of_cells(cloud: np.ndarray) -> None:
    reference = (5.0, 1.0)  # some points do not beat it
    areas = hypervolumes(cloud[..., 0].astype(float), cloud[..., 1].astype(float), reference)
    for draw, area in zip(cloud, areas, strict=True):
        cells = sum(bool(((draw[:, 0] <= c) & (draw[:, 1] >= q + 1)).any()) for c in range(0, 5) for q in range(1, 6))
        assert area == pytest.approx(cells)
        other_units = moocore.hypervolume(draw.astype(float), ref=list(reference), maximise=[False, True])
        assert area == pytest.approx(float(other_units))
        assert area == pytest.approx(hypervolume(draw.astype(float), reference))


def test_hypervolume_of_random_clouds_is_moocores() -> None:
    rng = np.random.default_rng(0)
    cost, quality = rng.random((50, 40)), rng.random((50, 40))
    expected = [
        moocore.hypervolume(np.stack([c, q], 1), ref=[0.9, 0.1], maximise=[False, True])
        for c, q in zip(cost, quality, strict=True)
    ]
    assert hypervolumes(cost, quality, (0.9, 0.1)) == pytest.approx(np.array(expected))


def study(rng: np.random.Generator, design: str, seeds: int) -> tuple[list[Sample], np.ndarray]:
    """Eight configurations with true places, and what `seeds` noisy seeds show of them."""
    k = 8
    if design == "scattered":
        cost, quality, level = rng.random(k), rng.random(k), rng.choice([0.01, 0.03, 0.1])
        noise = np.array([level, level])
    elif design == "trade-off":
        cost = np.sort(rng.random(k))
        quality, level = np.sqrt(cost) + 0.15 * rng.standard_normal(k), rng.choice([0.01, 0.03, 0.1])
        noise = np.array([level, level])
    else:  # batch sizes over a threefold cost, whose accuracies differ by as much as seeds do, or less, or more
        x = np.linspace(0, 1, k)
        cost = 3.0**x
        quality = 0.95 + 0.01 * rng.choice([0.3, 1, 3]) * rng.standard_normal(k)
        quality += 0.03 * rng.choice([0.3, 1, 3]) * x if design == "batches, trend" else 0
        noise = np.array([0.06, 0.01])
    uneven = noise * np.exp(0.3 * rng.standard_normal((k, 2)))  # every configuration has its own
    seen = np.stack([cost, quality], 1)[:, None] + uneven[:, None] * rng.standard_normal((k, seeds, 2))
    samples = [Sample(str(i), tuple(s[:, 0]), tuple(s[:, 1])) for i, s in enumerate(seen)]
    return samples, np.stack([cost, quality], 1)


def reliability_error(p: np.ndarray, true: np.ndarray) -> float:
    """Mean distance between what was promised and what came true, over ten bins weighed by their size."""
    bins = np.minimum((p * 10).astype(int), 9)
    return sum(abs(float((p - true)[bins == b].sum())) for b in range(10)) / len(p)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("design", ["scattered", "trade-off", "batches, no trend", "batches, trend"])
def test_membership_probabilities_are_calibrated(design: str, seeds: int) -> None:
    rng = np.random.default_rng(7)
    promised, true, covered = [], [], []
    for _ in range(300):
        samples, places = study(rng, design, seeds)
        reference = (float(places[:, 0].max() * 1.2), float(places[:, 1].min() - 0.05))
        found = frontier(samples, reference, n_draws=300)
        promised += [p.p_on_front for p in found.points]
        true += on_front(places).tolist()
        assert found.hypervolume_ci is not None
        covered.append(found.hypervolume_ci[0] <= hypervolume(places, reference) <= found.hypervolume_ci[1])
    error = reliability_error(np.array(promised, dtype=float), np.array(true, dtype=float))
    print(f"{design}, {seeds} seeds: reliability error {error:.3f}, hypervolume covered {np.mean(covered):.3f}")
    assert error <= 0.05
    assert np.mean(covered) >= 0.85


def test_intervals_of_points_are_students() -> None:
    found = frontier([Sample("a", (1.0, 2.0, 4.0), (0.5, 0.5, 0.8))] * 2, (5.0, 0.0))
    low, high = student_t.interval(0.95, 2, loc=7 / 3, scale=np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert found.points[0].cost_ci == pytest.approx((low, high))
    assert mean_interval((1.0,)) is None


def test_under_three_seeds_points_have_no_intervals() -> None:
    sure, unsure = Sample("a", (1.0, 2.0, 3.0), (0.5, 0.6, 0.7)), Sample("b", (2.0, 2.1), (0.9, 0.8))
    found = frontier([sure, unsure], (4.0, 0.0))
    assert found.points[0].cost_ci is not None
    assert (found.points[1].cost_ci, found.points[1].quality_ci) == (None, None)
    assert [p.p_on_front for p in found.points] == [None, None]
    assert found.hypervolume_ci is None
    assert [p.on_front for p in found.points] == [True, True]
    assert found.hypervolume == pytest.approx(2 * 0.6 + (4 - 2.05) * (0.85 - 0.6))


def test_no_configurations_make_an_empty_frontier() -> None:
    found = frontier([], (1.0, 0.0))
    assert (found.points, found.hypervolume) == ((), 0.0)


def test_exact_values_give_certainty() -> None:
    """Costs that no seed changes, such as samples: equal ones must tie in every draw."""
    same = [Sample(n, (5.0,) * 3, q) for n, q in (("a", (0.1, 0.11, 0.12)), ("b", (0.8, 0.81, 0.82)))]
    found = frontier(same, (6.0, 0.0))
    assert [p.p_on_front for p in found.points] == pytest.approx([0, 1], abs=0.02)
    twins = frontier([Sample(n, (5.0,) * 3, (0.5,) * 3) for n in "abcde"], (6.0, 0.0))
    assert [p.p_on_front for p in twins.points] == [1.0] * 5
    assert twins.hypervolume_ci == pytest.approx((0.5, 0.5))


def test_the_seed_makes_the_draws() -> None:
    samples, _ = study(np.random.default_rng(0), "scattered", 4)
    assert frontier(samples, (1.0, 0.0), 200, seed=1) == frontier(samples, (1.0, 0.0), 200, seed=1)
    assert frontier(samples, (1.0, 0.0), 200, seed=1) != frontier(samples, (1.0, 0.0), 200, seed=2)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 1000))
def test_units_do_not_matter(scale: float, shift: float, seed: int) -> None:
    samples, _ = study(np.random.default_rng(seed), "trade-off", 4)
    other = [
        Sample(s.label, tuple(scale * c for c in s.cost), tuple(shift + scale * q for q in s.quality)) for s in samples
    ]
    mine, other_units = frontier(samples, (2.0, 0.0), 200), frontier(other, (2.0 * scale, shift), 200)
    assert [p.p_on_front for p in other_units.points] == pytest.approx([p.p_on_front for p in mine.points], abs=0.02)
    assert other_units.hypervolume == pytest.approx(mine.hypervolume * scale**2, rel=1e-6)


def apart(values: list[tuple[float, ...]]) -> list[dict[object, float]]:
    """Values by seeds that no two configurations share."""
    return [{(i, n): value for n, value in enumerate(each)} for i, each in enumerate(values)]


def test_few_configurations_are_each_their_own_students_t() -> None:
    values = [(0.0, 1.0, 5.0), (2.0, 2.5, 9.0)]
    draws = draw_means(apart(values), None, 40_000, np.random.default_rng(0))
    for i, value in enumerate(values):
        expected = student_t.ppf([0.1, 0.5, 0.9], 2, np.mean(value), np.std(value, ddof=1) / np.sqrt(3))
        assert np.quantile(draws[:, i], [0.1, 0.5, 0.9]) == pytest.approx(expected, abs=0.1)


def test_what_a_seed_does_to_all_is_no_noise_of_their_differences() -> None:
    """Seeds differ by 10, configurations by the same in each seed: means move by 10, and differences do not."""
    rng = np.random.default_rng(0)
    seeds = 10 * rng.standard_normal(8)
    values = [dict(enumerate(i + seeds + 0.01 * rng.standard_normal(8))) for i in range(6)]
    draws = draw_means(values, None, 4000, np.random.default_rng(0))
    assert draws[:, 0].std() == pytest.approx(seeds.std(ddof=1) / np.sqrt(8), rel=0.3)
    assert (draws[:, 1] - draws[:, 0]).std() < 0.03
    unpaired = draw_means(apart([tuple(one.values()) for one in values]), None, 4000, np.random.default_rng(0))
    assert (unpaired[:, 1] - unpaired[:, 0]).std() > 1


def test_far_apart_configurations_are_left_where_they_are() -> None:
    values = [(100.0 * i**2, 100.0 * i**2 + 1, 100.0 * i**2 - 1) for i in range(6)]
    draws = draw_means(apart(values), np.arange(6.0), 4000, np.random.default_rng(0))
    assert draws.mean(axis=0) == pytest.approx([100.0 * i**2 for i in range(6)], abs=0.2)


def test_variances_that_differ_by_chance_alone_become_nearly_one() -> None:
    rng = np.random.default_rng(0)
    alike = apart([tuple(row) for row in rng.standard_normal((200, 3))])
    raw = np.array([np.var(list(one.values()), ddof=1) for one in alike])
    found = seed_noise(alike)
    assert (3 * found.share).std() < 0.2 * raw.std()
    assert (3 * found.share).mean() == pytest.approx(1, abs=0.2)
    assert found.degrees.min() > 10
    unlike = apart([tuple(np.exp(rng.standard_normal() / 2) * row) for row in rng.standard_normal((200, 31))])
    raw = np.array([np.var(list(one.values()), ddof=1) for one in unlike])
    found = seed_noise(unlike)
    assert np.corrcoef(np.log(found.share), np.log(raw))[0, 1] > 0.99
    assert found.degrees.max() < 35


def test_alike_seeds_give_the_residuals_of_a_two_way_layout() -> None:
    """Of the same seeds everywhere: plain means, and as many degrees of freedom as two-way sums leave over."""
    rng = np.random.default_rng(3)
    table = rng.standard_normal((6, 4)) + 3 * rng.standard_normal(4)
    found = seed_noise([dict(enumerate(row)) for row in table])
    assert found.mean == pytest.approx(table.mean(axis=1))
    assert found.all_degrees == pytest.approx([15.0] * 6)
    assert found.of_seeds == pytest.approx(9.0, rel=0.9)
    two = seed_noise([dict(enumerate(row)) for row in table[:2]])
    assert two.share.sum() == pytest.approx(np.var(table[0] - table[1], ddof=1) / 4)


@pytest.mark.parametrize("value", [0.65, 0.1 + 0.2, 1e9 / 3])
def test_equal_seeds_have_no_noise_though_their_mean_is_rounded(value: float) -> None:
    equal = [dict.fromkeys(range(3), value + i) for i in range(4)]
    assert not seed_noise(equal).share.any()
    assert seed_noise(equal).difference(0, 1)[0] == 0
    assert (
        draw_means(equal, None, 5, np.random.default_rng(0)) == draw_means(equal, None, 1, np.random.default_rng(1))
    ).all()


def test_a_lost_seed_is_allowed_for() -> None:
    """One configuration lost a seed on which all others do badly: its mean is compared as if it had run it."""
    rng = np.random.default_rng(5)
    seeds = np.array([0.0, 0.1, -0.1, -2.0])
    table = seeds + np.arange(5)[:, None] + 0.01 * rng.standard_normal((5, 4))
    values = [dict(enumerate(row)) for row in table]
    del values[0][3]
    found = seed_noise(values)
    assert found.mean[1] - found.mean[0] == pytest.approx(1.0, abs=0.05)
    assert found.difference(0, 1)[0] < 0.03
    values[4][99] = 100.0  # a seed that nothing else ran says little of differences
    more = seed_noise(values)
    assert more.mean[4] - more.mean[3] == pytest.approx(1.0, abs=0.05)


@given(st.integers(0, 10**6), st.integers(3, 6))
@settings(max_examples=30, deadline=None)
def test_means_over_unequal_seeds_are_those_of_a_mixed_model(seed: int, k: int) -> None:
    """The best linear unbiased estimate by the whole covariance matrix of the values, given the same variances."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((k, 6)) + 2 * rng.standard_normal(6)
    values = [dict(list(enumerate(row))[: int(rng.integers(2, 7))]) for row in table]
    found = seed_noise(values)
    variance = found.share * [len(one) for one in values]
    places = [(i, s) for i, one in enumerate(values) for s in one]
    y = np.array([values[i][s] for i, s in places])
    x = np.array([[float(i == j) for j in range(k)] for i, _ in places])
    cov = [[found.of_seeds * (s == t) + variance[i] * ((i, s) == (j, t)) for j, t in places] for i, s in places]
    covariance = np.linalg.inv(x.T @ np.linalg.solve(cov, x))
    assert found.mean == pytest.approx(covariance @ (x.T @ np.linalg.solve(cov, y)))
    error, _ = found.difference(0, 1)
    assert error**2 == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(2, 6), st.floats(0.01, 100), st.floats(-50, 50))
def test_noise_has_no_unit_no_origin_and_no_order(seed: int, k: int, n: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((k, n))
    values = [dict(enumerate(row)) for row in table]
    other = [dict(reversed([(s, shift + scale * v) for s, v in one.items()])) for one in reversed(values)]
    mine, theirs = seed_noise(values), seed_noise(other)
    error, degrees = mine.difference(0, 1)
    again = theirs.difference(k - 1, k - 2)
    assert again == (pytest.approx(scale * error, rel=1e-6), pytest.approx(degrees, rel=1e-6))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("unlike", [1, 4], ids=["equal variances", "fourfold variances"])
def test_moderated_intervals_cover_and_are_narrow(seeds: int, unlike: int) -> None:
    """Differences of two of five to twelve configurations; the comparator is the paired t of the same two."""
    rng = np.random.default_rng(seeds)
    covered, widths, students = [], [], []
    for draw in range(2400):
        k = (5, 8, 12)[draw % 3]
        sd = np.exp(rng.uniform(-np.log(unlike) / 4, np.log(unlike) / 4, (k, 1)))
        table = sd * rng.standard_normal((k, seeds)) + 2 * (draw % 2) * rng.standard_normal(seeds)
        noise = seed_noise([dict(enumerate(row)) for row in table])
        a, b = rng.choice(k, 2, replace=False)
        error, degrees = noise.difference(a, b)
        widths.append(student_t.ppf(0.975, degrees) * error)
        covered.append(abs(noise.mean[a] - noise.mean[b]) <= widths[-1])
        students.append(student_t.ppf(0.975, seeds - 1) * (table[a] - table[b]).std(ddof=1) / np.sqrt(seeds))
    ratio = np.mean(widths) / np.mean(students)
    print(f"{seeds} seeds: coverage {np.mean(covered):.3f}, width over Student's {ratio:.2f}")
    assert np.mean(covered) >= 0.935
    assert ratio <= {3: 0.68, 5: 0.87, 10: 0.96}[seeds]


@pytest.mark.parametrize("bad", [((1.0,), (1.0, 2.0)), ((), ()), ((np.nan,), (1.0,)), ((1.0,), (np.inf,))])
def test_impossible_samples_are_refused(bad: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="x: "):
        Sample("x", *bad)


@pytest.mark.parametrize("shape", ["cloud", "all on the front", "ties"])
def test_a_front_of_100_000_points_is_quick(shape: str) -> None:
    rng = np.random.default_rng(0)
    points = {
        "cloud": rng.random((100_000, 2)),
        "all on the front": np.stack([np.arange(1e5), np.arange(1e5)], axis=1),
        "ties": rng.integers(0, 50, (100_000, 2)).astype(float),
    }[shape]
    start = time.process_time()
    on_front(points)
    hypervolume(points, (float(points[:, 0].max()), 0.0))
    assert time.process_time() - start < 1
