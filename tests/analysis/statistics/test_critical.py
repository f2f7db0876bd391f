"""The critical batch size against tables made from the law, and tables that break it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

from study.analysis.statistics.critical import StepsToTarget, fit_critical_batch

BATCHES = [16 * 2**i for i in range(8)]
S_MIN = 1000.0


def law(b_crit: float) -> Callable[[float], float]:
    return lambda batch: S_MIN * (1 + b_crit / batch)


def table(
    steps: Callable[[float], float],
    rng: np.random.Generator,
    seeds: int = 3,
    noise: float = 0.05,
    cap: float = math.inf,
) -> list[StepsToTarget]:
    drawn = [(b, steps(b) * math.exp(noise * rng.standard_normal())) for b in BATCHES for _ in range(seeds)]
    return [StepsToTarget(b, min(s, cap), reached=s < cap) for b, s in drawn]


def covers(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 4.5), st.floats(0, 6))
def test_exact_tables_give_the_law_back(log_b: float, log_s: float) -> None:
    b_crit, s_min = 10**log_b, 10**log_s
    fit = fit_critical_batch([StepsToTarget(b, s_min * (1 + b_crit / b)) for b in BATCHES])
    assert fit.b_crit == pytest.approx(b_crit, rel=1e-4)
    assert fit.s_min == pytest.approx(s_min, rel=1e-4)
    assert fit.e_min == pytest.approx(s_min * b_crit, rel=1e-4)
    assert fit.r2 == pytest.approx(1, abs=1e-6)
    assert not fit.misfit, fit.misfit_reason
    # The two factors of the law as it is written in the paper.
    for batch in BATCHES:
        steps = s_min * (1 + b_crit / batch)
        assert fit.s_min is not None
        assert fit.e_min is not None
        assert (steps / fit.s_min - 1) * (steps * batch / fit.e_min - 1) == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("b_crit", [16.0, 64.0, 256.0, 2048.0, 8192.0])
def test_interval_covers_the_truth_and_the_law_is_not_accused(b_crit: float) -> None:
    """Inside the range of batch sizes, at both of its edges, and beyond it."""
    rng = np.random.default_rng(int(b_crit))
    fits = [fit_critical_batch(table(law(b_crit), rng)) for _ in range(500)]
    assert np.mean([covers(f.b_crit_ci, b_crit) for f in fits]) >= 0.93
    assert np.mean([covers(f.s_min_ci, S_MIN) for f in fits]) >= 0.93
    assert np.mean([covers(f.e_min_ci, S_MIN * b_crit) for f in fits]) >= 0.93
    assert np.mean([f.misfit for f in fits]) <= 0.10


def test_a_fit_is_quick_even_with_bounds() -> None:
    rows = table(law(256), np.random.default_rng(0), cap=3000)
    start = time.process_time()
    for _ in range(20):
        fit_critical_batch(rows)
    assert (time.process_time() - start) / 20 < 0.05


BROKEN: dict[str, Callable[[float], float]] = {
    "steps constant, then rising": lambda b: 1e5 / min(b, 128) * (max(b, 512) / 512) ** 0.5,
    "power law": lambda b: 1e5 * b**-0.5,
    "a shallow power law": lambda b: 1e5 * b**-0.3,
    "samples fall at first": lambda b: S_MIN * (1 + 128 / b) * (1 + 32 / b),
    "samples up and down": lambda b: law(128)(b) * (1.3 if int(math.log2(b)) % 2 else 0.8),
    "a sharper knee": lambda b: S_MIN * math.hypot(1, 128 / b),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_breaks_the_law_is_flagged(name: str) -> None:
    rng = np.random.default_rng(1)
    fits = [fit_critical_batch(table(BROKEN[name], rng)) for _ in range(200)]
    assert np.mean([f.misfit for f in fits]) >= 0.95


@pytest.mark.parametrize("name", ["power law", "steps constant, then rising", "samples up and down"])
def test_one_seed_is_enough_to_flag_what_is_far_off(name: str) -> None:
    rng = np.random.default_rng(2)
    assert np.mean([fit_critical_batch(table(BROKEN[name], rng, seeds=1)).misfit for _ in range(100)]) >= 0.95


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_any_number_of_seeds_keeps_false_alarms_rare(seeds: int) -> None:
    rng = np.random.default_rng(3)
    assert np.mean([fit_critical_batch(table(law(128), rng, seeds)).misfit for _ in range(200)]) <= 0.10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: StepsToTarget(b, law(128)(b)) if b < 128 else None, "too few batches: 3 met the target, 4 are"),
        (lambda b: StepsToTarget(b, law(128)(b), b <= 512), "no run above batch 512 met the target"),
        (lambda b: StepsToTarget(b, law(128)(b), b >= 64), "no run below batch 64 met the target"),
        (lambda b: StepsToTarget(b, law(128)(b) * (1 + (b == 2048))), "non-monotone: steps rise from batch"),
        (lambda b: StepsToTarget(b, law(128)(b) * (1 + 3 * (b == 16))), "non-monotone: samples fall from batch 16"),
        (lambda b: StepsToTarget(b, BROKEN["power law"](b)), "residual trend"),
    ],
)
def test_each_reason_is_named(change: Callable[[float], StepsToTarget | None], reason: str) -> None:
    rng = np.random.default_rng(4)
    rows = [row for b in BATCHES for _ in range(3) if (row := change(b)) is not None]
    noisy = [StepsToTarget(r.batch_size, r.steps * math.exp(0.03 * rng.standard_normal()), r.reached) for r in rows]
    fit = fit_critical_batch(noisy)
    assert fit.misfit
    assert reason in (fit.misfit_reason or "")


def test_censored_runs_are_bounds_not_values() -> None:
    """Small batches run out of steps: taken as values these bend the curve, taken as bounds they do not."""
    rng = np.random.default_rng(5)
    as_bounds, as_values = 0, 0
    for _ in range(100):
        rows = table(law(256), rng, noise=0.2, cap=5000)
        as_bounds += covers(fit_critical_batch(rows).b_crit_ci, 256)
        as_values += covers(fit_critical_batch([StepsToTarget(r.batch_size, r.steps) for r in rows]).b_crit_ci, 256)
    assert as_bounds >= 90
    assert as_values <= 10


def test_the_censored_fit_is_the_maximum_of_the_likelihood() -> None:
    """Against a general optimiser on the likelihood written out."""
    rows = table(law(256), np.random.default_rng(6), noise=0.2, cap=4000)
    x, y = np.log([r.batch_size for r in rows]), np.log([r.steps for r in rows])
    reached = np.array([r.reached for r in rows])

    def loss(p: np.ndarray) -> float:
        z = (y - p[0] - np.log1p(np.exp(p[1] - x))) / math.exp(p[2])
        return -float(np.where(reached, norm.logpdf(z) - p[2], norm.logsf(z)).sum())

    best = minimize(
        loss, [7.0, 5.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000}
    )
    fit = fit_critical_batch(rows)
    assert 0 < fit.n_censored < len(rows)
    assert fit.s_min == pytest.approx(math.exp(best.x[0]), rel=2e-3)
    assert fit.b_crit == pytest.approx(math.exp(best.x[1]), rel=1e-2)


def test_estimates_that_the_runs_only_bound_are_none() -> None:
    flat = fit_critical_batch([StepsToTarget(b, 1000) for b in BATCHES])
    assert (flat.b_crit, flat.e_min) == (None, None)
    assert flat.b_crit_ci is not None
    assert flat.b_crit_ci[0] == 0
    assert flat.s_min == pytest.approx(1000, rel=1e-2)
    steep = fit_critical_batch([StepsToTarget(b, 1e6 / b) for b in BATCHES])
    assert (steep.b_crit, steep.s_min) == (None, None)
    assert steep.b_crit_ci is not None
    assert steep.b_crit_ci[1] == math.inf
    assert steep.e_min == pytest.approx(1e6, rel=1e-2)


@pytest.mark.parametrize("rows", [[], [StepsToTarget(8, 10)] * 5, [StepsToTarget(b, 10, False) for b in BATCHES]])
def test_too_few_runs_are_reported_and_not_fitted(rows: list[StepsToTarget]) -> None:
    fit = fit_critical_batch(rows)
    assert fit.b_crit is None
    assert fit.misfit
    assert "too few batches" in (fit.misfit_reason or "")


@pytest.mark.parametrize(("batch", "steps"), [(0, 1), (-8, 1), (8, 0), (8, math.nan), (math.inf, 1)])
def test_impossible_runs_are_refused(batch: float, steps: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        StepsToTarget(batch, steps)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 100), st.floats(0.1, 100), st.integers(0, 2**31))
def test_units_do_not_matter(batch_unit: float, step_unit: float, seed: int) -> None:
    rows = table(law(128), np.random.default_rng(seed), seeds=2)
    fit = fit_critical_batch(rows)
    scaled = fit_critical_batch([StepsToTarget(r.batch_size * batch_unit, r.steps * step_unit) for r in rows])
    assert fit.b_crit is not None
    assert fit.s_min is not None
    assert scaled.b_crit == pytest.approx(fit.b_crit * batch_unit, rel=1e-6)
    assert scaled.s_min == pytest.approx(fit.s_min * step_unit, rel=1e-6)
    assert scaled.misfit == fit.misfit
