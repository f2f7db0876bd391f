"""Stopping rules over all trials at once: Ray's ASHA for replays, and a multi-objective one."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Sequence

import numpy as np

from study.pareto.fronts import front_ranks, spread
from study.schedulers.base import Action, Grid


def rung_levels(grace: float, eta: float, end: float) -> tuple[float, ...]:
    """Return the rungs of Ray's ASHA, ascending: grace x eta^k, up to `end`, all in the unit of `grace`."""
    return tuple(grace * eta**k for k in range(int(np.log(end / grace) / np.log(eta) + 1)))


class Asha(Grid):
    """The rungs that the stopping rules share. A trial is judged at one rung in a report."""

    def __init__(self, trials: Iterable[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials)
        self.levels = rung_levels(grace, eta, end)

    def decides(self, trial: str, lengths: Sequence[float]) -> frozenset[float]:
        """See Policy. A report past two new rungs is judged at the higher one, and the next report at the lower."""
        judged: set[float] = set()
        for at in lengths:
            if len(judged) < sum(level <= at for level in self.levels):
                judged.add(at)
        return frozenset(judged)


class ReplayAsha(Asha):
    """The stopping rule of Ray's ASHAScheduler with one bracket, for replays; a live study runs Ray's own class.

    At each rung, a trial is stopped for good if its score is below the (1 - 1/eta) quantile of the scores that were
    recorded there before.
    """

    def __init__(self, trials: Iterable[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials, grace, eta, end)
        self._quantile = 1 - 1 / eta
        self._rungs: list[tuple[float, list[float], set[str]]] = [(level, [], set()) for level in reversed(self.levels)]

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """See Policy; `at` is in the unit of `grace`."""
        for level, scores, recorded in self._rungs:
            if at < level or trial in recorded:
                continue
            cutoff = _quantile(scores, self._quantile)
            recorded.add(trial)
            if not math.isnan(score):  # Ray's quantile leaves them out
                insort(scores, score)
            return "stop" if cutoff is not None and score < cutoff else "continue"
        return "continue"


def _quantile(ascending: Sequence[float], share: float) -> float | None:
    """Return NumPy's linear quantile of sorted numbers, equal to the last bit, in constant time; None without any."""
    if not ascending:
        return None
    position = (len(ascending) - 1) * share
    below = math.floor(position)
    rest = position - below
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    # NumPy takes the nearer end as the base.
    return high - (high - low) * (1 - rest) if rest >= 0.5 else low + (high - low) * rest


ROUNDING = 1e-12  # spreads that differ by less are equal


class MoAsha(Asha):
    """ASHA's stopping rule on cost and score together: a trial ranks by its Pareto front, then by its spread on it.

    It gives a quick overview: it keeps trials that are extreme or isolated, not the best rate of each batch size.
    """

    def __init__(self, trials: Iterable[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials, grace, eta, end)
        self._eta = eta
        self._rungs: list[tuple[float, dict[str, tuple[float, float]]]] = [
            (level, {}) for level in reversed(self.levels)
        ]

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """See Policy; `at` is in the unit of `grace`."""
        for level, recorded in self._rungs:
            if at < level or trial in recorded:
                continue
            if not (math.isfinite(score) and math.isfinite(cost)):
                return "stop"
            recorded[trial] = (cost, score)
            points = np.array(list(recorded.values()))
            fronts = front_ranks(points)
            own_front = fronts[-1]
            same = np.flatnonzero(fronts == own_front)
            spreads = spread(points[same])
            better = (fronts < own_front).sum() + (spreads > spreads[-1] + ROUNDING).sum()
            return "continue" if better < max(len(points) / self._eta, 1) else "stop"
        return "continue"
