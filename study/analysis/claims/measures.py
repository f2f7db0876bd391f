"""Measures of a trial by which claims compare settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from study.analysis.records import TrialRecord
from study.analysis.summary.time_to_target import time_to_target
from study.config.objective import Objective, Target
from study.measurement import ProbeReadings, power

BYTES_PER_GRADIENT = 4  # gradients are all-reduced in 32 bits, whatever the precision of the forward pass


@dataclass(frozen=True)
class Measure:
    """A figure of a trial. Costs and curvatures vary by factors, so tests compare their logarithms."""

    name: str
    unit: str
    read: Callable[[TrialRecord], float | None]
    effect_unit: str = "times"
    scale: float = 1.0  # from recorded to shown differences
    ratio: bool = True  # tests compare logarithms: a difference is a factor
    negated: bool = False  # recorded values are the negatives of those shown

    def value(self, trial: TrialRecord) -> float | None:
        """Return the figure in recorded units; None where it is unknown, non-finite, or 0 or less for a ratio."""
        value = self.read(trial)
        if value is None or not math.isfinite(value) or (self.ratio and value <= 0):
            return None
        return value

    def shown(self, value: float) -> float:
        """Return a recorded value in `unit`."""
        return (-self.scale if self.negated else self.scale) * value

    def compared(self, value: float) -> float:
        """Return the value that tests compare: its logarithm for a ratio."""
        return math.log(value) if self.ratio else value

    def effect(self, difference: float) -> float:
        """Return a difference of two compared values in `effect_unit`; inf where a factor overflows."""
        if not self.ratio:
            return self.shown(difference)
        return math.exp(difference) if difference < 700 else math.inf


def probe_measure(label: str, read: Callable[[ProbeReadings], float | None], unit: str = "") -> Measure:
    """Return the measure of a probe's reading at the last report that has it."""
    return Measure(label, unit, lambda trial: _last_reading(trial, read))


def _last_reading(trial: TrialRecord, read: Callable[[ProbeReadings], float | None]) -> float | None:
    readings = (read(point.probes) for point in reversed(trial.curve))
    return next((value for value in readings if value is not None), None)


def _sharpness(space: Literal["full", "subspace"], eps: float) -> Measure:
    def read(readings: ProbeReadings) -> float | None:
        return (readings.sharpness_full if space == "full" else readings.sharpness_subspace).get(eps)

    words = "full space" if space == "full" else "random subspace"
    return probe_measure(f"sharpness, {words}, eps {power(eps)}", read)


def updates_to(train_loss: float) -> Measure:
    """Return the measure of updates until a training loss was first met; it is None for a trial that never met it."""

    def read(trial: TrialRecord) -> float | None:
        met = time_to_target(trial.curve, Target("train_loss", train_loss, "min"))
        return met.updates if met is not None and met.reached else None

    return Measure("updates to the train loss", "", read)


def _gradient_gb(trial: TrialRecord) -> float | None:
    """Return GB sent by each rank in ring all-reduces: 2 (W - 1)/W of the gradient at every update."""
    parameters = _last_reading(trial, lambda readings: readings.parameters)
    if parameters is None:
        return None
    share = 2 * (trial.world_size - 1) / trial.world_size
    return share * parameters * BYTES_PER_GRADIENT * trial.curve[-1].updates / 1e9


def objective_measure(objective: Objective) -> Measure:
    """Return the measure of the final objective. Tests compare qualities; values and effects are of the metric."""
    percent = objective.show == "percent"
    unit = "bits" if objective.show == "bits" else objective.unit
    return Measure(
        name=objective.logged_label,
        unit="%" if percent else unit,
        read=lambda trial: trial.final_quality,
        effect_unit="points" if percent else unit or objective.metric,
        scale=objective.difference_scale,
        ratio=False,
        negated=objective.mode == "min",
    )


VAL_LOSS = Measure(
    "validation loss", "", lambda trial: trial.curve[-1].val_loss if trial.curve else None, "nats", 1.0, False
)
TRAIN_LOSS = Measure(
    "training loss", "", lambda trial: trial.curve[-1].train_loss if trial.curve else None, "nats", 1.0, False
)
UPDATES = Measure("updates", "", lambda trial: trial.curve[-1].updates if trial.curve else None)
SAMPLES = Measure("samples", "", lambda trial: trial.curve[-1].samples if trial.curve else None)
DEVICE_S = Measure(
    "training and validation", "device-s", lambda trial: trial.curve[-1].device_seconds if trial.curve else None
)
SAMPLES_PER_S = Measure("throughput", "samples/s", lambda trial: trial.samples_per_s)
GRADIENT_GB = Measure("gradients sent by a rank", "GB", _gradient_gb)
_SPACES: tuple[Literal["full", "subspace"], ...] = ("full", "subspace")
SHARPNESS = tuple(_sharpness(space, eps) for space in _SPACES for eps in (1e-3, 5e-4))
HESSIAN_TOP = probe_measure("largest Hessian eigenvalue", lambda readings: readings.hessian_top)
