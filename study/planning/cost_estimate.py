"""The most a study can cost: every trial of the plan trained to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.planning.trials import Cell, Plan, TrialSpec, by_cell


@dataclass(frozen=True)
class Pace:
    """The measured speed of one group of ranks."""

    update_s: float  # seconds per update
    validation_s: float  # seconds per validation


@dataclass(frozen=True)
class Paces:
    """The pace of each cell, or why it was not measured."""

    measured: Mapping[Cell, Pace]
    missing: Mapping[Cell, str]


@dataclass(frozen=True)
class CellEstimate:
    """The most that the trials of one cell can cost."""

    cell: Cell
    search_trials: int
    confirm_trials: int
    device_h: float


@dataclass(frozen=True)
class PlanEstimate:
    """The most that a plan can cost if nothing fails, without the setup of groups."""

    cells: tuple[CellEstimate, ...]
    search_device_h: float
    device_h: float
    wall_h: float


def trial_h(spec: TrialSpec, pace: Pace) -> float:
    """Return the hours of a whole trial: its updates and its validations."""
    return (spec.total_updates * pace.update_s + len(spec.report_at) * pace.validation_s) / 3600


def estimate_plan(plan: Plan, paces: Mapping[Cell, Pace], ranks: int) -> PlanEstimate | None:
    """Return the most that a plan costs on a cluster of `ranks` ranks; None if the pace of a cell is unknown.

    World sizes run one after the other, each in as many groups as fit. With list scheduling on m groups the time is at
    most work / m + longest chain x (1 - 1/m) (Graham 1969); the chain is a search trial and the confirm trial after it.
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
            cells.append(CellEstimate(cell, len(search), len(confirm), devices * cell_h))
            search_device_h += devices * len(search) * whole_h
            work_h += cell_h
            longest_h = max(longest_h, (2 if search else 1) * whole_h)
        wall_h += work_h / groups + longest_h * (1 - 1 / groups)
    return PlanEstimate(tuple(cells), search_device_h, sum(price.device_h for price in cells), wall_h)
