"""What early stopping is to do in a study that has not begun: brackets, and the cost as a share of the full grid's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.config.schema import AshaConfig, FrontierAshaConfig, GridConfig
from study.planning.trials import Cell, Plan, TrialSpec, by_cell, whole_in_unit
from study.schedulers.asha import rung_levels
from study.schedulers.bracket import Rung
from study.schedulers.frontier_asha import PROFILES, grades


@dataclass(frozen=True)
class PlannedBracket:
    """The search trials of one cell."""

    cell: Cell
    trials: int
    cost_share: float  # of the full grid
    grade: int | None  # of its cost, 0 to 2; None where the scheduler knows no grades
    rungs: tuple[Rung, ...]
    whole_trials: float  # what training them takes, in whole trials


@dataclass(frozen=True)
class Forecast:
    """Brackets by world size and batch size."""

    brackets: tuple[PlannedBracket, ...]
    cost_fraction: float  # of the full grid's cost; under ASHA, if one in eta goes on at each rung


def forecast(plan: Plan, trial_cost: Mapping[Cell, float]) -> Forecast:
    """From what a whole trial of each cell is expected to cost, in any unit."""
    members = by_cell(plan.search)
    costs = {cell: trial_cost[cell] * len(specs) for cell, specs in members.items()}
    total = sum(costs.values())
    brackets = []
    for cell, specs in members.items():
        scheduler, grade = plan.config.scheduler, None
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
        share = costs[cell] / total
        brackets.append(PlannedBracket(cell, len(specs), share, grade, rungs, _whole_trials(len(specs), rungs)))
    fraction = sum(b.cost_share * b.whole_trials / b.trials for b in brackets)
    return Forecast(tuple(brackets), fraction)


def _asha_rungs(scheduler: AshaConfig, specs: Sequence[TrialSpec]) -> tuple[Rung, ...]:
    end = whole_in_unit(scheduler, specs[0])
    places = [level / end for level in rung_levels(scheduler.grace, scheduler.eta, end)]
    kept = (math.ceil(len(specs) / scheduler.eta ** (i + 1)) for i in range(len(places)))
    return tuple(Rung(at, keep) for at, keep in zip(places, kept, strict=True) if at < 1)


def _whole_trials(trials: int, rungs: Sequence[Rung]) -> float:
    """Lengths of all trials of a bracket together, a whole one being 1."""
    length, at, running = 0.0, 0.0, trials
    for rung in rungs:
        length += running * (rung.at - at)
        at, running = rung.at, rung.keep
    return length + running * (1 - at)
