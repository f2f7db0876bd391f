"""What was measured of one configuration: its cost and quality, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from scipy.special import stdtrit

Axis = Literal["cost", "quality"]


@dataclass(frozen=True)
class Sample:
    """One configuration over its seeds; a lower cost and a higher quality are better.

    Raises ValueError if the two axes have different numbers of seeds, none, or a value that is not finite, or if
    `seeds` are not as many different ones.
    """

    label: str
    cost: tuple[float, ...]  # a value a seed, in the study's unit of cost
    quality: tuple[float, ...]  # of the same seeds
    seeds: tuple[int, ...] = ()  # numbers of the seeds, by which configurations are paired; empty where unknown

    def __post_init__(self) -> None:
        if not self.cost or len(self.cost) != len(self.quality):
            raise ValueError(f"{self.label}: {len(self.cost)} costs and {len(self.quality)} qualities")
        if self.seeds and not len(set(self.seeds)) == len(self.seeds) == len(self.cost):
            raise ValueError(f"{self.label}: {len(self.cost)} costs of the seeds {self.seeds}")
        if not np.isfinite([*self.cost, *self.quality]).all():
            raise ValueError(f"{self.label}: costs and qualities must be finite; censor the others first")

    @property
    def n_seeds(self) -> int:
        """The number of seeds, each a completed trial."""
        return len(self.cost)

    @property
    def mean_cost(self) -> float:
        """Mean over seeds, in the study's unit of cost."""
        return fmean(self.cost)

    @property
    def mean_quality(self) -> float:
        """Mean over seeds, in the unit of quality: most often an accuracy between 0 and 1."""
        return fmean(self.quality)


def by_seed(samples: Sequence[Sample], axis: Axis) -> list[dict[Hashable, float]]:
    """Return the values of each sample by seed. A sample that does not know its seeds shares none with another."""
    return [
        dict(
            zip(
                sample.seeds or [(place, n) for n in range(sample.n_seeds)],
                sample.quality if axis == "quality" else sample.cost,
                strict=True,
            )
        )
        for place, sample in enumerate(samples)
    ]


def log_costs(samples: Sequence[Sample]) -> list[dict[Hashable, float]] | None:
    """Return the logarithms of costs by seed, which are noisy by a share of themselves; None if one is not above 0."""
    costs = by_seed(samples, "cost")
    if min(min(one.values()) for one in costs) <= 0:  # a price of 0
        return None
    return [{seed: math.log(cost) for seed, cost in one.items()} for one in costs]


def mean_interval(values: Sequence[float], level: float = 0.95, at_least: int = 2) -> tuple[float, float] | None:
    """Return Student's t interval of the mean; None for fewer than `at_least` values.

    SciPy's `ttest_1samp(values, 0).confidence_interval(level)` gives the same in 40 times the time, which counts for
    tables of thousands of configurations.
    """
    if len(values) < max(at_least, 2):
        return None
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return fmean(values) - half, fmean(values) + half
