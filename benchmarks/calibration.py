"""Whether what is stated comes true, on simulated studies of known truth: intervals, probabilities, and what sequential
confirmation costs and decides against a fixed number of seeds.

A study has five to twelve configurations on a trade-off of cost and quality, whose seeds are noisy by unlike amounts
(variances up to fourfold apart) and share nothing, a little or much. Nothing is trained, and no time is measured: costs
are those of the simulated trials.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from show import show

from study.analysis.confirmation import seed_wanted
from study.analysis.recommend import CONFIDENCE, Candidate, recommend
from study.analysis.records import Constraints, Recommendation
from study.analysis.statistics.hypotheses import contrasts
from study.analysis.statistics.samples import Sample, by_seed
from study.analysis.statistics.seed_noise import seed_noise

Floats = NDArray[np.float64]
FIRST, MOST = 3, 10  # seeds
MARGIN = 0.01
# What each figure may be at most, or at least.
AT_MOST = {"width_ratio": 0.68, "reliability": 0.05, "confirm_cost_ratio": 0.7, "false_steps": 0.05}
AT_LEAST = {"coverage": 0.935}


@dataclass(frozen=True)
class World:
    """The true costs (k,) and qualities (k,) of configurations, and what each of MOST seeds shows (k, MOST)."""

    cost: Floats
    quality: Floats
    seen: Floats

    def samples(self, counts: list[int]) -> list[Sample]:
        """Return what the first seeds of each configuration show."""
        return [
            Sample(str(i), (float(self.cost[i]),) * n, tuple(self.seen[i, :n].tolist()), tuple(range(n)))
            for i, n in enumerate(counts)
        ]

    def lost(self, advice: Recommendation) -> float:
        """Return how much worse than the best the recommended configuration truly is."""
        assert advice.choice is not None, "there are no limits"
        return float(self.quality.max() - self.quality[int(advice.choice.label)])


def main() -> None:
    """Simulate studies and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    figures = {
        **_intervals(rng, 5 * args.studies),
        "reliability": _reliability(rng, args.studies),
        **_confirmation(rng, args.studies),
        "false_steps": float(np.mean([_has_false_step(rng) for _ in range(args.studies)])),
    }
    rows = [
        {
            "figure": name,
            "value": f"{value:.3f}" if isinstance(value, float) else ", ".join(f"{end:.3f}" for end in value),
            "at least": AT_LEAST.get(name, ""),
            "at most": AT_MOST.get(name, ""),
        }
        for name, value in figures.items()
    ]
    show(f"Calibration on {args.studies} simulated studies", rows, figures, args.json)


def _world(rng: np.random.Generator, equal: bool = False) -> World:
    k = int(rng.integers(5, 13))
    cost = np.sort(3.0 ** rng.uniform(0, 2, k))
    trend = 0.02 * rng.choice([0, 0.5, 1]) * np.log(cost)
    quality = 0.95 + (np.zeros(k) if equal else trend + 0.01 * rng.choice([0.3, 1]) * rng.standard_normal(k))
    sd = 0.01 * np.exp(rng.uniform(-np.log(4) / 4, np.log(4) / 4, (k, 1)))
    noise = sd * rng.standard_normal((k, MOST)) + rng.choice([0, 0.005, 0.02]) * rng.standard_normal(MOST)
    return World(cost, quality, quality[:, None] + noise)


def _advice(samples: list[Sample]) -> Recommendation:
    return recommend([Candidate(sample) for sample in samples], Constraints(), MARGIN, CONFIDENCE)


def _intervals(rng: np.random.Generator, studies: int) -> dict[str, float]:
    """Return the share of 95% intervals of differences that cover the truth, at 3, 5 and 10 seeds and at unequal
    numbers of seeds, and their width at 3 seeds over that of the paired t of the same two.
    """
    covered, widths, students = [], [], []
    for draw in range(studies):
        world, seeds = _world(rng), (3, 5, 10)[draw % 3]
        equal = [seeds] * len(world.cost)
        counts = rng.integers(FIRST, MOST + 1, len(equal)).tolist() if draw % 2 else equal
        noise = seed_noise(by_seed(world.samples(counts), "quality"))
        a, b = rng.choice(len(world.cost), 2, replace=False)
        error, degrees = noise.difference(a, b)
        half = float(student_t.ppf(0.975, degrees)) * error
        covered.append(abs(noise.mean[a] - noise.mean[b] - world.quality[a] + world.quality[b]) <= half)
        if counts is equal and seeds == FIRST:
            pairs = world.seen[a, :seeds] - world.seen[b, :seeds]
            widths.append(half)
            students.append(student_t.ppf(0.975, seeds - 1) * pairs.std(ddof=1) / seeds**0.5)
    return {"coverage": float(np.mean(covered)), "width_ratio": float(np.mean(widths) / np.mean(students))}


def _reliability(rng: np.random.Generator, studies: int) -> float:
    """Return the mean distance, over ten bins, of stated probabilities of being within the margin and what is true."""
    stated: list[float] = []
    true: list[bool] = []
    for draw in range(studies):
        world = _world(rng)
        advice = _advice(world.samples([(3, 5, 10)[draw % 3]] * len(world.cost)))
        stated += [one.probability for one in advice.standings]
        true += [bool(world.quality[int(one.label)] >= world.quality.max() - MARGIN) for one in advice.standings]
    gaps, bins = np.array(stated) - np.array(true), np.minimum((np.array(stated) * 10).astype(int), 9)
    return float(sum(abs(gaps[bins == each].sum()) for each in range(10)) / len(gaps))


def _confirmation(rng: np.random.Generator, studies: int) -> dict[str, float | list[float]]:
    """Return what confirming until it is decided costs against MOST seeds of everything, and how good both choices are.

    Both see the same seeds of the same configurations.
    """
    cost, whole, lost, whole_lost = [], [], [], []
    for _ in range(studies):
        world = _world(rng)
        counts, every = _until_decided(world), [MOST] * len(world.cost)
        cost.append(float(world.cost @ counts))
        whole.append(float(world.cost @ every))
        lost.append(world.lost(_advice(world.samples(counts))))
        whole_lost.append(world.lost(_advice(world.samples(every))))
    gap = 100 * (np.array(lost) - np.array(whole_lost))
    half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
    return {
        "confirm_cost_ratio": sum(cost) / sum(whole),
        "loss_points": float(100 * np.mean(lost)),
        "fixed_loss_points": float(100 * np.mean(whole_lost)),
        "loss_difference_points": [float(gap.mean() - half), float(gap.mean() + half)],
        "within_margin": float(np.mean(np.array(lost) <= MARGIN)),
        "fixed_within_margin": float(np.mean(np.array(whole_lost) <= MARGIN)),
    }


def _until_decided(world: World) -> list[int]:
    """Return how many seeds of each configuration are run until the choice is decided."""
    counts = [FIRST] * len(world.cost)
    none_running = [0] * len(counts)
    while wanted := seed_wanted(world.samples(counts), MARGIN, CONFIDENCE, none_running, [MOST - n for n in counts]):
        counts[wanted.place] += 1
    return counts


def _has_false_step(rng: np.random.Generator) -> bool:
    """Return whether any step from a cheaper to a dearer configuration is called more than noise, all being equally
    good, after looks at the data decided how many seeds they have.
    """
    world = _world(rng, equal=True)
    steps = [(after, after - 1) for after in range(1, len(world.cost))]
    found = contrasts(world.samples(_until_decided(world)), steps)
    return any(one.answer in ("more", "less") for one in found)


if __name__ == "__main__":
    main()
