"""Draws of plausible true means of configurations that were each measured with a few seeds.

Resampling three to five seeds is too confident: it never draws past the seeds it saw, and their spread is itself a
guess from two to four degrees of freedom. Two things are borrowed from the other configurations instead: how noisy a
seed is (moderated variances), and how far apart configurations tend to lie (partial pooling). Both give way to the
seeds of the configuration itself where the configurations turn out to be unlike each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from study.analysis.statistics import Floats

_POOL_FROM = 4  # a line and a spread around it need more than three configurations
_SPREADS = np.concatenate(
    [[1e-3], np.linspace(0.05, 3.0, 40)]
)  # grid of the spread, in standard deviations of the means


def draw_means(
    values: Sequence[Sequence[float]], rank: Floats | None, n_draws: int, rng: np.random.Generator
) -> Floats:
    """Draw true means (n_draws, k) of k configurations from their posterior, given two or more values of each.

    `rank` (k,) places the configurations on a line that their means may follow, with a scatter around it; without it
    they scatter around one common mean. Hierarchical normal model with a flat prior on the scatter (Gelman 2006,
    doi:10.1214/06-BA117A). Fewer than four configurations are not pooled: each mean then follows Student's t.
    """
    mean = np.array([np.mean(v) for v in values])
    variance, degrees = moderate(
        np.array([np.var(v, ddof=1) for v in values]), np.array([len(v) - 1.0 for v in values])
    )
    if not variance.any():
        return np.tile(mean, (n_draws, 1))  # a cost that is equal for all seeds is known exactly
    shape = (n_draws, len(mean))
    error = variance / [len(v) for v in values] * degrees / rng.chisquare(degrees, shape)
    spread = float(mean.std())
    if len(mean) < _POOL_FROM or spread == 0:
        return mean + np.sqrt(error) * rng.standard_normal(shape)
    design = np.ones((len(mean), 1)) if rank is None else np.stack([np.ones(len(mean)), rank - rank.mean()], axis=1)
    scatter, line = _draw_prior(mean, error, design, spread * _SPREADS, rng)
    precision = 1 / error + 1 / scatter**2
    centre = (mean / error + line / scatter**2) / precision
    return centre + rng.standard_normal(shape) / np.sqrt(precision)


def moderate(variance: Floats, degrees: Floats) -> tuple[Floats, Floats]:
    """Return variances (k,) shrunk towards a common one as far as they look alike, and their degrees of freedom (k,).

    Smyth 2004, doi:10.2202/1544-6115.1027. No variance gets more degrees of freedom than all have together.
    """
    if len(variance) < 2 or not variance.any():
        return variance, degrees
    floor = np.maximum(variance, 1e-6 * variance.max())  # two equal seeds are luck, not certainty
    log = np.log(floor) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = log.var(ddof=1) - polygamma(1, degrees / 2).mean()
    if excess <= 1e-3:  # no more unlike than chance makes them
        return np.full_like(floor, np.exp(log.mean())), np.full_like(degrees, degrees.sum())
    prior = 2 * brentq(lambda half: float(polygamma(1, half)) - excess, 1e-3, 2e3)
    common = np.exp(log.mean() + digamma(prior / 2) - np.log(prior / 2))
    together = prior + degrees
    return (prior * common + degrees * floor) / together, np.minimum(together, degrees.sum())


def _draw_prior(
    mean: Floats, error: Floats, design: Floats, scatters: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw a scatter (n_draws, 1) and a line (n_draws, k) for each draw of the error variances (n_draws, k).

    The scatter is drawn from its marginal posterior on a grid, then the line given the scatter.
    """
    n_draws, width = len(error), design.shape[1]
    best = np.full(n_draws, -np.inf)
    scatter = np.empty((n_draws, 1))
    fit = np.empty((n_draws, width))
    root = np.empty((n_draws, width, width))
    for candidate, step in zip(scatters, np.gradient(scatters), strict=True):
        weight = 1 / (candidate**2 + error)
        information = np.einsum("bk,ki,kj->bij", weight, design, design)
        line = np.linalg.solve(information, ((weight * mean) @ design)[..., None])[..., 0]
        residual = mean - line @ design.T
        log_p = 0.5 * (np.log(weight) - weight * residual**2).sum(axis=1) - 0.5 * np.linalg.slogdet(information)[1]
        # The largest of log-probabilities with Gumbel noise is a draw from them.
        score = log_p + np.log(step) + rng.gumbel(size=n_draws)
        taken = score > best
        best[taken], scatter[taken], fit[taken] = score[taken], candidate, line[taken]
        root[taken] = np.linalg.cholesky(np.linalg.inv(information[taken]))
    coefficients = fit + np.einsum("bij,bj->bi", root, rng.standard_normal((n_draws, width)))
    return scatter, coefficients @ design.T
