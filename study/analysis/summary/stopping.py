"""What early stopping saved, and what the audit says it missed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from scipy.stats import binomtest

from study.analysis.records import Audit, Stopping, TrialRecord
from study.ledger.state import CurvePoint
from study.planning.trials import Cell


def stopping(trials: Iterable[TrialRecord]) -> Stopping | None:
    """Over the search trials that reported; None if there is none."""
    searched = [trial for trial in trials if trial.phase == "search" and trial.curve]
    if not searched:
        return None
    trained = {trial.trial_id: _judged(trial).device_seconds for trial in searched}
    pace: dict[Cell, float] = {}  # device-seconds an update
    for cell, members in _by_cell(searched).items():
        updates = sum(trial.curve[-1].updates for trial in members)
        pace[cell] = sum(trial.curve[-1].device_seconds for trial in members) / updates
    grid = sum(pace[_cell(trial)] * trial.total_updates for trial in searched)
    return Stopping(sum(trained.values()), grid, _audit(searched))


def _audit(searched: Sequence[TrialRecord]) -> Audit | None:
    audited = [trial for trial in searched if trial.audited_from is not None and trial.outcome == "completed"]
    if not audited:
        return None
    completed = [trial for trial in searched if trial.audited_from is None and trial.outcome == "completed"]
    # Pooled, since the noise of the clock would tell apart trials of one cell.
    cost = {
        cell: fmean(trial.curve[-1].device_seconds for trial in members)
        for cell, members in _by_cell([*completed, *audited]).items()
    }
    missed = 0
    for trial in audited:
        rivals = [_final(other) for other in completed if cost[_cell(other)] <= cost[_cell(trial)]]
        missed += _final(trial) > max(rivals, default=-1.0)
    interval = binomtest(missed, len(audited)).proportion_ci(method="exact")
    return Audit(
        trials=len(audited),
        missed=missed,
        missed_ci=(float(interval.low), float(interval.high)),
        device_s=sum(trial.curve[-1].device_seconds - _judged(trial).device_seconds for trial in audited),
    )


def _judged(trial: TrialRecord) -> CurvePoint:
    """Where the trial ended or would have been stopped."""
    last = trial.curve[-1]
    at = trial.audited_from
    return last if at is None else next((point for point in trial.curve if point.updates == at), last)


def _final(trial: TrialRecord) -> float:
    assert trial.final_val_accuracy is not None, "of completed trials"
    return trial.final_val_accuracy


def _by_cell(trials: Iterable[TrialRecord]) -> dict[Cell, list[TrialRecord]]:
    cells: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        cells[_cell(trial)].append(trial)
    return cells


def _cell(trial: TrialRecord) -> Cell:
    return Cell(trial.batch_size, trial.world_size, trial.variant)
