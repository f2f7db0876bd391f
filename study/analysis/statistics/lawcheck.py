"""Tests of whether steps to a target by batch size follow the law that `critical` fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from study.analysis.statistics import Flags, Floats

MIN_BATCHES = 4  # two parameters, and something left over to contradict them
_TOO_FAR = 0.2  # with one seed a batch: misses that no plausible noise between seeds explains
_NEGLIGIBLE = 0.01  # a misfit of 1% in steps is of no consequence, however significant
_LEVELS = {"monotone": 0.01, "trend": 0.03, "fit": 0.03}  # false alarms of each test, 7% together at most


def misfits(x: Floats, y: Floats, censored: Flags, fitted: Floats | None) -> list[str]:
    """Return reasons not to trust the law on n runs; empty if no test speaks against it.

    `x` are log batch sizes, `y` log steps, `censored` says which of these are bounds, `fitted` are the law's log steps,
    None if there were too few runs to fit it; all (n,).
    """
    met = np.unique(x[~censored])
    reasons = []
    if len(met) < MIN_BATCHES:
        reasons.append(f"too few batches: {len(met)} met the target, {MIN_BATCHES} are needed")
    reasons += _censored_side(x, met)
    if fitted is None:
        return reasons
    # A batch size that some runs gave up at has a mean that is too low; it is left out of what follows.
    whole = ~np.isin(x, x[censored])
    x, y, residual = x[whole], y[whole], (y - fitted)[whole]
    groups = [np.flatnonzero(x == batch) for batch in np.unique(x)]
    if len(groups) >= 3:
        reasons += _not_monotone(x, y, residual, groups)
        reasons += _trend(x, residual, fitted[whole])
        reasons += _lack_of_fit(y, residual, groups)
    return reasons


def _censored_side(x: Floats, met: Floats) -> list[str]:
    """Report that no run at an end of the range met the target: the bend of the law there is then not visible."""
    ends = []
    if len(met) and x.max() > met[-1]:
        ends.append(f"no run above batch {math.exp(met[-1]):.0f} met the target")
    if len(met) and x.min() < met[0]:
        ends.append(f"no run below batch {math.exp(met[0]):.0f} met the target")
    return [f"censored side: {' and '.join(ends)}"] if ends else []


def _pure_error(y: Floats, groups: Sequence[NDArray[np.intp]]) -> tuple[float, int]:
    """Return the sum of squares between seeds of one batch size, and its degrees of freedom."""
    return sum(float(((y[g] - y[g].mean()) ** 2).sum()) for g in groups), len(y) - len(groups)


def _not_monotone(x: Floats, y: Floats, residual: Floats, groups: Sequence[NDArray[np.intp]]) -> list[str]:
    """Test that samples do not fall, nor steps rise, as the batch grows: t tests of all pairs, Bonferroni-corrected."""
    squares, degrees = _pure_error(y, groups)
    if degrees < 2:
        squares, degrees = float((residual**2).sum()), len(y) - 2
    if degrees < 1:
        return []
    batch = np.array([x[g[0]] for g in groups])
    size = np.array([len(g) for g in groups])
    log_steps = np.array([y[g].mean() for g in groups])
    log_samples = log_steps + batch
    i, j = np.triu_indices(len(groups), k=1)
    level = _LEVELS["monotone"] / (2 * len(i))
    allowed = stdtrit(degrees, 1 - level) * np.sqrt(squares / degrees * (1 / size[i] + 1 / size[j])) + _NEGLIGIBLE
    reasons = []
    for what, drop in (("samples fall", log_samples[i] - log_samples[j]), ("steps rise", log_steps[j] - log_steps[i])):
        worst = int(np.argmax(drop - allowed))
        if drop[worst] > allowed[worst]:
            low, high = math.exp(batch[i[worst]]), math.exp(batch[j[worst]])
            reasons.append(f"non-monotone: {what} from batch {low:.0f} to {high:.0f}")
    return reasons


def _trend(x: Floats, residual: Floats, fitted: Floats) -> list[str]:
    """Test residuals for a bend with log batch: t test of a parabola beside the two directions of the law."""
    if len(residual) < 4:
        return []
    offset, slope = fitted.min(), x - x.mean()
    # d log S / d log B_crit = 1 - s_min/S; affine in 1/S, so any offset of log S spans the same plane.
    tangent = np.stack([np.ones_like(x), np.exp(offset - fitted)], axis=1)
    bend = slope**2 - tangent @ np.linalg.lstsq(tangent, slope**2, rcond=None)[0]
    length = float(bend @ bend)
    if length < 1e-9:
        return []
    size = float(bend @ residual) / math.sqrt(length)
    left = float(residual @ residual) - size**2
    degrees = len(residual) - 3
    t = abs(size) / math.sqrt(max(left / degrees, 1e-30))
    if t < stdtrit(degrees, 1 - _LEVELS["trend"] / 2) or abs(size) / math.sqrt(len(residual)) < _NEGLIGIBLE:
        return []
    return ["residual trend: steps bend more or less with the batch than the law does"]


def _lack_of_fit(y: Floats, residual: Floats, groups: Sequence[NDArray[np.intp]]) -> list[str]:
    """Test whether batches miss the law by more than seeds explain: F test against the spread between seeds."""
    squares, degrees = _pure_error(y, groups)
    over = len(groups) - 2
    if degrees < 2:
        rms = math.sqrt(float(residual @ residual) / max(len(y) - 2, 1))
        return [f"lack of fit: runs miss the law by {rms:.0%} in steps"] if rms > _TOO_FAR else []
    missed = max(float(residual @ residual) - squares, 0.0)
    f = missed / over / max(squares / degrees, 1e-30)
    rms = math.sqrt(missed / len(residual))
    if fdtrc(over, degrees, f) > _LEVELS["fit"] or rms < _NEGLIGIBLE:
        return []
    return [f"lack of fit: batches miss the law by {rms:.0%} in steps, more than their seeds explain"]
