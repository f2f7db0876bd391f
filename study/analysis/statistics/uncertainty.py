"""A frontier with its uncertainty: the points on it, their probability, and the dominated area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.statistics import Flags, Floats
from study.analysis.statistics.pooling import draw_means
from study.analysis.statistics.samples import Sample, by_seed, log_costs, mean_interval
from study.pareto.fronts import hypervolume, on_coarse_front, on_front

MIN_SEEDS = 3  # below, a spread is a guess and none is shown
MAX_DRAWN = 400  # configurations; draws of more would take minutes and gigabytes


@dataclass(frozen=True)
class FrontPoint:
    """Cost and quality of a configuration with 95% intervals, and its probability of being on the front."""

    label: str
    n_seeds: int
    cost: float  # mean over seeds
    cost_ci: tuple[float, float] | None  # Student's t; None under 3 seeds
    quality: float
    quality_ci: tuple[float, float] | None
    on_front: bool  # of the means
    p_on_front: float | None  # None if any configuration has under 3 seeds


@dataclass(frozen=True)
class Frontier:
    """All points, in the order given.

    Figures from draws are None if any configuration has under 3 seeds, or for more than MAX_DRAWN configurations.
    """

    points: tuple[FrontPoint, ...]
    reference: tuple[float, float]  # of the hypervolume: a cost and a quality
    hypervolume: float  # of the means
    hypervolume_ci: tuple[float, float] | None


def frontier(
    samples: Sequence[Sample],
    reference: tuple[float, float],
    cost_tolerance: float = 0.0,
    n_draws: int = 2000,
    seed: int = 0,
) -> Frontier:
    """Return the front of the means, and its uncertainty over `n_draws` plausible sets of true means (see `pooling`).

    `reference` is the cost and quality that the hypervolume is measured from. Costs as close as `cost_tolerance`
    count as equal on the front, as in `pareto.on_coarse_front`. The draws depend on `seed` alone. Each draw's front is
    rebuilt, so a probability of being on the front allows for every other point's noise too.
    """
    means = np.array([(s.mean_cost, s.mean_quality) for s in samples]).reshape(-1, 2)
    known = bool(samples) and min(s.n_seeds for s in samples) >= MIN_SEEDS
    member, area = None, None
    if known and len(samples) <= MAX_DRAWN:
        cost, quality = draw_places(samples, n_draws, np.random.default_rng(seed))
        member = membership(cost, quality, cost_tolerance)
        area = np.quantile(hypervolumes(cost, quality, reference), [0.025, 0.975])
    points = [
        FrontPoint(
            label=sample.label,
            n_seeds=sample.n_seeds,
            cost=sample.mean_cost,
            cost_ci=mean_interval(sample.cost, at_least=MIN_SEEDS),
            quality=sample.mean_quality,
            quality_ci=mean_interval(sample.quality, at_least=MIN_SEEDS),
            on_front=bool(on),
            p_on_front=None if member is None else float(member[i]),
        )
        for i, (sample, on) in enumerate(zip(samples, _members(means, cost_tolerance), strict=True))
    ]
    return Frontier(
        points=tuple(points),
        reference=reference,
        hypervolume=hypervolume(means, reference),
        hypervolume_ci=None if area is None else (float(area[0]), float(area[1])),
    )


def _members(means: Floats, cost_tolerance: float) -> Flags:
    return on_coarse_front(means, cost_tolerance) if cost_tolerance else on_front(means)


def membership(cost: Floats, quality: Floats, cost_tolerance: float = 0.0) -> Floats:
    """Return the share of draws (n_draws, k) in which each of k points is on the front, (k,).

    The rule is that of `on_coarse_front`, except that equal points are on the front together or not at all.
    """
    order = np.lexsort((cost, -quality), axis=1)  # best quality first, of equal ones the cheapest
    c, q = np.take_along_axis(cost, order, axis=1), np.take_along_axis(quality, order, axis=1)
    taken: Flags = np.zeros(cost.shape, dtype=bool)
    cheapest = np.full(len(cost), np.inf)
    for place in range(cost.shape[1]):
        taken[:, place] = c[:, place] * (1 + cost_tolerance) < cheapest
        if place:
            twin = (c[:, place] == c[:, place - 1]) & (q[:, place] == q[:, place - 1])
            taken[:, place] |= twin & taken[:, place - 1]
        cheapest = np.where(taken[:, place], c[:, place], cheapest)
    member: Flags = np.empty_like(taken)
    np.put_along_axis(member, order, taken, axis=1)
    return member.mean(axis=0)


def hypervolumes(cost: Floats, quality: Floats, reference: tuple[float, float]) -> Floats:
    """Return the hypervolume (n_draws,) of each row of points (n_draws, k), as `pareto.hypervolume` of one."""
    order = np.argsort(cost, axis=1)
    edge = np.minimum(np.take_along_axis(cost, order, axis=1), reference[0])
    width = np.diff(edge, axis=1, append=reference[0])
    height = np.maximum.accumulate(np.take_along_axis(quality, order, axis=1), axis=1) - reference[1]
    return (width * np.maximum(height, 0)).sum(axis=1)


def draw_places(samples: Sequence[Sample], n_draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw plausible true costs and qualities of k configurations of two or more seeds, each (n_draws, k)."""
    return _draw_costs(samples, n_draws, rng), draw_qualities(samples, n_draws, rng)


def draw_qualities(samples: Sequence[Sample], n_draws: int, rng: np.random.Generator) -> Floats:
    """Draw plausible true qualities (n_draws, k), which may follow a trend over the order of costs."""
    mean_cost = np.array([s.mean_cost for s in samples])
    rank = np.searchsorted(np.sort(mean_cost), mean_cost).astype(float)
    trend = rank if len(np.unique(rank)) > 1 else None
    return draw_means(by_seed(samples, "quality"), trend, n_draws, rng)


def _draw_costs(samples: Sequence[Sample], n_draws: int, rng: np.random.Generator) -> Floats:
    """Draw plausible true costs, by their logarithm where all are above 0."""
    logs = log_costs(samples)
    if logs is None:
        return draw_means(by_seed(samples, "cost"), None, n_draws, rng)
    return np.exp(draw_means(logs, None, n_draws, rng))
