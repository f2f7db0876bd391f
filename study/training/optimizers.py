"""Optimizers by name and the schedule of their rate, or a user's own optimizer at a factor of its rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from study.config.schema import Optimizer, Schedule, StudyConfig
from study.config.workloads import Custom
from study.errors import ConfigError
from study.planning.trials import TrialSpec


def lr_factor(schedule: Schedule, update: int, total_updates: int) -> float:
    """Return the factor of the peak rate for the update with number `update`, counted from 0.

    Linear warm-up over the first `warmup_fraction` of the updates (Goyal et al. 2017), then constant, steps, or half a
    cosine down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """
    warmup = round(schedule.warmup_fraction * total_updates)
    if update < warmup:
        return (update + 1) / warmup
    if schedule.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (update - warmup) / max(total_updates - warmup, 1)))
    if schedule.kind == "step":
        passed = sum(update >= fraction * total_updates for fraction in schedule.step_fractions)
        return schedule.step_factor**passed
    return 1.0


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the optimizer, with torch's fused kernels where it has them."""
    decay = config.weight_decay
    if config.kind == "sgd":
        return torch.optim.SGD(
            parameters,
            lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=decay,
            fused=True,
        )
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay, fused=True)
    from pytorch_optimizer import LARS, Lamb  # slow to import, and rarely wanted

    if config.kind == "lars":
        return LARS(parameters, lr, momentum=config.momentum, weight_decay=decay, nesterov=config.momentum > 0)
    # As in algorithm 2 of You et al. 2020 (arXiv:1904.00962) without bias correction, whose effect, they note, is
    # that of a warm-up. The library's own would multiply the first steps by ten, after the trust ratio.
    return Lamb(parameters, lr, weight_decay=decay, weight_decouple=False, adam_debias=True)


def set_optimizers(module: pl.LightningModule, config: StudyConfig, spec: TrialSpec) -> None:
    """Have Lightning train with the study's optimizer and schedule, or with the module's own at `spec.lr` times its
    rates.
    """
    original = module.configure_optimizers

    def configure() -> Any:
        if rates_are_factors(config):
            return scaled_steps(original(), spec.lr)
        return lightning_optimizers(config.optimizer, config.schedule, module.parameters(), spec)

    module.configure_optimizers = configure  # type: ignore[method-assign]


def rates_are_factors(config: StudyConfig) -> bool:
    """Return whether a rate of the study is a factor of the rates of the module's own optimizer."""
    return isinstance(config.workload, Custom) and config.workload.optimizer == "module"


def current_rate(optimizer: torch.optim.Optimizer, config: StudyConfig, spec: TrialSpec) -> float:
    """Return the rate of the next update, of the first group of parameters."""
    return float(optimizer.param_groups[0]["lr"]) * (spec.lr if rates_are_factors(config) else 1.0)


def lightning_optimizers(
    config: Optimizer, schedule: Schedule, parameters: Iterable[nn.Parameter], spec: TrialSpec
) -> Any:
    """Return what a LightningModule's `configure_optimizers` returns: the rate moves after each update."""
    optimizer = build_optimizer(config, parameters, spec.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: lr_factor(schedule, update, spec.total_updates) * spec.stage_at(update).lr_factor
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def scaled_steps(configured: Any, factor: float) -> Any:
    """Return what a user's `configure_optimizers` returned, its optimizer stepping at `factor` times its rates.

    The rates are multiplied for the length of a step alone: what moves them between steps, with its own floors and
    peaks, need not know. Raises ConfigError if there is not one optimizer.
    """
    found = list(_optimizers_in(configured))
    if len(found) != 1:
        raise ConfigError(f"its configure_optimizers gives {len(found)} optimizers; one is needed", "workload.module")
    (optimizer,) = found
    before: list[Any] = []

    def multiply(*step: Any) -> None:
        before[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def restore(*step: Any) -> None:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate

    optimizer.register_step_pre_hook(multiply)
    optimizer.register_step_post_hook(restore)
    return configured


def _optimizers_in(configured: Any) -> Iterator[torch.optim.Optimizer]:
    """Yield the optimizers, in any of the forms that Lightning takes."""
    if isinstance(configured, torch.optim.Optimizer):
        yield configured
    elif isinstance(configured, dict):
        yield from _optimizers_in(configured.get("optimizer"))
    elif isinstance(configured, list | tuple):
        for part in configured:
            yield from _optimizers_in(part)
