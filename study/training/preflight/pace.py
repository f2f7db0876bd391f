"""Measure the pace of every cell by a few updates on this machine."""

from __future__ import annotations

import math
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import torch

from study.config.schema import Hardware
from study.errors import ConfigError
from study.planning.cost_estimate import Pace, Paces
from study.planning.trials import Cell, Plan
from study.training.distributed.local_group import LocalGroup
from study.training.messages import Mistake, OutOfMemory, RankReport

FIRST, WARM, LAST = 1, 5, 25  # reports, in updates; the last interval counts
SLOW_S = 2.0  # of training from the first to the second: the third is not waited for


def measure_paces(plan: Plan, cores: int) -> Paces:
    """Return the pace of each cell, or why it was not measured; takes seconds, or up to six updates of each cell and
    three validations where those take longer. Raises ConfigError.
    """
    measured: dict[Cell, Pace] = {}
    missing: dict[Cell, str] = {}
    for world_size in plan.config.hardware.world_sizes:
        cells = [cell for cell in plan.cells if cell.world_size == world_size]
        if lacking := _lacking(plan.config.hardware, world_size, cores):
            missing |= dict.fromkeys(cells, lacking)
            continue
        while cells:
            with LocalGroup(plan.config, world_size) as group:
                while cells:
                    cell = cells.pop(0)
                    try:
                        measured[cell] = _pace(group, plan, cell)
                    except OutOfMemory as error:
                        missing[cell] = str(error)
                        break  # the group ended with it
    return Paces(measured, missing)


def _lacking(hardware: Hardware, world_size: int, cores: int) -> str | None:
    """Return why so many ranks cannot be timed on this machine; None if they can."""
    if hardware.on_gpu:
        needed, gpus = math.ceil(world_size * hardware.devices_per_rank - 1e-9), torch.cuda.device_count()
        if needed > gpus:
            return f"they need {needed} GPU{'s' * (needed > 1)}, and this machine has {gpus or 'none'}"
    if (needed := world_size * hardware.cpus_per_rank) > cores:
        return f"they need {needed} cores, and this machine has {cores}"
    return None


def _pace(group: LocalGroup, plan: Plan, cell: Cell) -> Pace:
    spec = plan.confirm_trials(cell, plan.rates(cell)[0])[0]
    # "search": a pilot has no use for the test split, nor for probes. A batch that grows is timed as it begins.
    stage = replace(spec.stages[0], updates=LAST)
    pilot = replace(spec, phase="search", stages=(stage,), report_at=(FIRST, WARM, LAST))
    try:
        group._all("begin", pilot)
        reports: list[RankReport] = []
        while len(reports) < len(pilot.report_at) and not _enough(reports):
            reports.append(group._all("advance")[0])
        group._all("halt")
    except (Mistake, BrokenProcessPool) as error:
        raise ConfigError(str(error), "workload") from error
    before = reports[-2].phases_s["validate"] if len(reports) > 1 else 0.0
    return Pace(
        update_s=cell.batch_size / reports[-1].samples_per_s,
        validation_s=reports[-1].phases_s["validate"] - before,
    )


def _enough(reports: list[RankReport]) -> bool:
    """Return whether the last report says enough: it met a target of the study, or the updates before it were slow."""
    if len(reports) == 2 and reports[1].phases_s["train"] - reports[0].phases_s["train"] >= SLOW_S:
        return True
    return bool(reports) and reports[-1].final
