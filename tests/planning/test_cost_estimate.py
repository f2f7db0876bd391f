"""What a plan can cost at most."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config.schema import StudyConfig
from study.planning.cost_estimate import Pace, estimate_plan
from study.planning.trials import make_plan
from tests.conftest import make_config


def test_the_most_that_a_plan_can_cost_by_hand(config: Callable[..., StudyConfig]) -> None:
    plan = make_plan(config(hardware={"world_size": 2}))
    paces = {cell: Pace(update_s=0.5, validation_s=2.0) for cell in plan.cells}
    # 4 trials of 144 and of 36 updates each (2 search, 2 confirm), 3 reports each, on 2 ranks.
    long_s, short_s = 144 * 0.5 + 3 * 2.0, 36 * 0.5 + 3 * 2.0
    work_s = 4 * long_s + 4 * short_s
    price = estimate_plan(plan, paces, ranks=5)
    assert price is not None
    assert price.device_h == pytest.approx(2 * work_s / 3600)
    assert price.search_device_h == pytest.approx(price.device_h / 2)
    assert [(cell.search_trials, cell.confirm_trials) for cell in price.cells] == [(2, 2), (2, 2)]
    # Two groups fit; Graham's bound with a search trial and its confirm trial for the longest chain.
    assert price.wall_h == pytest.approx((work_s / 2 + 2 * long_s / 2) / 3600)
    alone = estimate_plan(plan, paces, ranks=2)
    assert alone is not None
    assert alone.wall_h == pytest.approx(work_s / 3600)
    assert estimate_plan(plan, {}, ranks=4) is None


@settings(max_examples=50, deadline=None)
@given(hours=st.lists(st.floats(0.01, 5), min_size=1, max_size=8), groups=st.integers(1, 4), seeds=st.integers(1, 3))
def test_no_order_of_trials_takes_longer_than_the_price_says(hours: list[float], groups: int, seeds: int) -> None:
    """Trials of random lengths; confirm trials come behind the search of their cell."""
    sizes = [2**i for i in range(len(hours))]
    plan = make_plan(make_config(batch_sizes=sizes, search={"lr": [0.1, 0.2]}, confirm={"seeds": seeds}))
    paces = {cell: Pace(0.0, 3600 * h / 3) for cell, h in zip(plan.cells, hours, strict=True)}  # of three reports each
    price = estimate_plan(plan, paces, ranks=groups)
    assert price is not None
    free_h = [0.0] * groups
    searched_h = dict.fromkeys(plan.cells, 0.0)
    waiting = [(cell, h) for cell, h in zip(plan.cells, hours, strict=True)]
    for cell, h in [pair for pair in waiting for _ in range(2)]:
        first = free_h.index(min(free_h))
        free_h[first] += h
        searched_h[cell] = max(searched_h[cell], free_h[first])
    confirm = [pair for pair in waiting for _ in range(seeds)]
    while confirm:
        first = free_h.index(min(free_h))
        begins = [max(free_h[first], searched_h[cell]) for cell, _ in confirm]
        chosen = begins.index(min(begins))
        free_h[first] = begins[chosen] + confirm.pop(chosen)[1]
    assert max(free_h) <= price.wall_h * (1 + 1e-9)
