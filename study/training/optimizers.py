"""Optimizers by name, and the schedule that drives their rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from study.plan.config import Optimizer, Schedule
from study.plan.trials import TrialSpec
from study.training.schedules import lr_factor


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimizer, with torch's fused kernels where it has them."""
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


def lightning_optimizers(
    config: Optimizer, schedule: Schedule, parameters: Iterable[nn.Parameter], spec: TrialSpec
) -> Any:
    """What a LightningModule's `configure_optimizers` returns: the rate moves after each update."""
    optimizer = build_optimizer(config, parameters, spec.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: lr_factor(schedule, update, spec.total_updates) * spec.stage_at(update).lr_factor
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
