"""A study's points as candidates, to choose from under limits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import fmean

from study.analysis.recommend import Candidate, Constraints, Recommendation, recommend
from study.analysis.records import NO_COST, Point, TrialRecord
from study.analysis.summary.points import cell_of, group_setups_of, samples_of
from study.errors import ConfigError
from study.planning.trials import Cell


def choose(
    points: Sequence[Point],
    trials: Sequence[TrialRecord],
    axis: str,
    limits: Constraints,
    margin: float,
    include_setup: bool = False,
) -> Recommendation | None:
    """The recommendation under the limits, costs compared on `axis`; None without points.

    Limits are held against what one run by itself is billed, whichever costs are compared: a group that starts for it
    (the mean setup on as many ranks), and the run, as if it had come to a warm group.
    """
    samples = samples_of(points, trials, axis, include_setup)
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
            latency_ms=latencies.get(cell_of(point)),
            setup=None if include_setup else getattr(setups.get(point.world_size, NO_COST), axis),
        )
        for point, run, sample in zip(points, alone, samples, strict=True)
    ]
    return recommend(candidates, limits, margin)


def latencies_ms(trials: Iterable[TrialRecord]) -> dict[Cell, float]:
    """The 99th percentile of the latency at the request batch where it is least, by configuration: mean over seeds."""
    found: dict[Cell, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome == "completed":
            probes = trial.curve[-1].probes
            served = [
                value for name, value in probes.items() if name.startswith("serving_") and name.endswith("_p99_ms")
            ]
            if served:
                found[cell_of(trial)].append(min(served))
    return {cell: fmean(values) for cell, values in found.items()}


def check_limits(limits: Constraints, points: Sequence[Point], trials: Sequence[TrialRecord]) -> None:
    """Raises ConfigError for a limit that cannot be, or that nothing is known of to hold against it."""
    for name, value in asdict(limits).items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"must be a number above 0; got {value:g}", option)
    accuracy = limits.min_accuracy
    if accuracy is not None and accuracy > 1:
        meant = f" (did you mean {accuracy / 100:g}?)" if accuracy <= 100 else ""
        raise ConfigError(f"is a fraction between 0 and 1; got {accuracy:g}{meant}", "--min-accuracy")
    if limits.max_usd is not None and any(point.cost.usd is None for point in points):
        raise ConfigError("the study has no price; give --usd-per-device-hour", "--max-usd")
    if limits.max_latency_ms is not None and not latencies_ms(trials):
        raise ConfigError("nothing is known of latencies: the study was run without probes.serving", "--max-latency-ms")
