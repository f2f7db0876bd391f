"""Verdicts: against scipy, against closed forms, and how often they are wrong when there is nothing to find."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from study.analysis.statistics.hypotheses import (
    LEVEL,
    Arm,
    Contrast,
    Difference,
    Hypothesis,
    contrasts,
    difference,
    holm,
    judge,
    seeds_to_settle,
)
from study.analysis.statistics.samples import Sample

values = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=2, max_size=8)
# Every seed gains 5 to 35 points, while seeds differ by more than that from one another.
LOW, HIGH = (0.30, 0.50, 0.70), (0.35, 0.70, 1.05)


def contrast(a: Sample, b: Sample) -> Contrast:
    """Two configurations by themselves."""
    return contrasts([a, b], [(0, 1)])[0]


def two(a: dict[int, float], b: dict[int, float]) -> Difference:
    """Two arms by themselves."""
    found = difference(Arm("a", a), Arm("b", b))  # type: ignore[arg-type]
    assert found is not None
    return found


def arm(rng: np.random.Generator, mean: float, n: int, first: int = 0, name: str = "arm") -> Arm:
    return Arm(name, dict(enumerate(mean + rng.standard_normal(n), start=first)))


@given(values, values)
def test_independent_arms_are_compared_as_scipy_does(a: list[float], b: list[float]) -> None:
    assume(min(np.ptp(a), np.ptp(b)) > 0.01)  # scipy warns of what is nearly constant
    found = two(dict(enumerate(a)), dict(enumerate(b, start=100)))
    assert found.test == "Welch t"
    expected = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    assert found.degrees == pytest.approx(expected.df)
    assert found.p_above(0) == pytest.approx(expected.pvalue, abs=1e-9)
    both = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.ci == pytest.approx((both.low, both.high))


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8))
def test_paired_arms_are_compared_as_scipy_does(pairs: list[tuple[float, float]]) -> None:
    a, b = dict(enumerate(x for x, _ in pairs)), dict(enumerate(y for _, y in pairs))
    found = two(a, b)
    assert (found.test, found.n) == ("paired t", (len(pairs), len(pairs)))
    assume(found.standard_error > 1e-3)
    expected = stats.ttest_rel(list(a.values()), list(b.values()), alternative="less")
    assert found.p_below(0) == pytest.approx(expected.pvalue, abs=1e-9)


def test_arms_pair_where_they_ran_the_same_seeds_or_one_lost_up_to_half() -> None:
    full, lost_one, others = {1: 1.0, 2: 2.0, 3: 4.0}, {1: 0.5, 3: 3.0}, {2: 1.0, 9: 2.0}
    many = {seed: float(seed % 4) for seed in range(1, 6)}
    for a, b, test, n in (
        (full, {3: 1.0, 2: 1.0, 1: 2.0}, "paired t", (3, 3)),
        (full, lost_one, "paired t", (2, 2)),
        (many, full, "paired t", (3, 3)),
        (many, lost_one, "Welch t", (5, 2)),
        (full, others, "Welch t", (3, 2)),
        (full, dict.fromkeys((7, 8, 9), 1.0), "Welch t", (3, 3)),
    ):
        found = two(a, b)
        assert (found.test, found.n) == (test, n)


@pytest.mark.parametrize(("first", "test"), [(0, "moderated paired t"), (100, "moderated t")])
def test_a_family_makes_the_noise_better_known_and_moves_no_effect(first: int, test: str) -> None:
    rng = np.random.default_rng(4)
    a, b = arm(rng, 1, 3), arm(rng, 0, 3, first)
    family = [arm(rng, 5, 3, first * (i % 2), str(i)) for i in range(8)]
    alone, helped = difference(a, b), difference(a, b, family)
    assert alone is not None
    assert helped is not None
    assert helped.test == test
    assert helped.effect == alone.effect
    assert helped.degrees > alone.degrees
    assert helped.ci[1] - helped.ci[0] < alone.ci[1] - alone.ci[0]


def test_an_arm_counts_once_in_its_own_family() -> None:
    """Under another name or with other seeds too, if its rows are the same."""
    rng = np.random.default_rng(5)
    a, b, c = (Arm(name, dict(enumerate(rng.standard_normal(4))), (f"{name}1", f"{name}2")) for name in "abc")
    again = Arm("a without a seed", {1: 2.0, 2: 9.0}, ("a2",))
    assert difference(a, b, [a, again, b, c]) == difference(a, b, [c])


def test_several_intervals_hold_together() -> None:
    """Bonferroni's: of m, each is Student's at 1 - 0.05/m."""
    rng = np.random.default_rng(6)
    a, b = arm(rng, 0, 5), arm(rng, 0, 5)
    d = np.array(list(a.values.values())) - np.array(list(b.values.values()))
    found = difference(a, b, at_once=4)
    assert found is not None
    expected = stats.ttest_1samp(d, 0).confidence_interval(1 - 0.05 / 4)
    assert found.ci == pytest.approx((expected.low, expected.high))


def test_costs_are_compared_by_their_ratio() -> None:
    a, b = (Sample(n, cost, LOW, (1, 2, 3)) for n, cost in (("a", (2.0, 4.0, 8.0)), ("b", (1.0, 1.0, 2.0))))
    (found,) = contrasts([a, b], [(0, 1)], "cost")
    assert found.effect == pytest.approx((2 * 4 * 4) ** (1 / 3))
    logs = stats.ttest_1samp(np.log([2, 4, 4]), 0).confidence_interval()
    assert found.ci == pytest.approx((math.exp(logs.low), math.exp(logs.high)))
    free = Sample("free", (0.0,) * 3, LOW, (1, 2, 3))
    assert contrasts([a, free], [(1, 0)], "cost")[0].answer == "untested"


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_the_step_down_procedure(p: list[float]) -> None:
    """Rejecting by adjusted p is rejecting in ascending order until the first p above level / (those left)."""
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - place) > level:
                break
            rejected.add(i)
        assert {i for i, q in enumerate(adjusted) if q <= level} == rejected


@pytest.mark.parametrize(
    "seeds", [2, 3, pytest.param(5, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("first", [0, 100], ids=["paired", "independent"])
def test_a_false_claim_is_seldom_supported(seeds: int, first: int) -> None:
    """1,000 studies without an effect, and 1,000 whose difference is just the margin of the equivalence claimed."""
    rng = np.random.default_rng(seeds + first)
    greater, equal, effect = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for _ in range(1000):
        false = Hypothesis("greater", "greater", arm(rng, 0, seeds), arm(rng, 0, seeds, first))
        apart = Hypothesis("equal", "equivalent", arm(rng, 2, seeds), arm(rng, 0, seeds, first), margin=2)
        true = Hypothesis("greater", "greater", arm(rng, 2, seeds), arm(rng, 0, seeds, first))
        for count, claim in ((greater, false), (equal, apart), (effect, true)):
            count[judge([claim])[0].verdict] += 1
    power = effect["supported"] / 1000
    print(
        f"{seeds} seeds from {first}: type I {greater['supported'] / 1000:.3f} of greater, "
        f"{equal['supported'] / 1000:.3f} of equivalent; power for two standard deviations {power:.3f}"
    )
    assert greater["supported"] < 50
    assert greater["contradicted"] < 50
    assert equal["supported"] < 50
    assert effect["contradicted"] < 50
    # Noncentral t. Welch's degrees are estimated and never more than those of equal variances, so its power is less.
    degrees = seeds - 1 if first == 0 else 2 * (seeds - 1)
    expected = stats.nct.sf(stats.t.isf(LEVEL, degrees), degrees, 2 / math.sqrt(2 / seeds))
    assert power < expected + 0.05
    assert power > expected - (0.05 if first == 0 else 0.12)


@pytest.mark.slow
def test_several_claims_share_one_error() -> None:
    """No true claim among ten: a family is wrong in at most 5%, though it has ten chances to be."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        family = [Hypothesis(str(i), "greater", arm(rng, 0, 5), arm(rng, 0, 5, 100)) for i in range(10)]
        wrong += any(v.verdict == "supported" for v in judge(family))
    assert wrong / 400 < 0.05


