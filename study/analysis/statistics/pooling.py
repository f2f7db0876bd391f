"""Draws of plausible true means of configurations that were each measured with a few seeds.

Resampling three to five seeds is too confident: it never draws past the seeds it saw, and their spread is itself a
guess from two to four degrees of freedom. Two things are borrowed from the other configurations instead: how noisy a
seed is (`seed_noise`), and how far apart configurations tend to lie (partial pooling). Both give way to the
seeds of the configuration itself where the configurations turn out to be unlike each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from study.analysis.statistics import Floats
from study.analysis.statistics.seed_noise import seed_noise

_POOL_FROM = 4  # a line and a spread around it need more than three configurations
_SPREADS = np.concatenate(
    [[1e-3], np.linspace(0.05, 3.0, 40)]
)  # grid of the spread, in standard deviations of the means


def draw_means(
    values: Sequence[Mapping[Hashable, float]], rank: Floats | None, n_draws: int, rng: np.random.Generator
) -> Floats:
    """Draw true means (n_draws, k) of k configurations from their posterior, given two or more values of each by seed.

    `rank` (k,) places the configurations on a line that their means may follow, with a scatter around it; without it
    they scatter around one common mean. Hierarchical normal model with a half-Cauchy prior on the scatter, whose scale
    is a mean's standard error (Gelman 2006, doi:10.1214/06-BA117A). Fewer than four configurations are not pooled: each
    mean then follows Student's t. Where all ran the same seeds, what a seed does to all of them moves all means of a
    draw together.
    """
    noise = seed_noise(values)
    mean, square, degrees = noise.mean, noise.own, noise.degrees
    if not square.any():
        return np.tile(mean, (n_draws, 1))  # a cost that is equal for all seeds is known exactly
    shape = (n_draws, len(mean))
    error = square * degrees / rng.chisquare(degrees, shape)
    fewest = min(map(len, values)) - 1
    together = np.sqrt(noise.common) * rng.standard_t(fewest, (n_draws, 1))
    spread = float(mean.std())
    if len(mean) < _POOL_FROM or spread == 0:
        return mean + together + np.sqrt(error) * rng.standard_normal(shape)
    design = np.ones((len(mean), 1)) if rank is None else np.stack([np.ones(len(mean)), rank - rank.mean()], axis=1)
    scatter, line = _draw_prior(mean, error, design, spread * _SPREADS, rng)
    precision = 1 / error + 1 / scatter**2
    centre = (mean / error + line / scatter**2) / precision
    return centre + together + rng.standard_normal(shape) / np.sqrt(precision)


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
        log_prior = -np.log1p(candidate**2 / error.mean(axis=1))
        # The largest of log-probabilities with Gumbel noise is a draw from them.
        score = log_p + log_prior + np.log(step) + rng.gumbel(size=n_draws)
        taken = score > best
        best[taken], scatter[taken], fit[taken] = score[taken], candidate, line[taken]
        root[taken] = np.linalg.cholesky(np.linalg.inv(information[taken]))
    coefficients = fit + np.einsum("bij,bj->bi", root, rng.standard_normal((n_draws, width)))
    return scatter, coefficients @ design.T
