"""The optimizers and rates that a trial's first updates have, from a trial of its true length that trains nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from study.config.schema import Hardware
from study.errors import StudyError
from study.planning.batch_split import BatchPlan
from study.planning.trials import Cell, Plan, TrialSpec
from study.planning.tried import FirstRates
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.local_group import LocalGroup
from study.training.jobs.custom import CustomJob
from study.training.preflight.dry_run import ALONE, MOST_RANKS
from study.training.rank import Rank

UPDATES = 3
_SHOWN = ("momentum", "betas", "weight_decay")


def first_rates(plan: Plan, variant: str) -> FirstRates | str:
    """Return the rates of the first updates of the variant's first trial, or why they are not known.

    Schedules ask the Trainer for its length and the loader for its batches, so the trial has its own split of the batch
    (on four ranks at most). It draws data on CPUs of this machine and computes no loss.
    """
    config = plan.variants[variant]
    cell = next(cell for cell in plan.cells if cell.variant == variant)
    lr = plan.rates(cell)[0]
    spec = _rehearsed(plan, cell, lr)
    config = config.model_copy(update={"hardware": Hardware()})
    try:
        if spec.batch.world_size == 1:
            rank = RehearsalRank(ALONE, config)
            found = translate_errors(lambda: rank.first_rates(spec))
        else:
            with LocalGroup(config, spec.batch.world_size, RehearsalRank) as group:
                found = group._all("first_rates", spec)[0]
    except (StudyError, BrokenProcessPool) as error:
        return str(error)
    return replace(found, batch_size=cell.batch_size, lr=lr)


def _rehearsed(plan: Plan, cell: Cell, lr: float) -> TrialSpec:
    spec = plan.confirm_trials(cell, lr)[0]
    world_size = min(spec.batch.world_size, MOST_RANKS)
    micro, accumulation = spec.batch.micro_batch, spec.batch.accumulation
    batch = BatchPlan(world_size * micro * accumulation, world_size, micro, accumulation)
    stages = (replace(spec.stages[0], batch=batch), *spec.stages[1:])
    return replace(spec, phase="search", cell=replace(cell, variant=""), stages=stages, report_at=(spec.total_updates,))


class _EnoughSeen(Exception):
    """Ends the fit."""


class _RehearsalJob(CustomJob):
    """Has losses that are zero whatever the weights are, unless the module optimizes by hand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.module.automatic_optimization:
            self.module.training_step = lambda *args: self.losses.no_gradient()  # type: ignore[method-assign]


class RehearsalRank(Rank):
    """A rank that ends a trial after its first updates."""

    custom_job = _RehearsalJob

    def first_rates(self, spec: TrialSpec) -> FirstRates:
        """Return the optimizers and the rates of the first updates. Every rank must call it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the dry run has said them
            return self._first_rates(spec)

    def _first_rates(self, spec: TrialSpec) -> FirstRates:
        rates: list[list[float]] = []
        try:
            self.begin(spec)
            assert self._trial is not None
            assert self._fit is not None
            trainer = self._trial.trainer
            last = min(UPDATES, spec.total_updates)
            for scheduler in trainer.lr_scheduler_configs:
                scheduler.strict = False  # no validation logs the metrics that some follow
            for number, optimizer in enumerate(trainer.optimizers):
                rates.append([])
                _watch(optimizer, rates[number], last, alone=self._trial.job.module.automatic_optimization)
            found = FirstRates(
                spec.batch.global_batch,
                spec.lr,
                tuple(map(_named, trainer.optimizers)),
                tuple(_moved(one, self._trial.by_hand is not None) for one in trainer.lr_scheduler_configs),
                (),
            )
            self.advance()
        except _EnoughSeen:
            pass
        finally:
            self.halt()
        return replace(found, rates=tuple(map(tuple, rates)))


def _watch(optimizer: torch.optim.Optimizer, rates: list[float], last: int, alone: bool) -> None:
    """Note the rates of the optimizer's first `last` steps; end the fit after these if it is alone, else before one
    more, so that the others have stepped as often.
    """

    def before(*step: Any) -> None:
        if len(rates) == last:
            raise _EnoughSeen
        rates.append(float(optimizer.param_groups[0]["lr"]))

    def after(*step: Any) -> None:
        if alone and len(rates) == last:
            raise _EnoughSeen

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _named(optimizer: torch.optim.Optimizer) -> str:
    """Return `AdamW, betas 0.9 0.95, weight decay 0.1, 2 groups`, with the settings of the first group."""
    group: Mapping[str, Any] = optimizer.param_groups[0]
    words = [type(optimizer).__name__]
    for name in _SHOWN:
        value = group.get(name)
        numbers = value if isinstance(value, tuple) else (value,) if value else ()
        if numbers:
            words.append(f"{name.replace('_', ' ')} {' '.join(f'{number:g}' for number in numbers)}")
    if len(optimizer.param_groups) > 1:
        words.append(f"{len(optimizer.param_groups)} groups")
    return ", ".join(words)


def _moved(scheduler: Any, by_hand: bool) -> str:
    """Return `StepLR after every 2 epochs` of Lightning's record of a scheduler."""
    if by_hand:
        return f"{type(scheduler.scheduler).__name__}, stepped by the module"
    unit, often = "update" if scheduler.interval == "step" else "epoch", scheduler.frequency
    says = f"{type(scheduler.scheduler).__name__} after every {f'{often} {unit}s' if often > 1 else unit}"
    return says + (f", following {scheduler.monitor}" if scheduler.reduce_on_plateau else "")
