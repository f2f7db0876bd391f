"""Successive halving of one bracket of trials: who is compared where, and who goes on."""

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
    """How strict a bracket is, whatever its size: (share of a trial's length, share of the trials that go on)."""

    shares: tuple[tuple[float, float], ...]

    def rungs(self, trials: int, min_completions: int, reports: Sequence[float]) -> tuple[Rung, ...]:
        """The rungs of a bracket of `trials`, ascending, each at the first of the `reports` (shares, ascending, the
        last one 1) that is far enough. A rung that would cut nobody, or only at the end, is left out.
        """
        rungs: list[Rung] = []
        competing = trials
        for share, kept in self.shares:
            at = reports[bisect_left(reports, share - SLACK)]
            keep = max(math.ceil(kept * trials - SLACK), min_completions)
            if keep >= competing or at >= 1 - SLACK:
                continue
            if rungs and rungs[-1].at == at:  # reports are far apart: the later cut is made here too
                rungs.pop()
            rungs.append(Rung(at, keep))
            competing = keep
        return tuple(rungs)


@dataclass
class _Floor:
    """What has come to one rung. Entries are (-score, place in the bracket): the best first, ties in planned order."""

    ranked: list[tuple[float, int]] = field(default_factory=list)
    paused: list[tuple[float, int]] = field(default_factory=list)  # a heap; those that went on are skipped lazily
    waiting: int = 0  # of those paused, who have not gone on
    passed: int = 0  # went on past it, less those that failed and are to be replaced from here
    entrants: int = 0  # are or were on the way here, less those that failed on it

    @property
    def supply(self) -> int:
        """Trials past this rung, at it, or on the way to it."""
        return self.passed + self.waiting + self.entrants - len(self.ranked)


class Bracket:
    """Trials that are ranked against one another and nobody else.

    Synchronous: a rung decides once everyone on the way to it has come; the best `keep` go on, and if one of them
    fails later the next best takes its place, from a lower rung if nobody is left here. Asynchronous (ASHA, Li et
    al. 2018, arXiv:1810.05934): whoever is among the best of those who have come so far, by the rung's share, goes on
    at once; when nothing else is left to do, as in the synchronous case, so that the same number comes through.

    A score that is not finite ranks last. State is plain data, and follows from the calls of `begin`, `report` and
    `leave` alone.
    """

    def __init__(self, trials: Sequence[str], rungs: Sequence[Rung], synchronous: bool) -> None:
        self.trials, self.rungs, self.synchronous = tuple(trials), tuple(rungs), synchronous
        self._place = {trial: place for place, trial in enumerate(self.trials)}
        self._level = [0] * len(self.trials)  # rungs passed
        self._waits = [False] * len(self.trials)  # paused at the rung of its level
        self._running: set[int] = set()
        self._next = 0  # newcomers from here on
        self._begun = [False] * len(self.trials)
        self._floors = [_Floor() for _ in self.rungs]
        if self._floors:
            self._floors[0].entrants = len(self.trials)

    def promotion(self) -> str | None:
        """The trial to take up again, from the highest rung down; None while there is none."""
        for level in reversed(range(len(self.rungs))):
            place = self._promotable(level)
            if place is not None:
                return self.trials[place]
        return None

    def newcomer(self) -> str | None:
        """The next trial that has not begun."""
        while self._next < len(self.trials) and self._begun[self._next]:
            self._next += 1
        return self.trials[self._next] if self._next < len(self.trials) else None

    def begin(self, trial: str) -> None:
        """A trial starts, or goes on past the rung where it waited."""
        place = self._place[trial]
        if self._waits[place]:
            level = self._level[place]
            self._waits[place] = False
            self._level[place] = level + 1
            self._floors[level].waiting -= 1
            self._floors[level].passed += 1
            if level + 1 < len(self.rungs):
                self._floors[level + 1].entrants += 1
        self._begun[place] = True
        self._running.add(place)

    def report(self, trial: str, at: float, score: float) -> bool:
        """A trial has come to `at`. True if that is its next rung: it is to pause there."""
        place = self._place[trial]
        level = self._level[place]
        if self._waits[place]:
            return True
        if level == len(self.rungs) or at + SLACK < self.rungs[level].at:
            return False
        entry = (-score if math.isfinite(score) else math.inf, place)
        floor = self._floors[level]
        insort(floor.ranked, entry)
        heapq.heappush(floor.paused, entry)
        floor.waiting += 1
        self._waits[place] = True
        self._running.discard(place)
        return True

    def leave(self, trial: str, completed: bool) -> None:
        """A trial is over: it came to its end, or it diverged or failed and makes room for another."""
        place = self._place[trial]
        level = self._level[place]
        self._begun[place] = True
        self._running.discard(place)
        if completed:
            return
        if self._waits[place]:
            self._waits[place] = False
            self._floors[level].waiting -= 1
        elif level < len(self.rungs):
            self._floors[level].entrants -= 1
        for rung, floor in reversed(list(zip(self.rungs[:level], self._floors, strict=False))):
            floor.passed -= 1
            if floor.supply >= rung.keep:  # the next best here takes its place; else one from below must come
                break

    @property
    def finished(self) -> bool:
        """Nothing runs and nobody will: who waits now waits for good."""
        return not self._running and self.newcomer() is None and self.promotion() is None

    def waiting(self) -> list[str]:
        """Trials paused at a rung."""
        return [trial for trial, waits in zip(self.trials, self._waits, strict=True) if waits]

    def _promotable(self, level: int) -> int | None:
        """The best that waits at a rung, if it may go on."""
        floor, rung = self._floors[level], self.rungs[level]
        while floor.paused and not self._waits_at(floor.paused[0][1], level):
            heapq.heappop(floor.paused)
        if not floor.paused:
            return None
        best = floor.paused[0]
        if floor.passed < rung.keep and self._everyone_came(level):
            return best[1]
        if not self.synchronous:
            before = self.rungs[level - 1].keep if level else len(self.trials)
            if bisect_left(floor.ranked, best) < len(floor.ranked) * rung.keep // before:
                return best[1]
        return None

    def _everyone_came(self, level: int) -> bool:
        floor = self._floors[level]
        if len(floor.ranked) < floor.entrants:
            return False
        return level == 0 or (self._everyone_came(level - 1) and self._promotable(level - 1) is None)

    def _waits_at(self, place: int, level: int) -> bool:
        return self._waits[place] and self._level[place] == level
