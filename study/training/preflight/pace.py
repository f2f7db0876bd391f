"""Measure the pace of every cell by a few updates on this machine."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from study.errors import ConfigError
from study.planning.cost_estimate import Pace
from study.planning.trials import Cell, Plan
from study.training.distributed.local_group import LocalGroup
from study.training.messages import Mistake, OutOfMemory

WARM_UPDATES, TIMED_UPDATES = 5, 20


def measure_paces(plan: Plan, cores: int) -> dict[Cell, Pace]:
    """Return the pace of each cell whose ranks have a core each; takes a few seconds per world size. Raises
    ConfigError.
    """
    paces: dict[Cell, Pace] = {}
    for world_size in plan.config.hardware.world_sizes:
        if world_size * plan.config.hardware.cpus_per_rank > cores:
            continue
        with LocalGroup(plan.config, world_size) as group:
            for cell in plan.cells:
                if cell.world_size == world_size:
                    paces[cell] = _pace(group, plan, cell)
    return paces


def _pace(group: LocalGroup, plan: Plan, cell: Cell) -> Pace:
    spec = plan.confirm_trials(cell, plan.rates(cell)[0])[0]
    warm = min(WARM_UPDATES, spec.report_at[0])  # no later than the trial's own, for schedules that follow a metric
    total = warm + TIMED_UPDATES
    # "search": a pilot has no use for the test split, nor for probes. A batch that grows is timed as it begins.
    stage = replace(spec.stages[0], updates=total)
    pilot = replace(spec, phase="search", stages=(stage,), report_at=(warm, total))
    try:
        first, second = group.run(pilot)
    except (Mistake, OutOfMemory, BrokenProcessPool) as error:
        raise ConfigError(str(error), "workload") from error
    return Pace(
        update_s=cell.batch_size / second.samples_per_s,
        validation_s=second.phases_s["validate"] - first.phases_s["validate"],
    )
