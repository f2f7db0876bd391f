"""Learning rates and their rules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.config.schema import LogUniform, Search
from study.planning.learning_rates import base_rates, scaled_rate


@pytest.mark.parametrize(("rule", "expected"), [("linear", 0.8), ("sqrt", 0.1 * math.sqrt(8))])
def test_rules_against_their_closed_form(rule: str, expected: float) -> None:
    search = Search(lr=(0.1,), lr_rule=rule, base_batch=32)
    assert scaled_rate(0.1, 256, search) == pytest.approx(expected)
    assert scaled_rate(0.1, 32, search) == pytest.approx(0.1)


def test_no_rule_leaves_the_rate() -> None:
    assert scaled_rate(0.1, 256, Search(lr=(0.1,))) == 0.1


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_samples_cover_the_range_evenly_in_the_logarithm(seed: int, n: int) -> None:
    rates = base_rates(Search(lr=LogUniform(low=1e-3, high=10.0), samples=n), seed)
    assert rates == base_rates(Search(lr=LogUniform(low=1e-3, high=10.0), samples=n), seed)
    part = [int((math.log10(rate) + 3) / 4 * n) for rate in rates]
    assert part == list(range(n))  # one in each of n equal parts


def test_a_grid_is_tried_whole_and_in_order() -> None:
    assert base_rates(Search(lr=(0.3, 0.1)), seed=5) == (0.1, 0.3)
