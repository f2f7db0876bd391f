"""Which configuration to confirm with a further seed, until it is known which one to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.recommend import Candidate, is_open, recommend
from study.analysis.records import Constraints
from study.analysis.statistics.samples import Sample, by_seed
from study.analysis.statistics.seed_noise import seed_noise


@dataclass(frozen=True)
class SeedWanted:
    """A configuration to run with a further seed, and why: which one is open, and how likely it is good enough."""

    place: int  # of the configuration in the samples
    open: str  # label of the configuration whose standing it helps to decide
    probability: float | None  # None where a seed that failed is replaced


def seed_wanted(
    samples: Sequence[Sample], margin: float, confidence: float, running: Sequence[int], left: Sequence[int]
) -> SeedWanted | None:
    """Return which configuration to run with a further seed; None once the choice is decided, or no seeds are left.

    It is decided when the recommendation without limits is sure, and of every cheaper configuration it is known with
    `confidence` whether it is within `margin` of the best. The seed goes where it takes most from the variance of an
    open comparison per cost, weighed by how open it is: the idea of optimal computing budget allocation (Chen et al.
    2000, doi:10.1023/A:1008349927281). An open comparison is of a configuration and its rival. `running` and `left` say
    of each configuration how many seeds are on their way, and how many more it may have. Costs are of a trial, in any
    unit above 0. Raises ValueError for a sample of one seed.
    """
    if min(sample.n_seeds for sample in samples) < 2:
        raise ValueError("a decision needs two seeds of every configuration")
    advice = recommend([Candidate(sample) for sample in samples], Constraints(), margin, confidence)
    place = {sample.label: i for i, sample in enumerate(samples)}
    variance = seed_noise(by_seed(samples, "quality")).share * [sample.n_seeds for sample in samples]
    counts = np.array([sample.n_seeds for sample in samples]) + running
    gains: dict[tuple[int, int], float] = {}  # of a seed of one configuration for the comparison of another
    probability: dict[int, float] = {}
    for one in advice.standings:
        if one.rival is None or not is_open(one, advice.choice, confidence):
            continue
        i = place[one.label]
        probability[i] = one.probability
        both = (i, place[one.rival])
        error = sum(float(variance[c] / counts[c]) for c in both)
        for c in both:
            if left[c] > 0 and error > 0:
                taken = float(variance[c] / (counts[c] * (counts[c] + 1))) / error
                gains[c, i] = one.probability * (1 - one.probability) * taken / samples[c].mean_cost
    if not gains:
        return None
    c, i = max(gains, key=gains.__getitem__)
    return SeedWanted(c, samples[i].label, probability[i])
