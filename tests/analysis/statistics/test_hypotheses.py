"""Verdicts: against scipy, against closed forms, and how often they are wrong when there is nothing to find."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from study.analysis.statistics.hypotheses import LEVEL, Arm, Claim, difference, holm, judge, seeds_to_settle, welch

values = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=2, max_size=8)


def arm(rng: np.random.Generator, mean: float, n: int, first: int = 0, name: str = "arm") -> Arm:
    return Arm(name, dict(enumerate(mean + rng.standard_normal(n), start=first)))


@given(values, values)
def test_independent_arms_are_compared_as_scipy_does(a: list[float], b: list[float]) -> None:
    assume(min(np.ptp(a), np.ptp(b)) > 0.01)  # scipy warns of what is nearly constant
    found = welch(a, b)
    theirs = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    assert found.degrees == pytest.approx(theirs.df)
    assert found.p_above(0) == pytest.approx(theirs.pvalue, abs=1e-9)
    both = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.ci == pytest.approx((both.low, both.high))


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8))
def test_paired_arms_are_compared_as_scipy_does(pairs: list[tuple[float, float]]) -> None:
    a, b = dict(enumerate(x for x, _ in pairs)), dict(enumerate(y for _, y in pairs))
    found = difference(a, b)
    assert found is not None
    assert (found.test, found.n) == ("paired t", (len(pairs), len(pairs)))
    assume(found.standard_error > 1e-3)
    theirs = stats.ttest_rel(list(a.values()), list(b.values()), alternative="less")
    assert found.p_below(0) == pytest.approx(theirs.pvalue, abs=1e-9)


def test_seeds_pair_where_the_smaller_arm_is_within_the_other() -> None:
    full, lost_one, others = {1: 1.0, 2: 2.0, 3: 4.0}, {1: 0.5, 3: 3.0}, {2: 1.0, 9: 2.0}
    for a, b, test, n in (
        (full, lost_one, "paired t", (2, 2)),
        (full, others, "Welch t", (3, 2)),
        (full, dict.fromkeys((7, 8, 9), 1.0), "Welch t", (3, 3)),
    ):
        found = difference(a, b)
        assert found is not None
        assert (found.test, found.n) == (test, n)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_step_down_it_says_it_is(p: list[float]) -> None:
    """Rejecting by adjusted p is rejecting in ascending order until the first p above level / (those left)."""
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - place) > level:
                break
            rejected.add(i)
        assert {i for i, q in enumerate(adjusted) if q <= level} == rejected


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("first", [0, 100], ids=["paired", "independent"])
def test_a_false_claim_is_seldom_supported(seeds: int, first: int) -> None:
    """1,000 studies without an effect, and 1,000 whose difference is just the margin of the equivalence claimed."""
    rng = np.random.default_rng(seeds + first)
    greater, equal, effect = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for _ in range(1000):
        false = Claim("greater", "greater", arm(rng, 0, seeds), arm(rng, 0, seeds, first))
        apart = Claim("equal", "equivalent", arm(rng, 2, seeds), arm(rng, 0, seeds, first), margin=2)
        true = Claim("greater", "greater", arm(rng, 2, seeds), arm(rng, 0, seeds, first))
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


def test_several_claims_share_one_error() -> None:
    """No true claim among ten: a family is wrong in at most 5%, though it has ten chances to be."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        family = [Claim(str(i), "greater", arm(rng, 0, 5), arm(rng, 0, 5, 100)) for i in range(10)]
        wrong += any(v.verdict == "supported" for v in judge(family))
    assert wrong / 400 < 0.05


@pytest.mark.parametrize("a", [{1: 5.0}, {}])
def test_one_seed_is_never_enough(a: dict[int, float]) -> None:
    many = dict(enumerate(np.random.default_rng(0).standard_normal(50)))
    for claim in (
        Claim("c", "greater", Arm("a", a), Arm("b", many)),
        Claim("c", "greater", Arm("b", many), Arm("a", a)),
    ):
        (verdict,) = judge([claim])
        assert verdict.verdict == "inconclusive"
        assert "a verdict needs two on each side" in verdict.reason
        assert verdict.difference is None


