"""How much configurations vary over seeds, each judged with the help of the others of its study.

A variance from three seeds is known with two degrees of freedom, which makes intervals wide. The other configurations
of a study say what a seed's noise is like, and each variance is shrunk towards theirs as far as they look alike
(moderated variances, Smyth 2004, doi:10.2202/1544-6115.1027).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from study.analysis.statistics import Floats

MODERATED_FROM = 3  # configurations: fewer say too little of how alike variances are
_FLOOR = 1e-6  # of the largest variance: two equal seeds are luck, not certainty


@dataclass(frozen=True)
class Variances:
    """A variance of a value of each of k configurations, (k,), the degrees of freedom of each, (k,), and of all."""

    variance: Floats
    degrees: Floats
    all_degrees: float

    @property
    def moderated(self) -> bool:
        """Whether the variances were shrunk towards a common one."""
        return int(np.isfinite(self.variance).sum()) >= MODERATED_FROM

    def error(self, counts: Floats) -> Floats:
        """Return the squared standard errors of means over `counts` seeds, (k,)."""
        return self.variance / counts


@dataclass(frozen=True)
class SeedNoise:
    """Means of k configurations over two or more seeds, (k,), and how noisy a seed is.

    Configurations that ran the same seeds are compared seed by seed: what a seed does to all of them is no noise of
    their differences. `alike` (k,) numbers the sets of seeds.
    """

    mean: Floats
    counts: Floats
    alike: tuple[int, ...]
    by_itself: Variances  # of a value about the mean of its configuration
    beside_others: Variances  # the same without what its seed does to all; nan for a configuration alone with its seeds

    def paired(self, a: int, b: int) -> bool:
        """Say whether two configurations ran the same seeds."""
        return self.alike[a] == self.alike[b]

    def of_differences(self) -> Floats:
        """Return the squared standard error (k,) that each mean brings into its difference with any other."""
        return self._together.error(self.counts)

    def degrees_of_differences(self) -> Floats:
        """Return the degrees of freedom (k,) of `of_differences`."""
        return self._together.degrees

    def of_all(self) -> float:
        """Return the squared standard error that seeds bring into all means alike, which differences are free of."""
        if self._together is self.by_itself:
            return 0.0
        return max(float((self.by_itself.error(self.counts) - self.of_differences()).mean()), 0.0)

    @property
    def _together(self) -> Variances:
        return self.beside_others if len(set(self.alike)) == 1 and len(self.alike) > 1 else self.by_itself

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """Return standard error and degrees of freedom of the difference of two means.

        Where only the two are known they are those of the paired t test, and of Welch's, whose degrees add up
        (Satterthwaite 1946, doi:10.2307/3002019). Those of moderated variances, which share most of their evidence, are
        averaged instead.
        """
        known = self.beside_others if self.paired(a, b) else self.by_itself
        errors, pair = known.error(self.counts), [a, b]
        square = float(errors[pair].sum())
        if square == 0:
            return 0.0, float(known.degrees[pair].min())
        power = 1 if self.paired(a, b) or known.moderated else 2
        degrees = square**power / float((errors[pair] ** power / known.degrees[pair]).sum())
        return square**0.5, min(degrees, known.all_degrees)


def seed_noise(values: Sequence[Mapping[Hashable, float]]) -> SeedNoise:
    """Return means and noise of k configurations, each given as two or more values by seed."""
    counts = np.array([len(one) for one in values], dtype=float)
    sets = [frozenset(one) for one in values]
    numbers = {seeds: number for number, seeds in enumerate(dict.fromkeys(sets))}
    alike = tuple(numbers[seeds] for seeds in sets)
    alone = np.array([np.var(list(one.values()), ddof=1) for one in values])
    beside, shared_degrees = np.full(len(values), np.nan), 0.0
    for seeds, number in numbers.items():
        members = [i for i, one in enumerate(alike) if one == number]
        if len(members) > 1:
            table = np.array([[values[i][seed] for seed in seeds] for i in members])
            left = table - table.mean(axis=0)
            beside[members] = np.var(left, axis=1, ddof=1) * len(members) / (len(members) - 1)
            shared_degrees += (len(members) - 1) * (len(seeds) - 1)
    paired = np.isfinite(beside)
    variance, degrees = np.full(len(values), np.nan), np.full(len(values), np.nan)
    variance[paired], degrees[paired] = moderate(beside[paired], counts[paired] - 1, shared_degrees)
    together = float((counts - 1).sum())
    return SeedNoise(
        mean=np.array([np.mean(list(one.values())) for one in values]),
        counts=counts,
        alike=alike,
        by_itself=Variances(*moderate(alone, counts - 1, together), together),
        beside_others=Variances(variance, degrees, shared_degrees),
    )


def moderate(variance: Floats, degrees: Floats, together: float) -> tuple[Floats, Floats]:
    """Return variances (k,) shrunk towards a common one as far as they look alike, and their degrees of freedom (k,).

    Fewer than three are returned as they are. How alike variances are is itself a guess from a few of them: the common
    one never counts for more than half of the degrees that all have `together` (docs/adr/030).
    """
    if len(variance) < MODERATED_FROM or not variance.any():
        return variance, degrees
    floor = np.maximum(variance, _FLOOR * variance.max())
    log = np.log(floor) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = log.var(ddof=1) - polygamma(1, degrees / 2).mean()  # beyond what chance makes them unlike
    prior, most = np.inf, together / 2
    if excess > 1e-3:
        prior = 2 * brentq(lambda half: float(polygamma(1, half)) - excess, 1e-3, 2e3)
    if prior < most:
        common = np.exp(log.mean() + digamma(prior / 2) - np.log(prior / 2))
    else:
        prior, common = most, np.average(variance, weights=degrees)
    total = prior + degrees
    return (prior * common + degrees * floor) / total, np.minimum(total, together)
