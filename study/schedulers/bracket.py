"""Successive halving of one bracket of trials: where they are compared, and which go on."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

SLACK = 1e-9  # of shares: 3/27 has reached 1/9, whatever the rounding


@dataclass(frozen=True)
class Rung:
    """A length at which trials are compared, as a share of a whole trial, and how many go on past it."""

    at: float
    keep: int


@dataclass(frozen=True)
class Profile:
    """How strict a bracket of any size is: pairs of (share of a trial's length, share of the trials that go on)."""

    shares: tuple[tuple[float, float], ...]

    def rungs(self, trials: int, min_completions: int, reports: Sequence[float]) -> tuple[Rung, ...]:
        """Return the rungs of a bracket of `trials` trials, ascending, with at least `min_completions` that go on.

        Each rung is at the first of the `reports` (ascending shares of a trial; the last is 1) that is far enough. A
        rung that would stop no trial, or stop one only at its end, is left out.
        """
        rungs: list[Rung] = []
        competing = trials
        for share, kept in self.shares:
            at = reports[bisect_left(reports, share - SLACK)]
            keep = max(math.ceil(kept * trials - SLACK), min_completions)
            if keep >= competing or at >= 1 - SLACK:
                continue
            if rungs and rungs[-1].at == at:  # reports are far apart: this rung makes the later selection too
                rungs.pop()
            rungs.append(Rung(at, keep))
            competing = keep
        return tuple(rungs)


@dataclass
class _RungState:
    """The trials at one rung. Entries are (-score, index in the bracket): the best first, ties in planned order."""

    ranked: list[tuple[float, int]] = field(default_factory=list)
    paused: list[tuple[float, int]] = field(default_factory=list)  # a heap; entries that went on are removed lazily
    waiting: int = 0  # paused trials that have not gone on
    passed: int = 0  # trials that went on, less those that failed later and are replaced from here
    entrants: int = 0  # trials that are or were on the way to this rung, less those that failed before it

    @property
    def supply(self) -> int:
        """The number of trials past this rung, at it, or on the way to it."""
        return self.passed + self.waiting + self.entrants - len(self.ranked)


class Bracket:
    """Trials that are ranked against one another only.

    Synchronous: a rung decides once every trial on the way to it has arrived. The best `keep` go on; if one of them
    fails later, the next best replaces it, from a lower rung if this one has none left. Asynchronous (ASHA, Li et al.
    2018, arXiv:1810.05934): a trial goes on at once if it is among the best of those that have arrived so far, by the
    rung's share; when nothing else is left to do, the synchronous rule applies, so that the same number goes on.

    A non-finite score ranks last. The state is plain data and follows from the calls of `begin`, `report` and `leave`.
    """

    def __init__(self, trials: Sequence[str], rungs: Sequence[Rung], synchronous: bool) -> None:
        self.trials, self.rungs, self.synchronous = tuple(trials), tuple(rungs), synchronous
        self._index = {trial: index for index, trial in enumerate(self.trials)}
        self._level = [0] * len(self.trials)  # rungs passed
        self._waits = [False] * len(self.trials)  # paused at the rung of its level
        self._running: set[int] = set()
        self._next = 0  # no trial before this index is new
        self._begun = [False] * len(self.trials)
        self._states = [_RungState() for _ in self.rungs]
        if self._states:
            self._states[0].entrants = len(self.trials)

    def promotion(self) -> str | None:
        """Return the paused trial to resume, from the highest rung down; None while there is none."""
        for level in reversed(range(len(self.rungs))):
            index = self._promotable(level)
            if index is not None:
                return self.trials[index]
        return None

    def newcomer(self) -> str | None:
        """Return the first trial that has not begun, None if all have."""
        while self._next < len(self.trials) and self._begun[self._next]:
            self._next += 1
        return self.trials[self._next] if self._next < len(self.trials) else None

    def begin(self, trial: str) -> None:
        """Note that a trial starts, or goes on past the rung where it waited."""
        index = self._index[trial]
        if self._waits[index]:
            level = self._level[index]
            self._waits[index] = False
            self._level[index] = level + 1
            self._states[level].waiting -= 1
            self._states[level].passed += 1
            if level + 1 < len(self.rungs):
                self._states[level + 1].entrants += 1
        self._begun[index] = True
        self._running.add(index)

    def report(self, trial: str, at: float, score: float) -> bool:
        """Return whether a trial that has come to `at`, a share of its length, pauses there: at its next rung."""
        index = self._index[trial]
        level = self._level[index]
        if self._waits[index]:
            return True
        if level == len(self.rungs) or at + SLACK < self.rungs[level].at:
            return False
        entry = (-score if math.isfinite(score) else math.inf, index)
        state = self._states[level]
        insort(state.ranked, entry)
        heapq.heappush(state.paused, entry)
        state.waiting += 1
        self._waits[index] = True
        self._running.discard(index)
        return True

    def leave(self, trial: str, completed: bool) -> None:
        """Note that a trial ended; one that did not complete is replaced by the next best."""
        index = self._index[trial]
        level = self._level[index]
        self._begun[index] = True
        self._running.discard(index)
        if completed:
            return
        if self._waits[index]:
            self._waits[index] = False
            self._states[level].waiting -= 1
        elif level < len(self.rungs):
            self._states[level].entrants -= 1
        for rung, state in reversed(list(zip(self.rungs[:level], self._states, strict=False))):
            state.passed -= 1
            if state.supply >= rung.keep:  # the next best here replaces it, else one from a lower rung
                break

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none will: paused trials wait for good."""
        return not self._running and self.newcomer() is None and self.promotion() is None

    def waiting(self) -> list[str]:
        """Return the trials paused at a rung, in planned order."""
        return [trial for trial, waits in zip(self.trials, self._waits, strict=True) if waits]

    def _promotable(self, level: int) -> int | None:
        """Return the index of the best trial that waits at a rung, if it may go on."""
        state, rung = self._states[level], self.rungs[level]
        while state.paused and not self._waits_at(state.paused[0][1], level):
            heapq.heappop(state.paused)
        if not state.paused:
            return None
        best = state.paused[0]
        if (state.passed < rung.keep or self._is_short(level + 1)) and self._all_arrived(level):
            return best[1]
        if not self.synchronous:
            before = self.rungs[level - 1].keep if level else len(self.trials)
            if bisect_left(state.ranked, best) < len(state.ranked) * rung.keep // before:
                return best[1]
        return None

    def _is_short(self, level: int) -> bool:
        """Return whether a rung lets too few trials through, because more failed than were replaced: of those that went
        on asynchronously some were more than the rung before was to keep, and stood in for the first that failed.
        """
        if level == len(self.rungs):
            return False
        state = self._states[level]
        empty = not state.waiting and len(state.ranked) >= state.entrants
        return state.supply < self.rungs[level].keep or (empty and self._is_short(level + 1))

    def _all_arrived(self, level: int) -> bool:
        state = self._states[level]
        if len(state.ranked) < state.entrants:
            return False
        return level == 0 or (self._all_arrived(level - 1) and self._promotable(level - 1) is None)

    def _waits_at(self, index: int, level: int) -> bool:
        return self._waits[index] and self._level[index] == level
