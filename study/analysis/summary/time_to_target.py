"""Where a trial first meets a target, interpolated between its reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from study.ledger.state import CurvePoint


@dataclass(frozen=True)
class Crossing:
    """What it took to meet a target, or, if it was not `reached`, all that was spent without meeting it."""

    updates: float
    samples: float
    device_s: float  # ranks x seconds of training and validation
    reached: bool


def first_meeting(
    curve: Sequence[CurvePoint], of: Literal["val_accuracy", "train_loss"], target: float
) -> Crossing | None:
    """When the accuracy first rose to the target, or the loss fell to it; None for a trial that never reported.

    Linear between the two reports around it. Where the first report already meets the target, that report is taken:
    nothing is known of what came before it.
    """
    sign = 1.0 if of == "val_accuracy" else -1.0
    before: CurvePoint | None = None
    for point in curve:
        if sign * getattr(point, of) >= sign * target:
            return _between(before or point, point, of, target)
        # A figure that is no number says nothing of where the target was met.
        before = point if math.isfinite(getattr(point, of)) else None
    return Crossing(curve[-1].updates, curve[-1].samples, curve[-1].device_seconds, False) if curve else None


def _between(before: CurvePoint, point: CurvePoint, of: str, target: float) -> Crossing:
    start, end = getattr(before, of), getattr(point, of)
    share = (target - start) / (end - start) if math.isfinite(end) and end != start else 1.0
    return Crossing(
        before.updates + share * (point.updates - before.updates),
        before.samples + share * (point.samples - before.samples),
        before.device_seconds + share * (point.device_seconds - before.device_seconds),
        True,
    )
