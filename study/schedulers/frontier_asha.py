"""FrontierASHA: successive halving within each cell (a batch size on a number of ranks), by the cost of the cell."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from study.schedulers.base import Action
from study.schedulers.bracket import SLACK, Bracket, Profile, Rung

CellKey = TypeVar("CellKey", bound=Hashable)

GENTLE = Profile(((1 / 9, 2 / 3), (1 / 3, 4 / 9), (2 / 3, 5 / 18)))
SPARING = Profile(((1 / 27, 2 / 3), (1 / 9, 1 / 2), (1 / 3, 1 / 3), (2 / 3, 2 / 9)))
STRICT = Profile(((1 / 27, 1 / 2), (1 / 9, 5 / 18), (1 / 3, 1 / 6)))
STRICTER = Profile(((1 / 27, 1 / 2), (1 / 9, 5 / 18), (1 / 3, 1 / 9)))
HARSH = Profile(((1 / 27, 1 / 3), (1 / 9, 1 / 9)))
COST_TRIALS = 3  # trials of each cell that measure its cost before brackets are made
Grades = tuple[Profile, Profile, Profile]  # for cells of grade 0, 1 and 2
PROFILES: Mapping[str, Grades] = {"balanced": (GENTLE, GENTLE, STRICT), "quick": (SPARING, STRICTER, HARSH)}


def grades(costs: Mapping[CellKey, float]) -> dict[CellKey, int]:
    """Return the cost grade of each cell from the cost of all its trials, in any common unit.

    The grade is 0 up to half of an equal share of the grid's cost, 1 up to that share, else 2. Every cell is worth
    about the same on a frontier over the logarithm of cost, so that a gentle bracket is spent where it is cheap.
    """
    share = sum(costs.values()) / len(costs) if costs else 0.0
    return {cell: bisect_left((share / 2, share), cost * (1 - SLACK)) for cell, cost in costs.items()}


class FrontierAsha:
    """One bracket for each cell, so that no trial is ranked against one of another cost.

    The cost of a cell decides only how strict its bracket is, by the cell's grade. `COST_TRIALS` trials of each cell
    measure it; until they have reported, trials pause at the first rung of all profiles.
    """

    def __init__(
        self,
        cells: Mapping[str, Hashable],
        reports: Mapping[Hashable, Sequence[float]],
        profiles: Grades,
        min_completions: int,
        synchronous: bool,
    ) -> None:
        """`cells` maps trials to cells, in the order to run them. `reports` holds the lengths at which a cell's trials
        report, as ascending shares of a whole trial; the last is 1.
        """
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
        self._free: dict[str, None] = {}  # of the paused ones, those at no rung of their bracket: they go on
        self._ended: dict[str, bool] = {}  # before there are brackets: whether the trial completed
        self._finished: set[Hashable] = set()  # cells whose waiting trials `dropped` has returned

    def choose(self) -> str | None:
        """Return first a trial that measures its cell's cost, then one that may go on, then a new one in order."""
        for cell in () if self.brackets else self._unknown():
            measuring = len(self._costs[cell]) + sum(self.cells[trial] == cell for trial in self._running)
            fresh = next((trial for trial in self._members[cell] if trial in self._new), None)
            if measuring < COST_TRIALS and fresh is not None:
                return fresh
        for trial in self._free:
            return trial
        for bracket in self.brackets.values():
            promoted = bracket.promotion()
            if promoted is not None:
                return promoted
        return next(iter(self._new), None)

    def begin(self, trial: str) -> None:
        """Do what `Policy` says of this method."""
        self._new.pop(trial, None)
        self._free.pop(trial, None)
        self._running[trial] = None
        if self.brackets:
            self.brackets[self.cells[trial]].begin(trial)

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
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
        """Do what `Policy` says of this method."""
        self._new.pop(trial, None)
        self._free.pop(trial, None)
        self._running.pop(trial, None)
        self._ended[trial] = completed
        if self.brackets:
            self.brackets[self.cells[trial]].leave(trial, completed)
        self._make_brackets()

    def dropped(self) -> list[str]:
        """See Policy: the waiting trials of brackets that have just finished."""
        finished = [cell for cell, bracket in self.brackets.items() if cell not in self._finished and bracket.finished]
        self._finished.update(finished)
        return [trial for cell in finished for trial in self.brackets[cell].waiting()]

    def pick(self, trials: Sequence[str]) -> str | None:
        """Return None: the best score counts."""
        return None

    def pauses(self, trial: str) -> frozenset[float]:
        """See Policy: the rungs of all profiles."""
        cell = self.cells[trial]
        rungs = (rung.at for profile in self.profiles for rung in self._rungs(cell, profile))
        return frozenset((self._early_at[cell], *rungs))

    def decides(self, trial: str, lengths: Sequence[float]) -> frozenset[float]:
        """See Policy; `lengths` are shares."""
        return self.pauses(trial).intersection(lengths)

    def _unknown(self) -> list[Hashable]:
        """Return the cells whose cost is not measured yet."""
        return [
            cell
            for cell, costs in self._costs.items()
            if len(costs) < COST_TRIALS and any(t not in costs and t not in self._ended for t in self._members[cell])
        ]

    def _make_brackets(self) -> None:
        if self.brackets or self._unknown():
            return
        # The minimum, because noise only adds: the first trial of a group pays for its warm-up, and other programs slow
        # trials down.
        grade = grades({c: min(costs.values()) * len(self._members[c]) for c, costs in self._costs.items() if costs})
        for cell, trials in self._members.items():
            profile = self.profiles[grade.get(cell, 0)]  # no cost is known of a cell whose trials all failed
            self.brackets[cell] = Bracket(trials, self._rungs(cell, profile), self.synchronous)
        for trial, cell in self.cells.items():
            bracket = self.brackets[cell]
            if trial in self._ended:
                bracket.leave(trial, self._ended[trial])
            elif trial not in self._new:
                bracket.begin(trial)
                if trial in self._paused and not bracket.report(trial, *self._paused[trial]):
                    self._free[trial] = None

    def _rungs(self, cell: Hashable, profile: Profile) -> tuple[Rung, ...]:
        return profile.rungs(len(self._members[cell]), self.min_completions, self.reports[cell])
