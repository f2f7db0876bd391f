"""The course of the learning rate against its closed forms."""

import math

import pytest

from study.config.schema import Schedule
from study.training.schedules import lr_factor


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    schedule = Schedule(kind="constant", warmup_fraction=0.1)
    assert [lr_factor(schedule, u, 100) for u in range(10)] == pytest.approx([(u + 1) / 10 for u in range(10)])
    assert lr_factor(schedule, 50, 100) == 1.0


def test_cosine_is_half_way_down_in_the_middle_and_ends_near_zero() -> None:
    schedule = Schedule(kind="cosine", warmup_fraction=0)
    assert lr_factor(schedule, 0, 100) == 1.0
    assert lr_factor(schedule, 50, 100) == pytest.approx(0.5)
    assert lr_factor(schedule, 25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert lr_factor(schedule, 99, 100) < 0.001


def test_steps_multiply_at_their_fractions() -> None:
    schedule = Schedule(kind="step", warmup_fraction=0, step_fractions=(0.5, 0.75), step_factor=0.1)
    got = [lr_factor(schedule, u, 100) for u in (0, 49, 50, 74, 75, 99)]
    assert got == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_trials_have_finite_factors(kind: str, total: int) -> None:
    schedule = Schedule(kind=kind, warmup_fraction=0.5)
    assert all(0 <= lr_factor(schedule, u, total) <= 1 for u in range(total + 1))