@pytest.mark.parametrize("a", [{1: 5.0}, {}])
def test_one_seed_is_never_enough(a: dict[int, float]) -> None:
    many = dict(enumerate(np.random.default_rng(0).standard_normal(50)))
    for claim in (
        Hypothesis("c", "greater", Arm("a", a), Arm("b", many)),
        Hypothesis("c", "greater", Arm("b", many), Arm("a", a)),
    ):
        (verdict,) = judge([claim])
        assert verdict.verdict == "inconclusive"
        assert "a verdict needs two on each side" in verdict.reason
        assert verdict.difference is None


def test_without_a_spread_there_is_no_verdict() -> None:
    (verdict,) = judge([Hypothesis("c", "greater", Arm("a", {1: 2.0, 2: 2.0}), Arm("b", {1: 1.0, 2: 1.0}))])
    assert (verdict.verdict, verdict.p_supported) == ("inconclusive", None)


def test_judgements_name_their_rows_and_effect() -> None:
    rng = np.random.default_rng(1)
    large = Arm("LB", dict(enumerate(0.9 + 0.01 * rng.standard_normal(6))), ("t1", "t2"))
    small = Arm("SB", dict(enumerate(0.95 + 0.01 * rng.standard_normal(6))), ("t3",))
    worse, better, equal, near = judge(
        [
            Hypothesis("large is worse", "greater", small, large),
            Hypothesis("large is better", "greater", large, small),
            Hypothesis("equal", "equivalent", small, large, margin=0.01),
            Hypothesis("within 0.2", "equivalent", small, large, margin=0.2),
        ]
    )
    answers = [worse.verdict, better.verdict, equal.verdict, near.verdict]
    assert answers == ["supported", "contradicted", "contradicted", "supported"]
    assert worse.rows == ("t3", "t1", "t2")
    assert worse.more_seeds is None
    assert worse.difference is not None
    assert worse.difference.ci[0] > 0
    assert "SB - LB = +0.0" in worse.reason


