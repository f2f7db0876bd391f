"""The critical batch size: the law of steps against samples (McCandlish et al. 2018, arXiv:1812.06162), fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, stdtrit

from study.analysis.statistics import Flags, Floats
from study.analysis.statistics.lawcheck import misfits

_BEYOND = math.log(1000)  # the search for B_crit extends so far beyond the batch sizes that were run
_GRID = 400
_FINEST = 1e-12  # variance of log steps below which steps count as exact


@dataclass(frozen=True)
class StepsToTarget:
    """One run: updates until it met the target or, where `reached` is false, updates after which it gave up.

    Raises ValueError unless both figures are positive and finite.
    """

    batch_size: float
    steps: float
    reached: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.batch_size < math.inf and 0 < self.steps < math.inf):
            raise ValueError(f"batch size {self.batch_size} and steps {self.steps} must be positive and finite")


@dataclass(frozen=True)
class CriticalBatch:
    """(S/s_min - 1)(E/e_min - 1) = 1, with b_crit = e_min/s_min. Intervals are 95%; an open side is 0 or inf.

    An estimate is None where the runs only bound it, or are too few to fit.
    """

    b_crit: float | None  # samples
    b_crit_ci: tuple[float, float] | None
    s_min: float | None  # steps
    s_min_ci: tuple[float, float] | None
    e_min: float | None  # samples
    e_min_ci: tuple[float, float] | None
    r2: float | None  # of log steps, over the runs that met the target
    noise: float | None  # standard deviation of log steps around the law
    misfit: bool
    misfit_reason: str | None
    batch_sizes: tuple[float, ...]  # fitted on, ascending
    n_runs: int
    n_censored: int


@dataclass(frozen=True)
class _Profile:
    """The best fit of the law at each candidate log B_crit; all arrays are (g,)."""

    log_b: Floats
    log_s: Floats  # best log s_min
    variance: Floats  # best variance of log steps
    log_likelihood: Floats


def fit_critical_batch(runs: Sequence[StepsToTarget]) -> CriticalBatch:
    """Fit the law by maximum likelihood in log steps over all runs, with profile-likelihood intervals.

    S = s_min (1 + b_crit/B) with lognormal noise. Runs that gave up enter as lower bounds of their steps. The
    likelihood is profiled on a grid of b_crit, exact however curved it is there, and compared with Student's t in
    place of the normal (Bates and Watts 1988, ch. 6), since three seeds a batch are few.
    """
    x, y = np.log([r.batch_size for r in runs]), np.log([r.steps for r in runs])
    censored = np.array([not r.reached for r in runs], dtype=bool)
    met = np.unique(x[~censored])
    n = int((~censored).sum())
    if n < 3 or len(met) < 2:
        return _unfitted(runs, misfits(x, y, censored, None))
    profile, limit = _zoom(x, y, censored, stdtrit(n - 2, 0.975) ** 2 / (n - 2))
    best = int(np.argmax(profile.log_likelihood))
    noise = math.sqrt(profile.variance[best] * n / (n - 2))
    fitted = profile.log_s[best] + np.logaddexp(0, profile.log_b[best] - x)
    residual = (y - fitted)[~censored]
    total = float(((y[~censored] - y[~censored].mean()) ** 2).sum())
    # Where the grid ends B_crit is as good as 0 or inf, and so is one of the other two.
    low_end, high_end = best == 0, best == len(profile.log_b) - 1
    b_ci, s_ci, e_ci = _intervals(profile, limit, n)
    reasons = misfits(x, y, censored, fitted)
    return CriticalBatch(
        b_crit=None if low_end or high_end else math.exp(profile.log_b[best]),
        b_crit_ci=b_ci,
        s_min=None if high_end else math.exp(profile.log_s[best]),
        s_min_ci=s_ci,
        e_min=None if low_end else math.exp(profile.log_s[best] + profile.log_b[best]),
        e_min_ci=e_ci,
        r2=1 - float((residual**2).sum()) / total if total > 0 else None,
        noise=noise,
        misfit=bool(reasons),
        misfit_reason="; ".join(reasons) or None,
        batch_sizes=tuple(sorted({r.batch_size for r in runs})),
        n_runs=len(runs),
        n_censored=int(censored.sum()),
    )


def _unfitted(runs: Sequence[StepsToTarget], reasons: Sequence[str]) -> CriticalBatch:
    none = dict.fromkeys(("b_crit", "b_crit_ci", "s_min", "s_min_ci", "e_min", "e_min_ci", "r2", "noise"))
    return CriticalBatch(
        **none,
        misfit=True,
        misfit_reason="; ".join(reasons),
        batch_sizes=tuple(sorted({r.batch_size for r in runs})),
        n_runs=len(runs),
        n_censored=sum(not r.reached for r in runs),
    )


def _profile(log_b: Floats, x: Floats, y: Floats, censored: Flags) -> _Profile:
    """Fit log s_min and variance at each log B_crit (g,) to runs (n,); expectation-maximisation where runs gave up."""
    shape = np.logaddexp(0, log_b[:, None] - x)  # (g, n): log(1 + b_crit/B)
    log_s = (y - shape).mean(axis=1)
    variance = np.maximum(((y - shape - log_s[:, None]) ** 2).mean(axis=1), _FINEST)
    if censored.any():
        log_s, variance = _expect(shape, y, censored, log_s, variance)
    z = (y - shape - log_s[:, None]) / np.sqrt(variance)[:, None]
    met = -0.5 * (np.log(variance)[:, None] + z**2)[:, ~censored].sum(axis=1)
    return _Profile(log_b, log_s, variance, met + log_ndtr(-z[:, censored]).sum(axis=1))


def _expect(shape: Floats, y: Floats, censored: Flags, log_s: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Refit with bounds: fill in mean and spread of a run beyond its bound, refit, and repeat until it converges."""
    bound = y[censored]
    filled = np.broadcast_to(y, shape.shape).copy()
    for _ in range(300):
        sigma = np.sqrt(variance)[:, None]
        centre = log_s[:, None] + shape[:, censored]
        z = (bound - centre) / sigma
        hazard = np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-z))
        filled[:, censored] = centre + sigma * hazard
        unsure = (sigma**2 * np.maximum(1 + z * hazard - hazard**2, 0)).sum(axis=1)
        before = log_s
        log_s = (filled - shape).mean(axis=1)
        squares = ((filled - shape - log_s[:, None]) ** 2).sum(axis=1) + unsure
        variance = np.maximum(squares / len(y), _FINEST)
        if np.abs(log_s - before).max() < 1e-5:
            break
    return log_s, variance


