"""Contrasts against SciPy's tests, and what they may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from study.analysis.statistics.contrasts import contrast
from study.analysis.statistics.hypotheses import Arm, Claim, judge
from study.analysis.statistics.samples import Sample

# Every seed gains 5 to 35 points, while seeds differ by more than that from one another.
LOW, HIGH = (0.30, 0.50, 0.70), (0.35, 0.70, 1.05)


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


def test_a_gain_of_every_seed_is_more_than_noise_though_the_means_own_intervals_overlap() -> None:
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
    (verdict,) = judge([Claim("a is greater", "greater", *arms)])
    answers = {"supported": "more", "contradicted": "less"}
    answer = contrast(a, b).answer
    assert answers.get(verdict.verdict) == (answer if answer in ("more", "less") else None)
    assert verdict.difference is None or contrast(a, b).effect == pytest.approx(verdict.difference.effect)


def test_seeds_of_a_sample_are_as_many_different_ones() -> None:
    for seeds in ((1, 2), (1, 1, 2)):
        with pytest.raises(ValueError, match="costs of the seeds"):
            sample("a", LOW, seeds)
