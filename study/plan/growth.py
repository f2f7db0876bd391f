"""Batches that grow where a schedule would divide the rate (Smith et al. 2018, arXiv:1711.00489)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.plan.errors import PlanError


@dataclass(frozen=True)
class Stage:
    """Whole epochs at one batch size and one rate."""

    start_epoch: int
    epochs: int
    batch: int
    lr_factor: float  # of the base rate
    updates_per_epoch: int  # whole batches; what does not fill one is left out

    @property
    def updates(self) -> int:
        """Optimizer steps of the stage."""
        return self.epochs * self.updates_per_epoch

    @property
    def samples(self) -> int:
        """Samples trained on in the stage, exactly."""
        return self.updates * self.batch


def growth_stages(
    base_batch: int,
    epochs: int,
    milestones: Sequence[float],
    factor: int,
    largest_batch: int,
    train_samples: int,
    start_factor: int = 1,
) -> tuple[Stage, ...]:
    """The stages of a run that at each milestone multiplies the batch by `factor`, or divides the rate by it.

    It grows as long as the batch stays within `largest_batch`, and decays from there on. `milestones` are fractions
    of `epochs`, ascending, moved to the nearest whole epoch. The runs of the paper's figures are four of these:
    `largest_batch` equal to `base_batch` decays the rate, a large one grows the batch, one in between is its
    hybrid; `start_factor` multiplies both the first batch and the first rate, its "increased initial rate". All
    have the same eta N / (B (1 - m)). Raises PlanError.
    """
    starts = [0, *(round(fraction * epochs) for fraction in milestones)]
    ends = [*starts[1:], epochs]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        raise PlanError(f"{list(milestones)} of {epochs} epochs leave a stage without an epoch", "milestones")
    batch, lr_factor = base_batch * start_factor, float(start_factor)
    if batch > largest_batch:
        raise PlanError(f"the first batch, {batch}, is larger", "largest_batch")
    stages = []
    for start, end in zip(starts, ends, strict=True):
        if start > 0:
            if batch * factor <= largest_batch:
                batch *= factor
            else:
                lr_factor /= factor
        if batch > train_samples:
            raise PlanError(f"a batch of {batch} is more than the {train_samples} training samples", "largest_batch")
        stages.append(Stage(start, end - start, batch, lr_factor, train_samples // batch))
    return tuple(stages)


def noise_scale(lr: float, train_samples: int, batch: int, momentum: float) -> float:
    """Scale of SGD's random fluctuations, g = eta N / (B (1 - m)) for B << N (Smith et al. 2018, section 4)."""
    return lr * train_samples / (batch * (1 - momentum))
