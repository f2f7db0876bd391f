"""Search policies: which trial runs next, and what becomes of one that has reported. No clock, no cluster."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np

from study.pareto.fronts import front_ranks, spread
from study.schedulers.bracket import SLACK, Bracket, Profile, Rung

Cell = TypeVar("Cell", bound=Hashable)
Verdict = Literal["continue", "pause", "stop"]

GENTLE = Profile(((1 / 9, 2 / 3), (1 / 3, 4 / 9), (2 / 3, 5 / 18)))
SPARING = Profile(((1 / 27, 2 / 3), (1 / 9, 1 / 2), (1 / 3, 1 / 3), (2 / 3, 2 / 9)))
STRICT = Profile(((1 / 27, 1 / 2), (1 / 9, 5 / 18), (1 / 3, 1 / 6)))
STRICTER = Profile(((1 / 27, 1 / 2), (1 / 9, 5 / 18), (1 / 3, 1 / 9)))
HARSH = Profile(((1 / 27, 1 / 3), (1 / 9, 1 / 9)))
SCOUTS = 3  # trials of a cell that tell what it costs
Grades = tuple[Profile, Profile, Profile]  # for cells of grade 0, 1 and 2
PROFILES: Mapping[str, Grades] = {"balanced": (GENTLE, GENTLE, STRICT), "quick": (SPARING, STRICTER, HARSH)}


class Policy(Protocol):
    """What the Tune run and the simulator ask. A policy's state follows from `begin`, `report` and `leave` alone."""

    def choose(self) -> str | None:
        """The trial to start or take up again, None while there is none. Changes nothing."""

    def begin(self, trial: str) -> None:
        """The trial runs from now on."""

    def report(self, trial: str, at: float, score: float, cost: float) -> Verdict:
        """A trial has come to `at`, in the policy's unit, with a score to maximise and its cost so far."""

    def leave(self, trial: str, completed: bool) -> None:
        """A trial is over: at its end, or because it diverged or failed."""

    def dropped(self) -> list[str]:
        """Paused trials that will never go on, each told once."""

    def pauses(self, trial: str) -> frozenset[float]:
        """Where a trial may be told to pause, as shares of its length."""


class Grid:
    """Trains all it is given to the end."""

    def __init__(self, trials: Iterable[str]) -> None:
        self._left = dict.fromkeys(trials)

    def choose(self) -> str | None:
        """In the order given."""
        return next(iter(self._left), None)

    def begin(self, trial: str) -> None:
        """See Policy."""
        self._left.pop(trial, None)

    def report(self, trial: str, at: float, score: float, cost: float) -> Verdict:
        """Nothing is stopped."""
        return "continue"

    def leave(self, trial: str, completed: bool) -> None:
        """See Policy."""
        self._left.pop(trial, None)

    def dropped(self) -> list[str]:
        """Nothing is paused."""
        return []

    def pauses(self, trial: str) -> frozenset[float]:
        """Nowhere."""
        return frozenset()


def levels(grace: float, eta: float, end: float) -> tuple[float, ...]:
    """The rungs of Ray's ASHA, ascending: grace x eta^k, up to `end`."""
    return tuple(grace * eta**k for k in range(int(np.log(end / grace) / np.log(eta) + 1)))


