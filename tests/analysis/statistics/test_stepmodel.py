"""The step-time model against tables made from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.statistics.stepmodel import StepTime, fit_step_model

WORLDS, MICROS, PASSES = (1, 2, 4), (8, 16, 32, 64, 128), (1, 2, 4)
Truth = tuple[float, float, float, float, float]

truths = st.tuples(
    st.floats(0.002, 0.05), st.floats(1e-4, 2e-3), st.floats(0.02, 0.2), st.floats(0.002, 0.05), st.floats(1, 4)
)


def seconds(truth: Truth, world: int, micro: int, passes: int) -> float:
    """The formula of arXiv:2008.12260 written out."""
    compute = truth[0] + truth[1] * micro
    sync = truth[2] + truth[3] * (world - 2) if world > 1 else 0.0
    return (compute ** truth[4] + sync ** truth[4]) ** (1 / truth[4]) + (passes - 1) * compute


def runs(truth: Truth, worlds: tuple[int, ...] = WORLDS, noise: float = 0.0, seed: int = 0) -> list[StepTime]:
    rng = np.random.default_rng(seed)
    return [
        StepTime(w, m, a, seconds(truth, w, m, a) * math.exp(noise * rng.standard_normal()))
        for w in worlds
        for m in MICROS
        for a in PASSES
    ]


@settings(max_examples=30, deadline=None)
@given(truths)
def test_exact_tables_give_their_parameters_back(truth: Truth) -> None:
    model = fit_step_model(runs(truth))
    assert model is not None
    found = (model.compute_s, model.compute_s_per_sample, model.sync_s, model.sync_s_per_rank, model.overlap)
    assert found == pytest.approx(truth, rel=0.02)
    assert model.typical_error < 1e-4
    for world in (1, 2, 4, 8, 16):
        said = model.predict(world, 256, 2)
        assert said is not None
        assert said.step_s == pytest.approx(seconds(truth, world, 256, 2), rel=0.02)


def test_predictions_from_noisy_steps_are_within_5_percent() -> None:
    """2% noise a step; over studies drawn at random, on world sizes run and on twice the largest."""
    rng = np.random.default_rng(0)
    errors: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
    for seed in range(40):
        compute, share = rng.uniform(0.005, 0.03), rng.uniform(0.5, 2)  # sync is half to twice a small batch's compute
        truth = (compute, compute / 30, compute * share, compute * share * 0.1, rng.uniform(1, 3))
        model = fit_step_model(runs(truth, noise=0.02, seed=seed))
        assert model is not None
        assert model.typical_error == pytest.approx(0.02, rel=0.35)
        for world, found in errors.items():
            said = model.predict(world, 32)
            assert said is not None
            found.append(abs(said.step_s / seconds(truth, world, 32, 1) - 1))
    assert max(max(errors[w]) for w in WORLDS) < 0.05
    assert np.mean(np.array(errors[8]) < 0.05) >= 0.9


def test_extrapolations_are_marked() -> None:
    model = fit_step_model(runs((0.01, 0.001, 0.02, 0.005, 2.0)))
    assert model is not None
    assert (model.world_sizes, model.micro_batches, model.accumulations) == (WORLDS, (8, 128), (1, 4))
    for shape, expected in (
        ((4, 100, 3), False),
        ((8, 32, 1), True),
        ((3, 32, 1), True),  # between those run, but not run
        ((2, 256, 1), True),
        ((2, 4, 1), True),
        ((2, 32, 8), True),
    ):
        said = model.predict(*shape)
        assert said is not None
        assert said.extrapolated == expected, shape
        assert said.samples_per_s == pytest.approx(math.prod(shape) / said.step_s)


def test_no_prediction_where_the_runs_do_not_determine_it() -> None:
    truth = (0.01, 0.001, 0.02, 0.005, 2.0)
    alone = fit_step_model(runs(truth, worlds=(1,)))
    assert alone is not None
    assert (alone.sync_s, alone.sync_s_per_rank, alone.overlap) == (None, None, None)
    assert alone.predict(2, 32) is None
    said = alone.predict(1, 32, 2)
    assert said is not None
    assert said.step_s == pytest.approx(seconds(truth, 1, 32, 2), rel=1e-3)
    four = fit_step_model(runs(truth, worlds=(1, 4)))
    assert four is not None
    assert four.sync_s_per_rank is None
    assert (four.predict(2, 32), four.predict(8, 32)) == (None, None)
    said = four.predict(4, 32)
    assert said is not None
    assert said.step_s == pytest.approx(seconds(truth, 4, 32, 1), rel=1e-3)


def test_one_micro_batch_is_too_few() -> None:
    assert fit_step_model([StepTime(w, 8, 1, 0.1 * w) for w in (1, 2, 4)]) is None
    assert fit_step_model([]) is None


@settings(max_examples=25, deadline=None)
@given(truths, st.integers(0, 1000))
def test_parameters_stay_sane_and_residuals_add_up(truth: Truth, seed: int) -> None:
    table = runs(truth, noise=0.1, seed=seed)
    model = fit_step_model(table)
    assert model is not None
    assert min(model.compute_s, model.compute_s_per_sample, model.sync_s or 0, model.sync_s_per_rank or 0) >= 0
    assert 1 <= (model.overlap or 0) <= 10
    for run, residual in zip(table, model.residuals, strict=True):
        said = model.predict(run.world_size, run.micro_batch, run.accumulation)
        assert said is not None
        assert math.log(run.step_s / said.step_s) == pytest.approx(residual, abs=1e-9)


@pytest.mark.parametrize("bad", [(0, 1, 1, 1.0), (1, -1, 1, 1.0), (1, 1, 1, 0.0), (1, 1, 1, math.nan)])
def test_impossible_steps_are_refused(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="no step is like this"):
        StepTime(*bad)
