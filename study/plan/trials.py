"""The exact list of trials that a config means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from study.plan.batches import BatchPlan, split_batch
from study.plan.config import Digits, RungAsha, StudyConfig
from study.plan.errors import PlanError
from study.plan.rates import base_rates, scaled_rate

Phase = Literal["search", "confirm"]
DIGITS_SAMPLES = 1797


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
    def report_shares(self) -> tuple[float, ...]:
        """Where it reports, as shares of its length."""
        return tuple(updates / self.total_updates for updates in self.report_at)

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
        first = self.config.search.seeds  # seeds that no search trial has seen
        return tuple(
            _trial(self.config, self.train_samples, "confirm", cell, base_lr, first + i, f"s{i + 1}")
            for i in range(self.config.confirm.seeds)
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
    seeds = range(config.search.seeds)
    search = tuple(
        _trial(config, samples, "search", cell, rate, seed, f"r{i}" + (f"s{seed}" if len(seeds) > 1 else ""))
        for cell in cells
        for i, rate in enumerate(rates)
        for seed in seeds
    )
    search = search if len(rates) > 1 else ()
    _check_scheduler(config, search)
    return Plan(config, samples, cells, search)


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


def in_unit(scheduler: RungAsha, spec: TrialSpec, updates: int, device_seconds: float) -> float:
    """How far a trial has come after so many updates, in the unit of the scheduler's rungs."""
    units: dict[str, float] = {
        "epochs": updates / spec.updates_per_epoch,
        "updates": updates,
        "samples": updates * spec.batch.global_batch,
        "device_seconds": device_seconds,
    }
    return units[scheduler.unit]


def whole_in_unit(scheduler: RungAsha, spec: TrialSpec) -> float:
    """The whole length of a trial, in the unit of the scheduler's rungs."""
    return in_unit(scheduler, spec, spec.total_updates, scheduler.max_device_seconds or math.inf)


def _check_scheduler(config: StudyConfig, search: Sequence[TrialSpec]) -> None:
    scheduler = config.scheduler
    if isinstance(scheduler, RungAsha) and search:
        longest = max(whole_in_unit(scheduler, spec) for spec in search)
        if scheduler.grace > longest:
            raise PlanError(
                f"{scheduler.grace:g} {scheduler.unit} is past the end of a trial, {longest:g}", "scheduler.grace"
            )
