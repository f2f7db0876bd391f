"""Early stopping: its expected cost in a study that has not begun, and what it saved and missed in one that has."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from study.analysis.records import Audit, Stopping, TrialRecord
from study.config.schema import AshaConfig, FrontierAshaConfig, GridConfig, RidgeConfig
from study.measurement import CurvePoint
from study.planning.trials import Cell, Plan, TrialSpec, by_cell, whole_in_unit
from study.schedulers.asha import rung_levels
from study.schedulers.bracket import Rung
from study.schedulers.frontier_asha import PROFILES, grades


@dataclass(frozen=True)
class PlannedBracket:
    """The search trials of one cell, and the rungs at which some of them stop."""

    cell: Cell
    trials: int
    cost_share: float  # of the full grid's cost
    grade: int | None  # of its cost, from 0 (low) to 2; None where the scheduler has no grades
    rungs: tuple[Rung, ...]
    whole_trials: float  # length of all trials together, in whole trials
    adaptive: bool = False  # what is trained how far depends on the scores; `whole_trials` is from experience


@dataclass(frozen=True)
class Forecast:
    """The brackets of a plan, by world size and batch size."""

    brackets: tuple[PlannedBracket, ...]
    cost_fraction: float  # of the full grid's cost; under ASHA, if one in eta goes on at each rung


def forecast(plan: Plan, trial_cost: Mapping[Cell, float]) -> Forecast:
    """Return the brackets of a plan and their cost; `trial_cost` is that of a whole trial of each cell, in any unit."""
    members = by_cell(plan.search)
    costs = {cell: trial_cost[cell] * len(specs) for cell, specs in members.items()}
    total = sum(costs.values())
    brackets = []
    for cell, specs in members.items():
        scheduler, grade = plan.config.scheduler, None
        share = costs[cell] / total
        if isinstance(scheduler, RidgeConfig):
            brackets.append(PlannedBracket(cell, len(specs), share, None, (), _ridge_runs(scheduler, specs), True))
            continue
        if isinstance(scheduler, FrontierAshaConfig):
            # A policy judges the cells of one world size.
            grade = grades({c: cost for c, cost in costs.items() if c.world_size == cell.world_size})[cell]
            profile = PROFILES[scheduler.profile][grade]
            rungs = profile.rungs(len(specs), scheduler.min_completions, specs[0].report_shares)
        elif isinstance(scheduler, AshaConfig):
            rungs = _asha_rungs(scheduler, specs)
        else:
            assert isinstance(scheduler, GridConfig)
            rungs = ()
        brackets.append(PlannedBracket(cell, len(specs), share, grade, rungs, _whole_trials(len(specs), rungs)))
    fraction = sum(b.cost_share * b.whole_trials / b.trials for b in brackets)
    return Forecast(tuple(brackets), fraction)


def _ridge_runs(scheduler: RidgeConfig, specs: Sequence[TrialSpec]) -> float:
    from study.schedulers.ridge import CARES  # other forecasts do without SciPy

    return min(CARES[scheduler.profile].expected, float(len(specs)))


def _asha_rungs(scheduler: AshaConfig, specs: Sequence[TrialSpec]) -> tuple[Rung, ...]:
    end = whole_in_unit(scheduler, specs[0])
    places = [level / end for level in rung_levels(scheduler.grace, scheduler.eta, end)]
    kept = (math.ceil(len(specs) / scheduler.eta ** (i + 1)) for i in range(len(places)))
    return tuple(Rung(at, keep) for at, keep in zip(places, kept, strict=True) if at < 1)


def _whole_trials(trials: int, rungs: Sequence[Rung]) -> float:
    """Return the length of all trials of a bracket together, with 1 for a whole trial."""
    length, at, running = 0.0, 0.0, trials
    for rung in rungs:
        length += running * (rung.at - at)
        at, running = rung.at, rung.keep
    return length + running * (1 - at)


def measured_stopping(trials: Iterable[TrialRecord], never_begun: Iterable[TrialSpec] = ()) -> Stopping | None:
    """Return what stopping saved and missed, over the search trials that reported and those that the search ended
    before they began; None without any report.
    """
    searched = [trial for trial in trials if trial.phase == "search" and trial.curve]
    if not searched:
        return None
    trained = {trial.trial_id: _judged(trial).device_seconds for trial in searched}
    pace: dict[Cell, float] = {}  # device-seconds per update
    for cell, members in _trials_by_cell(searched).items():
        updates = sum(trial.curve[-1].updates for trial in members)
        pace[cell] = sum(trial.curve[-1].device_seconds for trial in members) / updates
    grid = sum(pace[trial.cell] * trial.total_updates for trial in searched)
    grid += sum(pace[spec.cell] * spec.total_updates for spec in never_begun if spec.cell in pace)
    return Stopping(sum(trained.values()), grid, _audit(searched))


def _audit(searched: Sequence[TrialRecord]) -> Audit | None:
    audited = [trial for trial in searched if trial.audited_from is not None and trial.outcome == "completed"]
    if not audited:
        return None
    completed = [trial for trial in searched if trial.audited_from is None and trial.outcome == "completed"]
    # Pooled by cell: trials of one cell do the same work and differ by the noise of the clock.
    cost = {
        cell: fmean(trial.curve[-1].device_seconds for trial in members)
        for cell, members in _trials_by_cell([*completed, *audited]).items()
    }
    missed = 0
    for trial in audited:
        rivals = [_final(other) for other in completed if cost[other.cell] <= cost[trial.cell]]
        missed += _final(trial) > max(rivals, default=-math.inf)
    from scipy.stats import binomtest  # a forecast does without SciPy

    interval = binomtest(missed, len(audited)).proportion_ci(method="exact")
    return Audit(
        trials=len(audited),
        missed=missed,
        missed_ci=(float(interval.low), float(interval.high)),
        device_s=sum(trial.curve[-1].device_seconds - _judged(trial).device_seconds for trial in audited),
    )


def _judged(trial: TrialRecord) -> CurvePoint:
    """Return the report at which the trial ended, or would have been stopped without the audit."""
    last = trial.curve[-1]
    at = trial.audited_from
    return last if at is None else next((point for point in trial.curve if point.updates == at), last)


def _final(trial: TrialRecord) -> float:
    assert trial.final_quality is not None, "of completed trials"
    return trial.final_quality


def _trials_by_cell(trials: Iterable[TrialRecord]) -> dict[Cell, list[TrialRecord]]:
    cells: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        cells[trial.cell].append(trial)
    return cells
