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
from study.training.lightning_patches import overrides
from study.workloads.user_code.lightning_package import package_of

BETAS = (0.9, 0.999)


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


def build_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter], lr: float, fused: bool = True
) -> torch.optim.Optimizer:
    """Return the optimizer, with torch's fused kernels where it has them and `fused` is true."""
    decay = config.weight_decay
    if config.kind == "sgd":
        return torch.optim.SGD(
            parameters,
            lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=decay,
            fused=fused,
        )
    if config.kind == "adamw":
        return torch.optim.AdamW(
            parameters, lr, config.betas or BETAS, config.eps or 1e-8, weight_decay=decay, fused=fused
        )
    from pytorch_optimizer import LARS, Lamb  # slow to import, and rarely wanted

    if config.kind == "lars":
        return LARS(parameters, lr, momentum=config.momentum, weight_decay=decay, nesterov=config.momentum > 0)
    # As in algorithm 2 of You et al. 2020 (arXiv:1904.00962) without bias correction, whose effect, they note, is
    # that of a warm-up. The library's own would multiply the first steps by ten, after the trust ratio.
    return Lamb(
        parameters,
        lr,
        config.betas or BETAS,
        weight_decay=decay,
        weight_decouple=False,
        adam_debias=True,
        eps=config.eps or 1e-6,
    )


def set_optimizers(module: pl.LightningModule, config: StudyConfig, spec: TrialSpec) -> None:
    """Have Lightning train with the study's optimizer and schedule, or with the module's own at `spec.lr` times their
    rates.
    """
    original = module.configure_optimizers

    def configure() -> Any:
        if rates_are_factors(config):
            return scaled_steps(original(), spec.lr, several=not module.automatic_optimization)
        return lightning_optimizers(config.optimizer, config.schedule, module.parameters(), spec)

    module.configure_optimizers = configure  # type: ignore[method-assign]


def clipping_arguments(config: Optimizer, module: pl.LightningModule) -> dict[str, Any]:
    """Return the Trainer's arguments that clip the gradients of each update. Raises ConfigError for a module that
    optimizes by hand, whose steps Lightning leaves alone.
    """
    if config.clip_norm is None and config.clip_value is None:
        return {}
    by_value = config.clip_value is not None
    if not module.automatic_optimization:
        raise ConfigError(
            "the module optimizes by hand: call self.clip_gradients before each step there, and leave this out",
            "optimizer.clip_value" if by_value else "optimizer.clip_norm",
        )
    return {
        "gradient_clip_val": config.clip_value if by_value else config.clip_norm,
        "gradient_clip_algorithm": "value" if by_value else "norm",
    }


def clips_itself(module: pl.LightningModule) -> bool:
    """Return whether a module has a `configure_gradient_clipping` of its own."""
    lightning = package_of(type(module), "LightningModule")
    assert lightning is not None
    return overrides(module, lightning.pytorch.LightningModule, "configure_gradient_clipping")


def check_plateaus(trainer: pl.Trainer, spec: TrialSpec) -> None:
    """Raise ConfigError where a schedule follows a metric before the first validation of a trial logs it."""
    for scheduler in trainer.lr_scheduler_configs:
        if not scheduler.reduce_on_plateau or not scheduler.strict:
            continue
        batches = scheduler.frequency * (trainer.num_training_batches if scheduler.interval == "epoch" else 1)
        first = math.lcm(int(batches), spec.batch.accumulation) // spec.batch.accumulation
        if first < spec.report_at[0]:
            raise ConfigError(
                f"the module's {type(scheduler.scheduler).__name__} follows {scheduler.monitor}, and steps before the "
                "first validation logs it: validate more often, or let it step more rarely",
                "budget.report_every_updates",
            )


def unscale_before_clipping(optimizer: torch.optim.Optimizer) -> None:
    """Have a gradient scaler (precision 16-mixed) divide the gradients before they are clipped.

    A fused optimizer would divide them during its step; torch's scaler asks for this attribute.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


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


def scaled_steps(configured: Any, factor: float, several: bool = False) -> Any:
    """Return what a user's `configure_optimizers` returned, each optimizer stepping at `factor` times its rates.

    The rates are multiplied for the length of a step alone: what moves them between steps, with its own floors and
    peaks, need not know. Raises ConfigError if there is no optimizer, or more than one where `several` is false.
    """
    found = list(dict.fromkeys(_optimizers_in(configured)))
    if not found or (len(found) > 1 and not several):
        remedy = "; Lightning steps several only by hand, with automatic_optimization = False" if found else ""
        raise ConfigError(
            f"its configure_optimizers gives {len(found)} optimizers; one is needed{remedy}", "workload.module"
        )
    for optimizer in found:
        _scale_steps(optimizer, factor)
    return configured


def _scale_steps(optimizer: torch.optim.Optimizer, factor: float) -> None:
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


def _optimizers_in(configured: Any) -> Iterator[torch.optim.Optimizer]:
    """Yield the optimizers, in any of the forms that Lightning takes."""
    if isinstance(configured, torch.optim.Optimizer):
        yield configured
    elif isinstance(configured, dict):
        yield from _optimizers_in(configured.get("optimizer"))
    elif isinstance(configured, list | tuple):
        for part in configured:
            yield from _optimizers_in(part)
