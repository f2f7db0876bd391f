"""Updates that a study's confirm trials took to a target accuracy, and the critical batch size that follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from study.analysis.critical import StepsToTarget, fit_critical_batch
from study.analysis.records import Critical, TrialRecord


def criticals_of(trials: Sequence[TrialRecord], target: float | None) -> tuple[tuple[Critical, ...], str | None]:
    """The critical batch size of each variant of a study, or why there is none, in words.

    `target` is the validation accuracy that the config asks for. Left out, it is the highest that every batch size of
    the variant reaches on average, at its best report: the most that can be asked without leaving a batch size out.
    """
    variants: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome is not None and trial.curve:
            variants[trial.variant].append(trial)
    fitting = {name: over for name, over in variants.items() if len({trial.batch_size for trial in over}) > 1}
    if not fitting:
        return (), "steps to a target need confirm trials of two batch sizes"
    return tuple(_critical(name, over, target) for name, over in fitting.items()), None


def _critical(variant: str, over: Sequence[TrialRecord], target: float | None) -> Critical:
    best: dict[int, list[float]] = defaultdict(list)
    for trial in over:
        best[trial.batch_size].append(max(point.val_accuracy for point in trial.curve))
    why = "report.target_val_accuracy"
    if target is None:
        hardest = min(best, key=lambda batch: fmean(best[batch]))
        target = fmean(best[hardest])
        why = f"the most that every batch size reaches on average, batch {hardest} just so"
    runs = tuple(steps_to(trial, target) for trial in over)
    return Critical(variant, target, why, runs, fit_critical_batch(runs))


def steps_to(trial: TrialRecord, target: float) -> StepsToTarget:
    """Updates until the trial's validation accuracy met the target, interpolated between the reports around it.

    Where it never did, its last report bounds them from below. Where the first report already did, that report is
    taken: nothing is known of what came before it.
    """
    for before, point in pairwise((None, *trial.curve)):
        if point is not None and point.val_accuracy >= target:
            if before is None:
                return StepsToTarget(trial.batch_size, point.updates)
            share = (target - before.val_accuracy) / (point.val_accuracy - before.val_accuracy)
            return StepsToTarget(trial.batch_size, before.updates + share * (point.updates - before.updates))
    return StepsToTarget(trial.batch_size, trial.curve[-1].updates, reached=False)
