"""The most a study can cost: every trial of the plan trained to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.plan.trials import Cell, Plan, TrialSpec


@dataclass(frozen=True)
class Pace:
    """How fast one group goes."""

    update_s: float  # seconds per update
    validation_s: float  # seconds per validation


def trial_device_h(spec: TrialSpec, pace: Pace) -> float:
    """Hours of a whole trial times its ranks; the setting-up of groups is not in it."""
    seconds = spec.total_updates * pace.update_s + len(spec.report_at) * pace.validation_s
    return spec.batch.world_size * seconds / 3600


def most_device_h(plan: Plan, paces: Mapping[Cell, Pace]) -> float | None:
    """Device-hours if nothing is stopped early and nothing fails; None if a cell's pace is not known."""
    if any(cell not in paces for cell in plan.cells):
        return None
    search = sum(trial_device_h(spec, paces[spec.cell]) for spec in plan.search)
    # A trial's length does not depend on its rate.
    confirm = (plan.confirm_trials(cell, plan.rates(cell)[0]) for cell in plan.cells)
    confirmed = sum(trial_device_h(spec, paces[spec.cell]) for specs in confirm for spec in specs)
    return (search + confirmed) * plan.config.hardware.devices_per_rank
