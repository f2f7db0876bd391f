"""How the best learning rate moves with the batch size, from the trials of a study."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from study.analysis.records import BestRate, RateRidge, TrialRecord
from study.config.objective import Objective

MOST_SCORES = 200  # of a variant; the surface of more takes too long to fit
EVIDENCE = ("completed", "stopped", "diverged")
FEWEST = 3  # batch sizes, and rates of each


def rate_ridges(
    trials: Iterable[TrialRecord], objective: Objective, growing: Mapping[str, bool]
) -> tuple[RateRidge, ...]:
    """Return the ridge of each variant whose search has ended trials of at least FEWEST rates of FEWEST batch sizes,
    and has completed one; none of a variant whose batch grows.
    """
    by_variant: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "search" and trial.outcome in EVIDENCE and trial.curve and not growing[trial.variant]:
            by_variant[trial.variant].append(trial)
    found = (_ridge(variant, members, objective) for variant, members in by_variant.items())
    return tuple(ridge for ridge in found if ridge is not None)


def _ridge(variant: str, trials: Sequence[TrialRecord], objective: Objective) -> RateRidge | None:
    tried: dict[int, set[float]] = defaultdict(set)
    for trial in trials:
        tried[trial.batch_size].add(trial.lr)
    enough = {batch_size for batch_size, rates in tried.items() if len(rates) >= FEWEST}
    trials = [trial for trial in trials if trial.batch_size in enough]
    if len(enough) < FEWEST or len(trials) > MOST_SCORES or not any(trial.outcome == "completed" for trial in trials):
        return None
    import numpy as np

    from study.schedulers.ridge import SHARES, Candidate, draw_best_rates

    candidates, scores = [], {}
    only_last = len(trials) * len(SHARES) > MOST_SCORES
    for trial in trials:
        curve = trial.curve[-1:] if only_last else trial.curve
        of_trial = {point.updates / trial.total_updates: objective.of(point) for point in curve}
        if trial.outcome == "diverged":
            of_trial[1.0] = -math.inf  # as the search counts it: as the worst
        elif trial.outcome == "completed":
            of_trial[1.0] = objective.of(trial.curve[-1])  # its end may have come early, at a target
        scores[trial.trial_id] = of_trial
        candidates.append(Candidate(trial.trial_id, "", trial.batch_size, trial.lr, tuple(sorted({*of_trial, 1.0}))))
    drawn = draw_best_rates(candidates, scores)
    batch_sizes = sorted(drawn)
    rates = []
    for batch_size in batch_sizes:
        low, middle, high = np.quantile(10 ** drawn[batch_size], (0.025, 0.5, 0.975))
        rates.append(BestRate(batch_size, float(middle), (float(low), float(high))))
    x = np.log10(batch_sizes)
    x -= x.mean()
    powers = np.array([drawn[batch_size] for batch_size in batch_sizes]).T @ x / (x @ x)
    low, middle, high = np.quantile(powers, (0.025, 0.5, 0.975))
    return RateRidge(variant, tuple(rates), float(middle), (float(low), float(high)))