def test_an_effect_shown_to_be_below_what_matters_contradicts() -> None:
    rng = np.random.default_rng(2)
    claim = Hypothesis("greater", "greater", arm(rng, 0, 60), arm(rng, 0, 60, 100), margin=1.0)
    assert judge([claim])[0].verdict == "contradicted"


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 100], ids=["paired", "independent"])
def test_seeds_to_settle_give_a_power_of_80_percent(first: int) -> None:
    """Found from a study whose effect and spread are the true ones, then tried on 2,000 studies of that size."""
    rng = np.random.default_rng(3)
    # Differences with a mean of 1 and the spread that arms of unit variance have.
    spread = np.array([-1.0, 0.0, 1.0])
    a, b = dict(enumerate(1 + spread)), dict(enumerate(np.roll(spread, 1) if first == 0 else spread, start=first))
    found = two(a, b)
    claim = Hypothesis("c", "greater", Arm("a", a), Arm("b", b))
    more = seeds_to_settle(claim, found)
    assert more is not None
    n = 3 + more
    sd = found.standard_error * math.sqrt(3) / math.sqrt(2)
    hits = 0
    for _ in range(2000):
        x, y = 1 + sd * rng.standard_normal(n), sd * rng.standard_normal(n)
        d = two(dict(enumerate(x)), dict(enumerate(y, start=first)))
        hits += d.p_above(0) <= LEVEL
    assert hits / 2000 == pytest.approx(0.82, abs=0.04)


def test_seeds_to_settle_is_the_smallest_sufficient_number() -> None:
    found = two({0: 1.0, 1: 2.0, 2: 0.2}, {0: 0.5, 1: 0.6, 2: 0.4})
    more = seeds_to_settle(Hypothesis("c", "greater", Arm("a", {}), Arm("b", {})), found)
    sd = found.standard_error * math.sqrt(3)
    power = [stats.nct.sf(stats.t.isf(LEVEL, n - 1), n - 1, found.effect / sd * math.sqrt(n)) for n in range(4, 1001)]
    assert more == 1 + next(i for i, p in enumerate(power) if p >= 0.8)


def test_no_effect_and_no_margin_can_not_be_settled() -> None:
    found = two({0: 1.0, 1: -1.0}, {0: 0.0, 1: 0.0})
    assert seeds_to_settle(Hypothesis("c", "greater", Arm("a", {}), Arm("b", {})), found) is None
    assert seeds_to_settle(Hypothesis("c", "equivalent", Arm("a", {}), Arm("b", {}), margin=1.0), found) is not None


@pytest.mark.parametrize(("kind", "margin"), [("equivalent", 0.0), ("greater", -1.0), ("equivalent", math.inf)])
def test_an_impossible_margin_is_refused(kind: str, margin: float) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        Hypothesis("c", kind, Arm("a", {}), Arm("b", {}), margin)  # type: ignore[arg-type]


def test_an_empty_family_has_no_verdicts() -> None:
    assert judge([]) == ()


