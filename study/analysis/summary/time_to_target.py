"""When trials met a target, interpolated between reports, and the critical batch size that follows from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from study.analysis.records import Critical, TrialRecord
from study.analysis.statistics.critical import StepsToTarget, fit_critical_batch
from study.measurement import CurvePoint

TargetMetric = Literal["val_accuracy", "train_loss"]


@dataclass(frozen=True)
class TimeToTarget:
    """What a trial took to meet a target or, where `reached` is false, all that it spent without meeting it."""

    updates: float
    samples: float
    device_s: float  # ranks x seconds of training and validation
    reached: bool


def time_to_target(curve: Sequence[CurvePoint], metric: TargetMetric, target: float) -> TimeToTarget | None:
    """Return when the accuracy first rose to the target, or the loss fell to it; None without a report.

    Linear between the two reports around it. Where the first report already meets the target, that report counts:
    what came before it is unknown.
    """
    sign = 1.0 if metric == "val_accuracy" else -1.0
    before: CurvePoint | None = None
    for point in curve:
        value = _value(point, metric)
        if sign * value >= sign * target:
            return _between(before or point, point, metric, target)
        # A non-finite value does not say on which side of the target the trial was.
        before = point if math.isfinite(value) else None
    return TimeToTarget(curve[-1].updates, curve[-1].samples, curve[-1].device_seconds, False) if curve else None


def _value(point: CurvePoint, metric: TargetMetric) -> float:
    return point.val_accuracy if metric == "val_accuracy" else point.train_loss


def _between(before: CurvePoint, point: CurvePoint, metric: TargetMetric, target: float) -> TimeToTarget:
    start, end = _value(before, metric), _value(point, metric)
    share = (target - start) / (end - start) if math.isfinite(end) and end != start else 1.0
    return TimeToTarget(
        before.updates + share * (point.updates - before.updates),
        before.samples + share * (point.samples - before.samples),
        before.device_seconds + share * (point.device_seconds - before.device_seconds),
        True,
    )


def critical_batches(trials: Sequence[TrialRecord], target: float | None) -> tuple[tuple[Critical, ...], str | None]:
    """Return the critical batch size of each variant of a study; without any, say why in words.

    `target` is the validation accuracy that the config asks for. Left out, it is the highest that every batch size of
    the variant reaches on average, at its best report: the most that can be asked without leaving a batch size out.
    """
    variants: dict[str, list[TrialRecord]] = defaultdict(list)
    unreported: dict[str, int] = defaultdict(int)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome is not None:
            if trial.curve:
                variants[trial.variant].append(trial)
            else:
                unreported[trial.variant] += 1
    fitting = {name: ended for name, ended in variants.items() if len({trial.batch_size for trial in ended}) > 1}
    if not fitting:
        return (), "steps to a target need confirm trials of two batch sizes"
    return tuple(_critical(name, ended, target, unreported[name]) for name, ended in fitting.items()), None


def _critical(variant: str, ended: Sequence[TrialRecord], target: float | None, n_unreported: int) -> Critical:
    best: dict[int, list[float]] = defaultdict(list)
    for trial in ended:
        known = [point.val_accuracy for point in trial.curve if math.isfinite(point.val_accuracy)]
        best[trial.batch_size].append(max(known, default=0.0))
    why = "the config's target_val_accuracy"
    if target is None:
        hardest = min(best, key=lambda batch: fmean(best[batch]))
        target = fmean(best[hardest])
        why = f"the most that every batch size reaches on average, batch {hardest} just so"
    runs = tuple(steps_to_target(trial, target) for trial in ended)
    return Critical(variant, target, why, runs, fit_critical_batch(runs), n_unreported)


def steps_to_target(trial: TrialRecord, target: float) -> StepsToTarget:
    """Return the updates until the trial's validation accuracy met the target; its last report bounds them otherwise.

    Raises ValueError for a trial that never reported.
    """
    met = time_to_target(trial.curve, "val_accuracy", target)
    if met is None:
        raise ValueError(f"{trial.trial_id} never reported")
    return StepsToTarget(trial.batch_size, met.updates, met.reached)