def _zoom(x: Floats, y: Floats, censored: Flags, slack: float) -> tuple[_Profile, float]:
    """Return the profile on a grid that the plausible region of log B_crit fills, and the limit of that region."""
    limit = 1 + slack
    low, high = float(x.min()) - _BEYOND, float(x.max()) + _BEYOND
    while True:
        profile = _profile(np.linspace(low, high, _GRID), x, y, censored)
        inside = np.flatnonzero(_ratio(profile, int((~censored).sum())) <= limit)
        first, last = max(inside[0] - 1, 0), min(inside[-1] + 1, _GRID - 1)
        if last - first >= _GRID // 5:
            return profile, limit
        low, high = float(profile.log_b[first]), float(profile.log_b[last])


def _ratio(profile: _Profile, n: int) -> Floats:
    """Return each candidate's residual sum of squares over the smallest, (g,), with bounds counted as likelihood."""
    behind = 2 * (profile.log_likelihood.max() - profile.log_likelihood) / n
    return np.exp(np.minimum(behind, 50))  # a bound far on the wrong side overflows


def _intervals(profile: _Profile, limit: float, n: int) -> list[tuple[float, float]]:
    """Return intervals of b_crit, s_min and e_min: the extremes of the joint region of (log b_crit, log s_min)."""
    ratio = _ratio(profile, n)
    inside = np.flatnonzero(ratio <= limit)
    first, last = int(inside[0]), int(inside[-1])
    open_low, open_high = first == 0, last == len(ratio) - 1
    low = -math.inf if open_low else _cross(profile.log_b, ratio, first - 1, first, limit)
    high = math.inf if open_high else _cross(profile.log_b, ratio, last, last + 1, limit)
    # At a given b_crit the sum of squares grows as a parabola in log s_min.
    half = np.sqrt((limit - ratio[inside]) * profile.variance.min())
    s, e = profile.log_s[inside], (profile.log_s + profile.log_b)[inside]
    return [
        (math.exp(low), math.exp(high)),
        (0.0 if open_high else math.exp((s - half).min()), math.exp((s + half).max())),
        (0.0 if open_low else math.exp((e - half).min()), math.exp((e + half).max())),
    ]


def _cross(at: Floats, ratio: Floats, left: int, right: int, limit: float) -> float:
    """Return where the ratio crosses the limit between two neighbours, by linear interpolation."""
    return float(at[left] + (at[right] - at[left]) * (limit - ratio[left]) / (ratio[right] - ratio[left]))
