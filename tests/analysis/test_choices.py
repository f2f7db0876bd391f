"""Limits are held against what a study knows, and refused where it knows nothing."""

from __future__ import annotations

import pytest

from study.analysis.choices import check_limits, choose, latencies_ms
from study.analysis.recommend import Constraints
from study.errors import ConfigError
from study.planning.trials import Cell
from tests.analysis.summary.test_summary import summary

SERVED = {"serving_1_p99_ms": 3.0, "serving_8_p99_ms": 5.0, "serving_1_p50_ms": 1.0}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Constraints(min_accuracy=95), "--min-accuracy: is a fraction between 0 and 1; got 95 (did you mean 0.95?)"),
        (Constraints(min_accuracy=950), "--min-accuracy: is a fraction between 0 and 1; got 950"),
        (Constraints(max_usd=0), "--max-usd: must be a number above 0; got 0"),
        (Constraints(max_device_hours=float("nan")), "--max-device-hours: must be a number above 0; got nan"),
        (Constraints(gpus=-1), "--gpus: must be a number above 0; got -1"),
        (Constraints(max_latency_ms=5), "--max-latency-ms: nothing is known of latencies"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(limits: Constraints, says: str) -> None:
    found = summary()
    with pytest.raises(ConfigError) as error:
        check_limits(limits, found.points, found.trials)
    assert str(error.value).startswith(says)


def test_dollars_need_a_price() -> None:
    found = summary(price={})
    with pytest.raises(ConfigError, match="--max-usd: the study has no price"):
        check_limits(Constraints(max_usd=1), found.points, found.trials)


def test_limits_are_held_against_means() -> None:
    found = summary()
    budget = found.points[2].cost.usd
    chosen = choose(found.points, found.trials, "usd", Constraints(max_usd=budget), 0.01)
    assert chosen is not None
    assert chosen.choice is not None
    assert chosen.choice.label == found.points[2].label  # the most accurate of those that cost no more
    assert choose((), (), "usd", Constraints(), 0.01) is None


def test_latency_is_the_least_that_serving_can_do() -> None:
    found = summary(measured={"probes": SERVED})
    assert latencies_ms(found.trials)[Cell(16, 1)] == 3
    check_limits(Constraints(max_latency_ms=4), found.points, found.trials)
    slow = choose(found.points, found.trials, "usd", Constraints(max_latency_ms=2), 0.01)
    assert slow is not None
    assert slow.choice is None
    assert slow.nearest_miss is not None
    assert [(miss.limit, miss.value) for miss in slow.nearest_miss.misses] == [("max_latency_ms", 3.0)]
