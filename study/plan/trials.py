"""The exact list of trials that a config means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from study.plan.batches import BatchPlan, split_batch
from study.plan.config import Digits, StudyConfig
from study.plan.errors import PlanError
from study.plan.rates import base_rates, scaled_rate

Phase = Literal["search", "confirm"]
DIGITS_SAMPLES = 1797
SEARCH_SEED_INDEX = 0  # confirm seeds are 1, 2, ...: fresh by construction


@dataclass(frozen=True)
class Cell:
    """What is compared: a batch size on a number of ranks."""

    batch_size: int
    world_size: int


@dataclass(frozen=True)
class TrialSpec:
    """All that one trial needs to know; plain data, so that it can cross to any process."""

    trial_id: str
    phase: Phase
    batch: BatchPlan
    base_lr: float  # before the rule
    lr: float  # peak rate of the schedule
    seed_index: int
    seed: tuple[int, int]  # (study, index): entropy for every random choice of the trial
    updates_per_epoch: int
    total_updates: int
    report_at: tuple[int, ...]  # updates after which it validates and reports; the last is total_updates

    @property
    def cell(self) -> Cell:
        """The cell this trial is evidence for."""
        return Cell(self.batch.global_batch, self.batch.world_size)


@dataclass(frozen=True)
class Plan:
    """A config and everything derived from it before anything runs."""

    config: StudyConfig
    train_samples: int
    cells: tuple[Cell, ...]
    search: tuple[TrialSpec, ...]  # empty when there is one rate, and so nothing to choose

    @property
    def n_confirm(self) -> int:
        """Confirm trials, one for each cell and fresh seed."""
        return len(self.cells) * self.config.confirm.seeds

    def confirm_trials(self, cell: Cell, base_lr: float) -> tuple[TrialSpec, ...]:
        """The confirm trials of a cell at the rate that the search chose."""
        return tuple(
            _trial(self.config, self.train_samples, "confirm", cell, base_lr, index, f"s{index}")
            for index in range(1, self.config.confirm.seeds + 1)
        )

    def rates(self) -> tuple[float, ...]:
        """The rates tried at the base batch."""
        return base_rates(self.config.search, self.config.seed)


def train_samples(config: StudyConfig) -> int:
    """Size of the training set. Raises PlanError if the splits leave nothing to train on."""
    workload = config.workload
    if isinstance(workload, Digits):
        left = DIGITS_SAMPLES - workload.val_samples - workload.test_samples
        if left < 1:
            raise PlanError(
                f"val_samples and test_samples take all of the {DIGITS_SAMPLES} digits; their sum must be below it",
                "workload",
            )
        return left
    return workload.train_samples


def make_plan(config: StudyConfig) -> Plan:
    """Derive the trials. Raises PlanError for what cannot work."""
    samples = train_samples(config)
    cells = tuple(Cell(b, w) for w in config.hardware.world_sizes for b in config.batch_sizes)
    rates = base_rates(config.search, config.seed)
    _check_scheduler(config)
    search = tuple(
        _trial(config, samples, "search", cell, rate, SEARCH_SEED_INDEX, f"r{i}")
        for cell in cells
        for i, rate in enumerate(rates)
    )
    return Plan(config, samples, cells, search if len(rates) > 1 else ())


def _trial(
    config: StudyConfig, samples: int, phase: Phase, cell: Cell, base_lr: float, seed_index: int, suffix: str
) -> TrialSpec:
    if cell.batch_size > samples:
        raise PlanError(f"{cell.batch_size} is above the {samples} training samples", "batch_sizes")
    updates_per_epoch = samples // cell.batch_size
    total = config.budget.updates or updates_per_epoch * (config.budget.epochs or 0)
    every = config.budget.report_every_updates or updates_per_epoch
    return TrialSpec(
        trial_id=f"{phase}-b{cell.batch_size}-w{cell.world_size}-{suffix}",
        phase=phase,
        batch=split_batch(cell.batch_size, cell.world_size, config.hardware),
        base_lr=base_lr,
        lr=scaled_rate(base_lr, cell.batch_size, config.search),
        seed_index=seed_index,
        seed=(config.seed, seed_index),
        updates_per_epoch=updates_per_epoch,
        total_updates=total,
        report_at=(*range(every, total, every), total),
    )


def rung_levels(config: StudyConfig, trial: TrialSpec) -> tuple[float, ...]:
    """Where this trial can be stopped, in the scheduler's unit, ascending; the end is not a rung."""
    if config.scheduler.kind == "none":
        return ()
    end = budget_in_unit(config, trial)
    levels = []
    level = config.scheduler.grace
    while level < end:
        levels.append(level)
        level *= config.scheduler.eta
    return tuple(levels)


def budget_in_unit(config: StudyConfig, trial: TrialSpec) -> float:
    """The whole length of a trial, in the scheduler's unit."""
    unit = config.scheduler.unit
    if unit == "device_seconds":
        return config.scheduler.max_device_seconds or math.inf
    if unit == "updates":
        return trial.total_updates
    if unit == "samples":
        return trial.total_updates * trial.batch.global_batch
    return trial.total_updates / trial.updates_per_epoch


def _check_scheduler(config: StudyConfig) -> None:
    scheduler, budget = config.scheduler, config.budget
    end = {"epochs": budget.epochs, "updates": budget.updates, "device_seconds": scheduler.max_device_seconds}
    last = end.get(scheduler.unit)
    if scheduler.kind != "none" and last is not None and scheduler.grace > last:
        raise PlanError(f"{scheduler.grace:g} {scheduler.unit} is past the end of a trial, {last:g}", "scheduler.grace")
