"""The course of the learning rate, as a factor of its peak."""

from __future__ import annotations

import math

from study.config.schema import Schedule


def lr_factor(schedule: Schedule, update: int, total_updates: int) -> float:
    """Factor of the peak rate for the update with number `update`, counted from 0.

    Linear warm-up over the first `warmup_fraction` of the updates (Goyal et al. 2017), then constant, steps, or
    half a cosine down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983).
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
