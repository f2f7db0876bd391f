"""When trials met a target, interpolated between reports, and the critical batch size that follows from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from study.analysis.records import Critical, TrialRecord
from study.analysis.statistics.critical import StepsToTarget, fit_critical_batch
from study.config.objective import ACCURACY, Objective, Target
from study.measurement import CurvePoint


@dataclass(frozen=True)
class TimeToTarget:
    """What a trial took to meet a target or, where `reached` is false, all that it spent without meeting it."""

    updates: float
    samples: float
    device_s: float  # ranks x seconds of training and validation
    reached: bool


def time_to_target(curve: Sequence[CurvePoint], target: Target) -> TimeToTarget | None:
    """Return when a curve first met the target; None without a report.

    Linear between the two reports around it. Where the first report already meets the target, that report counts:
    what came before it is unknown.
    """
    before: CurvePoint | None = None
    for point in curve:
        value = _value(point, target)
        if target.met_by(value):
            return _between(before or point, point, target)
        # A non-finite value does not say on which side of the target the trial was.
        before = point if math.isfinite(value) else None
    return TimeToTarget(curve[-1].updates, curve[-1].samples, curve[-1].device_seconds, False) if curve else None


def _value(point: CurvePoint, target: Target) -> float:
    value = point.value(target.metric)
    return math.nan if value is None else value


def _between(before: CurvePoint, point: CurvePoint, target: Target) -> TimeToTarget:
    start, end = _value(before, target), _value(point, target)
    share = (target.value - start) / (end - start) if math.isfinite(end) and end != start else 1.0
    return TimeToTarget(
        before.updates + share * (point.updates - before.updates),
        before.samples + share * (point.samples - before.samples),
        before.device_seconds + share * (point.device_seconds - before.device_seconds),
        True,
    )


def critical_batches(
    trials: Sequence[TrialRecord], target: float | None, objective: Objective = ACCURACY
) -> tuple[tuple[Critical, ...], str | None]:
    """Return the critical batch size of each variant of a study; without any, say why in words.

    `target` is the quality that the config asks for. Left out, it is the highest that every batch size of
    the variant reaches on average, at its best report: the most that can be asked without leaving a batch size out.
    """
    variants: dict[str, list[TrialRecord]] = defaultdict(list)
    unreported: dict[str, int] = defaultdict(int)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome is not None:
            if _says_how_far(trial, objective):
                variants[trial.variant].append(trial)
            else:
                unreported[trial.variant] += 1
    fitting = {name: ended for name, ended in variants.items() if len({trial.batch_size for trial in ended}) > 1}
    if not fitting:
        return (), "steps to a target need confirm trials of two batch sizes"
    return tuple(_critical(name, ended, target, unreported[name], objective) for name, ended in fitting.items()), None


def _says_how_far(trial: TrialRecord, objective: Objective) -> bool:
    """Return whether a trial has a quality to count: a finite report, or any where the least quality is known."""
    if objective.floor is not None:
        return bool(trial.curve)
    return any(math.isfinite(objective.of(point)) for point in trial.curve)


def _critical(
    variant: str, ended: Sequence[TrialRecord], target: float | None, n_unreported: int, objective: Objective
) -> Critical:
    best: dict[int, list[float]] = defaultdict(list)
    for trial in ended:
        known = [quality for point in trial.curve if math.isfinite(quality := objective.of(point))]
        best[trial.batch_size].append(max(known, default=objective.floor or 0.0))
    why = "the config's target"
    if target is None:
        hardest = min(best, key=lambda batch: fmean(best[batch]))
        target = fmean(best[hardest])
        most = "most" if objective.mode == "max" else "best"
        why = f"the {most} that every batch size reaches on average, batch {hardest} just so"
    runs = tuple(steps_to_target(trial, target, objective) for trial in ended)
    return Critical(variant, target, why, runs, fit_critical_batch(runs), n_unreported)


def steps_to_target(trial: TrialRecord, target: float, objective: Objective) -> StepsToTarget:
    """Return the updates until the trial's quality met the target; its last report bounds them otherwise.

    Raises ValueError for a trial that never reported.
    """
    met = time_to_target(trial.curve, Target(objective.metric, objective.value(target), objective.mode))
    if met is None:
        raise ValueError(f"{trial.trial_id} never reported")
    return StepsToTarget(trial.batch_size, met.updates, met.reached)
