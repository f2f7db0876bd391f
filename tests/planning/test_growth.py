"""Growing the batch and decaying the rate: the same samples, the same noise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.config.schema import Growth
from study.errors import ConfigError
from study.planning.growth import growth_stages
from study.planning.trials import TrialSpec, make_plan
from tests.conftest import make_config

MILESTONES = (0.3, 0.6, 0.8)  # Smith et al. 2018: epochs 60, 120 and 160 of 200
NO_LIMIT = 10**9


def growth(milestones: tuple[float, ...] = MILESTONES, factor: int = 5, largest_batch: int = NO_LIMIT) -> Growth:
    return Growth(milestones=milestones, factor=factor, largest_batch=largest_batch)


def sgd_noise_scale(lr: float, train_samples: int, batch: int, momentum: float) -> float:
    """Return g = eta N / (B (1 - m)) for B << N (Smith et al. 2018, section 4)."""
    return lr * train_samples / (batch * (1 - momentum))


def test_the_papers_schedules() -> None:
    # Section 5.1: batch 128 and rate 0.1, by 5 at each step; 50,000 images.
    def course(first: int, largest: int) -> list[tuple[int, int, float]]:
        stages = growth_stages(first, 200, growth(largest_batch=largest), 50_000)
        return [(stage.epochs, stage.batch, pytest.approx(stage.lr_factor)) for stage in stages]

    assert course(128, 128) == [(60, 128, 1), (60, 128, 0.2), (40, 128, 0.04), (40, 128, 0.008)]
    assert course(128, NO_LIMIT) == [(60, 128, 1), (60, 640, 1), (40, 3200, 1), (40, 16_000, 1)]
    assert course(128, 640) == [(60, 128, 1), (60, 640, 1), (40, 640, 0.2), (40, 640, 0.04)]  # hybrid
    assert course(640, 5120) == [(60, 640, 1), (60, 3200, 1), (40, 3200, 0.2), (40, 3200, 0.04)]  # larger rate


def plan_of(changes: dict[str, Any]) -> TrialSpec:
    made = {
        "batch_sizes": [16], "search": {"lr": [0.1]}, "schedule": {"kind": "constant"},
        "workload": {"kind": "teacher", "train_samples": 1024},
    }  # fmt: skip
    plan = make_plan(make_config(**made | changes))
    return plan.confirm_trials(plan.cells[0], 0.1)[0]


@given(
    factor=st.integers(2, 3),
    cap_steps=st.integers(0, 3),
    epochs=st.integers(10, 40),
    world_size=st.sampled_from([1, 2, 4]),
)
def test_growing_and_decaying_have_the_same_samples_and_the_same_noise(
    factor: int, cap_steps: int, epochs: int, world_size: int
) -> None:
    samples = 16 * factor**3 * 2  # a multiple of every batch

    def spec(largest: int) -> TrialSpec:
        return plan_of({
            "budget": {"epochs": epochs}, "hardware": {"world_size": world_size},
            "workload": {"kind": "teacher", "train_samples": samples},
            "growth": {"milestones": MILESTONES, "factor": factor, "largest_batch": largest},
        })  # fmt: skip

    decaying, growing = spec(16), spec(16 * factor**cap_steps)
    for trial in (decaying, growing):
        assert trial.samples_at(trial.total_updates) == epochs * samples
        assert trial.epochs_at(trial.total_updates) == pytest.approx(epochs)
        assert [trial.epochs_at(updates) for updates in trial.report_at] == pytest.approx(range(1, epochs + 1))
    for one, other in zip(growing.stages, decaying.stages, strict=True):
        g = [sgd_noise_scale(0.1 * stage.lr_factor, samples, stage.batch.global_batch, 0.9) for stage in (one, other)]
        assert g[0] == pytest.approx(g[1])
        assert one.batch.global_batch <= 16 * factor**cap_steps
    # Each larger batch saves its share of updates.
    assert (growing.total_updates < decaying.total_updates) == (cap_steps > 0)
    assert growing.stage_at(0) == growing.stages[0]
    assert growing.stage_at(growing.total_updates - 1) == growing.stages[-1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"milestones": (0.5, 0.52)}, "growth.milestones: .* leave a stage without one"),
        ({"milestones": (0.0,)}, "growth.milestones: "),
        ({"milestones": (1.0,)}, "growth.milestones: "),
        ({"largest_batch": 8}, "growth.largest_batch: the first batch, 16, is larger"),
        ({"factor": 80, "largest_batch": 10_000}, "growth.largest_batch: a batch of 1280 is more than the 1024"),
    ],
)
def test_impossible_growth_is_refused(changes: dict[str, Any], text: str) -> None:
    section = {"milestones": (0.5,), "factor": 4, "largest_batch": 64} | changes
    with pytest.raises(ConfigError, match=text):
        plan_of({"budget": {"epochs": 10}, "growth": section})


def test_regime_adaptation_has_exactly_the_updates_of_the_small_batch() -> None:
    made = make_config(batch_sizes=[16, 48, 256], search={"lr": [0.1]}, budget={"epochs": 3, "regime_batch": 16})
    plan = make_plan(made)
    updates = [plan.confirm_trials(cell, 0.1)[0].total_updates for cell in plan.cells]
    small = make_plan(make_config(batch_sizes=[16], search={"lr": [0.1]}, budget={"epochs": 3}))
    assert updates == [small.confirm_trials(small.cells[0], 0.1)[0].total_updates] * 3