def sample(label: str, quality: tuple[float, ...], seeds: tuple[int, ...] = ()) -> Sample:
    return Sample(label, tuple(10 * q + 1 for q in quality), quality, seeds)


def test_shared_seeds_are_paired_and_others_are_not() -> None:
    paired = contrast(sample("a", HIGH, (1, 2, 3)), sample("b", LOW, (1, 2, 3)))
    interval = stats.ttest_rel(HIGH, LOW).confidence_interval()
    assert paired.ci == pytest.approx((interval.low, interval.high))
    assert (paired.test, paired.n_seeds, paired.effect) == ("paired t", (3, 3), pytest.approx(0.2))
    welch = stats.ttest_ind(HIGH, LOW, equal_var=False).confidence_interval()
    for seeds in ((), (4, 5, 6), (3, 4, 5)):
        unpaired = contrast(sample("a", HIGH, seeds), sample("b", LOW, (1, 2, 3)))
        assert unpaired.ci == pytest.approx((welch.low, welch.high))
        assert unpaired.test == "Welch t"


def test_seeds_are_matched_by_name_and_not_by_place() -> None:
    one = contrast(sample("a", HIGH, (1, 2, 3)), sample("b", LOW, (1, 2, 3)))
    other = contrast(sample("a", HIGH[::-1], (3, 2, 1)), sample("b", LOW, (1, 2, 3)))
    assert one.ci == pytest.approx(other.ci)


def test_a_gain_of_every_seed_is_more_than_noise_though_the_intervals_of_the_means_overlap() -> None:
    high, low = (0.62, 0.79, 0.99), (0.45, 0.60, 0.75)
    both = [stats.t.interval(0.95, 2, sum(q) / 3, stats.sem(q)) for q in (low, high)]
    assert both[0][1] > both[1][0]  # the intervals of the means overlap
    found = contrast(sample("a", high, (1, 2, 3)), sample("b", low, (1, 2, 3)))
    assert found.effect == pytest.approx(0.2)
    assert found.answer == "more"


def test_one_seed_or_no_spread_is_not_tested() -> None:
    assert contrast(sample("a", (0.9,), (1,)), sample("b", LOW, (1, 2, 3))).answer == "untested"
    # 0.7 - 0.6 and 0.8 - 0.7 differ by rounding alone.
    shifted = contrast(sample("a", (0.7, 0.8), (1, 2)), sample("b", (0.6, 0.7), (1, 2)))
    assert (shifted.answer, shifted.ci, shifted.test) == ("untested", None, None)


accuracies = st.integers(0, 300).map(lambda n: n / 300)
seeded = st.dictionaries(st.integers(1, 6), accuracies, min_size=1, max_size=5).map(
    lambda by_seed: Sample("x", tuple(by_seed.values()), tuple(by_seed.values()), tuple(by_seed))
)


@given(seeded, seeded)
def test_an_answer_says_what_its_interval_does_and_swapping_flips_it(a: Sample, b: Sample) -> None:
    found, back = contrast(a, b), contrast(b, a)
    assert (found.answer == "untested") == (found.ci is None)
    if found.ci is not None:
        low, high = found.ci
        assert (found.answer == "indistinct") == (low <= 0 <= high)
        assert (found.answer == "more") == (low > 0)
        assert back.ci == pytest.approx((-high, -low))
    assert back.effect == pytest.approx(-found.effect)
    flipped = {"more": "less", "less": "more"}
    assert back.answer == flipped.get(found.answer, found.answer)


@given(seeded, seeded)
def test_alone_a_claim_and_a_contrast_agree(a: Sample, b: Sample) -> None:
    arms = [Arm("x", dict(zip(s.seeds, s.quality, strict=True))) for s in (a, b)]
    (verdict,) = judge([Hypothesis("a is greater", "greater", *arms)])
    answers = {"supported": "more", "contradicted": "less"}
    answer = contrast(a, b).answer
    assert answers.get(verdict.verdict) == (answer if answer in ("more", "less") else None)
    assert verdict.difference is None or contrast(a, b).effect == pytest.approx(verdict.difference.effect)


def test_seeds_of_a_sample_are_as_many_different_ones() -> None:
    for seeds in ((1, 2), (1, 1, 2)):
        with pytest.raises(ValueError, match="costs of the seeds"):
            sample("a", LOW, seeds)
