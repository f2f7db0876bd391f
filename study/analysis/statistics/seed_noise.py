"""How much configurations vary over seeds, each judged with the help of the others of its study.

Value = configuration + seed + noise: what a seed does to all configurations that ran it is no noise of their
differences. A variance from three seeds is known with two degrees of freedom, which makes intervals wide. The other
configurations say what noise is like, and each variance is shrunk towards theirs as far as they look alike (moderated
variances, Smyth 2004, doi:10.2202/1544-6115.1027).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from study.analysis.statistics import Flags, Floats

MODERATED_FROM = 3  # configurations: fewer say too little of how alike variances are
_FLOOR = 1e-6  # of the largest variance: two equal seeds are luck, not certainty
_ROUNDING = 1e-12  # share of the largest value: a smaller deviation is the rounding of equal values


@dataclass(frozen=True)
class Variances:
    """Variances of k configurations, (k,), their degrees of freedom, (k,), and those of all together."""

    variance: Floats
    degrees: Floats
    all_degrees: float


@dataclass(frozen=True)
class SeedNoise:
    """Means of k configurations over two or more seeds, (k,), and how well they are known.

    Where configurations ran different seeds, `mean` allows for what each seed does to all that ran it (generalized
    least squares); where all ran the same it is the plain mean.
    """

    mean: Floats
    covariance: Floats  # of the means, (k, k)
    degrees: Floats  # of freedom of a configuration's noise, (k,)
    all_degrees: Floats  # the most of any difference with it, (k,)
    paired: Flags  # whether the configuration is compared seed by seed, (k,)
    moderated: Flags  # whether its variance is shrunk towards those of others, (k,)
    share: Floats  # squared standard error of the mean by the configuration's own noise, (k,)
    of_seeds: float  # variance of what a seed does to all that ran it

    @property
    def common(self) -> float:
        """The squared error that seeds bring into all means alike, and of which differences are free."""
        k = len(self.mean)
        if k < 2:
            return 0.0
        return max(float(self.covariance.sum() - np.trace(self.covariance)) / (k * (k - 1)), 0.0)

    @property
    def own(self) -> Floats:
        """The squared error (k,) that each mean brings into its difference with any other."""
        return np.maximum(np.diag(self.covariance) - self.common, self.share)

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """Return standard error and degrees of freedom of the difference of two means.

        Where only the two are known they are those of the paired t test, and of Welch's, whose degrees add up
        (Satterthwaite 1946, doi:10.2307/3002019). Those of moderated variances, which share most of their evidence, are
        averaged instead.
        """
        pair, cov = [a, b], self.covariance
        square = float(cov[a, a] + cov[b, b] - 2 * cov[a, b])
        shares = self.share[pair]
        if square <= 0 or not shares.any():
            return 0.0, float(self.degrees[pair].min())
        power = 1 if (self.paired[pair] | self.moderated[pair]).all() else 2
        degrees = float(shares.sum()) ** power / float((shares**power / self.degrees[pair]).sum())
        return square**0.5, min(degrees, float(self.all_degrees[pair].min()))


def seed_noise(values: Sequence[Mapping[Hashable, float]]) -> SeedNoise:
    """Return means and noise of k configurations, each given as two or more values by seed."""
    seeds = {seed: place for place, seed in enumerate(dict.fromkeys(seed for one in values for seed in one))}
    table = np.full((len(values), len(seeds)), np.nan)
    for row, one in zip(table, values, strict=True):
        row[[seeds[seed] for seed in one]] = list(one.values())
    ran = np.isfinite(table)
    counts = ran.sum(axis=1).astype(float)
    mean = np.array([np.mean(list(one.values())) for one in values])
    rounding = (_ROUNDING * float(np.nanmax(np.abs(table)))) ** 2
    alone = _without(np.nanvar(table, axis=1, ddof=1), rounding)
    all_alike = bool(ran.all())
    paired = _shared(ran) if all_alike or len(values) >= MODERATED_FROM else np.zeros(len(values), dtype=bool)
    whole = _moderated(Variances(alone, counts - 1, float((counts - 1).sum())))
    variance, degrees, most = whole.variance, whole.degrees, np.full(len(values), whole.all_degrees)
    moderated = np.full(len(values), len(values) >= MODERATED_FROM)
    of_seeds = 0.0
    if paired.any():
        left = _beside_others(table[paired], ran[paired])
        left = replace(left, variance=_without(left.variance, rounding))
        weights = counts[paired] - 1
        of_seeds = max(float(np.average(alone[paired] - left.variance, weights=weights)), 0.0)
        beside = _moderated(left)
        variance = np.maximum(variance - of_seeds, variance / 10)
        variance[paired], degrees[paired], most[paired] = beside.variance, beside.degrees, beside.all_degrees
        moderated[paired] = paired.sum() >= MODERATED_FROM
    share = variance / counts
    if all_alike or of_seeds <= _FLOOR * variance.max() or not variance.all():
        covariance = np.diag(share) + of_seeds / counts[0]
    else:
        mean, covariance = _generalized(table, ran, variance, of_seeds)
    return SeedNoise(mean, covariance, degrees, most, paired, moderated, share, of_seeds)


def _without(variance: Floats, rounding: float) -> Floats:
    """Return variances with 0 for those that are no more than rounding."""
    return np.where(variance > rounding, variance, 0.0)


def _shared(ran: Flags) -> Flags:
    """Return which configurations (k,) have two seeds or more that others of these ran too."""
    among = np.ones(len(ran), dtype=bool)
    while True:
        shared = (ran & among[:, None]).sum(axis=0) >= 2
        left = among & ((ran & shared).sum(axis=1) >= 2)
        if (left == among).all():
            return among
        among = left


def _beside_others(table: Floats, ran: Flags) -> Variances:
    """Return variances about the sums of configuration and seed, which least squares fits to the table (k, seeds)."""
    ran = ran & (ran.sum(axis=0) >= 2)
    weights = ran.astype(float)
    counts = weights.sum(axis=1)
    filled = np.where(ran, table, 0.0)
    centred = np.where(ran, filled - (filled.sum(axis=1) / counts)[:, None], 0.0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=0)) - (weights.T / counts) @ weights, hermitian=True)
    effects = inverse @ centred.sum(axis=0)
    residual = np.where(ran, centred - effects + (weights @ effects / counts)[:, None], 0.0)
    # How much of a value the fit follows: its leverage.
    within = weights @ inverse / counts[:, None]
    lever = 1 / counts[:, None] + np.diag(inverse) - 2 * within + ((within * weights).sum(axis=1) / counts)[:, None]
    free = np.where(ran, 1 - lever, 0.0).sum(axis=1)
    return Variances((residual**2).sum(axis=1) / free, counts - 1, float(free.sum()))


def _generalized(table: Floats, ran: Flags, variance: Floats, of_seeds: float) -> tuple[Floats, Floats]:
    """Return means (k,) and their covariance where seeds, with this variance, are shared in part."""
    weights = ran / variance[:, None]
    shrink = of_seeds / (1 + of_seeds * weights.sum(axis=0))
    weighted = np.where(ran, table, 0.0) * weights
    information = np.diag(weights.sum(axis=1)) - (weights * shrink) @ weights.T
    covariance = np.linalg.inv(information)
    return covariance @ (weighted.sum(axis=1) - weights @ (shrink * weighted.sum(axis=0))), covariance


def _moderated(known: Variances) -> Variances:
    """Return the variances shrunk towards a common one as far as they look alike, and their degrees of freedom.

    Fewer than three are returned as they are. How alike variances are is itself a guess from a few of them: the common
    one never counts for more than half of the degrees that all have together (docs/adr/030).
    """
    variance, degrees = known.variance, known.degrees
    if len(variance) < MODERATED_FROM or not variance.any():
        return Variances(variance.copy(), degrees.copy(), known.all_degrees)
    floor = np.maximum(variance, _FLOOR * variance.max())
    log = np.log(floor) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = log.var(ddof=1) - polygamma(1, degrees / 2).mean()  # beyond what chance makes them unlike
    prior, most = np.inf, known.all_degrees / 2
    if excess > 1e-3:
        prior = 2 * brentq(lambda half: float(polygamma(1, half)) - excess, 1e-3, 2e3)
    if prior < most:
        common = np.exp(log.mean() + digamma(prior / 2) - np.log(prior / 2))
    else:
        prior, common = most, np.average(variance, weights=degrees)
    total = prior + degrees
    return Variances(
        (prior * common + degrees * floor) / total, np.minimum(total, known.all_degrees), known.all_degrees
    )
