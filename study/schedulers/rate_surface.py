"""The final score as a function of batch size, learning rate and length of training: a Gaussian process.

The best rates of several batch sizes lie near a line, log rate against log batch size, whose slope is between 0 and 1.
The process knows this and little else: how learning curves of one batch size resemble each other, that a short trial
says less than a long one and favours other rates, and, where the data ask for it, that neighbours may have nothing in
common.

Units: a rate is a point x on a log10 scale, a batch size a point y on a log2 scale, both from the middle of the grid. A
length is t = -ln(share of a whole trial) / ln 27: 0 at the end, 1 at 1/27.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOISE = 0.0025  # variance of one report
_PRIOR_N = 2.0  # the prior of the overall variance counts as this many reports
NO_RUN = -1
LOG10_OF_2 = math.log10(2)


@dataclass(frozen=True)
class Sites:
    """Places on the surface, as arrays of one length n."""

    x: Floats
    y: Floats
    t: Floats
    family: Ints  # places of two families, such as two variants of a study, have nothing in common
    group: Ints  # a batch size of a family
    cell: Ints  # a rate of a group
    run: Ints  # the trial; NO_RUN for the mean over trials

    def take(self, which: Ints) -> Sites:
        """Return some of the places, in the order given."""
        return Sites(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True)
class Shape:
    """What is not known beforehand, and chosen by its likelihood."""

    slope: float  # of log rate against log batch size, along the ridge
    drift: float  # how much the best rate may move between an early report and the end
    apart: float  # how much cells differ by themselves, as if rates had no order
    log_prior: float

    @property
    def smooth(self) -> float:
        """The share of the surface that neighbours have in common."""
        return 0.5 if self.apart else 1.0


SHAPES = tuple(
    Shape(slope, drift, apart, math.log(p_slope) + math.log(p_apart))
    for (slope, p_slope), drift, (apart, p_apart) in product(
        ((0.0, 0.25), (0.5, 0.5), (1.0, 0.25)), (0.7, 1.4, 2.8), ((0.0, 0.8), (0.6, 0.2))
    )
)


class Kernel:
    """Covariances between places a and b, up to the overall variance. The parts that all shapes share are kept."""

    def __init__(self, a: Sites, b: Sites) -> None:
        self._ax, self._ay, self._bx, self._by = a.x, a.y, b.x, b.y
        dx, dy = np.subtract.outer(a.x, b.x), np.subtract.outer(a.y, b.y)
        early = np.minimum.outer(a.t, b.t)
        group, cell = np.equal.outer(a.group, b.group), np.equal.outer(a.cell, b.cell)
        run = np.equal.outer(a.run, b.run) & (a.run != NO_RUN)[:, None]
        self._family = np.equal.outer(a.family, b.family)
        self._near = np.exp(-(dy**2) / 32)
        self._fixed = 4 * (1 + np.exp(-(dy**2) / 18) + 0.1 * group) * (1 + early)  # the curve of a batch size
        self._fixed += 0.0144 * cell + 0.01 * run * (1 + early) + 0.04 * cell * early
        self._drift = early * np.exp(-(dx**2) / 0.98) * self._near
        self._apart = cell * (1 + 0.5 * early)

    def of(self, shape: Shape) -> Floats:
        """Return the matrix for a shape, one row for each place of a."""
        ua, ub = self._ax - shape.slope * LOG10_OF_2 * self._ay, self._bx - shape.slope * LOG10_OF_2 * self._by
        uu = np.multiply.outer(ua, ub)
        along = 0.49 * np.exp(-(np.subtract.outer(ua, ub) ** 2) / 0.98) * self._near
        surface = along + uu + uu**2 + 0.1 * uu * np.multiply.outer(self._ay, self._by)
        whole = self._fixed + shape.smooth * surface + shape.drift**2 * self._drift + shape.apart**2 * self._apart
        return np.asarray(whole * self._family)


def variances(sites: Sites, shape: Shape) -> Floats:
    """Return the diagonal of the covariance of some places with themselves."""
    u2 = (sites.x - shape.slope * LOG10_OF_2 * sites.y) ** 2
    surface = 0.49 + u2 + u2**2 + 0.1 * u2 * sites.y**2
    curve = 8.4 * (1 + sites.t) + 0.0144 + 0.01 * (sites.run != NO_RUN) * (1 + sites.t) + 0.04 * sites.t
    whole = curve + shape.smooth * surface + shape.drift**2 * sites.t + shape.apart**2 * (1 + 0.5 * sites.t)
    return np.asarray(whole)


@dataclass(frozen=True)
class Surface:
    """The process, given some scores."""

    shape: Shape
    variance: float  # overall
    mean: float
    seen: Sites
    _factor: Floats  # lower Cholesky factor of the covariance of what was seen
    _weights: Floats

    def means(self, sites: Sites) -> Floats:
        """Return the expected scores of some places."""
        return np.asarray(self.mean + Kernel(sites, self.seen).of(self.shape) @ self._weights)

    def known(self, pending: Sites) -> Known:
        """Return how certain scores are once those of some pending places are in too."""
        seen = Sites(*(np.concatenate([getattr(s, f.name) for s in (self.seen, pending)]) for f in fields(Sites)))
        factor = self._factor if not len(pending.x) else _factor(Kernel(seen, seen).of(self.shape))
        return Known(self.shape, self.variance, seen, factor)


@dataclass(frozen=True)
class Known:
    """Covariances that are left, given some places."""

    shape: Shape
    variance: float
    seen: Sites
    factor: Floats

    def whiten(self, sites: Sites) -> Floats:
        """Return the part of the places that is explained by what was seen, a column for each."""
        return np.asarray(
            solve_triangular(self.factor, Kernel(self.seen, sites).of(self.shape), lower=True, check_finite=False)
        )

    def covariance(self, a: Sites, b: Sites) -> Floats:
        """Return the covariance of the scores of two sets of places."""
        explained = self.whiten(a).T @ self.whiten(b)
        return np.asarray(self.variance * (Kernel(a, b).of(self.shape) - explained))

    def variances(self, sites: Sites) -> Floats:
        """Return the variance of one report of each place."""
        explained = (self.whiten(sites) ** 2).sum(axis=0)
        return np.asarray(self.variance * np.maximum(variances(sites, self.shape) + NOISE - explained, 1e-9))


def fit(sites: Sites, scores: Floats) -> Surface:
    """Return the surface of the likeliest shape, with the overall variance profiled out."""
    kernel, mean = Kernel(sites, sites), float(scores.mean())
    rest, n = scores - mean, len(scores) + _PRIOR_N
    best: tuple[float, Shape, float, Floats] | None = None
    for shape in SHAPES:
        factor = _factor(kernel.of(shape))
        white = solve_triangular(factor, rest, lower=True, check_finite=False)
        variance = float(white @ white + _PRIOR_N) / n
        log_posterior = shape.log_prior - 0.5 * n * math.log(variance) - float(np.log(np.diag(factor)).sum())
        if best is None or log_posterior > best[0]:
            best = log_posterior, shape, variance, factor
    assert best is not None
    _, shape, variance, factor = best
    return Surface(shape, variance, mean, sites, factor, cho_solve((factor, True), rest, check_finite=False))


def _factor(covariance: Floats) -> Floats:
    lower, _ = cho_factor(covariance + NOISE * np.eye(len(covariance)), lower=True, check_finite=False)
    return np.tril(lower)
