"""The exact split of a global batch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.config.schema import Hardware
from study.errors import ConfigError
from study.planning.batch_split import BatchPlan, divisors, largest, split_batch


@given(batch=st.integers(1, 4096), world=st.integers(1, 16), micro=st.none() | st.integers(1, 512))
def test_split_is_exact_or_refused(batch: int, world: int, micro: int | None) -> None:
    hardware = Hardware(world_size=world, micro_batch=micro)
    if batch % world:
        with pytest.raises(ConfigError, match="not divisible"):
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
    with pytest.raises(ConfigError, match="not divisible by 3"):
        split_batch(64, 2, Hardware(world_size=2, accumulation=3))


def test_refusal_names_the_nearest_batches() -> None:
    with pytest.raises(ConfigError, match="nearest: 63 or 66"):
        split_batch(64, 3, Hardware(world_size=3))


def test_a_batch_plan_with_a_wrong_product_is_refused() -> None:
    with pytest.raises(ValueError, match="not an exact split"):
        BatchPlan(64, 2, 16, 1)


@given(boundary=st.integers(0, 5000), at_most=st.integers(1, 5000))
def test_the_largest_that_fits_is_found_in_about_2_log_n_calls(boundary: int, at_most: int) -> None:
    asked: list[int] = []

    def fits(n: int) -> bool:
        asked.append(n)
        return n <= boundary

    assert largest(fits, at_most) == min(boundary, at_most)
    assert len(asked) == len(set(asked)) <= 2 * math.ceil(math.log2(at_most + 1)) + 1
    assert all(1 <= n <= at_most for n in asked)
    # From below: what does not fit may take a machine down, so little more than twice the answer is ever tried.
    assert all(n <= max(2 * boundary, 1) for n in asked)


@given(local=st.integers(1, 2000), world=st.integers(1, 8), boundary=st.integers(1, 2000))
def test_a_batch_is_split_into_the_largest_micro_batch_that_fits(local: int, world: int, boundary: int) -> None:
    sizes = divisors(local)
    found = sizes[largest(lambda count: sizes[count - 1] <= boundary, len(sizes)) - 1]
    split = split_batch(local * world, world, Hardware(world_size=world, micro_batch=found))
    assert split.micro_batch == max(size for size in range(1, local + 1) if local % size == 0 and size <= boundary)


def test_auto_is_the_whole_local_batch_until_a_gpu_was_probed() -> None:
    assert split_batch(64, 2, Hardware(world_size=2, micro_batch="auto")) == BatchPlan(64, 2, 32, 1)
