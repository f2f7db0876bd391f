"""A study's points as candidates, to choose from under limits."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.recommend import Candidate, Limits, Recommendation, recommend
from study.analysis.records import Point
from study.analysis.samples import Sample


def choose(points: Sequence[Point], samples: Sequence[Sample], limits: Limits, margin: float) -> Recommendation | None:
    """The recommendation under the limits; None without points. Points and samples are in the same order."""
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
    return recommend(candidates, limits, margin) if candidates else None