def test_without_a_spread_there_is_no_verdict() -> None:
    (verdict,) = judge([Claim("c", "greater", Arm("a", {1: 2.0, 2: 2.0}), Arm("b", {1: 1.0, 2: 1.0}))])
    assert (verdict.verdict, verdict.p_supported) == ("inconclusive", None)


def test_verdicts_say_what_they_rest_on() -> None:
    rng = np.random.default_rng(1)
    large = Arm("LB", dict(enumerate(0.9 + 0.01 * rng.standard_normal(6))), ("t1", "t2"))
    small = Arm("SB", dict(enumerate(0.95 + 0.01 * rng.standard_normal(6))), ("t3",))
    worse, better, equal, near = judge(
        [
            Claim("large is worse", "greater", small, large),
            Claim("large is better", "greater", large, small),
            Claim("equal", "equivalent", small, large, margin=0.01),
            Claim("within 0.2", "equivalent", small, large, margin=0.2),
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
    claim = Claim("greater", "greater", arm(rng, 0, 60), arm(rng, 0, 60, 100), margin=1.0)
    assert judge([claim])[0].verdict == "contradicted"


@pytest.mark.parametrize("first", [0, 100], ids=["paired", "independent"])
def test_seeds_to_settle_give_the_power_promised(first: int) -> None:
    """Found from a study whose effect and spread are the true ones, then tried on 2,000 studies of that size."""
    rng = np.random.default_rng(3)
    # Differences with a mean of 1 and the spread that arms of unit variance have.
    spread = np.array([-1.0, 0.0, 1.0])
    a, b = dict(enumerate(1 + spread)), dict(enumerate(np.roll(spread, 1) if first == 0 else spread, start=first))
    found = difference(a, b)
    assert found is not None
    claim = Claim("c", "greater", Arm("a", a), Arm("b", b))
    more = seeds_to_settle(claim, found)
    assert more is not None
    n = 3 + more
    sd = found.standard_error * math.sqrt(3) / math.sqrt(2)
    hits = 0
    for _ in range(2000):
        x, y = 1 + sd * rng.standard_normal(n), sd * rng.standard_normal(n)
        d = difference(dict(enumerate(x)), dict(enumerate(y, start=first)))
        assert d is not None
        hits += d.p_above(0) <= LEVEL
    assert hits / 2000 == pytest.approx(0.82, abs=0.04)


def test_seeds_to_settle_is_the_smallest_number_that_will_do() -> None:
    found = difference({0: 1.0, 1: 2.0, 2: 0.2}, {0: 0.5, 1: 0.6, 2: 0.4})
    assert found is not None
    more = seeds_to_settle(Claim("c", "greater", Arm("a", {}), Arm("b", {})), found)
    sd = found.standard_error * math.sqrt(3)
    power = [stats.nct.sf(stats.t.isf(LEVEL, n - 1), n - 1, found.effect / sd * math.sqrt(n)) for n in range(4, 1001)]
    assert more == 1 + next(i for i, p in enumerate(power) if p >= 0.8)


def test_no_effect_and_no_margin_can_not_be_settled() -> None:
    found = difference({0: 1.0, 1: -1.0}, {0: 0.0, 1: 0.0})
    assert found is not None
    assert seeds_to_settle(Claim("c", "greater", Arm("a", {}), Arm("b", {})), found) is None
    assert seeds_to_settle(Claim("c", "equivalent", Arm("a", {}), Arm("b", {}), margin=1.0), found) is not None


@pytest.mark.parametrize(("kind", "margin"), [("equivalent", 0.0), ("greater", -1.0), ("equivalent", math.inf)])
def test_a_margin_must_say_something(kind: str, margin: float) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        Claim("c", kind, Arm("a", {}), Arm("b", {}), margin)  # type: ignore[arg-type]


def test_an_empty_family_has_no_verdicts() -> None:
    assert judge([]) == ()
