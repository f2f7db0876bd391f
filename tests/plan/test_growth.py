"""Growing the batch and decaying the rate: the same samples, the same noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.plan.errors import PlanError
from study.plan.growth import growth_stages, noise_scale

MILESTONES = (0.3, 0.6, 0.8)  # Smith et al. 2018: epochs 60, 120 and 160 of 200
NO_LIMIT = 10**9


def test_the_papers_schedules() -> None:
    # Section 5.1: batch 128 and rate 0.1, by 5 at each step; 50,000 images.
    def course(largest: int, start_factor: int = 1) -> list[tuple[int, int, float]]:
        stages = growth_stages(128, 200, MILESTONES, 5, largest, 50_000, start_factor)
        return [(stage.start_epoch, stage.batch, pytest.approx(stage.lr_factor)) for stage in stages]

    assert course(128) == [(0, 128, 1), (60, 128, 0.2), (120, 128, 0.04), (160, 128, 0.008)]
    assert course(NO_LIMIT) == [(0, 128, 1), (60, 640, 1), (120, 3200, 1), (160, 16_000, 1)]
    assert course(640) == [(0, 128, 1), (60, 640, 1), (120, 640, 0.2), (160, 640, 0.04)]  # hybrid
    assert course(5120, 5) == [(0, 640, 5), (60, 3200, 5), (120, 3200, 1), (160, 3200, 0.2)]


def test_updates_and_samples_of_a_stage_are_those_of_whole_batches() -> None:
    first, second = growth_stages(32, 10, (0.4,), 4, NO_LIMIT, 1000)
    assert (first.epochs, first.updates, first.samples) == (4, 4 * 31, 4 * 31 * 32)
    assert (second.start_epoch, second.updates, second.samples) == (4, 6 * 7, 6 * 7 * 128)


@given(
    base=st.integers(1, 64),
    factor=st.integers(2, 5),
    cap_steps=st.integers(0, 3),
    start_steps=st.integers(0, 1),
    chunks=st.integers(1, 20),
    epochs=st.integers(10, 100),
)
def test_growing_and_decaying_have_the_same_samples_and_the_same_noise(
    base: int, factor: int, cap_steps: int, start_steps: int, chunks: int, epochs: int
) -> None:
    start = factor**start_steps
    train_samples = base * factor**4 * chunks  # a multiple of every batch
    decaying = growth_stages(base, epochs, MILESTONES, factor, base, train_samples)
    growing = growth_stages(base, epochs, MILESTONES, factor, base * start * factor**cap_steps, train_samples, start)
    assert sum(stage.samples for stage in growing) == sum(stage.samples for stage in decaying) == epochs * train_samples
    for one, other in zip(growing, decaying, strict=True):
        assert (one.start_epoch, one.epochs, one.samples) == (other.start_epoch, other.epochs, other.samples)
        g = [noise_scale(0.1 * stage.lr_factor, train_samples, stage.batch, 0.9) for stage in (one, other)]
        assert g[0] == pytest.approx(g[1])
        assert one.updates * one.batch == other.updates * other.batch
        assert one.batch <= base * start * factor**cap_steps
    # Each larger batch saves its share of updates.
    assert (sum(s.updates for s in growing) < sum(s.updates for s in decaying)) == (cap_steps + start_steps > 0)


def test_noise_scale_with_momentum() -> None:
    assert noise_scale(0.1, 50_000, 100, 0.9) == pytest.approx(500)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"milestones": (0.5, 0.52)}, "milestones: .* leave a stage without an epoch"),
        ({"milestones": (0.0,)}, "milestones: "),
        ({"milestones": (1.0,)}, "milestones: "),
        ({"start_factor": 5}, "largest_batch: the first batch, 80, is larger"),
        ({"train_samples": 40}, "largest_batch: a batch of 64 is more than the 40 training samples"),
    ],
)
def test_refused(changes: dict[str, object], text: str) -> None:
    arguments = {
        "base_batch": 16,
        "epochs": 10,
        "milestones": (0.5,),
        "factor": 4,
        "largest_batch": 64,
        "train_samples": 640,
    }
    with pytest.raises(PlanError, match=text):
        growth_stages(**{**arguments, **changes})
