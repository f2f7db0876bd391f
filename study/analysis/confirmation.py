"""Which configuration to confirm with a further seed, until it is known which one to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.recommend import Candidate, recommend
from study.analysis.records import Constraints, Recommendation
from study.analysis.statistics.samples import Sample, by_seed
from study.analysis.statistics.seed_noise import seed_noise

ROUND = 2  # seeds that are decided on together: one for each side of the comparison that is open


@dataclass(frozen=True)
class SeedWanted:
    """A configuration to run with a further seed, and why: the one that is open, and how likely it is good enough."""

    place: int  # of the configuration in the samples
    open: str  # label of the configuration whose standing it helps to decide
    probability: float


def seeds_wanted(samples: Sequence[Sample], margin: float, confidence: float, at_most: int) -> tuple[SeedWanted, ...]:
    """Return which configurations to run with a further seed, in one round; none once the choice is decided.

    It is decided when the recommendation without limits is sure, and of every cheaper configuration it is known with
    `confidence` whether it is within `margin` of the best. Seeds go where they take most from the variance of an open
    comparison per second, weighed by how open it is: the idea of optimal computing budget allocation (Chen et al. 2000,
    doi:10.1023/A:1008349927281). Configurations with `at_most` seeds get no more. Costs are of a trial, in any unit.
    Raises ValueError for a sample of one seed.
    """
    if min(sample.n_seeds for sample in samples) < 2:
        raise ValueError("a decision needs two seeds of every configuration")
    advice = recommend([Candidate(sample) for sample in samples], Constraints(), margin, confidence)
    open_at = _open(advice, samples)
    labels = [sample.label for sample in samples]
    best = labels.index(advice.best.label)
    noise = seed_noise(by_seed(samples, "quality"))
    variance, counts = noise.by_itself.variance, [sample.n_seeds for sample in samples]
    wanted: list[SeedWanted] = []
    for _ in range(ROUND):
        gains: dict[tuple[int, int], float] = {}  # of a seed of one configuration for the comparison of another
        for i, probability in open_at.items():
            both = sorted({i, best})
            error = sum(float(variance[c]) / counts[c] for c in both)
            for c in both:
                if counts[c] < at_most and error > 0:
                    taken = float(variance[c]) / (counts[c] * (counts[c] + 1)) / error
                    gains[c, i] = probability * (1 - probability) * taken / samples[c].mean_cost
        if not gains:
            break
        c, i = max(gains, key=gains.__getitem__)
        wanted.append(SeedWanted(c, labels[i], open_at[i]))
        counts[c] += 1
    return tuple(wanted)


def _open(advice: Recommendation, samples: Sequence[Sample]) -> dict[int, float]:
    """Return the places and probabilities of what is undecided: the choice, and what is cheaper than it."""
    assert advice.choice is not None, "there are no limits"
    place = {sample.label: i for i, sample in enumerate(samples)}
    return {
        place[one.label]: one.probability
        for one in advice.standings
        if 1 - advice.confidence < one.probability < advice.confidence
        and (one.label == advice.choice.label or samples[place[one.label]].mean_cost < advice.choice.cost)
    }
