"""Which configuration to choose under limits of money, time, hardware and accuracy, and what the next one trades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.statistics.contrasts import Contrast, contrast, difference_of, spreads
from study.analysis.statistics.hypotheses import LEVEL, holm
from study.analysis.statistics.samples import Sample, mean_interval
from study.pareto.fronts import on_front

Interval = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """A configuration and what is known of it, as means over seeds; None is not known, and meets no limit on it."""

    sample: Sample
    usd: float | None = None
    device_h: float | None = None
    wall_h: float | None = None
    gpus: int | None = None
    latency_ms: float | None = None
    setup: float | None = None  # of a cold group that the run may have to start, in the unit of cost; None: in the cost


@dataclass(frozen=True)
class Constraints:
    """What the user can live with; None is no limit."""

    max_usd: float | None = None
    max_device_hours: float | None = None
    min_accuracy: float | None = None  # in the unit of quality
    deadline_h: float | None = None
    gpus: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class Miss:
    """One limit that a configuration does not meet."""

    limit: str  # the field of Limits
    allowed: float
    value: float | None  # None if not known

    @property
    def by(self) -> float:
        """How far off, as a share of what is allowed; infinite if not known."""
        if self.value is None:
            return math.inf
        return abs(self.value - self.allowed) / max(abs(self.allowed), 1e-12)


@dataclass(frozen=True)
class Expected:
    """A configuration with what it is expected to cost and reach: means and 95% intervals, None for one seed."""

    label: str
    cost: float
    cost_ci: Interval | None
    quality: float
    quality_ci: Interval | None
    misses: tuple[Miss, ...]  # empty if it meets every limit
    setup: float | None = None  # see Candidate


@dataclass(frozen=True)
class Trade:
    """What the other configuration costs and reaches more than the chosen one. Intervals are None as in Contrast."""

    other: Expected
    cost: float  # positive is dearer
    cost_ci: Interval | None
    quality: float  # positive is better
    quality_ci: Interval | None
    quality_contrast: Contrast  # the same, with its test


@dataclass(frozen=True)
class Recommendation:
    """The answer. `choice` is None if no configuration meets the limits; `nearest_miss` is then the closest."""

    choice: Expected | None
    aim: str  # "cheapest" where an accuracy was asked for, else "best"
    runner_up: Trade | None
    nearest_miss: Expected | None
    best: Expected  # of all configurations, whatever the limits
    cheapest_not_worse: Expected | None  # than `best`; None if some configuration has one seed
    not_worse_by: Contrast | None  # its quality less that of `best`; None where there is none or it is `best`
    margin: float  # that "not worse" allows, in the unit of quality


def recommend(candidates: Sequence[Candidate], limits: Constraints, margin: float) -> Recommendation:
    """The cheapest configuration that meets the limits if they ask for an accuracy, else the best one that does.

    Limits are held against means. The runner-up is the next best by the same aim among those that meet the limits and,
    if there are any, are not dominated. Raises ValueError without candidates.
    """
    if not candidates:
        raise ValueError("nothing to choose from")
    cheapest = limits.min_accuracy is not None
    ranked = sorted(candidates, key=lambda c: _rank(c.sample, cheapest))
    fit = [candidate for candidate in ranked if not misses(candidate, limits)]
    best = min(candidates, key=lambda c: _rank(c.sample, cheapest=False))
    frugal = cheapest_not_worse([c.sample for c in candidates], margin)
    return Recommendation(
        choice=_expected(fit[0], limits) if fit else None,
        aim="cheapest" if cheapest else "best",
        runner_up=_runner_up(fit, limits),
        nearest_miss=None if fit else _expected(min(ranked, key=lambda c: _distance(c, limits)), limits),
        best=_expected(best, limits),
        cheapest_not_worse=None if frugal is None else _expected(candidates[frugal], limits),
        not_worse_by=(
            None if frugal is None or candidates[frugal] is best else contrast(candidates[frugal].sample, best.sample)
        ),
        margin=margin,
    )


def misses(candidate: Candidate, limits: Constraints) -> tuple[Miss, ...]:
    """The limits that a configuration does not meet."""
    upper = {
        "max_usd": (limits.max_usd, candidate.usd),
        "max_device_hours": (limits.max_device_hours, candidate.device_h),
        "deadline_h": (limits.deadline_h, candidate.wall_h),
        "gpus": (limits.gpus, candidate.gpus),
        "max_latency_ms": (limits.max_latency_ms, candidate.latency_ms),
    }
    found = [
        Miss(name, allowed, value)
        for name, (allowed, value) in upper.items()
        if allowed is not None and (value is None or value > allowed)
    ]
    quality = candidate.sample.mean_quality
    if limits.min_accuracy is not None and quality < limits.min_accuracy:
        found.append(Miss("min_accuracy", limits.min_accuracy, quality))
    return tuple(found)


def cheapest_not_worse(samples: Sequence[Sample], margin: float) -> int | None:
    """Index of the cheapest configuration shown to be less than `margin` worse than the best; None with a single seed.

    One-sided t of each against the one with the best mean, paired by seed as claims are, at 2.5%, Holm-corrected.
    Without enough seeds to show it, the best itself is the answer: not to be shown worse is no evidence of being as
    good.
    """
    if not samples or min(s.n_seeds for s in samples) < 2:
        return None
    best = min(range(len(samples)), key=lambda i: _rank(samples[i], cheapest=False))
    others = [i for i, s in enumerate(samples) if s.mean_cost < samples[best].mean_cost]
    p_values = []
    for i in others:
        lag = difference_of(samples[best], samples[i])
        assert lag is not None, "all have two seeds"
        if spreads(lag, samples[best], samples[i]):
            p_values.append(lag.p_below(margin))
        else:
            same = samples[i].mean_quality == samples[best].mean_quality
            p_values.append(0.0 if same else 1.0)  # without a spread only the very same is as good
    shown = [i for i, p in zip(others, holm(p_values), strict=True) if p <= LEVEL]
    return min([*shown, best], key=lambda i: samples[i].mean_cost)


def _rank(sample: Sample, cheapest: bool) -> tuple[float, float]:
    """Sorts the configuration to choose to the front."""
    by_cost, by_quality = sample.mean_cost, -sample.mean_quality
    return (by_cost, by_quality) if cheapest else (by_quality, by_cost)


def _distance(candidate: Candidate, limits: Constraints) -> tuple[float, float]:
    """The worst miss first, then all together."""
    by = [miss.by for miss in misses(candidate, limits)]
    return max(by), sum(by)


def _runner_up(fit: Sequence[Candidate], limits: Constraints) -> Trade | None:
    if len(fit) < 2:
        return None
    front = on_front(np.array([(c.sample.mean_cost, c.sample.mean_quality) for c in fit]))
    trading = [candidate for candidate, on in zip(fit[1:], front[1:], strict=True) if on]
    other, chosen = (trading or fit[1:])[0], fit[0].sample
    cost, quality = contrast(other.sample, chosen, "cost"), contrast(other.sample, chosen)
    return Trade(_expected(other, limits), cost.effect, cost.ci, quality.effect, quality.ci, quality)


def _expected(candidate: Candidate, limits: Constraints) -> Expected:
    sample = candidate.sample
    return Expected(
        label=sample.label,
        cost=sample.mean_cost,
        cost_ci=mean_interval(sample.cost),
        quality=sample.mean_quality,
        quality_ci=mean_interval(sample.quality),
        misses=misses(candidate, limits),
        setup=candidate.setup,
    )
