"""The configuration to choose under limits of money, time, hardware and quality, and the trade-off of the next one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

import numpy as np
from scipy.special import ndtri

from study.analysis.records import (
    NO_COST,
    ConstraintName,
    Constraints,
    Expected,
    Miss,
    Point,
    Recommendation,
    Standing,
    ToSettle,
    Trade,
    TrialRecord,
)
from study.analysis.statistics import Floats
from study.analysis.statistics.hypotheses import contrasts
from study.analysis.statistics.samples import Sample, mean_interval
from study.analysis.statistics.uncertainty import MAX_DRAWN, draw_qualities
from study.analysis.summary.points import group_setups_of, point_samples
from study.config.objective import ACCURACY, Objective
from study.config.sections import CostAxis
from study.errors import ConfigError
from study.pareto.fronts import on_front
from study.planning.trials import Cell

CONFIDENCE = 0.9  # of being good enough, where the user asks for no other
N_DRAWS = 4000
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Candidate:
    """A configuration with means over its seeds; None is unknown, and an unknown figure meets no limit on it."""

    sample: Sample
    usd: float | None = None
    device_h: float | None = None
    seed_device_h: float | None = None  # of one more trial in the study, on a group that is already set up
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
    confidence: float = CONFIDENCE,
) -> Recommendation | None:
    """Recommend a point of a study under limits, with costs on `axis`; None without points.

    Limits apply to the bill of one run by itself, whichever costs are compared: the setup of a cold group (the mean on
    as many ranks) and the run on the then warm group.
    """
    samples = point_samples(points, trials, axis, include_setup)
    if not samples:
        return None
    setups = group_setups_of(trials)
    warm = [point.cost.plus(point.cold_setup, -1) for point in points]
    alone = [one.plus(setups.get(point.world_size, NO_COST)) for one, point in zip(warm, points, strict=True)]
    latencies = latencies_ms(trials)
    candidates = [
        Candidate(
            sample=sample,
            usd=run.usd,
            device_h=run.billed_device_h,
            seed_device_h=trial.billed_device_h,
            wall_h=run.wall_h,
            gpus=point.world_size,
            latency_ms=latencies.get(point.cell),
            setup=None if include_setup else setups.get(point.world_size, NO_COST).on(axis),
        )
        for point, trial, run, sample in zip(points, warm, alone, samples, strict=True)
    ]
    return recommend(candidates, limits, margin, confidence)


def recommend(
    candidates: Sequence[Candidate], limits: Constraints, margin: float, confidence: float = CONFIDENCE
) -> Recommendation:
    """Recommend the cheapest configuration within limits that is good enough with a probability of `confidence`.

    Good enough is at least the quality that the limits ask for; where they ask for none, less than `margin` (a quality)
    below the best configuration within limits. Other limits apply to means. Probabilities are shares of draws of the
    true means of all candidates together (see `pooling`), so that the best of several means is not taken for as good as
    it looks. With one seed for some configuration there are none: means decide. Raises ValueError without candidates.
    """
    if not candidates:
        raise ValueError("nothing to choose from")
    samples = [candidate.sample for candidate in candidates]
    others = replace(limits, min_quality=None)
    fit = [i for i, candidate in enumerate(candidates) if not misses(candidate, others)]
    among, asked = fit or list(range(len(candidates))), limits.min_quality
    best = max(among, key=lambda i: (samples[i].mean_quality, -samples[i].mean_cost))
    known = min(sample.n_seeds for sample in samples) >= 2 and len(samples) <= MAX_DRAWN
    # Where the noise is not known, the means stand for what is true.
    drawn = (
        draw_qualities(samples, N_DRAWS, np.random.default_rng(0))
        if known
        else np.array([[sample.mean_quality for sample in samples]])
    )
    highest = drawn[:, among].max(axis=1, keepdims=True)
    room = drawn - (highest - (margin if known else 0.0) if asked is None else asked)
    probability = np.asarray(room >= 0).mean(axis=0).tolist()
    loss = (highest - drawn).mean(axis=0).tolist()

    def expected(i: int) -> Expected:
        missed = misses(candidates[i], others)
        if asked is not None and probability[i] < confidence:
            reached = probability[i] if known else None
            missed = (*missed, Miss("min_quality", asked, samples[i].mean_quality, reached))
        return _expected(candidates[i], missed)

    good = sorted((i for i in fit if probability[i] >= confidence), key=lambda i: (samples[i].mean_cost, loss[i]))
    ranked = [*good, *sorted(set(fit).difference(good), key=lambda i: loss[i])] if asked is None else good
    choice = ranked[0] if ranked else None
    nearest = None if ranked else min(map(expected, range(len(candidates))), key=lambda one: _distance(one.misses))
    settle = None
    standings: tuple[Standing, ...] = ()
    if known:
        rivals = _rivals(drawn, among)
        standings = _standings(samples, fit, best, probability, loss, rivals)
        chosen = None if choice is None else expected(choice)
        settle = _to_settle(candidates, standings, chosen, room, asked is not None, confidence)
    return Recommendation(
        aim="within_margin" if asked is None else "reaches",
        choice=None if choice is None else expected(choice),
        sure=known and bool(good),
        runner_up=_runner_up(samples, ranked, expected),
        nearest_miss=nearest,
        best=expected(best),
        standings=standings,
        to_settle=settle,
        margin=margin,
        confidence=confidence,
    )


def is_open(one: Standing, choice: Expected | None, confidence: float) -> bool:
    """Say whether it is undecided if a configuration is good enough, where that matters to the choice: the choice, or
    one that costs less.
    """
    if choice is not None and one.label == choice.label:
        return one.probability < confidence
    return (choice is None or one.cost < choice.cost) and 1 - confidence < one.probability < confidence


def _rivals(drawn: Floats, among: Sequence[int]) -> dict[int, int]:
    """Return for each candidate the one that in most draws is the best of the others."""
    rivals = {}
    for i in among:
        others = [j for j in among if j != i]
        if others:
            rivals[i] = others[int(np.bincount(drawn[:, others].argmax(axis=1)).argmax())]
    return rivals


def _standings(
    samples: Sequence[Sample],
    fit: Sequence[int],
    best: int,
    probability: Sequence[float],
    loss: Sequence[float],
    rivals: Mapping[int, int],
) -> tuple[Standing, ...]:
    reference = samples[best].mean_cost
    return tuple(
        Standing(
            label=samples[i].label,
            probability=probability[i],
            expected_loss=loss[i],
            cost=samples[i].mean_cost,
            cost_ratio=samples[i].mean_cost / reference if reference else math.nan,
            rival=samples[rivals[i]].label if i in rivals else None,
        )
        for i in sorted(fit, key=lambda i: samples[i].mean_cost)
    )


def _to_settle(
    candidates: Sequence[Candidate],
    standings: Sequence[Standing],
    choice: Expected | None,
    room: Floats,
    alone: bool,
    confidence: float,
) -> ToSettle | None:
    """Return the undecided configuration that the fewest seeds settle.

    `room` (n_draws, k) is by how much each is good enough. More seeds narrow it by the root of their number, if effect
    and spread stay as they are; it is settled once its mean is as many standard deviations from 0 as `confidence`
    needs. Its rival needs as many, unless a configuration is judged `alone`.
    """
    place = {candidate.sample.label: i for i, candidate in enumerate(candidates)}
    found = []
    for one in standings:
        if not is_open(one, choice, confidence):
            continue
        i, rival = place[one.label], None if alone else one.rival
        measured = [candidates[i]] if rival is None else [candidates[i], candidates[place[rival]]]
        seeds = min(candidate.sample.n_seeds for candidate in measured)
        distance = abs(float(room[:, i].mean()))
        needed = seeds * (float(ndtri(confidence)) * float(room[:, i].std()) / distance) ** 2 if distance else math.inf
        more = max(math.ceil(needed) - seeds, 1) if needed <= _MOST_SEEDS else None
        hours = [candidate.seed_device_h for candidate in measured]
        known = [hour for hour in hours if hour is not None]
        device_h = None if more is None or len(known) < len(hours) else more * sum(known)
        found.append(ToSettle(one.label, one.probability, more, rival, device_h))
    return min(found, key=lambda one: one.more_seeds or math.inf, default=None)


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


def check_limits(
    limits: Constraints, points: Sequence[Point], trials: Sequence[TrialRecord], confidence: float = CONFIDENCE
) -> None:
    """Raises ConfigError for a limit or a confidence out of range, or a limit on a figure that was not measured."""
    if not 0.5 < confidence < 1:
        raise ConfigError(f"must be a probability above 0.5 and below 1; got {confidence:g}", "--confidence")
    for name, value in asdict(limits).items():
        if name != "min_quality" and value is not None and not 0 < value < math.inf:
            raise ConfigError(f"must be a number above 0; got {value:g}", f"--{name.replace('_', '-')}")
    if limits.max_usd is not None and any(point.cost.usd is None for point in points):
        raise ConfigError("the study has no price; give --usd-per-device-hour", "--max-usd")
    if limits.max_latency_ms is not None and not latencies_ms(trials):
        raise ConfigError("nothing is known of latencies: the study was run without probes.serving", "--max-latency-ms")


def misses(candidate: Candidate, limits: Constraints) -> tuple[Miss, ...]:
    """Return the limits on figures other than quality that a configuration does not meet."""
    upper: dict[ConstraintName, tuple[float | None, float | None]] = {
        "max_usd": (limits.max_usd, candidate.usd),
        "max_device_hours": (limits.max_device_hours, candidate.device_h),
        "deadline_h": (limits.deadline_h, candidate.wall_h),
        "gpus": (limits.gpus, candidate.gpus),
        "max_latency_ms": (limits.max_latency_ms, candidate.latency_ms),
    }
    return tuple(
        Miss(name, allowed, value)
        for name, (allowed, value) in upper.items()
        if allowed is not None and (value is None or value > allowed)
    )


def _distance(found: Sequence[Miss]) -> tuple[float, float, float]:
    """Return a key that sorts by the worst miss, then by the sum of misses, then by the probability that is missed."""
    by = [miss.by for miss in found]
    return max(by), sum(by), -sum(miss.probability or 0.0 for miss in found)


def _runner_up(samples: Sequence[Sample], ranked: Sequence[int], expected: Callable[[int], Expected]) -> Trade | None:
    """Return the next of those ranked, preferring what is not dominated by another of them."""
    if len(ranked) < 2:
        return None
    front = on_front(np.array([(samples[i].mean_cost, samples[i].mean_quality) for i in ranked]))
    other = next((i for i, on in zip(ranked[1:], front[1:], strict=True) if on), ranked[1])
    pair = [(other, ranked[0])]
    return Trade(expected(other), contrasts(samples, pair, "cost")[0], contrasts(samples, pair)[0])


def _expected(candidate: Candidate, missed: tuple[Miss, ...]) -> Expected:
    sample = candidate.sample
    return Expected(
        label=sample.label,
        cost=sample.mean_cost,
        cost_ci=mean_interval(sample.cost),
        quality=sample.mean_quality,
        quality_ci=mean_interval(sample.quality),
        misses=missed,
        setup=candidate.setup,
    )
