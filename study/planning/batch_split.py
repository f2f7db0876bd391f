"""The exact split of a global batch: world size x micro batch x accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from study.config.schema import Hardware
from study.errors import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    """The split of one global batch over ranks and accumulation. Raises ValueError for a product of another size."""

    global_batch: int
    world_size: int
    micro_batch: int  # samples of one forward pass of a rank
    accumulation: int  # micro batches that a rank adds up before an update

    def __post_init__(self) -> None:
        if self.world_size * self.micro_batch * self.accumulation != self.global_batch:
            raise ValueError(f"not an exact split: {self}")


def split_batch(global_batch: int, world_size: int, hardware: Hardware) -> BatchPlan:
    """Return the exact split of `global_batch`. Raises ConfigError where there is none."""
    local, rest = divmod(global_batch, world_size)
    if rest:
        lower, upper = local * world_size, (local + 1) * world_size
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        raise ConfigError(
            f"{global_batch} is not divisible by world size {world_size} (nearest: {nearest})",
            "batch_sizes",
        )
    if hardware.accumulation is not None:
        accumulation = hardware.accumulation
        if local % accumulation:
            raise ConfigError(
                f"{global_batch} over {world_size} ranks is {local} samples a rank, not divisible by {accumulation}",
                "hardware.accumulation",
            )
    else:
        # `auto` is known once a GPU was probed; until then the whole local batch is one micro batch.
        most = hardware.micro_batch if isinstance(hardware.micro_batch, int) else local
        accumulation = next(parts for parts in divisors(local) if local // parts <= most)
    return BatchPlan(global_batch, world_size, local // accumulation, accumulation)


def divisors(n: int) -> list[int]:
    """Return every divisor of n, ascending: the micro batches that a local batch of n allows."""
    small = [part for part in range(1, math.isqrt(n) + 1) if n % part == 0]
    return sorted({*small, *(n // part for part in small)})


def largest(fits: Callable[[int], bool], at_most: int) -> int:
    """Return the largest n in 1 to `at_most` that fits, 0 if none does; where n fits, all below are assumed to fit.

    Doubles n until it does not fit or exceeds `at_most`, then bisects: about 2 log2 n calls of `fits`.
    """
    good, bad = 0, at_most + 1
    while good < at_most and bad > at_most:
        trying = min(2 * good or 1, at_most)
        if fits(trying):
            good = trying
        else:
            bad = trying
    while bad - good > 1:
        trying = (good + bad) // 2
        if fits(trying):
            good = trying
        else:
            bad = trying
    return good
