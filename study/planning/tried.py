"""What a check found of a user's own module, by training with it before the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LossWeights:
    """What the losses of the micro batches were weighted by: `workload.loss_weight`, tokens for example."""

    per_sample: float  # mean
    least: float  # of a micro batch
    most: float
    micro_batch: int  # samples of one


@dataclass(frozen=True)
class TriedModule:
    """One variant's module and data, as they were in a short trial."""

    notes: tuple[str, ...]  # what a user should know, a line each
    logged: str  # the name under which it logs the objective
    metrics: Mapping[str, float]  # logged at last, by name
    val_samples: int | None  # None where they are not known, as those of a stream
    weights: LossWeights | None  # None without loss_weight
    variant: str = ""


@dataclass(frozen=True)
class FirstRates:
    """The optimizers of a trial as its first updates find them."""

    batch_size: int
    lr: float  # of the search, at the base batch
    optimizers: tuple[str, ...]  # class and settings of each
    schedules: tuple[str, ...]  # class of each scheduler, and what moves it
    rates: tuple[tuple[float, ...], ...]  # of each optimizer's first group of parameters, update by update
