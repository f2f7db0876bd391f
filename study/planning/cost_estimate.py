"""The most a study can cost: every trial of the plan trained to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.planning.trials import Cell, Plan, TrialSpec, by_cell


@dataclass(frozen=True)
class Pace:
    """How fast one group goes."""

    update_s: float  # seconds per update
    validation_s: float  # seconds per validation


@dataclass(frozen=True)
class CellPrice:
    """What one cell can cost at most."""

    cell: Cell
    search_trials: int
    confirm_trials: int
    device_h: float


@dataclass(frozen=True)
class PlanPrice:
    """What a plan can cost at most, if nothing fails; the setting-up of groups is not in it."""

    cells: tuple[CellPrice, ...]
    search_device_h: float
    device_h: float
    wall_h: float


def trial_h(spec: TrialSpec, pace: Pace) -> float:
    """Hours of a whole trial."""
    return (spec.total_updates * pace.update_s + len(spec.report_at) * pace.validation_s) / 3600


def price_plan(plan: Plan, paces: Mapping[Cell, Pace], ranks: int) -> PlanPrice | None:
    """At most, on a cluster that holds `ranks` ranks at once; None if a cell's pace is not known.

    World sizes run one after the other, each in as many groups as fit. Trials that start whenever a group is free take
    no longer than the work of all shared by the groups plus, less one group's share, the longest chain of trials that
    must follow one another (Graham 1969): one of the search, then one that confirms it.
    """
    if any(cell not in paces for cell in plan.cells):
        return None
    cells, search_device_h, wall_h = [], 0.0, 0.0
    searched = by_cell(plan.search)
    for world_size in plan.config.hardware.world_sizes:
        groups, devices = max(ranks // world_size, 1), world_size * plan.config.hardware.devices_per_rank
        work_h = longest_h = 0.0
        for cell in (cell for cell in plan.cells if cell.world_size == world_size):
            search = searched.get(cell, [])
            # A trial's length does not depend on its rate.
            confirm = plan.confirm_trials(cell, plan.rates(cell)[0])
            whole_h = trial_h(confirm[0], paces[cell])
            cell_h = (len(search) + len(confirm)) * whole_h
            cells.append(CellPrice(cell, len(search), len(confirm), devices * cell_h))
            search_device_h += devices * len(search) * whole_h
            work_h += cell_h
            longest_h = max(longest_h, (2 if search else 1) * whole_h)
        wall_h += work_h / groups + longest_h * (1 - 1 / groups)
    return PlanPrice(tuple(cells), search_device_h, sum(price.device_h for price in cells), wall_h)
