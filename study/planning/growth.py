"""Batches that grow where a schedule would divide the rate (Smith et al. 2018, arXiv:1711.00489)."""

from __future__ import annotations

from dataclasses import dataclass

from study.config.schema import Growth
from study.errors import ConfigError


@dataclass(frozen=True)
class GrowthStage:
    """Whole epochs at one batch size and one rate."""

    epochs: int
    batch: int
    lr_factor: float  # of the base rate


def growth_stages(base_batch: int, epochs: int, growth: Growth, train_samples: int) -> tuple[GrowthStage, ...]:
    """Return the stages of a run that at each milestone multiplies the batch by the factor, or divides the rate by it.

    The batch grows while it stays within `largest_batch`; from there on the rate decays. Milestones are fractions
    of `epochs`, ascending, moved to the nearest whole epoch. The runs of the paper's figures are four of these:
    `largest_batch` equal to the first batch decays the rate, a large one grows the batch, one in between is its
    hybrid, and a larger first batch with a larger rate its "increased initial rate". All have the same noise scale
    of SGD, g = eta N / (B (1 - m)) for momentum m and N >> B samples. Raises ConfigError for stages without an epoch,
    and for batches above `largest_batch` or `train_samples`.
    """
    starts = [0, *(round(fraction * epochs) for fraction in growth.milestones)]
    ends = [*starts[1:], epochs]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        raise ConfigError(
            f"{list(growth.milestones)} of {epochs} epochs leave a stage without one", "growth.milestones"
        )
    batch, lr_factor = base_batch, 1.0
    if batch > growth.largest_batch:
        raise ConfigError(f"the first batch, {batch}, is larger", "growth.largest_batch")
    stages = []
    for start, end in zip(starts, ends, strict=True):
        if start > 0:
            if batch * growth.factor <= growth.largest_batch:
                batch *= growth.factor
            else:
                lr_factor /= growth.factor
        if batch > train_samples:
            raise ConfigError(
                f"a batch of {batch} is more than the {train_samples} training samples", "growth.largest_batch"
            )
        stages.append(GrowthStage(end - start, batch, lr_factor))
    return tuple(stages)
