"""The configuration to choose under limits of money, time, hardware and quality, and the trade-off of the next one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np

from study.analysis.records import (
    NO_COST,
    ConstraintName,
    Constraints,
    Expected,
    Miss,
    Point,
    Recommendation,
    Trade,
    TrialRecord,
)
from study.analysis.statistics.hypotheses import LEVEL, contrast, difference_of, has_spread, holm
from study.analysis.statistics.samples import Sample, mean_interval
from study.analysis.summary.points import group_setups_of, point_samples
from study.config.objective import ACCURACY, Objective
from study.config.sections import CostAxis
from study.errors import ConfigError
from study.pareto.fronts import on_front
from study.planning.trials import Cell


@dataclass(frozen=True)
class Candidate:
    """A configuration with means over its seeds; None is unknown, and an unknown figure meets no limit on it."""

    sample: Sample
    usd: float | None = None
    device_h: float | None = None
    wall_h: float | None = None
    gpus: int | None = None
    latency_ms: float | None = None
    setup: float | None = None  # of a cold group, in the unit of cost, to be added; None: the cost includes it


def choose(
    points: Sequence[Point],
    trials: Sequence[TrialRecord],
    axis: CostAxis,
    limits: Constraints,
    margin: float,
    include_setup: bool = False,
) -> Recommendation | None:
    """Recommend a point of a study under limits, with costs on `axis`; None without points.

    Limits apply to the bill of one run by itself, whichever costs are compared: the setup of a cold group (the mean on
    as many ranks) and the run on the then warm group.
    """
    samples = point_samples(points, trials, axis, include_setup)
    if not samples:
        return None
    setups = group_setups_of(trials)
    alone = [p.cost.plus(p.cold_setup, -1).plus(setups.get(p.world_size, NO_COST)) for p in points]
    latencies = latencies_ms(trials)
    candidates = [
        Candidate(
            sample=sample,
            usd=run.usd,
            device_h=run.billed_device_h,
            wall_h=run.wall_h,
            gpus=point.world_size,
            latency_ms=latencies.get(point.cell),
            setup=None if include_setup else setups.get(point.world_size, NO_COST).on(axis),
        )
        for point, run, sample in zip(points, alone, samples, strict=True)
    ]
    return recommend(candidates, limits, margin)


def recommend(candidates: Sequence[Candidate], limits: Constraints, margin: float) -> Recommendation:
    """Recommend the cheapest configuration within limits that ask for a quality, else the best one within limits.

    Limits apply to means. The runner-up is the next by the same aim among those within limits, preferring those that
    are not dominated. `margin` is the loss of quality that counts as not worse. Raises ValueError without candidates.
    """
    if not candidates:
        raise ValueError("nothing to choose from")
    cheapest = limits.min_quality is not None
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


def latencies_ms(trials: Iterable[TrialRecord]) -> dict[Cell, float]:
    """Return p99 latency in ms at the request batch where it is least, by configuration: mean over confirm seeds."""
    found: dict[Cell, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome == "completed":
            served = [point.p99_ms for point in trial.curve[-1].probes.serving]
            if served:
                found[trial.cell].append(min(served))
    return {cell: fmean(values) for cell, values in found.items()}


def asked_quality(objective: Objective, target: float | None, min_accuracy: float | None) -> float | None:
    """Return the least quality that is asked for: by `target`, a value of the objective as logged, or by
    `min_accuracy`, a fraction, of a study that is judged by accuracy. Raises ConfigError.
    """
    if target is not None and min_accuracy is not None:
        raise ConfigError("give --target or --min-accuracy, not both", "--min-accuracy")
    if min_accuracy is not None and objective.metric != ACCURACY.metric:
        raise ConfigError(f"the study is judged by {objective.metric}; give --target", "--min-accuracy")
    asked, option = (target, "--target") if min_accuracy is None else (min_accuracy, "--min-accuracy")
    if asked is None:
        return None
    if not math.isfinite(asked):
        raise ConfigError(f"must be a finite number; got {asked:g}", option)
    is_share = objective.show == "percent" or option == "--min-accuracy"
    if (is_share and not 0 <= asked <= 1) or (option == "--min-accuracy" and asked == 0):
        meant = f" (did you mean {asked / 100:g}?)" if 1 < asked <= 100 else ""
        raise ConfigError(f"must be a fraction between 0 and 1; got {asked:g}{meant}", option)
    return objective.quality(asked)


def check_limits(limits: Constraints, points: Sequence[Point], trials: Sequence[TrialRecord]) -> None:
    """Raises ConfigError for a limit out of range, or one on a figure that the study did not measure."""
    for name, value in asdict(limits).items():
        if name != "min_quality" and value is not None and not 0 < value < math.inf:
            raise ConfigError(f"must be a number above 0; got {value:g}", f"--{name.replace('_', '-')}")
    if limits.max_usd is not None and any(point.cost.usd is None for point in points):
        raise ConfigError("the study has no price; give --usd-per-device-hour", "--max-usd")
    if limits.max_latency_ms is not None and not latencies_ms(trials):
        raise ConfigError("nothing is known of latencies: the study was run without probes.serving", "--max-latency-ms")


def misses(candidate: Candidate, limits: Constraints) -> tuple[Miss, ...]:
    """Return the limits that a configuration does not meet."""
    upper: dict[ConstraintName, tuple[float | None, float | None]] = {
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
    if limits.min_quality is not None and quality < limits.min_quality:
        found.append(Miss("min_quality", limits.min_quality, quality))
    return tuple(found)


def cheapest_not_worse(samples: Sequence[Sample], margin: float) -> int | None:
    """Return the index of the cheapest configuration shown to be less than `margin` worse than the best.

    None without samples, or if some configuration has one seed. One-sided t of each cheaper one against the one with
    the best mean, paired by seed as claims are, at 2.5%, Holm-corrected. Where no test shows it, the answer is the best
    itself: absence of evidence that one is worse is no evidence that it is as good.
    """
    if not samples or min(s.n_seeds for s in samples) < 2:
        return None
    best = min(range(len(samples)), key=lambda i: _rank(samples[i], cheapest=False))
    others = [i for i, s in enumerate(samples) if s.mean_cost < samples[best].mean_cost]
    p_values = []
    for i in others:
        lag = difference_of(samples[best], samples[i])
        assert lag is not None, "all have two seeds"
        if has_spread(lag, (*samples[best].quality, *samples[i].quality)):
            p_values.append(lag.p_below(margin))
        else:
            same = samples[i].mean_quality == samples[best].mean_quality
            p_values.append(0.0 if same else 1.0)  # without a spread only an equal mean is as good
    shown = [i for i, p in zip(others, holm(p_values), strict=True) if p <= LEVEL]
    return min([*shown, best], key=lambda i: samples[i].mean_cost)


def _rank(sample: Sample, cheapest: bool) -> tuple[float, float]:
    """Return a key that sorts the configuration to choose first."""
    by_cost, by_quality = sample.mean_cost, -sample.mean_quality
    return (by_cost, by_quality) if cheapest else (by_quality, by_cost)


def _distance(candidate: Candidate, limits: Constraints) -> tuple[float, float]:
    """Return a key that sorts by the worst miss, then by the sum of misses."""
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
