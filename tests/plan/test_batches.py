"""The exact split of a global batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.plan.batches import BatchPlan, split_batch
from study.plan.config import Hardware
from study.plan.errors import PlanError


@given(batch=st.integers(1, 4096), world=st.integers(1, 16), micro=st.none() | st.integers(1, 512))
def test_split_is_exact_or_refused(batch: int, world: int, micro: int | None) -> None:
    hardware = Hardware(world_size=world, micro_batch=micro)
    if batch % world:
        with pytest.raises(PlanError, match="not divisible"):
            split_batch(batch, world, hardware)
        return
    split = split_batch(batch, world, hardware)
    assert split.world_size * split.micro_batch * split.accumulation == batch
    assert micro is None or split.micro_batch <= micro
    # No smaller number of equal parts would have fitted.
    local = batch // world
    fewer = [n for n in range(1, split.accumulation) if local % n == 0 and local // n <= (micro or local)]
    assert not fewer


def test_fixed_accumulation() -> None:
    assert split_batch(64, 2, Hardware(world_size=2, accumulation=4)) == BatchPlan(64, 2, 8, 4)
    with pytest.raises(PlanError, match="not divisible by 3"):
        split_batch(64, 2, Hardware(world_size=2, accumulation=3))


def test_refusal_names_the_nearest_batches() -> None:
    with pytest.raises(PlanError, match="nearest: 63 or 66"):
        split_batch(64, 3, Hardware(world_size=3))


def test_a_batch_plan_that_does_not_multiply_out_cannot_exist() -> None:
    with pytest.raises(ValueError, match="not an exact split"):
        BatchPlan(64, 2, 16, 1)
