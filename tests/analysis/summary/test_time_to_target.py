"""When a curve meets a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from study.analysis.summary.time_to_target import TimeToTarget, time_to_target
from study.config.objective import Target
from study.measurement import CurvePoint

POINT = CurvePoint(
    updates=10, samples=100, epochs=1.0, lr=0.1, train_loss=1.0, train_accuracy=None, val_loss=1.0, val_accuracy=0.5,
    samples_per_s=1.0, device_seconds=2.0,
)  # fmt: skip


def curve(figures: Sequence[float], name: str = "val_accuracy") -> list[CurvePoint]:
    """Reports every 10 updates of 100 samples in 2 device-seconds."""
    return [
        replace(POINT, updates=10 * i, samples=100 * i, device_seconds=2.0 * i, **{name: figure})
        for i, figure in enumerate(figures, start=1)
    ]


def at(reports: float, reached: bool = True) -> TimeToTarget:
    return TimeToTarget(10 * reports, 100 * reports, 2 * reports, reached)


@pytest.mark.parametrize(
    ("name", "figures", "target", "expected"),
    [
        ("val_accuracy", [0.5, 0.7, 0.9], 0.8, at(2.5)),
        ("val_accuracy", [0.5, 0.8, 0.7], 0.8, at(2)),
        ("val_accuracy", [0.9, 0.9], 0.8, at(1)),
        ("val_accuracy", [0.5, 0.6], 0.8, at(2, reached=False)),
        ("val_accuracy", [0.5, math.nan, 0.9], 0.8, at(3)),
        ("val_accuracy", [math.nan], 0.8, at(1, reached=False)),
        ("train_loss", [2.0, 1.0, 0.5], 1.5, at(1.5)),
        ("train_loss", [math.inf, 0.5], 1.0, at(2)),
        ("train_loss", [2.0, -math.inf], 1.0, at(2)),
        ("train_loss", [2.0, 1.5], 1.0, at(2, reached=False)),
    ],
)
def test_a_target_is_met_between_two_reports(
    name: Literal["val_accuracy", "train_loss"], figures: list[float], target: float, expected: TimeToTarget
) -> None:
    found = time_to_target(curve(figures, name), Target(name, target, "min" if name == "train_loss" else "max"))
    assert found is not None
    assert found.reached == expected.reached
    assert (found.updates, found.samples, found.device_s) == pytest.approx(
        (expected.updates, expected.samples, expected.device_s)
    )


def test_a_trial_that_never_reported_met_nothing() -> None:
    assert time_to_target((), Target("val_accuracy", 0.5, "max")) is None
