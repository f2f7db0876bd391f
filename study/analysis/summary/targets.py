"""Updates that a study's confirm trials took to a target accuracy, and the critical batch size that follows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from study.analysis.records import Critical, TrialRecord
from study.analysis.statistics.critical import StepsToTarget, fit_critical_batch
from study.analysis.summary.time_to_target import first_meeting


def criticals_of(trials: Sequence[TrialRecord], target: float | None) -> tuple[tuple[Critical, ...], str | None]:
    """The critical batch size of each variant of a study, or why there is none, in words.

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
    fitting = {name: over for name, over in variants.items() if len({trial.batch_size for trial in over}) > 1}
    if not fitting:
        return (), "steps to a target need confirm trials of two batch sizes"
    return tuple(_critical(name, over, target, unreported[name]) for name, over in fitting.items()), None


def _critical(variant: str, over: Sequence[TrialRecord], target: float | None, n_unreported: int) -> Critical:
    best: dict[int, list[float]] = defaultdict(list)
    for trial in over:
        known = [point.val_accuracy for point in trial.curve if math.isfinite(point.val_accuracy)]
        best[trial.batch_size].append(max(known, default=0.0))
    why = "the config's target_val_accuracy"
    if target is None:
        hardest = min(best, key=lambda batch: fmean(best[batch]))
        target = fmean(best[hardest])
        why = f"the most that every batch size reaches on average, batch {hardest} just so"
    runs = tuple(steps_to(trial, target) for trial in over)
    return Critical(variant, target, why, runs, fit_critical_batch(runs), n_unreported)


def steps_to(trial: TrialRecord, target: float) -> StepsToTarget:
    """Updates until the trial's validation accuracy met the target; where it never did, its last report bounds them.

    Raises ValueError for a trial that never reported.
    """
    met = first_meeting(trial.curve, "val_accuracy", target)
    if met is None:
        raise ValueError(f"{trial.trial_id} never reported")
    return StepsToTarget(trial.batch_size, met.updates, met.reached)
