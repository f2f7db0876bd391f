"""A study's points as candidates, to choose from under limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from study.analysis.points import samples_of
from study.analysis.recommend import Candidate, Limits, Recommendation, recommend
from study.analysis.records import Point, TrialRecord
from study.plan.errors import PlanError


def choose(
    points: Sequence[Point], trials: Sequence[TrialRecord], axis: str, limits: Limits, margin: float
) -> Recommendation | None:
    """The recommendation under the limits, costs told on `axis`; None without points."""
    samples = samples_of(points, trials, axis)
    if not samples:
        return None
    candidates = [
        Candidate(
            sample=sample,
            usd=point.cost.usd,
            device_h=point.cost.billed_device_h,
            wall_h=point.cost.wall_h,
            gpus=point.world_size,
        )
        for point, sample in zip(points, samples, strict=True)
    ]
    return recommend(candidates, limits, margin)


def check_limits(limits: Limits, points: Sequence[Point]) -> None:
    """Raises PlanError for a limit that cannot be, or that nothing is known of to hold against it."""
    for name, value in asdict(limits).items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and not 0 < value < math.inf:
            raise PlanError(f"must be a number above 0; got {value:g}", option)
    accuracy = limits.min_accuracy
    if accuracy is not None and accuracy > 1:
        meant = f" (did you mean {accuracy / 100:g}?)" if accuracy <= 100 else ""
        raise PlanError(f"is a fraction between 0 and 1; got {accuracy:g}{meant}", "--min-accuracy")
    if limits.max_usd is not None and any(point.cost.usd is None for point in points):
        raise PlanError("the study has no price; give --usd-per-device-hour", "--max-usd")
    if limits.max_latency_ms is not None:
        raise PlanError("the study has no serving curve, so nothing is known of latencies", "--max-latency-ms")