class RayAsha(Grid):
    """The stopping rule of Ray's ASHAScheduler with one bracket, for replays; a live study runs Ray's own class.

    A trial that is below the (1 - 1/eta) quantile of those recorded at a rung before it is stopped, and never
    taken up again.
    """

    def __init__(self, trials: Iterable[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials)
        self._quantile = 1 - 1 / eta
        self._rungs: list[tuple[float, list[float], set[str]]] = [
            (level, [], set()) for level in reversed(levels(grace, eta, end))
        ]

    def report(self, trial: str, at: float, score: float, cost: float) -> Verdict:
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
    """NumPy's linear quantile of sorted numbers, in constant time and to the last bit; None for no numbers."""
    if not ascending:
        return None
    place = (len(ascending) - 1) * share
    below = math.floor(place)
    rest = place - below
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    # NumPy takes the nearer end as the base.
    return high - (high - low) * (1 - rest) if rest >= 0.5 else low + (high - low) * rest


class MoAsha(Grid):
    """ASHA's stopping rule on cost and score at once: the rank is that of the trial's front, then its spread.

    A quick look: it keeps what is extreme or alone, not a batch size's best rate.
    """

    def __init__(self, trials: Iterable[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials)
        self._eta = eta
        self._rungs: list[tuple[float, dict[str, tuple[float, float]]]] = [
            (level, {}) for level in reversed(levels(grace, eta, end))
        ]

    def report(self, trial: str, at: float, score: float, cost: float) -> Verdict:
        """See Policy; `at` is in the unit of `grace`."""
        for level, recorded in self._rungs:
            if at < level or trial in recorded:
                continue
            if not (math.isfinite(score) and math.isfinite(cost)):
                return "stop"
            recorded[trial] = (cost, score)
            points = np.array(list(recorded.values()))
            fronts = front_ranks(points)
            mine = fronts[-1]
            same = np.flatnonzero(fronts == mine)
            lone = spread(points[same])
            better = (fronts < mine).sum() + (lone > lone[-1]).sum()
            return "continue" if better < max(len(points) / self._eta, 1) else "stop"
        return "continue"


def grades(costs: Mapping[Cell, float]) -> dict[Cell, int]:
    """How dear each cell is, given what all of its trials cost: 0 up to half of an equal share of the grid's cost, 1 up
    to that share, else 2.

    Every cell is worth about the same on a frontier over the logarithm of cost, so that care is best spent where it is
    cheap.
    """
    share = sum(costs.values()) / len(costs) if costs else 0.0
    return {cell: bisect_left((share / 2, share), cost * (1 - SLACK)) for cell, cost in costs.items()}


class FrontierAsha:
    """A bracket for each cell (a batch size on a number of ranks), so that none is ranked against a cheaper one.

    What a trial costs decides only how strict its bracket is, by the grade of its cell. The cost is learnt from three
    trials of each cell; until these have reported, trials pause at the first rung that any profile has.
    """

    def __init__(
        self,
        cells: Mapping[str, Hashable],
        reports: Mapping[Hashable, Sequence[float]],
        profiles: Grades,
        min_completions: int,
        synchronous: bool,
    ) -> None:
        """`cells`: trial to cell, in the order to run them. `reports`: where a cell's trials report, in shares."""
        self.cells, self.profiles, self.min_completions = dict(cells), profiles, min_completions
        self.synchronous = synchronous
        self.reports = {cell: tuple(reports[cell]) for cell in dict.fromkeys(self.cells.values())}
        first = min(share for profile in profiles for share, _ in profile.shares)
        self._early_at = {cell: at[bisect_left(at, first - SLACK)] for cell, at in self.reports.items()}
        self._members: dict[Hashable, list[str]] = {cell: [] for cell in self.reports}
        for trial, cell in self.cells.items():
            self._members[cell].append(trial)
        self._costs: dict[Hashable, dict[str, float]] = {cell: {} for cell in self.reports}  # of whole trials
        self.brackets: dict[Hashable, Bracket] = {}  # none until every cell's cost is known
        self._new = dict.fromkeys(self.cells)
        self._running: dict[str, None] = {}
        self._paused: dict[str, tuple[float, float]] = {}  # before there are brackets: (at, score)
        self._free: dict[str, None] = {}  # of those, who turned out to stand at no rung
        self._over: dict[str, bool] = {}  # before there are brackets: completed?
        self._told: set[Hashable] = set()

    def choose(self) -> str | None:
        """First what each cell costs, then whoever may go on, then newcomers in the order given."""
        for cell in () if self.brackets else self._unknown():
            scouts = len(self._costs[cell]) + sum(self.cells[trial] == cell for trial in self._running)
            scout = next((trial for trial in self._members[cell] if trial in self._new), None)
            if scouts < SCOUTS and scout is not None:
                return scout
        for trial in self._free:
            return trial
        for bracket in self.brackets.values():
            promoted = bracket.promotion()
            if promoted is not None:
                return promoted
        return next(iter(self._new), None)

    def begin(self, trial: str) -> None:
        """See Policy."""
        self._new.pop(trial, None)
        self._free.pop(trial, None)
        self._running[trial] = None
        if self.brackets:
            self.brackets[self.cells[trial]].begin(trial)

    def report(self, trial: str, at: float, score: float, cost: float) -> Verdict:
        """See Policy; `at` is a share of the trial's length."""
        cell = self.cells[trial]
        if self.brackets:
            pause = self.brackets[cell].report(trial, at, score)
        else:
            self._costs[cell][trial] = cost / at
            pause = at + SLACK >= self._early_at[cell]
            if pause:
                self._paused[trial] = (at, score)
        if pause:
            self._running.pop(trial, None)
        self._make_brackets()
        return "pause" if pause else "continue"

    def leave(self, trial: str, completed: bool) -> None:
        """See Policy."""
        self._new.pop(trial, None)
        self._free.pop(trial, None)
        self._running.pop(trial, None)
        self._over[trial] = completed
        if self.brackets:
            self.brackets[self.cells[trial]].leave(trial, completed)
        self._make_brackets()

    def dropped(self) -> list[str]:
        """See Policy: the waiting trials of the brackets in which nothing runs any more and nobody will."""
        over = [cell for cell, bracket in self.brackets.items() if cell not in self._told and bracket.finished]
        self._told.update(over)
        return [trial for cell in over for trial in self.brackets[cell].waiting()]

    def pauses(self, trial: str) -> frozenset[float]:
        """See Policy: at the rungs of every profile."""
        cell = self.cells[trial]
        rungs = (rung.at for profile in self.profiles for rung in self._rungs(cell, profile))
        return frozenset((self._early_at[cell], *rungs))

    def _unknown(self) -> list[Hashable]:
        """Cells whose cost is still to be learnt."""
        return [
            cell
            for cell, costs in self._costs.items()
            if len(costs) < SCOUTS and any(t not in costs and t not in self._over for t in self._members[cell])
        ]

    def _make_brackets(self) -> None:
        if self.brackets or self._unknown():
            return
        # The cheapest: the first trial of a group pays for its warm-up, and other programs slow a trial down, never up.
        grade = grades({c: min(costs.values()) * len(self._members[c]) for c, costs in self._costs.items() if costs})
        for cell, trials in self._members.items():
            profile = self.profiles[grade.get(cell, 0)]  # of a cell whose trials all failed, no cost is known
            self.brackets[cell] = Bracket(trials, self._rungs(cell, profile), self.synchronous)
        for trial, cell in self.cells.items():
            bracket = self.brackets[cell]
            if trial in self._over:
                bracket.leave(trial, self._over[trial])
            elif trial not in self._new:
                bracket.begin(trial)
                if trial in self._paused and not bracket.report(trial, *self._paused[trial]):
                    self._free[trial] = None

    def _rungs(self, cell: Hashable, profile: Profile) -> tuple[Rung, ...]:
        return profile.rungs(len(self._members[cell]), self.min_completions, self.reports[cell])
